-- 1: the machine keeps sealed sectors, and seals none.
ALTER TABLE machines ADD COLUMN keeps INTEGER NOT NULL DEFAULT 0;
