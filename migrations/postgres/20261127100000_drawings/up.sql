-- Where and when sectors that have not begun are expected to begin: held to while it costs nothing.
CREATE TABLE drawings (
    sector_id BIGINT PRIMARY KEY REFERENCES sectors (id),
    machine_id BIGINT NOT NULL REFERENCES machines (id),
    begins_at BIGINT NOT NULL
);
