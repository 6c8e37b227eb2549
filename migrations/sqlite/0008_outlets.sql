-- What others are told: how far outlets have sent the log, and what webhooks are still to be sent.

CREATE TABLE outlet_positions (
    outlet   TEXT    NOT NULL, -- its name in the configuration
    node_id  TEXT    NOT NULL, -- whose rows
    seq      INTEGER NOT NULL, -- the last that was taken
    moved_at TEXT    NOT NULL,
    PRIMARY KEY (outlet, node_id)
) STRICT, WITHOUT ROWID;

-- What happened to the registry that somebody may want to be told; written with the change itself, and gone within a second.
CREATE TABLE webhook_events (
    id   TEXT NOT NULL PRIMARY KEY,
    at   TEXT NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL -- JSON
) STRICT, WITHOUT ROWID;

-- One event on its way to one webhook; deleted once it was taken.
CREATE TABLE webhook_deliveries (
    event_id   TEXT    NOT NULL,
    webhook    TEXT    NOT NULL, -- its name in the configuration
    body       TEXT    NOT NULL, -- as it is signed and sent
    created_at TEXT    NOT NULL,
    attempts   INTEGER NOT NULL,
    next_at    TEXT    NOT NULL, -- until then nobody sends it
    error      TEXT,             -- of the last attempt
    PRIMARY KEY (event_id, webhook)
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_deliveries_next ON webhook_deliveries (next_at);
