-- 0006: jobs that crash their worker get a state of their own.
-- Safe while nodes of 2.4 are running: they never read the new label, and crashes has a default.
-- ALTER TYPE ... ADD VALUE cannot be used in the transaction that added it, hence two parts.

ALTER TYPE job_state ADD VALUE IF NOT EXISTS 'quarantined';

BEGIN;
ALTER TABLE job ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
INSERT INTO schema_version (version) VALUES (6);
COMMIT;
