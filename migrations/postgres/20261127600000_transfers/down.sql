DROP INDEX sectors_by_machine;
DROP INDEX sector_intervals_by_number;
DROP INDEX tasks_by_end;
ALTER TABLE tasks DROP COLUMN seen_at;
