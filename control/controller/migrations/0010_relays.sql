-- Relays, by FQDN, with the thumbprint of the key that each joined with.
CREATE TABLE relays (
    name TEXT PRIMARY KEY,
    jkt TEXT NOT NULL,
    joined_at BIGINT NOT NULL
);

-- The Relays that a Gateway said last that it is connected to; JSON.
ALTER TABLE gateways ADD COLUMN relays TEXT NOT NULL DEFAULT '[]';
