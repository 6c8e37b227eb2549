-- What people run agents, connections and keys with: cards that wait for an admin, secrets and keys that change over
-- without a gap, terms of a connection, and a reason for every change.

ALTER TABLE agents ADD COLUMN health_interval_s INTEGER;            -- between two probes; NULL: the configured default
ALTER TABLE agents ADD COLUMN held_card BLOB;                       -- a changed card that an admin has to look at first
ALTER TABLE agents ADD COLUMN held_card_at TEXT;
ALTER TABLE agents ADD COLUMN held_card_reason TEXT;
ALTER TABLE agents ADD COLUMN rejected_card TEXT;                   -- SHA-256 of the held card an admin said no to, in hex
ALTER TABLE agents ADD COLUMN next_probe_at TEXT;                   -- NULL: now
ALTER TABLE agents ADD COLUMN next_signing_secret BLOB;             -- sealed; in use from the time beside it
ALTER TABLE agents ADD COLUMN next_signing_secret_from TEXT;

ALTER TABLE connections ADD COLUMN purpose TEXT;
ALTER TABLE connections ADD COLUMN operations TEXT;                 -- JSON list of A2A operations; NULL: all
ALTER TABLE connections ADD COLUMN operations_fixed INTEGER NOT NULL DEFAULT 0; -- by an operator: they outlive the agreement
ALTER TABLE connections ADD COLUMN review_at TEXT;                  -- somebody should look at it then; nothing stops

ALTER TABLE api_keys ADD COLUMN replaces TEXT;                      -- the key that ends once this one has been used
ALTER TABLE api_keys ADD COLUMN grace_ms INTEGER;                   -- how long that key lives on after the first use

ALTER TABLE operators ADD COLUMN last_used_at TEXT;

ALTER TABLE admin_events ADD COLUMN reason TEXT;                    -- as whoever made the change gave it
CREATE INDEX agents_next_probe ON agents (next_probe_at);

CREATE INDEX admin_events_subject ON admin_events (subject, at, id);

ALTER TABLE proxy_calls ADD COLUMN limit_name TEXT;                 -- the limit that decided, or was nearest to
ALTER TABLE proxy_calls ADD COLUMN limit_left INTEGER;              -- what was left of it after the call

-- What the directory has to read again: each agent and connection with the revision of its last change. The database keeps
-- it itself, so that whatever writes cannot forget to.
CREATE TABLE directory_changes (
    kind     TEXT    NOT NULL, -- agent (with its slugs and keys), connection
    id       TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX directory_changes_revision ON directory_changes (revision);

CREATE TRIGGER agents_added AFTER INSERT ON agents BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('agent', NEW.id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

-- Not a probe that found nothing new: it sets the time of the next, and no more than an agent's health.
CREATE TRIGGER agents_changed AFTER UPDATE ON agents
WHEN NEW.next_probe_at IS OLD.next_probe_at OR NEW.card IS NOT OLD.card OR NEW.skills IS NOT OLD.skills BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('agent', NEW.id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER agent_slugs_added AFTER INSERT ON agent_slugs BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('agent', NEW.agent_id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER agent_slugs_removed AFTER DELETE ON agent_slugs BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('agent', OLD.agent_id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER api_keys_added AFTER INSERT ON api_keys BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('agent', NEW.agent_id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

-- Not its last use: that is written for many keys at once, and nothing is decided by it.
CREATE TRIGGER api_keys_changed AFTER UPDATE OF agent_id, digest, hint, name, expires_at, replaces, grace_ms ON api_keys BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('agent', NEW.agent_id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER api_keys_removed AFTER DELETE ON api_keys BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('agent', OLD.agent_id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER connections_added AFTER INSERT ON connections BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('connection', NEW.id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

CREATE TRIGGER connections_changed AFTER UPDATE ON connections BEGIN
    INSERT INTO directory_changes (kind, id, revision)
    VALUES ('connection', NEW.id, (SELECT coalesce(max(revision), 0) + 1 FROM directory_changes))
    ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision;
END;

CREATE INDEX agents_next_signing_secret ON agents (next_signing_secret_from) WHERE next_signing_secret_from IS NOT NULL;
CREATE INDEX agents_page ON agents (created_at, id);

-- Each tag of a skill once more, marked as one.
UPDATE agents SET skill_terms = skill_terms || coalesce((
    SELECT group_concat(char(1) || lower(trim(tag.value)) || char(10), '')
    FROM json_each(agents.skills) AS skill, json_each(skill.value, '$.tags') AS tag WHERE tag.type = 'text'
), '');

-- Parts of words, found without reading every agent. Its row numbers are its own: those of agents are not promised to stay.
CREATE VIRTUAL TABLE agent_search USING fts5 (text, tokenize = 'trigram case_sensitive 1');

CREATE TABLE agent_search_rows (
    row      INTEGER PRIMARY KEY,
    agent_id TEXT NOT NULL UNIQUE
) STRICT;

INSERT INTO agent_search_rows (agent_id) SELECT id FROM agents;
INSERT INTO agent_search (rowid, text)
SELECT agent_search_rows.row, agents.search_text || char(10) || agents.skill_terms
FROM agents JOIN agent_search_rows ON agent_search_rows.agent_id = agents.id;

CREATE TRIGGER agents_search_added AFTER INSERT ON agents BEGIN
    INSERT INTO agent_search_rows (agent_id) VALUES (NEW.id);
    INSERT INTO agent_search (rowid, text)
    VALUES ((SELECT row FROM agent_search_rows WHERE agent_id = NEW.id), NEW.search_text || char(10) || NEW.skill_terms);
END;

CREATE TRIGGER agents_search_changed AFTER UPDATE OF search_text, skill_terms ON agents
WHEN OLD.search_text <> NEW.search_text OR OLD.skill_terms <> NEW.skill_terms BEGIN
    UPDATE agent_search SET text = NEW.search_text || char(10) || NEW.skill_terms
    WHERE rowid = (SELECT row FROM agent_search_rows WHERE agent_id = NEW.id);
END;
