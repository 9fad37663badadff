-- What messages in a won block paid its miner, and what our own messages cost. attoFIL, decimal.
ALTER TABLE block_wins ADD COLUMN tips_atto TEXT NOT NULL DEFAULT '0';
ALTER TABLE messages ADD COLUMN burnt_atto TEXT;
ALTER TABLE messages ADD COLUMN tip_atto TEXT;
CREATE INDEX messages_by_epoch ON messages (pool_id, epoch);
