DROP INDEX messages_by_epoch;
ALTER TABLE messages DROP COLUMN tip_atto;
ALTER TABLE messages DROP COLUMN burnt_atto;
ALTER TABLE block_wins DROP COLUMN tips_atto;
