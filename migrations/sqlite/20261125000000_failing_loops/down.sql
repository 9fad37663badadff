ALTER TABLE claims DROP COLUMN last_error;
ALTER TABLE claims DROP COLUMN failing_since;
