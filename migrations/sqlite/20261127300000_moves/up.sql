-- Where other machines can read the sectors' files that this one has.
ALTER TABLE machines ADD COLUMN files_url TEXT;
