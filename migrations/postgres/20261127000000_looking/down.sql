ALTER TABLE listening DROP COLUMN looked_at;
ALTER TABLE listening DROP COLUMN looking_since;
