-- Nodes: more than one may have its calls in one database.

CREATE TABLE nodes (
    id         TEXT NOT NULL PRIMARY KEY, -- kept in the node's data directory
    instance   TEXT,                      -- its last start; NULL: the node of a database from before there was this table
    version    TEXT,
    started_at TEXT,
    seen_at    TEXT
) STRICT;

INSERT INTO nodes (id) SELECT id FROM node;
DROP TABLE node;

-- Whose journal it is.
ALTER TABLE journal_positions ADD COLUMN node_id TEXT NOT NULL DEFAULT '';
ALTER TABLE journal_finished ADD COLUMN node_id TEXT NOT NULL DEFAULT '';
UPDATE journal_positions SET node_id = coalesce((SELECT id FROM nodes), '');
UPDATE journal_finished SET node_id = coalesce((SELECT id FROM nodes), '');

-- The UTC day on which the row was written, by the database's clock: what leaves the log leaves it by these. Rows from before
-- there was this column belong to the first day of all.
ALTER TABLE proxy_calls ADD COLUMN sealed_on TEXT NOT NULL DEFAULT '1970-01-01';
