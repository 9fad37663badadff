-- When a machine's key was withdrawn, when it was taken off the list, and the host that its files are fetched from.
ALTER TABLE machines ADD COLUMN revoked_at INTEGER;
ALTER TABLE machines ADD COLUMN removed_at INTEGER;
ALTER TABLE machines ADD COLUMN files_host TEXT;

-- A token can give an enrolled machine a new key, and can be withdrawn.
ALTER TABLE enrolment_tokens ADD COLUMN for_machine INTEGER REFERENCES machines (id);
ALTER TABLE enrolment_tokens ADD COLUMN withdrawn_at INTEGER;

-- The date that was computed when an order was placed, since when its payment is under way, when the buyer cancelled it, and how often
-- the provider has answered a request for a payment page with an error that it would repeat.
ALTER TABLE orders ADD COLUMN computed_at INTEGER NOT NULL DEFAULT 0;
UPDATE orders SET computed_at = promised_at;
ALTER TABLE orders ADD COLUMN paying_since INTEGER;
ALTER TABLE orders ADD COLUMN cancelled_at INTEGER;
ALTER TABLE orders ADD COLUMN checkout_attempts INTEGER NOT NULL DEFAULT 0;

-- An order may have several payment pages, one after the other; the provider's own name for the money joins refunds and disputes to it.
CREATE TABLE payments_new (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id INTEGER NOT NULL REFERENCES orders (id),
    rail TEXT NOT NULL,
    rail_ref TEXT NOT NULL,
    pay_url TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'paid', 'refund_due')),
    created_at INTEGER NOT NULL,
    paid_at INTEGER,
    intent TEXT,
    UNIQUE (rail, rail_ref)
) STRICT;
INSERT INTO payments_new (id, order_id, rail, rail_ref, pay_url, state, created_at, paid_at)
    SELECT id, order_id, rail, rail_ref, pay_url, state, created_at, paid_at FROM payments;
DROP TABLE payments;
ALTER TABLE payments_new RENAME TO payments;
CREATE INDEX payments_by_order ON payments (order_id);
CREATE INDEX payments_by_intent ON payments (rail, intent);

-- What became of each event: applied, not_ours, or needs_a_person.
ALTER TABLE webhook_events ADD COLUMN fate TEXT NOT NULL DEFAULT 'applied';
ALTER TABLE webhook_events ADD COLUMN note TEXT NOT NULL DEFAULT '';
CREATE INDEX webhook_events_by_fate ON webhook_events (fate);

-- How often somebody has tried something within a window of time.
CREATE TABLE attempts (
    key TEXT NOT NULL PRIMARY KEY,
    window_end INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT;

-- When a mailbox refused a statement for good, and what its server said.
ALTER TABLE statements ADD COLUMN refused_at INTEGER;
ALTER TABLE statements ADD COLUMN refusal TEXT;
