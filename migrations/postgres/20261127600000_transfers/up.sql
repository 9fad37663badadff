-- When the machine that stored a sector last told that it has it.
ALTER TABLE tasks ADD COLUMN seen_at BIGINT;
CREATE INDEX tasks_by_end ON tasks (kind, state, done_at);
CREATE INDEX sector_intervals_by_number ON sector_intervals (pool_id, number);
CREATE INDEX sectors_by_machine ON sectors (machine_id, state);
