-- What others are told: how far outlets have sent the log, and what webhooks are still to be sent.

CREATE TABLE outlet_positions (
    outlet   text    NOT NULL, -- its name in the configuration
    node_id  uuid    NOT NULL, -- whose rows
    seq      bigint  NOT NULL, -- the last that was taken
    moved_at timestamptz NOT NULL,
    PRIMARY KEY (outlet, node_id)
);

-- What happened to the registry that somebody may want to be told; written with the change itself, and gone within a second.
CREATE TABLE webhook_events (
    id   uuid NOT NULL PRIMARY KEY,
    at   timestamptz NOT NULL,
    type text NOT NULL,
    data text NOT NULL -- JSON
);

-- One event on its way to one webhook; deleted once it was taken.
CREATE TABLE webhook_deliveries (
    event_id   uuid    NOT NULL,
    webhook    text    NOT NULL, -- its name in the configuration
    body       text    NOT NULL, -- as it is signed and sent
    created_at timestamptz NOT NULL,
    attempts   bigint  NOT NULL,
    next_at    timestamptz NOT NULL, -- until then nobody sends it
    error      text,             -- of the last attempt
    PRIMARY KEY (event_id, webhook)
);

CREATE INDEX webhook_deliveries_next ON webhook_deliveries (next_at);
