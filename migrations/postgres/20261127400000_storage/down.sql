ALTER TABLE machines DROP COLUMN keeps;
