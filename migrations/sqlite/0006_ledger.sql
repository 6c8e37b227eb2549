-- The ledger: the rows of each node are the leaves of a Merkle tree (RFC 6962), in the order of seq.

-- How far each tree has grown. Written in the transaction of its rows.
CREATE TABLE ledger_heads (
    node_id  TEXT    NOT NULL PRIMARY KEY,
    size     INTEGER NOT NULL, -- leaves, which is the seq of the last
    frontier BLOB    NOT NULL  -- the roots of the full subtrees that make up the tree, left to right, 32 bytes each
) STRICT, WITHOUT ROWID;

-- Roots of full subtrees with 256, 65 536, ... leaves (level 8, 16, ...): what proofs would else read every leaf for.
CREATE TABLE ledger_subtrees (
    node_id  TEXT    NOT NULL,
    level    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash     BLOB    NOT NULL,
    PRIMARY KEY (node_id, level, position)
) STRICT, WITHOUT ROWID;

-- The keys that a node's checkpoints were signed with, one after the other, as C2SP signed-note writes them.
CREATE TABLE ledger_keys (
    node_id  TEXT    NOT NULL,
    number   INTEGER NOT NULL, -- from 1
    key      TEXT    NOT NULL,
    size     INTEGER NOT NULL, -- leaves when it began to sign
    added_at TEXT    NOT NULL,
    PRIMARY KEY (node_id, number)
) STRICT, WITHOUT ROWID;

-- What was signed: C2SP tlog-checkpoint.
CREATE TABLE ledger_checkpoints (
    node_id   TEXT    NOT NULL,
    size      INTEGER NOT NULL,
    root      BLOB    NOT NULL,
    signed_at TEXT    NOT NULL,
    announces INTEGER NOT NULL, -- 1: it names the next key
    note      TEXT    NOT NULL,
    PRIMARY KEY (node_id, size)
) STRICT, WITHOUT ROWID;

-- How far checkpoints have left for each place they are sent to.
CREATE TABLE ledger_witnesses (
    node_id TEXT    NOT NULL,
    place   TEXT    NOT NULL,
    size    INTEGER NOT NULL,
    sent_at TEXT    NOT NULL,
    PRIMARY KEY (node_id, place)
) STRICT, WITHOUT ROWID;

-- The beginnings of trees whose rows retention has removed: the rest is proved from them.
CREATE TABLE ledger_dropped (
    node_id    TEXT    NOT NULL PRIMARY KEY,
    size       INTEGER NOT NULL, -- leaves
    frontier   BLOB    NOT NULL,
    dropped_at TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
