-- Every amount that the chain took from a miner or gave back: fees at the end of a deadline, deposits and pledge of sectors.
-- attoFIL, decimal.
CREATE TABLE chain_flows (
    pool_id BIGINT NOT NULL REFERENCES pools (id),
    kind TEXT NOT NULL,
    subject BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    atto TEXT NOT NULL,
    PRIMARY KEY (pool_id, kind, subject, epoch)
);
CREATE INDEX chain_flows_by_epoch ON chain_flows (pool_id, epoch);
INSERT INTO chain_flows (pool_id, kind, subject, epoch, atto)
SELECT pool_id, 'daily_fee', -1, next_epoch - 1, daily_fee_atto FROM chain_cursors WHERE daily_fee_atto <> '0';
INSERT INTO chain_flows (pool_id, kind, subject, epoch, atto)
SELECT d.pool_id, 'daily_fee', -1, ((d.day + 1) * 86400 - c.genesis_at - 1) / c.epoch_seconds, d.daily_fee_atto
FROM chain_days d JOIN chain_cursors c ON c.pool_id = d.pool_id WHERE d.daily_fee_atto <> '0';
ALTER TABLE chain_cursors DROP COLUMN daily_fee_atto;
ALTER TABLE chain_days ADD COLUMN fault_fee_atto TEXT NOT NULL DEFAULT '0';
ALTER TABLE chain_days ADD COLUMN termination_fee_atto TEXT NOT NULL DEFAULT '0';
ALTER TABLE chain_days ADD COLUMN deposits_in_atto TEXT NOT NULL DEFAULT '0';
ALTER TABLE chain_days ADD COLUMN deposits_back_atto TEXT NOT NULL DEFAULT '0';
ALTER TABLE chain_days ADD COLUMN deposits_lost_atto TEXT NOT NULL DEFAULT '0';
ALTER TABLE chain_days ADD COLUMN pledge_in_atto TEXT NOT NULL DEFAULT '0';
ALTER TABLE chain_days ADD COLUMN pledge_back_atto TEXT NOT NULL DEFAULT '0';
