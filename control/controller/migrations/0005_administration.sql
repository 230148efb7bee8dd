-- What Gateways have confirmed, and until when those that are silent can do harm (X6).

-- When the lease of the configuration that was signed last ends; 0 for a Gateway that never had one.
ALTER TABLE gateways ADD COLUMN lease_until BIGINT NOT NULL DEFAULT 0;
UPDATE gateways SET lease_until = last_seen + 900 WHERE last_seen > 0;

-- When the last of the logins ends that an entry takes something from; NULL for entries from before, 0 where there was none.
ALTER TABLE revocations ADD COLUMN ends_at BIGINT;

-- The revocations that a Gateway has said it applied. took_ms is from push to confirmation, -1 where that was not measured.
CREATE TABLE applied (
    gateway TEXT PRIMARY KEY REFERENCES gateways (id) ON DELETE CASCADE,
    epoch BIGINT NOT NULL,
    n BIGINT NOT NULL,
    took_ms BIGINT NOT NULL,
    at BIGINT NOT NULL
);

-- Roles in place of the mark: owner, admin, auditor, or nothing. Who had the mark could do everything.
ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT '';
UPDATE users SET role = 'owner' WHERE administrator = 1;
ALTER TABLE users DROP COLUMN administrator;

-- What an administrator's action changed, as JSON; empty where there was nothing before or is nothing after.
ALTER TABLE audit ADD COLUMN before_it TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN after_it TEXT NOT NULL DEFAULT '';
CREATE INDEX audit_by_at ON audit (at);

-- Whether a Gateway is drained for maintenance (X1): its configuration says so, and clients are sent to others first.
ALTER TABLE gateways ADD COLUMN draining BIGINT NOT NULL DEFAULT 0;
