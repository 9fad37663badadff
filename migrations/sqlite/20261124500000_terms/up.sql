-- Terms belong to the plan; a contract has an end, which missing power may put off, and may be backed by the investor's own pledge.
ALTER TABLE plans ADD COLUMN terms TEXT NOT NULL DEFAULT '';
UPDATE plans SET terms = '{"version":2,"service_fee_bp":' || fee_bp || ',"available_bp":2500,"vesting_days":180,"daily_fee_bp":0,'
    || '"pledge":"operator","starts":"promised_date","shortfall":"paid_in_fil"}';
ALTER TABLE plans DROP COLUMN fee_bp;
-- nanoFIL of a new sector's initial pledge when it was last looked at.
ALTER TABLE pools ADD COLUMN pledge_nano INTEGER;
-- nanoFIL that the investor puts up for each sector.
ALTER TABLE orders ADD COLUMN pledge_each_nano INTEGER NOT NULL DEFAULT 0;
ALTER TABLE contracts ADD COLUMN pledge_each_nano INTEGER NOT NULL DEFAULT 0;
-- UTC microseconds; NULL: the term has not begun and no date begins it.
ALTER TABLE contracts ADD COLUMN ends_at INTEGER;
UPDATE contracts SET ends_at = CASE WHEN active_at IS NULL OR active_at > promised_at THEN promised_at ELSE active_at END
    + days * 86400000000;
-- Days that are closed stay as they were closed.
UPDATE contracts SET ends_at = (
    SELECT MAX((c.genesis_at + p.end_epoch * c.epoch_seconds) * 1000000)
    FROM pool_days p JOIN chain_cursors c ON c.pool_id = p.pool_id WHERE p.pool_id = contracts.pool_id)
WHERE state <> 'ended' AND ends_at < (
    SELECT MAX((c.genesis_at + p.end_epoch * c.epoch_seconds) * 1000000)
    FROM pool_days p JOIN chain_cursors c ON c.pool_id = p.pool_id WHERE p.pool_id = contracts.pool_id);
-- Epochs by which missing power has put off the end.
ALTER TABLE contracts ADD COLUMN added_epochs INTEGER NOT NULL DEFAULT 0;
ALTER TABLE yield_lots ADD COLUMN added_epochs INTEGER NOT NULL DEFAULT 0;
-- What a day cost the pool, nanoFIL, as it was known when the day was closed.
ALTER TABLE pool_days ADD COLUMN daily_fee_nano INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pool_days ADD COLUMN fault_fee_nano INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pool_days ADD COLUMN gas_nano INTEGER NOT NULL DEFAULT 0;
UPDATE pool_days SET daily_fee_nano = COALESCE((
    SELECT CASE WHEN length(d.daily_fee_atto) > 9 THEN CAST(substr(d.daily_fee_atto, 1, length(d.daily_fee_atto) - 9) AS INTEGER) ELSE 0 END
    FROM chain_days d WHERE d.pool_id = pool_days.pool_id AND d.day = pool_days.day), 0);
