-- Since when the house has been looked after without a gap: while nobody looks, nobody can be heard either.
ALTER TABLE listening ADD COLUMN looking_since BIGINT NOT NULL DEFAULT 0;
ALTER TABLE listening ADD COLUMN looked_at BIGINT NOT NULL DEFAULT 0;
