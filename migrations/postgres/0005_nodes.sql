-- Nodes: more than one may have its calls in one database.

CREATE TABLE nodes (
    id         uuid NOT NULL PRIMARY KEY, -- kept in the node's data directory
    instance   uuid,                      -- its last start
    version    text,
    started_at timestamptz,
    seen_at    timestamptz
);

-- Whose journal it is.
ALTER TABLE journal_positions ADD COLUMN node_id uuid NOT NULL;
ALTER TABLE journal_finished ADD COLUMN node_id uuid NOT NULL;
