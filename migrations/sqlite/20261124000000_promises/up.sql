-- When the present lease began.
ALTER TABLE tasks ADD COLUMN started_at INTEGER;

CREATE INDEX tasks_by_kind ON tasks (kind, state, id);

-- Dates given before the sale, what is expected now, and what became of them. promised_at never changes; forecast_at does, with
-- its reason.
CREATE TABLE promises (
    order_id INTEGER PRIMARY KEY REFERENCES orders (id),
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    sectors INTEGER NOT NULL,
    ahead INTEGER NOT NULL,
    why TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    p50_at INTEGER NOT NULL,
    promised_at INTEGER NOT NULL,
    forecast_at INTEGER NOT NULL,
    forecast_why TEXT NOT NULL,
    met_at INTEGER,
    kept INTEGER
) STRICT;

CREATE INDEX promises_open ON promises (kept, promised_at);

-- What the outcomes of a pool's promises teach the next ones, in millionths.
CREATE TABLE promise_lessons (
    pool_id INTEGER PRIMARY KEY REFERENCES pools (id),
    shift INTEGER NOT NULL,
    stretch INTEGER NOT NULL,
    outcomes INTEGER NOT NULL
) STRICT;

-- Sectors that the miner's available funds could pledge when they were last looked at; NULL: never.
ALTER TABLE pools ADD COLUMN collateral_sectors INTEGER;
