-- The machine that a transfer fetches from; `avoid` held it before.
ALTER TABLE tasks ADD COLUMN source_machine BIGINT REFERENCES machines (id);
UPDATE tasks SET source_machine = avoid, avoid = NULL WHERE kind IN ('move', 'store');
