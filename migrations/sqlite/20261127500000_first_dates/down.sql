ALTER TABLE promises DROP COLUMN moved_from;
