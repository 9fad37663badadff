-- When a machine's key was withdrawn, when it was taken off the list, and the host that its files are fetched from.
ALTER TABLE machines ADD COLUMN revoked_at BIGINT;
ALTER TABLE machines ADD COLUMN removed_at BIGINT;
ALTER TABLE machines ADD COLUMN files_host TEXT;

-- A token can give an enrolled machine a new key, and can be withdrawn.
ALTER TABLE enrolment_tokens ADD COLUMN for_machine BIGINT REFERENCES machines (id);
ALTER TABLE enrolment_tokens ADD COLUMN withdrawn_at BIGINT;

-- The date that was computed when an order was placed, since when its payment is under way, when the buyer cancelled it, and how often
-- the provider has answered a request for a payment page with an error that it would repeat.
ALTER TABLE orders ADD COLUMN computed_at BIGINT NOT NULL DEFAULT 0;
UPDATE orders SET computed_at = promised_at;
ALTER TABLE orders ADD COLUMN paying_since BIGINT;
ALTER TABLE orders ADD COLUMN cancelled_at BIGINT;
ALTER TABLE orders ADD COLUMN checkout_attempts BIGINT NOT NULL DEFAULT 0;

-- An order may have several payment pages, one after the other; the provider's own name for the money joins refunds and disputes to it.
ALTER TABLE payments DROP CONSTRAINT payments_order_id_rail_key;
ALTER TABLE payments ADD COLUMN intent TEXT;
CREATE INDEX payments_by_order ON payments (order_id);
CREATE INDEX payments_by_intent ON payments (rail, intent);

-- What became of each event: applied, not_ours, or needs_a_person.
ALTER TABLE webhook_events ADD COLUMN fate TEXT NOT NULL DEFAULT 'applied';
ALTER TABLE webhook_events ADD COLUMN note TEXT NOT NULL DEFAULT '';
CREATE INDEX webhook_events_by_fate ON webhook_events (fate);

-- How often somebody has tried something within a window of time.
CREATE TABLE attempts (
    key TEXT NOT NULL PRIMARY KEY,
    window_end BIGINT NOT NULL,
    count BIGINT NOT NULL
);

-- When a mailbox refused a statement for good, and what its server said.
ALTER TABLE statements ADD COLUMN refused_at BIGINT;
ALTER TABLE statements ADD COLUMN refusal TEXT;
