-- What people run agents, connections and keys with: cards that wait for an admin, secrets and keys that change over
-- without a gap, terms of a connection, and a reason for every change.

ALTER TABLE agents ADD COLUMN health_interval_s INTEGER;            -- between two probes; NULL: the configured default
ALTER TABLE agents ADD COLUMN held_card BLOB;                       -- a changed card that an admin has to look at first
ALTER TABLE agents ADD COLUMN held_card_at TEXT;
ALTER TABLE agents ADD COLUMN held_card_reason TEXT;
ALTER TABLE agents ADD COLUMN next_signing_secret BLOB;             -- sealed; in use from the time beside it
ALTER TABLE agents ADD COLUMN next_signing_secret_from TEXT;

ALTER TABLE connections ADD COLUMN purpose TEXT;
ALTER TABLE connections ADD COLUMN operations TEXT;                 -- JSON list of A2A operations; NULL: all
ALTER TABLE connections ADD COLUMN review_at TEXT;                  -- somebody should look at it then; nothing stops

ALTER TABLE api_keys ADD COLUMN replaces TEXT;                      -- the key that ends once this one has been used
ALTER TABLE api_keys ADD COLUMN grace_ms INTEGER;                   -- how long that key lives on after the first use

ALTER TABLE operators ADD COLUMN last_used_at TEXT;

ALTER TABLE admin_events ADD COLUMN reason TEXT;                    -- as whoever made the change gave it
CREATE INDEX admin_events_subject ON admin_events (subject, at, id);

ALTER TABLE proxy_calls ADD COLUMN limit_name TEXT;                 -- the limit that decided, or was nearest to
ALTER TABLE proxy_calls ADD COLUMN limit_left INTEGER;              -- what was left of it after the call
