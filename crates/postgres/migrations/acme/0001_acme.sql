-- The fronts' database. Rows and their meaning: crate `acme-store`. Nothing in it is believed by a
-- signer. Everything is in the schema `acme`, which is the search path while migrations run. Times are
-- seconds since the epoch, leases milliseconds of this database's clock.

CREATE FUNCTION now_ms() RETURNS BIGINT LANGUAGE SQL VOLATILE
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint';

-- An order changes four times in its life. Half of each page is kept free for that.
CREATE TABLE orders (
    row            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    lease_until_ms BIGINT,
    version        BIGINT NOT NULL,
    id             TEXT COLLATE "C" NOT NULL UNIQUE,
    directory      TEXT COLLATE "C" NOT NULL,
    account        TEXT COLLATE "C" NOT NULL,
    status         TEXT COLLATE "C" NOT NULL,
    authorizations TEXT[] COLLATE "C" NOT NULL,
    replaces       TEXT COLLATE "C",
    state          TEXT COLLATE "C" NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- The orders list of an account. Account ids are hashes: the beginning of one finds its rows, and those of
-- no other.
CREATE INDEX orders_of_account ON orders (substr(account, 1, 12));

-- How many an account has under way.
CREATE INDEX orders_open ON orders (substr(account, 1, 12)) WHERE status IN ('pending', 'ready', 'processing');

-- Retention: dead orders are found without reading living ones.
CREATE INDEX orders_by_expiry ON orders (expires_at);

-- Orders under way, for the sweeper: as many entries as there are finalize requests being answered.
CREATE INDEX orders_processing ON orders (lease_until_ms) WHERE lease_until_ms IS NOT NULL;

-- A certificate has at most one order that is to replace it, but for those that came to nothing (RFC 9773 §5).
CREATE UNIQUE INDEX orders_replaces ON orders (replaces) WHERE replaces IS NOT NULL AND status <> 'invalid';

CREATE TABLE authorizations (
    created_at BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL,
    version    BIGINT  NOT NULL,
    wildcard   BOOLEAN NOT NULL,
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    directory  TEXT COLLATE "C" NOT NULL,
    account    TEXT COLLATE "C" NOT NULL,
    identifier TEXT COLLATE "C" NOT NULL,
    status     TEXT COLLATE "C" NOT NULL,
    state      TEXT COLLATE "C" NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Reuse, and how many an account has under way.
CREATE INDEX authorizations_valid ON authorizations (substr(account, 1, 12), identifier)
    WHERE status = 'valid';
CREATE INDEX authorizations_pending ON authorizations (substr(account, 1, 12)) WHERE status = 'pending';

-- Retention.
CREATE INDEX authorizations_by_expiry ON authorizations (expires_at);

CREATE TABLE counters (
    start_at   BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    count      BIGINT NOT NULL,
    key        TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (key, start_at)
) WITH (fillfactor = 50);

-- Retention.
CREATE INDEX counters_by_expiry ON counters (expires_at);

-- Failed validations of an account for an identifier, none having succeeded since.
CREATE TABLE failures (
    row        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    wildcard   BOOLEAN NOT NULL,
    account    TEXT COLLATE "C" NOT NULL,
    identifier TEXT COLLATE "C" NOT NULL
);

-- Limits; account ids are hashes.
CREATE INDEX failures_of_account ON failures (substr(account, 1, 12), identifier, wildcard);

-- Retention.
CREATE INDEX failures_by_expiry ON failures (expires_at);

-- What a front may do.
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'chancery_front') THEN
        CREATE ROLE chancery_front NOLOGIN;
    END IF;
EXCEPTION
    -- Made by another database's migration at the same time.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

REVOKE ALL ON SCHEMA acme FROM PUBLIC;
GRANT USAGE ON SCHEMA acme TO chancery_front;
GRANT SELECT ON ALL TABLES IN SCHEMA acme TO chancery_front;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA acme TO chancery_front;
GRANT INSERT, UPDATE, DELETE ON orders, authorizations, counters, failures TO chancery_front;
