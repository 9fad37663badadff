-- Days closed before lots were entries of the books cannot be carried over: a database with such days stops here.
CREATE TABLE no_day_was_closed_by_an_older_version (days INTEGER NOT NULL CHECK (days = 0)) STRICT;
INSERT INTO no_day_was_closed_by_an_older_version SELECT COUNT(*) FROM pool_days;
DROP TABLE no_day_was_closed_by_an_older_version;

-- A contract's part of a day: an entry of the books. gross = fee + cost + available + locked moves from the pool's chain rewards;
-- released moves from vesting to available; compensation comes from the operator. rate: the whole parts
-- that the next day releases; vesting: what is left to release. Byte-epochs are decimal text. The key's order is that of closing; a contract's lots are
-- found by the pool's days.
DROP TABLE yield_lots;
CREATE TABLE yield_lots (
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    day INTEGER NOT NULL,
    contract_id INTEGER NOT NULL REFERENCES contracts (id),
    power_epochs TEXT NOT NULL,
    missing_epochs TEXT NOT NULL,
    gross_nano INTEGER NOT NULL,
    fee_nano INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL,
    available_nano INTEGER NOT NULL,
    locked_nano INTEGER NOT NULL,
    released_nano INTEGER NOT NULL,
    rate_nano INTEGER NOT NULL,
    vesting_nano INTEGER NOT NULL,
    compensation_nano INTEGER NOT NULL,
    PRIMARY KEY (pool_id, day, contract_id)
) STRICT, WITHOUT ROWID;

-- What contracts agree on; a few texts serve all. Never changed.
CREATE TABLE terms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO terms (text) SELECT DISTINCT terms FROM contracts;
ALTER TABLE contracts ADD COLUMN terms_id INTEGER REFERENCES terms (id);
UPDATE contracts SET terms_id = (SELECT id FROM terms WHERE text = contracts.terms);
ALTER TABLE contracts DROP COLUMN terms;

-- All that closing a day reads of a contract.
CREATE INDEX contracts_by_pool ON contracts (pool_id, id, state, user_id, bytes, terms_id);

-- When a sector counted on chain and whose it was then (NULL: the operator's own): [start, end), end NULL while it does.
ALTER TABLE sector_intervals RENAME TO old_intervals;
CREATE TABLE sector_intervals (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    number INTEGER NOT NULL,
    contract_id INTEGER REFERENCES contracts (id),
    start_epoch INTEGER NOT NULL,
    end_epoch INTEGER,
    qa_power INTEGER NOT NULL,
    pledge_atto TEXT NOT NULL,
    daily_fee_atto TEXT NOT NULL,
    UNIQUE (pool_id, number, start_epoch)
) STRICT;
INSERT INTO sector_intervals (pool_id, number, contract_id, start_epoch, end_epoch, qa_power, pledge_atto, daily_fee_atto)
SELECT i.pool_id, s.number, s.contract_id, i.start_epoch, i.end_epoch, i.qa_power, '0', '0'
FROM old_intervals i JOIN sectors s ON s.id = i.sector_id ORDER BY i.id;
DROP TABLE old_intervals;
CREATE INDEX sector_intervals_by_end ON sector_intervals (pool_id, end_epoch);

-- What the chain says of a pool's miner over one UTC day, exact attoFIL as decimal text: what came in and was burnt that day, and the
-- actor at its end, as it was before the messages of at_epoch's tipset. other: whatever else changed the balance (tips of messages,
-- value received and withdrawn, penalties): balance = balance before + reward - daily fee + other.
CREATE TABLE chain_days (
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    day INTEGER NOT NULL,
    at_epoch INTEGER NOT NULL,
    network_version INTEGER NOT NULL,
    reward_atto TEXT NOT NULL,
    daily_fee_atto TEXT NOT NULL,
    other_atto TEXT NOT NULL,
    balance_atto TEXT NOT NULL,
    locked_atto TEXT NOT NULL,
    deposits_atto TEXT NOT NULL,
    pledge_atto TEXT NOT NULL,
    fee_debt_atto TEXT NOT NULL,
    available_atto TEXT NOT NULL,
    raw_power TEXT NOT NULL,
    qa_power TEXT NOT NULL,
    PRIMARY KEY (pool_id, day)
) STRICT;

-- The network that is followed; empty: it was not looked at.
ALTER TABLE chain_cursors ADD COLUMN network TEXT NOT NULL DEFAULT '';
-- Daily fees that the deadlines have charged since the day began.
ALTER TABLE chain_cursors ADD COLUMN daily_fee_atto TEXT NOT NULL DEFAULT '0';

-- What one unit of a plan was forecast to earn net over so many days from its activation, as it was shown on a day.
CREATE TABLE forecasts (
    plan_id INTEGER NOT NULL REFERENCES plans (id),
    day INTEGER NOT NULL,
    horizon INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    wins_millionths INTEGER NOT NULL,
    p10_nano INTEGER NOT NULL,
    p50_nano INTEGER NOT NULL,
    p90_nano INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (plan_id, day, horizon)
) STRICT;
