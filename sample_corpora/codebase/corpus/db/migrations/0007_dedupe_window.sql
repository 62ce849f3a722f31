-- 0007: replace the unique constraint on dedupe_key by a window of 24 hours.
--
-- The constraint of 0003 held for as long as the row existed, that is until pruning. Nightly
-- imports which reuse their key were refused on the second day for teams with a long
-- retention. The check now happens at insert time under SERIALIZABLE (see JobStore.submit).
--
-- NOT safe while 2.5 nodes accept submissions: they rely on the constraint and would let
-- duplicates through. Stop all API nodes first; dispatchers may keep running.
--
-- CREATE INDEX CONCURRENTLY must run outside of a transaction. If it is interrupted, an INVALID
-- index is left behind: drop it and start this file again.

CREATE INDEX CONCURRENTLY IF NOT EXISTS job_dedupe_idx
    ON job (queue, dedupe_key, created_at) WHERE dedupe_key IS NOT NULL;

BEGIN;
SET LOCAL lock_timeout = '3s';
ALTER TABLE job DROP CONSTRAINT IF EXISTS job_queue_dedupe_key_key;
INSERT INTO schema_version (version) VALUES (7);
COMMIT;
