DROP TABLE forecasts;
DROP TABLE chain_days;
ALTER TABLE chain_cursors DROP COLUMN network;
ALTER TABLE chain_cursors DROP COLUMN daily_fee_atto;
DROP INDEX contracts_by_pool;
ALTER TABLE contracts ADD COLUMN terms TEXT NOT NULL DEFAULT '';
UPDATE contracts SET terms = (SELECT text FROM terms WHERE id = contracts.terms_id);
ALTER TABLE contracts DROP COLUMN terms_id;
DROP TABLE terms;
ALTER TABLE sector_intervals RENAME TO new_intervals;
CREATE TABLE sector_intervals (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    sector_id INTEGER NOT NULL REFERENCES sectors (id),
    start_epoch INTEGER NOT NULL,
    end_epoch INTEGER,
    qa_power INTEGER NOT NULL,
    UNIQUE (sector_id, start_epoch)
) STRICT;
INSERT INTO sector_intervals (pool_id, sector_id, start_epoch, end_epoch, qa_power)
SELECT i.pool_id, s.id, i.start_epoch, i.end_epoch, i.qa_power
FROM new_intervals i JOIN sectors s ON s.pool_id = i.pool_id AND s.number = i.number ORDER BY i.id;
DROP TABLE new_intervals;
DROP TABLE yield_lots;
CREATE TABLE yield_lots (
    contract_id INTEGER NOT NULL REFERENCES contracts (id),
    day INTEGER NOT NULL,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    power_epochs TEXT NOT NULL,
    gross_nano INTEGER NOT NULL,
    fee_nano INTEGER NOT NULL,
    available_nano INTEGER NOT NULL,
    locked_nano INTEGER NOT NULL,
    PRIMARY KEY (contract_id, day)
) STRICT;
CREATE INDEX yield_lots_by_pool ON yield_lots (pool_id, day);
