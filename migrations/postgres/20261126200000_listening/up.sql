-- Since when machines are heard without a gap: who is not heard while nobody is may be at work behind a line that is down.
CREATE TABLE listening (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    since BIGINT NOT NULL,
    heard_at BIGINT NOT NULL
);
