-- The fronts' database. Rows and their meaning: crate `acme-store`. Nothing in it is believed by a
-- signer. Times are seconds since the epoch, leases milliseconds of this database's clock.

CREATE TABLE orders (
    row            INTEGER PRIMARY KEY,
    id             TEXT    NOT NULL UNIQUE,
    directory      TEXT    NOT NULL,
    account        TEXT    NOT NULL,
    status         TEXT    NOT NULL,
    authorizations TEXT    NOT NULL,
    replaces       TEXT,
    state          TEXT,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    lease_until_ms INTEGER,
    version        INTEGER NOT NULL
) STRICT;

-- The state of an order while it is long, that is while it has the client's requests in it; `orders.state`
-- is absent then. A row that grew to three kilobytes and shrank to three hundred would keep its page:
-- pages of this table are free again when its orders are done.
CREATE TABLE order_states (
    order_row INTEGER PRIMARY KEY REFERENCES orders (row) ON DELETE CASCADE,
    state     TEXT NOT NULL
) STRICT;

-- The orders list of an account, and how many it has under way. Account ids are hashes: the beginning of
-- one finds its rows, and those of no other.
CREATE INDEX orders_of_account ON orders (substr(account, 1, 12), status);

-- Retention: dead orders are found without reading living ones.
CREATE INDEX orders_by_expiry ON orders (expires_at);

-- Orders under way, for the sweeper: as many entries as there are finalize requests being answered.
CREATE INDEX orders_processing ON orders (lease_until_ms) WHERE lease_until_ms IS NOT NULL;

-- A certificate has at most one order that is to replace it, but for those that came to nothing (RFC 9773 §5).
CREATE UNIQUE INDEX orders_replaces ON orders (replaces) WHERE replaces IS NOT NULL AND status <> 'invalid';

CREATE TABLE authorizations (
    id         TEXT    NOT NULL UNIQUE,
    directory  TEXT    NOT NULL,
    account    TEXT    NOT NULL,
    identifier TEXT    NOT NULL,
    wildcard   INTEGER NOT NULL,
    status     TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    version    INTEGER NOT NULL
) STRICT;

-- Reuse, and how many an account has under way.
CREATE INDEX authorizations_open ON authorizations (substr(account, 1, 12), status, identifier, wildcard)
    WHERE status IN ('pending', 'valid');

-- Retention.
CREATE INDEX authorizations_by_expiry ON authorizations (expires_at);

CREATE TABLE counters (
    key        TEXT    NOT NULL,
    start_at   INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    PRIMARY KEY (key, start_at)
) STRICT, WITHOUT ROWID;

-- Retention.
CREATE INDEX counters_by_expiry ON counters (expires_at);

-- Failed validations of an account for an identifier, none having succeeded since.
CREATE TABLE failures (
    row        INTEGER PRIMARY KEY,
    account    TEXT    NOT NULL,
    identifier TEXT    NOT NULL,
    wildcard   INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Limits; account ids are hashes.
CREATE INDEX failures_of_account ON failures (substr(account, 1, 12), identifier, wildcard);

-- Retention.
CREATE INDEX failures_by_expiry ON failures (expires_at);
