-- Rows of the log that nobody changes, and what is taken out of them or away all the same: by age, and on request.

ALTER TABLE proxy_calls ADD COLUMN erased_at timestamptz; -- what came from outside was erased then: leaf_hash alone speaks for it

-- What a transaction may do to rows is in its setting trust_gateway.permit: erase or drop. Erasure takes values away, and puts the
-- commitment in the place of an address. It changes nothing else; whatever columns are added to the table are not to be erased.
CREATE FUNCTION proxy_calls_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    permit    text := coalesce(current_setting('trust_gateway.permit', true), '');
    erasable  constant text[] := ARRAY['client_ip', 'personal_salt', 'credential_id', 'protocol_version', 'method', 'rpc_id',
                                       'task_id', 'context_id', 'message_id', 'trace_id'];
    settable  constant text[] := ARRAY['client_ip_commitment', 'erased_at'];
    before    jsonb;
    after     jsonb;
    name      text;
    permitted boolean := false;
BEGIN
    IF TG_OP = 'DELETE' AND permit = 'drop' THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' AND permit = 'erase' THEN
        before := to_jsonb(OLD);
        after := to_jsonb(NEW);
        permitted := before - erasable - settable = after - erasable - settable;
        FOREACH name IN ARRAY erasable LOOP
            permitted := permitted AND (after -> name = before -> name OR after ->> name IS NULL);
        END LOOP;
        FOREACH name IN ARRAY settable LOOP
            permitted := permitted AND (after -> name = before -> name OR before ->> name IS NULL);
        END LOOP;
        IF permitted THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'proxy_calls: sealed rows are not changed; see trust-gateway audit erase';
END $$;

-- The days have this one from the table they are part of,
CREATE TRIGGER proxy_calls_sealed BEFORE UPDATE OR DELETE ON proxy_calls FOR EACH ROW EXECUTE FUNCTION proxy_calls_sealed();
-- but not this one.
CREATE TRIGGER proxy_calls_kept BEFORE TRUNCATE ON proxy_calls FOR EACH STATEMENT EXECUTE FUNCTION proxy_calls_sealed();
DO $$
DECLARE
    day regclass;
BEGIN
    FOR day IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'proxy_calls'::regclass LOOP
        EXECUTE format('CREATE TRIGGER proxy_calls_kept BEFORE TRUNCATE ON %s FOR EACH STATEMENT '
            'EXECUTE FUNCTION proxy_calls_sealed()', day);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION proxy_calls_day() RETURNS date LANGUAGE plpgsql AS $$
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
        EXECUTE format('CREATE TRIGGER proxy_calls_kept BEFORE TRUNCATE ON %I FOR EACH STATEMENT '
            'EXECUTE FUNCTION proxy_calls_sealed()', partition);
        EXECUTE format('ALTER TABLE proxy_calls ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition, day, day + 1);
    END LOOP;
    RETURN today;
END $$;

-- Drops a day and all its rows. Recording waits while this waits for readers: not for long.
CREATE FUNCTION proxy_calls_drop(day date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('trust_gateway.permit', true), '') <> 'drop' THEN
        RAISE EXCEPTION 'proxy_calls: sealed rows are not changed; see trust-gateway audit erase';
    END IF;
    SET LOCAL lock_timeout = '100ms';
    EXECUTE format('DROP TABLE %I', 'proxy_calls_' || to_char(day, 'YYYYMMDD'));
END $$;

-- What must stay as it is, however old, until it is released.
CREATE TABLE ledger_holds (
    id          uuid        NOT NULL PRIMARY KEY,
    agent_id    uuid,        -- calls it made or received; null: everybody's
    since       timestamptz, -- calls that arrived then or later; null: from the first on
    until       timestamptz, -- calls that arrived before; null: all that will come, too
    reason      text        NOT NULL,
    placed_by   text        NOT NULL,
    placed_at   timestamptz NOT NULL,
    released_at timestamptz
);

-- How far erasure by age has come in each node's rows.
CREATE TABLE ledger_erased (
    node_id uuid   NOT NULL,
    class   text   NOT NULL, -- addresses, refused
    size    bigint NOT NULL, -- rows, from the first on
    PRIMARY KEY (node_id, class)
);
