-- What accounts, providers and hosts are bound to.

-- A digest of the key that seals; empty until a Controller has said which it is. Every Controller has the same key.
ALTER TABLE organisation ADD COLUMN sealing TEXT NOT NULL DEFAULT '';

-- When the last token ends that was ever issued for a session; expires_at may be earlier, after a shorter login.
ALTER TABLE logins ADD COLUMN tokens_end BIGINT NOT NULL DEFAULT 0;
UPDATE logins SET tokens_end = expires_at;

-- A program's account is no administrator.
UPDATE users SET role = '' WHERE service = 1;
