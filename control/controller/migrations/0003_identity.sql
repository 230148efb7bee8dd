-- Identity providers, one-time passwords, service accounts.

-- The address by which identity providers know a user, in lower case.
ALTER TABLE users ADD COLUMN email TEXT;
CREATE UNIQUE INDEX users_by_email ON users (email);
-- 1 for an account of a program, which has no password.
ALTER TABLE users ADD COLUMN service BIGINT NOT NULL DEFAULT 0;

-- The secret is sealed. used_step is the last time step that was used; after too many failures nothing counts until locked_until.
CREATE TABLE totp (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    secret TEXT NOT NULL,
    used_step BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    locked_until BIGINT NOT NULL
);

-- The sessions of logins at an identity provider that can be asked whether they go on. The refresh token is sealed; a login does not
-- last beyond latest whatever the provider says.
CREATE TABLE provider_sessions (
    dn TEXT PRIMARY KEY REFERENCES logins (dn) ON DELETE CASCADE,
    method TEXT NOT NULL,
    subject TEXT NOT NULL,
    refresh TEXT NOT NULL,
    refreshed_at BIGINT NOT NULL,
    latest BIGINT NOT NULL
);
