ALTER TABLE machines DROP COLUMN files_url;
