-- When the present lease began.
ALTER TABLE tasks ADD COLUMN started_at BIGINT;

CREATE INDEX tasks_by_kind ON tasks (kind, state, id);

-- Dates given before the sale, what is expected now, and what became of them. promised_at never changes; forecast_at does, with
-- its reason.
CREATE TABLE promises (
    order_id BIGINT PRIMARY KEY REFERENCES orders (id),
    pool_id BIGINT NOT NULL REFERENCES pools (id),
    sectors BIGINT NOT NULL,
    ahead BIGINT NOT NULL,
    why TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    p50_at BIGINT NOT NULL,
    promised_at BIGINT NOT NULL,
    forecast_at BIGINT NOT NULL,
    forecast_why TEXT NOT NULL,
    met_at BIGINT,
    kept BOOLEAN
);

CREATE INDEX promises_open ON promises (kept, promised_at);

-- What the outcomes of a pool's promises teach the next ones, in millionths.
CREATE TABLE promise_lessons (
    pool_id BIGINT PRIMARY KEY REFERENCES pools (id),
    shift BIGINT NOT NULL,
    stretch BIGINT NOT NULL,
    outcomes BIGINT NOT NULL
);

-- Sectors that the miner's available funds could pledge when they were last looked at; NULL: never.
ALTER TABLE pools ADD COLUMN collateral_sectors BIGINT;
