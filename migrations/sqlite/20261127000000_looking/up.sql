-- Since when the house has been looked after without a gap: while nobody looks, nobody can be heard either.
ALTER TABLE listening ADD COLUMN looking_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE listening ADD COLUMN looked_at INTEGER NOT NULL DEFAULT 0;
