-- What people run agents, connections and keys with: cards that wait for an admin, secrets and keys that change over
-- without a gap, terms of a connection, and a reason for every change.

ALTER TABLE agents ADD COLUMN health_interval_s bigint;             -- between two probes; NULL: the configured default
ALTER TABLE agents ADD COLUMN held_card bytea;                      -- a changed card that an admin has to look at first
ALTER TABLE agents ADD COLUMN held_card_at timestamptz;
ALTER TABLE agents ADD COLUMN held_card_reason text;
ALTER TABLE agents ADD COLUMN rejected_card text;                   -- SHA-256 of the held card an admin said no to, in hex
ALTER TABLE agents ADD COLUMN next_probe_at timestamptz;            -- NULL: now
ALTER TABLE agents ADD COLUMN next_signing_secret bytea;            -- sealed; in use from the time beside it
ALTER TABLE agents ADD COLUMN next_signing_secret_from timestamptz;

ALTER TABLE connections ADD COLUMN purpose text;
ALTER TABLE connections ADD COLUMN operations text;                 -- JSON list of A2A operations; NULL: all
ALTER TABLE connections ADD COLUMN operations_fixed boolean NOT NULL DEFAULT false; -- by an operator: they outlive the agreement
ALTER TABLE connections ADD COLUMN review_at timestamptz;           -- somebody should look at it then; nothing stops

ALTER TABLE api_keys ADD COLUMN replaces uuid;                      -- the key that ends once this one has been used
ALTER TABLE api_keys ADD COLUMN grace_ms bigint;                    -- how long that key lives on after the first use

ALTER TABLE operators ADD COLUMN last_used_at timestamptz;

ALTER TABLE admin_events ADD COLUMN reason text;                    -- as whoever made the change gave it
CREATE INDEX agents_next_probe ON agents (next_probe_at);

CREATE INDEX admin_events_subject ON admin_events (subject, at, id);

ALTER TABLE proxy_calls ADD COLUMN limit_name text;                 -- the limit that decided, or was nearest to
ALTER TABLE proxy_calls ADD COLUMN limit_left bigint;               -- what was left of it after the call

-- What the directory has to read again: each agent and connection with the revision of its last change. The database keeps
-- it itself, so that whatever writes cannot forget to.
CREATE TABLE directory_changes (
    kind     text   COLLATE "C" NOT NULL, -- agent (with its slugs and keys), connection
    id       uuid   NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE UNIQUE INDEX directory_changes_revision ON directory_changes (revision);

-- Takes its turn even if whoever writes forgot to: revisions become visible in their order, so that a reader that has seen
-- one has seen all before it.
CREATE FUNCTION directory_changed(of_kind text, of_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM trust_gateway_turn();
    INSERT INTO directory_changes (kind, id, revision)
    VALUES (of_kind, of_id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
    PERFORM pg_notify('trust_gateway_directory', '');
END $$;

CREATE FUNCTION agents_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM directory_changed('agent', NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION agent_parts_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM directory_changed('agent', CASE WHEN TG_OP = 'DELETE' THEN OLD.agent_id ELSE NEW.agent_id END);
    RETURN NULL;
END $$;

CREATE FUNCTION connections_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM directory_changed('connection', NEW.id);
    RETURN NULL;
END $$;

CREATE TRIGGER agents_added AFTER INSERT ON agents FOR EACH ROW EXECUTE FUNCTION agents_changed();

-- Not a probe that found nothing new: it sets the time of the next, and no more than an agent's health.
CREATE TRIGGER agents_changed AFTER UPDATE ON agents FOR EACH ROW
WHEN (NEW.next_probe_at IS NOT DISTINCT FROM OLD.next_probe_at OR NEW.card IS DISTINCT FROM OLD.card
      OR NEW.skills IS DISTINCT FROM OLD.skills)
EXECUTE FUNCTION agents_changed();

CREATE TRIGGER agent_slugs_added AFTER INSERT ON agent_slugs FOR EACH ROW EXECUTE FUNCTION agent_parts_changed();
CREATE TRIGGER agent_slugs_removed AFTER DELETE ON agent_slugs FOR EACH ROW EXECUTE FUNCTION agent_parts_changed();
CREATE TRIGGER api_keys_added AFTER INSERT ON api_keys FOR EACH ROW EXECUTE FUNCTION agent_parts_changed();

-- Not its last use: that is written for many keys at once, and nothing is decided by it.
CREATE TRIGGER api_keys_changed AFTER UPDATE OF agent_id, digest, hint, name, expires_at, replaces, grace_ms ON api_keys
FOR EACH ROW EXECUTE FUNCTION agent_parts_changed();

CREATE TRIGGER api_keys_removed AFTER DELETE ON api_keys FOR EACH ROW EXECUTE FUNCTION agent_parts_changed();
CREATE TRIGGER connections_added AFTER INSERT ON connections FOR EACH ROW EXECUTE FUNCTION connections_changed();
CREATE TRIGGER connections_changed AFTER UPDATE ON connections FOR EACH ROW EXECUTE FUNCTION connections_changed();

CREATE INDEX agents_next_signing_secret ON agents (next_signing_secret_from) WHERE next_signing_secret_from IS NOT NULL;
CREATE INDEX agents_page ON agents (created_at, id);

-- Parts of words, found without reading every agent, where the server has the extension for it and lets us have it.
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
        CREATE INDEX agents_search_text ON agents USING gin (search_text gin_trgm_ops);
        CREATE INDEX agents_skill_terms ON agents USING gin (skill_terms gin_trgm_ops);
    END IF;
EXCEPTION
    WHEN insufficient_privilege OR undefined_object THEN
        RAISE WARNING 'the extension pg_trgm cannot be used: searches read every agent';
END $$;
