-- The first form of the Controller's database. Column types are those that SQLite and PostgreSQL share: BIGINT (seconds since 1970,
-- counters, 0 or 1), TEXT (ids, names, JSON), BLOB.

-- One row. The epoch is the time at which the database was made, so that a later database's revocations are newer.
CREATE TABLE organisation (
    id TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL
);

CREATE TABLE sites (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    pools TEXT NOT NULL
);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    administrator BIGINT NOT NULL,
    active BIGINT NOT NULL,
    generation BIGINT NOT NULL
);

CREATE TABLE user_groups (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE members (
    group_id TEXT NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX members_by_user ON members (user_id);

CREATE TABLE resources (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    site TEXT NOT NULL REFERENCES sites (id),
    networks TEXT NOT NULL,
    services TEXT NOT NULL
);
CREATE INDEX resources_by_site ON resources (site);

-- Of user and group exactly one.
CREATE TABLE entitlements (
    resource TEXT NOT NULL REFERENCES resources (id) ON DELETE CASCADE,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    group_id TEXT REFERENCES user_groups (id) ON DELETE CASCADE,
    CHECK ((user_id IS NULL) <> (group_id IS NULL)),
    UNIQUE (resource, user_id),
    UNIQUE (resource, group_id)
);
CREATE INDEX entitlements_by_user ON entitlements (user_id);
CREATE INDEX entitlements_by_group ON entitlements (group_id);

-- The digests are of certificates issued to the Gateway: the one it shows, and the one it was given since.
CREATE TABLE gateways (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    site TEXT NOT NULL REFERENCES sites (id),
    addresses TEXT NOT NULL,
    jkt TEXT NOT NULL,
    certificate_digest TEXT NOT NULL,
    next_digest TEXT NOT NULL,
    last_seen BIGINT NOT NULL,
    configuration_seq BIGINT NOT NULL
);
CREATE INDEX gateways_by_site ON gateways (site);

CREATE TABLE devices (
    client_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    jkt TEXT NOT NULL,
    registered_at BIGINT NOT NULL
);
CREATE INDEX devices_by_user ON devices (user_id);

-- expires_at is the parent of everything issued for the login; generation that of its newest claims token.
CREATE TABLE logins (
    dn TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id TEXT NOT NULL,
    jkt TEXT NOT NULL,
    generation BIGINT NOT NULL,
    claims_jti TEXT NOT NULL,
    auth_time BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX logins_by_user ON logins (user_id);
CREATE INDEX logins_by_key ON logins (jkt);
CREATE INDEX logins_by_claims ON logins (claims_jti);

-- n is the position in each pool of the site.
CREATE TABLE addresses (
    site TEXT NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
    dn TEXT NOT NULL,
    n BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (site, dn),
    UNIQUE (site, n)
);

-- Never falls, and outlives logins. pushed_seq is the newest that was pushed without being asked for.
CREATE TABLE sequences (
    dn TEXT NOT NULL,
    site TEXT NOT NULL,
    seq BIGINT NOT NULL,
    pushed_seq BIGINT NOT NULL,
    PRIMARY KEY (dn, site)
);
CREATE INDEX sequences_by_site ON sequences (site);

-- The cookie itself is not kept.
CREATE TABLE invitations (
    cookie_hash BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    site TEXT NOT NULL,
    user_id TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);

-- Without gaps from 1 on.
CREATE TABLE revocations (
    n BIGINT PRIMARY KEY,
    scope TEXT NOT NULL,
    effect TEXT NOT NULL,
    reason TEXT NOT NULL,
    keep_until BIGINT NOT NULL,
    at BIGINT NOT NULL
);

-- Rows are added only.
CREATE TABLE audit (
    n BIGINT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL
);
