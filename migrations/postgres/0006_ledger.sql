-- The ledger: the rows of each node are the leaves of a Merkle tree (RFC 6962), in the order of seq.

-- How far each tree has grown. Written in the transaction of its rows.
CREATE TABLE ledger_heads (
    node_id  uuid   NOT NULL PRIMARY KEY,
    size     bigint NOT NULL, -- leaves, which is the seq of the last
    frontier bytea  NOT NULL  -- the roots of the full subtrees that make up the tree, left to right, 32 bytes each
);

-- Roots of full subtrees with 256, 65 536, ... leaves (level 8, 16, ...): what proofs would else read every leaf for.
CREATE TABLE ledger_subtrees (
    node_id  uuid   NOT NULL,
    level    bigint NOT NULL,
    position bigint NOT NULL,
    hash     bytea  NOT NULL,
    PRIMARY KEY (node_id, level, position)
);

-- The keys that a node's checkpoints were signed with, one after the other, as C2SP signed-note writes them.
CREATE TABLE ledger_keys (
    node_id  uuid        NOT NULL,
    number   bigint      NOT NULL, -- from 1
    key      text        NOT NULL,
    size     bigint      NOT NULL, -- leaves when it began to sign
    added_at timestamptz NOT NULL,
    PRIMARY KEY (node_id, number)
);

-- What was signed: C2SP tlog-checkpoint.
CREATE TABLE ledger_checkpoints (
    node_id   uuid        NOT NULL,
    size      bigint      NOT NULL,
    root      bytea       NOT NULL,
    signed_at timestamptz NOT NULL,
    announces boolean     NOT NULL, -- it names the next key
    note      text        NOT NULL,
    PRIMARY KEY (node_id, size)
);

-- How far checkpoints have left for each place they are sent to.
CREATE TABLE ledger_witnesses (
    node_id uuid        NOT NULL,
    place   text        NOT NULL,
    size    bigint      NOT NULL,
    sent_at timestamptz NOT NULL,
    PRIMARY KEY (node_id, place)
);

-- The beginnings of trees whose rows retention has removed: the rest is proved from them.
CREATE TABLE ledger_dropped (
    node_id    uuid        NOT NULL PRIMARY KEY,
    size       bigint      NOT NULL, -- leaves
    frontier   bytea       NOT NULL,
    dropped_at timestamptz NOT NULL
);
