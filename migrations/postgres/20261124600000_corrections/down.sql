ALTER TABLE chain_days DROP COLUMN unlocked_atto;
ALTER TABLE chain_days DROP COLUMN locked_in_atto;
DROP TABLE corrections;
