-- The registry: agents, their names, keys, connections, operators, and what operators and owners did.
-- Ids are hyphenated UUID text, times RFC 3339 text of fixed width, lists JSON text: people open these tables by hand.

CREATE TABLE agents (
    id                      TEXT    NOT NULL PRIMARY KEY,
    slug                    TEXT    NOT NULL UNIQUE,
    name                    TEXT    NOT NULL,
    description             TEXT    NOT NULL,
    provider                TEXT,
    avatar_url              TEXT,
    endpoint_url            TEXT,
    endpoint_key            TEXT,            -- endpoint_url without trailing slashes: two spellings, one endpoint
    card_url                TEXT,
    subpaths                TEXT    NOT NULL,
    capabilities            TEXT    NOT NULL,
    skills                  TEXT    NOT NULL,
    skill_terms             TEXT    NOT NULL, -- lower-case names, ids and tags, each between newlines
    search_text             TEXT    NOT NULL, -- lower-case name, description and slug
    payment                 TEXT,
    state                   TEXT    NOT NULL CHECK (state IN ('pending', 'active', 'disabled', 'deleted')),
    listed                  INTEGER NOT NULL,
    auto_accept_connections INTEGER NOT NULL,
    registered_by_operator  INTEGER NOT NULL,
    push                    TEXT    NOT NULL,
    pass_authorization      INTEGER NOT NULL,
    sign_large_bodies       INTEGER NOT NULL,
    http2                   INTEGER NOT NULL,
    max_in_flight           INTEGER,
    connect_ms              INTEGER,
    first_byte_ms           INTEGER,
    read_first_byte_ms      INTEGER,
    idle_ms                 INTEGER,
    signing_secret          BLOB    NOT NULL, -- sealed
    upstream_credential     BLOB,             -- sealed
    card                    BLOB,
    card_fetched_at         TEXT,
    health                  TEXT    NOT NULL,
    health_reason           TEXT,
    health_checked_at       TEXT,
    created_at              TEXT    NOT NULL,
    updated_at              TEXT    NOT NULL
) STRICT;

-- A deleted agent frees its endpoint.
CREATE UNIQUE INDEX agents_endpoint ON agents (endpoint_key) WHERE state <> 'deleted';

-- Every slug an agent has or had: one table, so that a slug and an alias can never collide.
CREATE TABLE agent_slugs (
    slug     TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL REFERENCES agents (id)
) STRICT;

CREATE INDEX agent_slugs_agent ON agent_slugs (agent_id);

CREATE TABLE api_keys (
    id           TEXT NOT NULL PRIMARY KEY,
    agent_id     TEXT NOT NULL REFERENCES agents (id),
    digest       BLOB NOT NULL UNIQUE, -- SHA-256 of the whole key
    hint         TEXT,                 -- its beginning, enough to recognise it by
    name         TEXT NOT NULL,
    expires_at   TEXT,
    last_used_at TEXT,
    created_at   TEXT NOT NULL
) STRICT;

CREATE INDEX api_keys_agent ON api_keys (agent_id);

CREATE TABLE connections (
    id                   TEXT    NOT NULL PRIMARY KEY,
    requester_id         TEXT    NOT NULL REFERENCES agents (id),
    target_id            TEXT    NOT NULL REFERENCES agents (id),
    status               TEXT    NOT NULL CHECK (status IN ('pending', 'connected', 'declined', 'paused', 'ended')),
    blocked_by_requester INTEGER NOT NULL,
    blocked_by_target    INTEGER NOT NULL,
    block_locked         INTEGER NOT NULL, -- an operator's block: only an operator lifts it
    message              TEXT,
    rate                 INTEGER,
    period_ms            INTEGER,
    burst                INTEGER,
    daily                INTEGER,
    streams              INTEGER,
    ends_at              TEXT,
    created_at           TEXT    NOT NULL,
    resolved_at          TEXT,
    CHECK (requester_id <> target_id)
) STRICT;

-- One row per pair, whoever asked.
CREATE UNIQUE INDEX connections_pair ON connections (min(requester_id, target_id), max(requester_id, target_id));
CREATE INDEX connections_requester ON connections (requester_id);
CREATE INDEX connections_target ON connections (target_id);

CREATE TABLE operators (
    id           TEXT NOT NULL PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    role         TEXT NOT NULL CHECK (role IN ('admin', 'auditor')),
    digest       BLOB NOT NULL UNIQUE, -- SHA-256 of the whole token
    hint         TEXT,
    expires_at   TEXT,
    created_at   TEXT NOT NULL
) STRICT;

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- What was changed, by whom, from what to what; secrets masked. Written in the transaction of the change.
CREATE TABLE admin_events (
    id      TEXT NOT NULL PRIMARY KEY,
    at      TEXT NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    before  TEXT,
    after   TEXT
) STRICT;

CREATE INDEX admin_events_at ON admin_events (at, id);
