-- Which entry a transfer corrects, why, and who says so.
CREATE TABLE corrections (
    transfer_id TEXT PRIMARY KEY REFERENCES ledger_transfers (id),
    corrects TEXT NOT NULL,
    reason TEXT NOT NULL,
    made_by INTEGER NOT NULL REFERENCES users (id),
    made_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What of the day's rewards the chain locked, and what it unlocked of earlier ones.
ALTER TABLE chain_days ADD COLUMN locked_in_atto TEXT NOT NULL DEFAULT '0';
ALTER TABLE chain_days ADD COLUMN unlocked_atto TEXT NOT NULL DEFAULT '0';
