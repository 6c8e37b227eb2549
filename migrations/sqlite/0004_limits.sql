ALTER TABLE agents ADD COLUMN limits TEXT; -- JSON: costs, and the limits of each level's callers; NULL: the policy's
