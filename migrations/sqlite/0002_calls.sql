-- The call log and what the drain of the journal must remember.

-- The id of the node this database belongs to: one row.
CREATE TABLE node (
    id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- One row per call, written once, when the call is over. No foreign keys: the log outlives what it names.
-- Times are RFC 3339 with six digits and Z, so that text order is time order.
CREATE TABLE proxy_calls (
    id                   TEXT    NOT NULL, -- the request id, a UUIDv7
    target_agent_id      TEXT,
    caller_agent_id      TEXT,
    trust_level          TEXT    NOT NULL,
    status_code          INTEGER NOT NULL, -- 0: the caller was given none
    latency_ms           INTEGER NOT NULL,
    called_at            TEXT    NOT NULL,
    node_id              TEXT    NOT NULL,
    seq                  INTEGER NOT NULL, -- gapless per node, from 1
    credential_id        TEXT,
    auth_method          TEXT    NOT NULL,
    client_ip            TEXT,
    personal_salt        BLOB,
    client_ip_commitment BLOB,             -- stands for client_ip once it and the salt are erased
    connection_id        TEXT,
    binding              TEXT    NOT NULL,
    protocol_version     TEXT,
    method               TEXT,
    operation            TEXT    NOT NULL,
    rpc_id               TEXT,
    task_id              TEXT,
    context_id           TEXT,
    message_id           TEXT,
    decision             TEXT    NOT NULL,
    reason               TEXT,
    policy_rule          TEXT,
    policy_digest        TEXT,
    units                INTEGER NOT NULL,
    outcome              TEXT    NOT NULL,
    upstream_status      INTEGER,
    rpc_error_code       INTEGER,
    task_state           TEXT,
    request_bytes        INTEGER NOT NULL,
    response_bytes       INTEGER NOT NULL,
    stream_events        INTEGER,
    ttfb_ms              INTEGER,
    calls                INTEGER NOT NULL, -- more than one only for refusals folded together
    trace_id             TEXT,
    leaf_hash            BLOB    NOT NULL,
    PRIMARY KEY (node_id, seq)
) STRICT;

-- Each of these costs more than the row itself: measure before adding one.
CREATE INDEX proxy_calls_time ON proxy_calls (called_at, id);
CREATE INDEX proxy_calls_target ON proxy_calls (target_agent_id, called_at);

-- How far the journal has become rows, per process start and worker. Written in the transaction of those rows.
CREATE TABLE journal_positions (
    instance TEXT    NOT NULL,
    worker   INTEGER NOT NULL,
    segment  INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    PRIMARY KEY (instance, worker)
) STRICT, WITHOUT ROWID;

-- Process starts whose every call is a row: their directories can go unread.
CREATE TABLE journal_finished (
    instance TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What a restart must know of quotas and slow buckets.
CREATE TABLE limit_state (
    key    BLOB    NOT NULL PRIMARY KEY,
    day    INTEGER NOT NULL, -- days since 1970, UTC
    used   INTEGER NOT NULL, -- units of that day
    tat_us INTEGER NOT NULL  -- theoretical arrival time, microseconds since 1970
) STRICT, WITHOUT ROWID;
