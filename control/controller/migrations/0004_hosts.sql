-- Hosts that may register themselves, and what they said last. jkt is the key that the name belongs to; empty until there is one.
-- interfaces is JSON.
CREATE TABLE hosts (
    name TEXT PRIMARY KEY,
    jkt TEXT NOT NULL,
    interfaces TEXT NOT NULL,
    port BIGINT NOT NULL,
    version TEXT NOT NULL,
    last_seen BIGINT NOT NULL
);
