-- The registry: agents, their names, keys, connections, operators, and what operators and owners did.
-- Text compares by its bytes (COLLATE "C"), as in SQLite: the order of a list does not depend on where the server stands.

CREATE TABLE agents (
    id                      uuid        NOT NULL PRIMARY KEY,
    slug                    text        COLLATE "C" NOT NULL UNIQUE,
    name                    text        COLLATE "C" NOT NULL,
    description             text        COLLATE "C" NOT NULL,
    provider                text        COLLATE "C",
    avatar_url              text,
    endpoint_url            text,
    endpoint_key            text        COLLATE "C",  -- endpoint_url without trailing slashes: two spellings, one endpoint
    card_url                text,
    subpaths                text        NOT NULL,     -- lists are JSON text
    capabilities            text        NOT NULL,
    skills                  text        NOT NULL,
    skill_terms             text        COLLATE "C" NOT NULL, -- lower-case names, ids and tags, each between newlines
    search_text             text        COLLATE "C" NOT NULL, -- lower-case name, description and slug
    payment                 text,
    state                   text        NOT NULL CHECK (state IN ('pending', 'active', 'disabled', 'deleted')),
    listed                  boolean     NOT NULL,
    auto_accept_connections boolean     NOT NULL,
    registered_by_operator  boolean     NOT NULL,
    push                    text        NOT NULL,
    pass_authorization      boolean     NOT NULL,
    sign_large_bodies       boolean     NOT NULL,
    http2                   boolean     NOT NULL,
    max_in_flight           bigint,
    connect_ms              bigint,
    first_byte_ms           bigint,
    read_first_byte_ms      bigint,
    idle_ms                 bigint,
    signing_secret          bytea       NOT NULL,     -- sealed
    upstream_credential     bytea,                    -- sealed
    card                    bytea,
    card_fetched_at         timestamptz,
    health                  text        NOT NULL,
    health_reason           text,
    health_checked_at       timestamptz,
    created_at              timestamptz NOT NULL,
    updated_at              timestamptz NOT NULL
);

-- A deleted agent frees its endpoint.
CREATE UNIQUE INDEX agents_endpoint ON agents (endpoint_key) WHERE state <> 'deleted';

-- Every slug an agent has or had: one table, so that a slug and an alias can never collide.
CREATE TABLE agent_slugs (
    slug     text COLLATE "C" NOT NULL PRIMARY KEY,
    agent_id uuid NOT NULL REFERENCES agents (id)
);

CREATE INDEX agent_slugs_agent ON agent_slugs (agent_id);

CREATE TABLE api_keys (
    id           uuid        NOT NULL PRIMARY KEY,
    agent_id     uuid        NOT NULL REFERENCES agents (id),
    digest       bytea       NOT NULL UNIQUE, -- SHA-256 of the whole key
    hint         text,                        -- its beginning, enough to recognise it by
    name         text        NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    created_at   timestamptz NOT NULL
);

CREATE INDEX api_keys_agent ON api_keys (agent_id);

CREATE TABLE connections (
    id                   uuid        NOT NULL PRIMARY KEY,
    requester_id         uuid        NOT NULL REFERENCES agents (id),
    target_id            uuid        NOT NULL REFERENCES agents (id),
    status               text        NOT NULL CHECK (status IN ('pending', 'connected', 'declined', 'paused', 'ended')),
    blocked_by_requester boolean     NOT NULL,
    blocked_by_target    boolean     NOT NULL,
    block_locked         boolean     NOT NULL, -- an operator's block: only an operator lifts it
    message              text,
    rate                 bigint,
    period_ms            bigint,
    burst                bigint,
    daily                bigint,
    streams              bigint,
    ends_at              timestamptz,
    created_at           timestamptz NOT NULL,
    resolved_at          timestamptz,
    CHECK (requester_id <> target_id)
);

-- One row per pair, whoever asked.
CREATE UNIQUE INDEX connections_pair ON connections (least(requester_id, target_id), greatest(requester_id, target_id));
CREATE INDEX connections_requester ON connections (requester_id);
CREATE INDEX connections_target ON connections (target_id);

CREATE TABLE operators (
    id         uuid        NOT NULL PRIMARY KEY,
    name       text        COLLATE "C" NOT NULL UNIQUE,
    role       text        NOT NULL CHECK (role IN ('admin', 'auditor')),
    digest     bytea       NOT NULL UNIQUE, -- SHA-256 of the whole token
    hint       text,
    expires_at timestamptz,
    created_at timestamptz NOT NULL
);

CREATE TABLE settings (
    name  text COLLATE "C" NOT NULL PRIMARY KEY,
    value text NOT NULL
);

-- What was changed, by whom, from what to what; secrets masked. Written in the transaction of the change.
CREATE TABLE admin_events (
    id      uuid        NOT NULL PRIMARY KEY,
    at      timestamptz NOT NULL,
    actor   text        NOT NULL,
    action  text        NOT NULL,
    subject text        COLLATE "C" NOT NULL,
    before  text,
    after   text
);

CREATE INDEX admin_events_at ON admin_events (at, id);

-- Whoever changes the registry takes its turn, until its transaction is over: what it has checked stays so until it writes.
CREATE FUNCTION trust_gateway_turn() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(8390891584382493557)';
