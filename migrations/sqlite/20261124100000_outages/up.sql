-- Times in which a machine was lost; back_at NULL: it still is.
CREATE TABLE outages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id INTEGER NOT NULL REFERENCES machines (id),
    lost_at INTEGER NOT NULL,
    back_at INTEGER
) STRICT;

CREATE INDEX outages_by_time ON outages (lost_at);
CREATE UNIQUE INDEX outages_open ON outages (machine_id) WHERE back_at IS NULL;
