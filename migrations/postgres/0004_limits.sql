-- Limits that an agent's registration sets for the calls it is sent: JSON text; NULL: none.
ALTER TABLE agents ADD COLUMN limits text;
