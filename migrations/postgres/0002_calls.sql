-- The call log and what the drain of the journal must remember.

-- One row per call, written once, when the call is over. No foreign keys: the log outlives what it names.
-- In days: each is a table of its own, which can go as a whole.
CREATE TABLE proxy_calls (
    id                   uuid        NOT NULL, -- the request id, a UUIDv7
    target_agent_id      uuid,
    caller_agent_id      uuid,
    trust_level          text        NOT NULL,
    status_code          bigint      NOT NULL, -- 0: the caller was given none
    latency_ms           bigint      NOT NULL,
    called_at            timestamptz NOT NULL,
    node_id              uuid        NOT NULL,
    seq                  bigint      NOT NULL, -- gapless per node, from 1
    credential_id        uuid,
    auth_method          text        NOT NULL,
    client_ip            text,
    personal_salt        bytea,
    client_ip_commitment bytea,                -- stands for client_ip once it and the salt are erased
    connection_id        uuid,
    binding              text        NOT NULL,
    protocol_version     text,
    method               text,
    operation            text        NOT NULL,
    rpc_id               text,
    task_id              text,
    context_id           text,
    message_id           text,
    decision             text        NOT NULL,
    reason               text,
    policy_rule          text,
    policy_digest        text,
    units                bigint      NOT NULL,
    outcome              text        NOT NULL,
    upstream_status      bigint,
    rpc_error_code       bigint,
    task_state           text,
    request_bytes        bigint      NOT NULL,
    response_bytes       bigint      NOT NULL,
    stream_events        bigint,
    ttfb_ms              bigint,
    calls                bigint      NOT NULL, -- more than one only for refusals folded together
    trace_id             text,
    leaf_hash            bytea       NOT NULL,
    sealed_on            date        NOT NULL, -- the UTC day on which the row was written, by the database's clock
    PRIMARY KEY (node_id, seq, sealed_on)
) PARTITION BY RANGE (sealed_on);

-- Each of these costs more than the row itself: measure before adding one.
CREATE INDEX proxy_calls_time ON proxy_calls (called_at, id);
CREATE INDEX proxy_calls_target ON proxy_calls (target_agent_id, called_at);

-- Makes sure that rows can be written today and tomorrow; gives today. A table is made first and attached then, which does not
-- keep anybody from reading or writing the others.
CREATE FUNCTION proxy_calls_day() RETURNS date LANGUAGE plpgsql AS $$
DECLARE
    today     date := (now() AT TIME ZONE 'UTC')::date;
    day       date;
    partition text;
BEGIN
    FOREACH day IN ARRAY ARRAY[today, today + 1] LOOP
        partition := 'proxy_calls_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        -- Of nodes that come to this at the same midnight one makes it.
        PERFORM pg_advisory_xact_lock(8390891584382493558);
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE proxy_calls INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
        EXECUTE format('ALTER TABLE proxy_calls ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition, day, day + 1);
    END LOOP;
    RETURN today;
END $$;

-- How far the journals have become rows, per process start and worker. Written in the transaction of those rows.
CREATE TABLE journal_positions (
    instance uuid   NOT NULL,
    worker   bigint NOT NULL,
    segment  bigint NOT NULL,
    "offset" bigint NOT NULL,
    PRIMARY KEY (instance, worker)
);

-- Process starts whose every call is a row: their directories can go unread.
CREATE TABLE journal_finished (
    instance uuid NOT NULL PRIMARY KEY
);

-- What a restart must know of quotas and slow buckets.
CREATE TABLE limit_state (
    key    bytea  NOT NULL PRIMARY KEY,
    day    bigint NOT NULL, -- days since 1970, UTC
    used   bigint NOT NULL, -- units of that day
    tat_us bigint NOT NULL  -- theoretical arrival time, microseconds since 1970
);
