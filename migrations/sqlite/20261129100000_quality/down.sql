ALTER TABLE chain_cursors DROP COLUMN full_quality_after;
ALTER TABLE yield_lots DROP COLUMN missing_power;
