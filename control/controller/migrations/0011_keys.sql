-- Keys that change with certificates.

-- The key of the certificate that a Gateway was given since the one it shows; empty for none. Until now it was the one it had.
ALTER TABLE gateways ADD COLUMN next_jkt TEXT NOT NULL DEFAULT '';
UPDATE gateways SET next_jkt = jkt WHERE next_digest <> '';

-- The same of a host.
ALTER TABLE hosts ADD COLUMN next_jkt TEXT NOT NULL DEFAULT '';
