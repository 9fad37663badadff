UPDATE machines SET state = 'lost' WHERE lost_since IS NOT NULL;
ALTER TABLE machines DROP COLUMN lost_since;
