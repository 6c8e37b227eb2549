-- Sums of calls, by minute and by hour: what statistics are read from. Written in the transaction of the rows they sum up, so
-- that they are exact; rows from before there was this table are not in them.
CREATE TABLE call_rollups (
    span            bigint NOT NULL,          -- seconds: 60 or 3600
    starts_at       timestamptz NOT NULL,     -- the minute or hour in which the calls arrived
    target_agent_id uuid NOT NULL,            -- all zeros: none
    caller_agent_id uuid NOT NULL,            -- all zeros: none known
    trust_level     text COLLATE "C" NOT NULL,
    decision        text COLLATE "C" NOT NULL,
    outcome         text COLLATE "C" NOT NULL,
    reason          text COLLATE "C" NOT NULL, -- empty: none
    node_id         uuid NOT NULL,
    calls           bigint NOT NULL,
    request_bytes   bigint NOT NULL,
    response_bytes  bigint NOT NULL,
    ms_1            bigint NOT NULL,          -- calls that took up to 1 ms; those below, longer than the column before and up to this
    ms_2            bigint NOT NULL,
    ms_5            bigint NOT NULL,
    ms_10           bigint NOT NULL,
    ms_20           bigint NOT NULL,
    ms_50           bigint NOT NULL,
    ms_100          bigint NOT NULL,
    ms_200          bigint NOT NULL,
    ms_500          bigint NOT NULL,
    ms_1000         bigint NOT NULL,
    ms_2000         bigint NOT NULL,
    ms_5000         bigint NOT NULL,
    ms_10000        bigint NOT NULL,
    ms_20000        bigint NOT NULL,
    ms_60000        bigint NOT NULL,
    ms_120000       bigint NOT NULL,
    ms_300000       bigint NOT NULL,
    ms_600000       bigint NOT NULL,
    ms_more         bigint NOT NULL,          -- longer than 10 minutes
    PRIMARY KEY (span, starts_at, target_agent_id, caller_agent_id, trust_level, decision, outcome, reason, node_id)
) WITH (fillfactor = 70); -- the rows of this minute and hour change with every commit

-- Callers ask for the calls they made.
CREATE INDEX proxy_calls_caller ON proxy_calls (caller_agent_id, called_at);
