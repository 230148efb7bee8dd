-- What accounts, providers and hosts are bound to.

-- A digest of the key that seals; empty until a Controller has said which it is. Every Controller has the same key.
ALTER TABLE organisation ADD COLUMN sealing TEXT NOT NULL DEFAULT '';

-- When the last token ends that was ever issued for a session; expires_at may be earlier, after a shorter login.
ALTER TABLE logins ADD COLUMN tokens_end BIGINT NOT NULL DEFAULT 0;
UPDATE logins SET tokens_end = expires_at;

-- A program's account is no administrator.
UPDATE users SET role = '' WHERE service = 1;

-- Who a user is at each provider, since the first login there; another of that name is somebody else.
CREATE TABLE provider_subjects (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    method TEXT NOT NULL,
    subject TEXT NOT NULL,
    bound_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, method),
    UNIQUE (method, subject)
);

-- Who asks the provider whether a session goes on, and until when nobody else does: a refresh token may be good once.
ALTER TABLE provider_sessions ADD COLUMN lease TEXT NOT NULL DEFAULT '';
ALTER TABLE provider_sessions ADD COLUMN leased_until BIGINT NOT NULL DEFAULT 0;

-- Names by which Controllers are known, which no host may have.
CREATE TABLE controller_names (
    controller TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (controller, name)
);
CREATE INDEX controller_names_by_name ON controller_names (name);
