-- Sums of calls, by minute and by hour: what statistics are read from. Written in the transaction of the rows they sum up, so
-- that they are exact; rows from before there was this table are not in them.
CREATE TABLE call_rollups (
    span            INTEGER NOT NULL,         -- seconds: 60 or 3600
    starts_at       TEXT    NOT NULL,         -- the minute or hour in which the calls arrived
    target_agent_id TEXT    NOT NULL,         -- all zeros: none
    caller_agent_id TEXT    NOT NULL,         -- all zeros: none known
    trust_level     TEXT    NOT NULL,
    decision        TEXT    NOT NULL,
    outcome         TEXT    NOT NULL,
    reason          TEXT    NOT NULL,         -- empty: none
    node_id         TEXT    NOT NULL,
    calls           INTEGER NOT NULL,
    request_bytes   INTEGER NOT NULL,
    response_bytes  INTEGER NOT NULL,
    ms_1            INTEGER NOT NULL,         -- calls that took up to 1 ms; those below, longer than the column before and up to this
    ms_2            INTEGER NOT NULL,
    ms_5            INTEGER NOT NULL,
    ms_10           INTEGER NOT NULL,
    ms_20           INTEGER NOT NULL,
    ms_50           INTEGER NOT NULL,
    ms_100          INTEGER NOT NULL,
    ms_200          INTEGER NOT NULL,
    ms_500          INTEGER NOT NULL,
    ms_1000         INTEGER NOT NULL,
    ms_2000         INTEGER NOT NULL,
    ms_5000         INTEGER NOT NULL,
    ms_10000        INTEGER NOT NULL,
    ms_20000        INTEGER NOT NULL,
    ms_60000        INTEGER NOT NULL,
    ms_120000       INTEGER NOT NULL,
    ms_300000       INTEGER NOT NULL,
    ms_600000       INTEGER NOT NULL,
    ms_more         INTEGER NOT NULL,         -- longer than 10 minutes
    PRIMARY KEY (span, starts_at, target_agent_id, caller_agent_id, trust_level, decision, outcome, reason, node_id)
) STRICT, WITHOUT ROWID;

-- Callers ask for the calls they made.
CREATE INDEX proxy_calls_caller ON proxy_calls (caller_agent_id, called_at);
