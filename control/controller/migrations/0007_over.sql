-- What is over is removed, and no number falls for it.

-- A session's sequence that is new begins above this: above all that were removed, and all that were forgotten with a database that
-- was lost.
ALTER TABLE organisation ADD COLUMN sequences_from BIGINT NOT NULL DEFAULT 0;
UPDATE organisation SET sequences_from = (epoch - founded) * 1048576;

-- When the newest number was given. Of those from before it is not known: they count as given by the newest event.
ALTER TABLE sequences ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
UPDATE sequences SET used_at = (SELECT COALESCE(MAX(at), 0) FROM audit);
