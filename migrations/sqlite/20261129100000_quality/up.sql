-- The power that missing bytes would have had. Sectors counted once before FIP-0118.
ALTER TABLE yield_lots ADD COLUMN missing_power TEXT NOT NULL DEFAULT '0';
UPDATE yield_lots SET missing_power = missing_epochs WHERE missing_epochs <> '0';

-- The last epoch in which a new sector counted once, since the chain has passed it.
ALTER TABLE chain_cursors ADD COLUMN full_quality_after INTEGER;
