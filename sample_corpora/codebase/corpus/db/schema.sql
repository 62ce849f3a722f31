-- Complete schema at version 7. A new installation loads this file; an existing one is brought
-- here by db/migrations. Both roads must end in the same place (tests compare pg_dump).

CREATE TABLE schema_version (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TYPE job_state AS ENUM ('waiting', 'leased', 'done', 'dead', 'cancelled', 'quarantined');

CREATE TABLE job (
    id               text PRIMARY KEY,              -- ULID, so the key sorts by time
    queue            text NOT NULL,
    kind             text NOT NULL,
    payload          jsonb NOT NULL,
    priority         smallint NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    state            job_state NOT NULL DEFAULT 'waiting',
    attempts         smallint NOT NULL DEFAULT 0,
    crashes          smallint NOT NULL DEFAULT 0,
    max_attempts     smallint NOT NULL DEFAULT 8,
    run_at           timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    dedupe_key       text,
    worker_id        text,
    fence            bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz,
    checkpoint       jsonb CHECK (pg_column_size(checkpoint) <= 8192),
    revived_from     text REFERENCES job (id) ON DELETE SET NULL,
    last_error       text
) WITH (fillfactor = 70);                           -- room for HOT updates of the lease columns

-- The index behind every claim. Partial: finished rows outnumber waiting ones a thousand to one.
CREATE INDEX job_claim_idx ON job (queue, run_at) WHERE state = 'waiting';
CREATE INDEX job_lease_idx ON job (lease_expires_at) WHERE state = 'leased';
CREATE INDEX job_prune_idx ON job (finished_at) WHERE state IN ('done', 'cancelled');
CREATE INDEX job_dedupe_idx ON job (queue, dedupe_key, created_at) WHERE dedupe_key IS NOT NULL;

CREATE FUNCTION quern_effective_priority(priority smallint, created_at timestamptz) RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN priority = 0 THEN 0
                ELSE greatest(1, priority - floor(extract(epoch FROM now() - created_at) / 600)::integer) END
$$;

CREATE TABLE schedule (
    name       text PRIMARY KEY,
    cron       text NOT NULL,
    zone       text NOT NULL DEFAULT 'UTC',
    queue      text NOT NULL,
    kind       text NOT NULL,
    payload    jsonb NOT NULL DEFAULT '{}',
    misfire    text NOT NULL DEFAULT 'run_once' CHECK (misfire IN ('skip', 'run_once', 'catch_up')),
    paused     boolean NOT NULL DEFAULT false,
    last_fired timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE rate_bucket (
    queue      text PRIMARY KEY,
    tokens     double precision NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_token (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    digest     bytea NOT NULL,
    scopes     text[] NOT NULL,
    expires_at timestamptz
);

CREATE TABLE audit_entry (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,                         -- token name or unix user of quernctl
    action   text NOT NULL,
    subject  text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);

INSERT INTO schema_version (version) VALUES (7);
