-- People who sign in. Times are UTC microseconds everywhere.
CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('investor', 'admin')),
    created_at INTEGER NOT NULL
) STRICT;

-- A JWT names its session, so that signing out takes effect at once.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    user_id INTEGER REFERENCES users (id),
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

-- A miner actor and what it can hold.
CREATE TABLE pools (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    miner TEXT NOT NULL,
    miner_id INTEGER NOT NULL,
    sector_bytes INTEGER NOT NULL,
    next_sector INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE plans (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id TEXT NOT NULL UNIQUE,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    name TEXT NOT NULL,
    unit_bytes INTEGER NOT NULL CHECK (unit_bytes > 0),
    max_units INTEGER NOT NULL CHECK (max_units > 0),
    days INTEGER NOT NULL CHECK (days > 0),
    price_minor INTEGER NOT NULL CHECK (price_minor > 0),
    currency TEXT NOT NULL,
    fee_bp INTEGER NOT NULL CHECK (fee_bp BETWEEN 0 AND 10000),
    on_sale INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id TEXT NOT NULL UNIQUE,
    user_id INTEGER NOT NULL REFERENCES users (id),
    plan_id INTEGER NOT NULL REFERENCES plans (id),
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    units INTEGER NOT NULL CHECK (units > 0),
    bytes INTEGER NOT NULL CHECK (bytes > 0),
    amount_minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    terms TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('placed', 'fulfilled', 'expired', 'refund_due')),
    request_key TEXT NOT NULL,
    promised_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    paid_at INTEGER,
    UNIQUE (user_id, request_key)
) STRICT;

CREATE INDEX orders_by_state ON orders (state, expires_at);

-- What a payment rail was asked for, and said.
CREATE TABLE payments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id INTEGER NOT NULL REFERENCES orders (id),
    rail TEXT NOT NULL,
    rail_ref TEXT NOT NULL,
    pay_url TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'paid', 'refund_due')),
    created_at INTEGER NOT NULL,
    paid_at INTEGER,
    UNIQUE (rail, rail_ref),
    UNIQUE (order_id, rail)
) STRICT;

-- Every webhook as it came, once.
CREATE TABLE webhook_events (
    id TEXT NOT NULL PRIMARY KEY,
    rail TEXT NOT NULL,
    kind TEXT NOT NULL,
    raw TEXT NOT NULL,
    received_at INTEGER NOT NULL
) STRICT;

CREATE TABLE contracts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id TEXT NOT NULL UNIQUE,
    user_id INTEGER NOT NULL REFERENCES users (id),
    order_id INTEGER NOT NULL UNIQUE REFERENCES orders (id),
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    bytes INTEGER NOT NULL,
    days INTEGER NOT NULL,
    fee_bp INTEGER NOT NULL,
    terms TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sealing', 'active', 'ended')),
    promised_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    active_at INTEGER
) STRICT;

CREATE INDEX contracts_by_user ON contracts (user_id, id);

CREATE TABLE machines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'draining', 'lost')),
    key_hash TEXT NOT NULL UNIQUE,
    cores INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    disk_bytes INTEGER NOT NULL,
    disk_free_bytes INTEGER NOT NULL,
    gpus INTEGER NOT NULL,
    detail TEXT NOT NULL,
    enrolled_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;

CREATE TABLE enrolment_tokens (
    token_hash TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    machine_id INTEGER REFERENCES machines (id)
) STRICT;

CREATE TABLE sectors (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    number INTEGER NOT NULL,
    contract_id INTEGER NOT NULL REFERENCES contracts (id),
    machine_id INTEGER REFERENCES machines (id),
    seal_proof INTEGER NOT NULL,
    state TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    ticket TEXT,
    ticket_epoch INTEGER,
    seed TEXT,
    seed_epoch INTEGER,
    comm_d TEXT,
    comm_r TEXT,
    pc2_output TEXT,
    porep_proof BLOB,
    expiration INTEGER NOT NULL,
    activation INTEGER,
    deadline INTEGER,
    partition INTEGER,
    failures INTEGER NOT NULL,
    reason TEXT,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    UNIQUE (pool_id, number)
) STRICT;

CREATE INDEX sectors_by_state ON sectors (state);

CREATE INDEX sectors_by_contract ON sectors (contract_id, number);

-- One step of work for a machine. A lease is machine_id, fence and lease_until on the row.
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    sector_id INTEGER REFERENCES sectors (id),
    post_id INTEGER,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    state TEXT NOT NULL CHECK (state IN ('ready', 'leased', 'done', 'failed')),
    pinned_to INTEGER REFERENCES machines (id),
    avoid INTEGER REFERENCES machines (id),
    input TEXT NOT NULL,
    output BLOB,
    machine_id INTEGER REFERENCES machines (id),
    fence INTEGER NOT NULL,
    lease_until INTEGER,
    progress TEXT,
    attempts INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    failure_level TEXT,
    failure TEXT,
    wall_ms INTEGER,
    cpu_ms INTEGER,
    peak_bytes INTEGER,
    created_at INTEGER NOT NULL,
    done_at INTEGER
) STRICT;

CREATE INDEX tasks_by_state ON tasks (state, due_at);

CREATE INDEX tasks_by_sector ON tasks (sector_id);

CREATE INDEX tasks_by_post ON tasks (post_id);

-- One partition of one deadline of one day.
CREATE TABLE window_posts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    deadline INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    open_epoch INTEGER NOT NULL,
    close_epoch INTEGER NOT NULL,
    challenge_epoch INTEGER NOT NULL,
    randomness TEXT NOT NULL,
    sectors TEXT NOT NULL,
    skipped TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('vanilla', 'proving', 'proven', 'submitted', 'landed', 'missed')),
    proof BLOB,
    message_id INTEGER,
    created_at INTEGER NOT NULL,
    UNIQUE (pool_id, open_epoch, partition)
) STRICT;

CREATE INDEX window_posts_by_state ON window_posts (state);

-- Messages to the chain: stored before they are pushed.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    purpose TEXT NOT NULL,
    subject_id INTEGER NOT NULL,
    method INTEGER NOT NULL,
    params BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('built', 'pushed', 'landed', 'failed')),
    cid TEXT,
    epoch INTEGER,
    exit_code INTEGER,
    gas_used INTEGER,
    last_error TEXT,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

CREATE INDEX messages_by_state ON messages (state);

-- How far the chain has been read, per pool.
CREATE TABLE chain_cursors (
    pool_id INTEGER NOT NULL PRIMARY KEY REFERENCES pools (id),
    genesis_at INTEGER NOT NULL,
    epoch_seconds INTEGER NOT NULL,
    next_epoch INTEGER NOT NULL,
    head_epoch INTEGER NOT NULL,
    last_cid TEXT NOT NULL
) STRICT;

-- Blocks that the pool's miner won; amounts are exact attoFIL as decimal text.
CREATE TABLE block_wins (
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    epoch INTEGER NOT NULL,
    cid TEXT NOT NULL,
    win_count INTEGER NOT NULL,
    reward_atto TEXT NOT NULL,
    PRIMARY KEY (pool_id, epoch)
) STRICT;

-- When a sector counted on chain: [start, end), end null while it does.
CREATE TABLE sector_intervals (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    sector_id INTEGER NOT NULL REFERENCES sectors (id),
    start_epoch INTEGER NOT NULL,
    end_epoch INTEGER,
    qa_power INTEGER NOT NULL,
    UNIQUE (sector_id, start_epoch)
) STRICT;

-- Closed pool-days. day counts from 1970-01-01; carry is sub-nanoFIL left for the next day.
CREATE TABLE pool_days (
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    day INTEGER NOT NULL,
    first_epoch INTEGER NOT NULL,
    end_epoch INTEGER NOT NULL,
    wins INTEGER NOT NULL,
    reward_atto TEXT NOT NULL,
    posted_nano INTEGER NOT NULL,
    carry_atto INTEGER NOT NULL,
    power_epochs TEXT NOT NULL,
    closed_at INTEGER NOT NULL,
    PRIMARY KEY (pool_id, day)
) STRICT;

-- A contract's part of a day.
CREATE TABLE yield_lots (
    contract_id INTEGER NOT NULL REFERENCES contracts (id),
    day INTEGER NOT NULL,
    pool_id INTEGER NOT NULL REFERENCES pools (id),
    power_epochs TEXT NOT NULL,
    gross_nano INTEGER NOT NULL,
    fee_nano INTEGER NOT NULL,
    available_nano INTEGER NOT NULL,
    locked_nano INTEGER NOT NULL,
    PRIMARY KEY (contract_id, day)
) STRICT;

CREATE INDEX yield_lots_by_pool ON yield_lots (pool_id, day);

CREATE TABLE ledger_accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    code TEXT NOT NULL UNIQUE,
    asset TEXT NOT NULL,
    user_id INTEGER REFERENCES users (id),
    pool_id INTEGER REFERENCES pools (id),
    never_negative INTEGER NOT NULL,
    posted_in INTEGER NOT NULL,
    posted_out INTEGER NOT NULL,
    pending_in INTEGER NOT NULL,
    pending_out INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Append-only. id is chosen by the caller and makes a repetition harmless.
CREATE TABLE ledger_transfers (
    id TEXT NOT NULL PRIMARY KEY,
    from_account INTEGER NOT NULL REFERENCES ledger_accounts (id),
    to_account INTEGER NOT NULL REFERENCES ledger_accounts (id),
    amount INTEGER NOT NULL CHECK (amount > 0),
    phase TEXT NOT NULL CHECK (phase IN ('posted', 'pending', 'completes', 'voids')),
    pending_id TEXT UNIQUE REFERENCES ledger_transfers (id),
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    effective_day INTEGER NOT NULL,
    booked_at INTEGER NOT NULL
) STRICT;

CREATE INDEX ledger_transfers_by_from ON ledger_transfers (from_account, effective_day);

CREATE INDEX ledger_transfers_by_to ON ledger_transfers (to_account, effective_day);

CREATE INDEX ledger_transfers_by_subject ON ledger_transfers (subject, effective_day);

CREATE TABLE statements (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id TEXT NOT NULL UNIQUE,
    user_id INTEGER NOT NULL REFERENCES users (id),
    month TEXT NOT NULL,
    model TEXT NOT NULL,
    message_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    sent_at INTEGER,
    UNIQUE (user_id, month)
) STRICT;

-- The outbox: what must follow a committed change.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    unique_key TEXT NOT NULL UNIQUE,
    payload TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'running', 'done', 'failed')),
    attempts INTEGER NOT NULL,
    run_after INTEGER NOT NULL,
    locked_until INTEGER,
    last_error TEXT,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX jobs_by_state ON jobs (state, run_after);

-- Who runs a loop that must run once in the whole house.
CREATE TABLE claims (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    held_until INTEGER NOT NULL
) STRICT;
