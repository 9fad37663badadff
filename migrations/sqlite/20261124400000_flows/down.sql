ALTER TABLE chain_days DROP COLUMN pledge_back_atto;
ALTER TABLE chain_days DROP COLUMN pledge_in_atto;
ALTER TABLE chain_days DROP COLUMN deposits_lost_atto;
ALTER TABLE chain_days DROP COLUMN deposits_back_atto;
ALTER TABLE chain_days DROP COLUMN deposits_in_atto;
ALTER TABLE chain_days DROP COLUMN termination_fee_atto;
ALTER TABLE chain_days DROP COLUMN fault_fee_atto;
ALTER TABLE chain_cursors ADD COLUMN daily_fee_atto TEXT NOT NULL DEFAULT '0';
DROP TABLE chain_flows;
