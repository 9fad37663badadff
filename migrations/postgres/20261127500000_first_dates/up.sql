-- The date that was given first, where it moved because the order was paid late.
ALTER TABLE promises ADD COLUMN moved_from BIGINT;
