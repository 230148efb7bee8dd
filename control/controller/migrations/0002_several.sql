-- What follows from a decision and is to be passed on, a JSON list in its order: every Controller of this database reads it. The
-- numbers have no gaps; old rows go.
CREATE TABLE news (
    n BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    consequences TEXT NOT NULL
);

-- The first epoch. What was counted before a restore continues far above it, so that no number is given twice.
ALTER TABLE organisation ADD COLUMN founded BIGINT NOT NULL DEFAULT 0;
UPDATE organisation SET founded = epoch;

-- The Controllers of this database. The id is the hash of the Controller's public key that its invitations name.
CREATE TABLE controllers (
    id TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    removed BIGINT NOT NULL
);

-- Their certificates that everybody of the organisation has to know beforehand: intermediates, and those of keys that sign tokens.
CREATE TABLE authorities (
    digest TEXT PRIMARY KEY,
    controller TEXT NOT NULL REFERENCES controllers (id),
    kind TEXT NOT NULL,
    certificate BLOB NOT NULL,
    expires_at BIGINT NOT NULL
);
