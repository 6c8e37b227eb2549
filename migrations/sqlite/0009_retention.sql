-- Rows of the log that nobody changes, and what is taken out of them or away all the same: by age, and on request.

ALTER TABLE proxy_calls ADD COLUMN erased_at TEXT; -- what came from outside was erased then: leaf_hash alone speaks for it

-- What a transaction may do to rows: written when it begins, deleted before it is committed.
CREATE TABLE ledger_permits (
    permit TEXT NOT NULL PRIMARY KEY CHECK (permit IN ('erase', 'drop'))
) STRICT, WITHOUT ROWID;

-- Asked by INSERT OR REPLACE, too, on connections with recursive_triggers, as the gateway's has it: a trigger on INSERT, which every
-- recorded call would pay for, is not needed.
CREATE TRIGGER proxy_calls_deleted BEFORE DELETE ON proxy_calls
WHEN NOT EXISTS (SELECT 1 FROM ledger_permits WHERE permit = 'drop') BEGIN
    SELECT RAISE(ABORT, 'proxy_calls: sealed rows are not changed; see trust-gateway audit erase');
END;

-- Erasure takes values away, and puts the commitment in the place of an address. It changes nothing else. A column that is added
-- to the table and is not to be erased belongs into the first list.
CREATE TRIGGER proxy_calls_changed BEFORE UPDATE ON proxy_calls
WHEN NOT EXISTS (SELECT 1 FROM ledger_permits WHERE permit = 'erase')
    OR (NEW.id, NEW.target_agent_id, NEW.caller_agent_id, NEW.trust_level, NEW.status_code, NEW.latency_ms, NEW.called_at,
        NEW.node_id, NEW.seq, NEW.auth_method, NEW.connection_id, NEW.binding, NEW.operation, NEW.decision, NEW.reason,
        NEW.policy_rule, NEW.policy_digest, NEW.units, NEW.outcome, NEW.upstream_status, NEW.rpc_error_code, NEW.task_state,
        NEW.request_bytes, NEW.response_bytes, NEW.stream_events, NEW.ttfb_ms, NEW.calls, NEW.limit_name, NEW.limit_left,
        NEW.leaf_hash, NEW.sealed_on, NEW.rowid)
    IS NOT (OLD.id, OLD.target_agent_id, OLD.caller_agent_id, OLD.trust_level, OLD.status_code, OLD.latency_ms, OLD.called_at,
        OLD.node_id, OLD.seq, OLD.auth_method, OLD.connection_id, OLD.binding, OLD.operation, OLD.decision, OLD.reason,
        OLD.policy_rule, OLD.policy_digest, OLD.units, OLD.outcome, OLD.upstream_status, OLD.rpc_error_code, OLD.task_state,
        OLD.request_bytes, OLD.response_bytes, OLD.stream_events, OLD.ttfb_ms, OLD.calls, OLD.limit_name, OLD.limit_left,
        OLD.leaf_hash, OLD.sealed_on, OLD.rowid)
    OR (NEW.client_ip_commitment IS NOT OLD.client_ip_commitment AND OLD.client_ip_commitment IS NOT NULL)
    OR (NEW.erased_at IS NOT OLD.erased_at AND OLD.erased_at IS NOT NULL)
    OR (NEW.client_ip IS NOT OLD.client_ip AND NEW.client_ip IS NOT NULL)
    OR (NEW.personal_salt IS NOT OLD.personal_salt AND NEW.personal_salt IS NOT NULL)
    OR (NEW.credential_id IS NOT OLD.credential_id AND NEW.credential_id IS NOT NULL)
    OR (NEW.protocol_version IS NOT OLD.protocol_version AND NEW.protocol_version IS NOT NULL)
    OR (NEW.method IS NOT OLD.method AND NEW.method IS NOT NULL)
    OR (NEW.rpc_id IS NOT OLD.rpc_id AND NEW.rpc_id IS NOT NULL)
    OR (NEW.task_id IS NOT OLD.task_id AND NEW.task_id IS NOT NULL)
    OR (NEW.context_id IS NOT OLD.context_id AND NEW.context_id IS NOT NULL)
    OR (NEW.message_id IS NOT OLD.message_id AND NEW.message_id IS NOT NULL)
    OR (NEW.trace_id IS NOT OLD.trace_id AND NEW.trace_id IS NOT NULL)
BEGIN
    SELECT RAISE(ABORT, 'proxy_calls: sealed rows are not changed; see trust-gateway audit erase');
END;

-- What must stay as it is, however old, until it is released.
CREATE TABLE ledger_holds (
    id          TEXT NOT NULL PRIMARY KEY,
    agent_id    TEXT, -- calls it made or received; null: everybody's
    since       TEXT, -- calls that arrived then or later; null: from the first on
    until       TEXT, -- calls that arrived before; null: all that will come, too
    reason      TEXT NOT NULL,
    placed_by   TEXT NOT NULL,
    placed_at   TEXT NOT NULL,
    released_at TEXT
) STRICT, WITHOUT ROWID;

-- How far erasure by age has come in each node's rows.
CREATE TABLE ledger_erased (
    node_id TEXT    NOT NULL,
    class   TEXT    NOT NULL, -- addresses, refused
    size    INTEGER NOT NULL, -- rows, from the first on
    PRIMARY KEY (node_id, class)
) STRICT, WITHOUT ROWID;
