UPDATE tasks SET avoid = source_machine WHERE kind IN ('move', 'store');
ALTER TABLE tasks DROP COLUMN source_machine;
