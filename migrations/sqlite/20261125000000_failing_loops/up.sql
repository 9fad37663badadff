-- Since when a loop's turns fail, and what the last one said.
ALTER TABLE claims ADD COLUMN failing_since INTEGER;
ALTER TABLE claims ADD COLUMN last_error TEXT;
