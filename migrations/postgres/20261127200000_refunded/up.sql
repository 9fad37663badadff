ALTER TABLE orders ADD COLUMN refunded_at BIGINT;
