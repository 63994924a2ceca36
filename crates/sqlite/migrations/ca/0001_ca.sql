-- The signers' database. Rows and their meaning: crate `ca-store`.
--
-- Times are seconds since the epoch, leases milliseconds of this database's clock. Columns `mac_version`
-- and `mac` are a row's MAC (crate `ca-store`, `RowMac`); columns that grant nothing (owner, lease,
-- bookkeeping of CRLs) are outside it. An index is written with every row: each says what it is for.

CREATE TABLE ca_meta (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    epoch        INTEGER NOT NULL,
    epoch_random BLOB    NOT NULL,
    high_water   INTEGER NOT NULL
) STRICT;

INSERT INTO ca_meta (one, epoch, epoch_random, high_water) VALUES (1, 1, randomblob(16), 0);

-- One life of one signer. Its number names it in leases and in the audit.
CREATE TABLE incarnations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id     BLOB NOT NULL UNIQUE,
    node   TEXT NOT NULL
) STRICT;

CREATE TABLE leases (
    name     TEXT    PRIMARY KEY,
    owner    INTEGER NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What an operator configures.

CREATE TABLE tenants (
    id          TEXT    PRIMARY KEY,
    title       TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    mac_version INTEGER NOT NULL,
    mac         BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE directories (
    name        TEXT    PRIMARY KEY,
    tenant      TEXT    NOT NULL REFERENCES tenants (id),
    policy      TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    mac_version INTEGER NOT NULL,
    mac         BLOB    NOT NULL
) STRICT;

CREATE TABLE profiles (
    name        TEXT    PRIMARY KEY,
    body        TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    mac_version INTEGER NOT NULL,
    mac         BLOB    NOT NULL
) STRICT;

CREATE TABLE issuers (
    id          TEXT    PRIMARY KEY,
    certificate BLOB    NOT NULL,
    settings    TEXT    NOT NULL,
    shards      INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    mac_version INTEGER NOT NULL,
    mac         BLOB    NOT NULL
) STRICT;

-- What an operator granted to whom.

CREATE TABLE registrations (
    id          TEXT    PRIMARY KEY,
    directory   TEXT    NOT NULL REFERENCES directories (name),
    title       TEXT    NOT NULL,
    settings    TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    mac_version INTEGER NOT NULL,
    mac         BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- Lists by directory.
CREATE INDEX registrations_of_directory ON registrations (directory);

CREATE TABLE eab_keys (
    kid            TEXT    PRIMARY KEY,
    registration   TEXT    NOT NULL REFERENCES registrations (id),
    secret_version INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    max_uses       INTEGER,
    uses           INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    expires_at     INTEGER,
    created_at     INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    mac_version    INTEGER NOT NULL,
    mac            BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- What hangs on a registration.
CREATE INDEX eab_keys_of_registration ON eab_keys (registration);

CREATE TABLE permits (
    id           TEXT    PRIMARY KEY,
    registration TEXT    NOT NULL REFERENCES registrations (id),
    scope        TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    mac_version  INTEGER NOT NULL,
    mac          BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX permits_of_registration ON permits (registration);

CREATE TABLE grants (
    id           TEXT    PRIMARY KEY,
    registration TEXT    NOT NULL REFERENCES registrations (id),
    scope        TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    expires_at   INTEGER,
    created_at   INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    mac_version  INTEGER NOT NULL,
    mac          BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX grants_of_registration ON grants (registration);

-- "authorization" is an SQL keyword.
CREATE TABLE deactivations (
    authorization_id TEXT    PRIMARY KEY,
    account          TEXT    NOT NULL,
    request          BLOB    NOT NULL,
    at               INTEGER NOT NULL,
    mac_version      INTEGER NOT NULL,
    mac              BLOB    NOT NULL
) STRICT;

CREATE TABLE nodes (
    role         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    settings     TEXT    NOT NULL,
    receipt_key  BLOB,
    server_names TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    mac_version  INTEGER NOT NULL,
    mac          BLOB    NOT NULL,
    PRIMARY KEY (role, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE join_tokens (
    digest       BLOB    PRIMARY KEY,
    role         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    server_names TEXT    NOT NULL,
    settings     TEXT    NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER,
    created_at   INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    mac_version  INTEGER NOT NULL,
    mac          BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE blocked_keys (
    spki_sha256 BLOB    PRIMARY KEY,
    reason      TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX blocked_keys_by_time ON blocked_keys (at, spki_sha256);

-- Accounts.

CREATE TABLE accounts (
    row             INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    directory       TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    contacts        TEXT    NOT NULL,
    terms_agreed_at INTEGER,
    terms_agreed    TEXT,
    registration    TEXT    REFERENCES registrations (id),
    eab_kid         TEXT,
    key             BLOB    NOT NULL,
    created_at      INTEGER NOT NULL,
    version         INTEGER NOT NULL,
    mac_version     INTEGER NOT NULL,
    mac             BLOB    NOT NULL
) STRICT;

-- Lists by directory, and by registration (also counted by limits).
CREATE INDEX accounts_of_directory ON accounts (directory);
CREATE INDEX accounts_of_registration ON accounts (registration) WHERE registration IS NOT NULL;

-- A key exists once in a directory, for ever: a former key never returns. By thumbprint first: a certificate's key must
-- be no account's in any directory.
CREATE TABLE account_keys (
    directory   TEXT    NOT NULL,
    thumbprint  BLOB    NOT NULL,
    account     TEXT    NOT NULL REFERENCES accounts (id),
    jwk         TEXT    NOT NULL,
    valid_from  INTEGER NOT NULL,
    valid_until INTEGER,
    mac_version INTEGER NOT NULL,
    mac         BLOB    NOT NULL,
    UNIQUE (thumbprint, directory)
) STRICT;

-- The keys of an account are read with it.
CREATE INDEX account_keys_of_account ON account_keys (account);

-- Accepted updates, by the digest of their JWS: a request is good once.
CREATE TABLE account_requests (
    account TEXT NOT NULL,
    digest  BLOB NOT NULL,
    PRIMARY KEY (account, digest)
) STRICT, WITHOUT ROWID;

-- The journal. `id` orders it in time and keeps the tables and indexes that refer to it small.

CREATE TABLE journal (
    id             INTEGER PRIMARY KEY,
    serial         BLOB    NOT NULL,
    kind           TEXT    NOT NULL,
    order_id       TEXT,
    new_order      BLOB,
    directory      TEXT,
    account        TEXT,
    issuer         TEXT    NOT NULL,
    profile        TEXT    NOT NULL,
    shard          INTEGER NOT NULL,
    spki_sha256    BLOB    NOT NULL,
    csr_sha256     BLOB,
    not_before     INTEGER NOT NULL,
    not_after      INTEGER NOT NULL,
    tbs            BLOB    NOT NULL,
    created_at     INTEGER NOT NULL,
    signature      BLOB,
    signed_at      INTEGER,
    abandoned_at   INTEGER,
    replaces       BLOB,
    counted        INTEGER NOT NULL,
    mac_version    INTEGER NOT NULL,
    mac            BLOB    NOT NULL,
    owner          INTEGER,
    lease_until_ms INTEGER,
    name_count     INTEGER NOT NULL
) STRICT;

-- Uniqueness of serials; download, OCSP and revocation by serial.
CREATE UNIQUE INDEX journal_serial ON journal (serial, kind);

-- One order, and one newOrder JWS, yield at most one certificate.
CREATE UNIQUE INDEX journal_order ON journal (order_id, kind)
    WHERE order_id IS NOT NULL AND abandoned_at IS NULL;
CREATE UNIQUE INDEX journal_new_order ON journal (new_order, kind)
    WHERE new_order IS NOT NULL AND abandoned_at IS NULL;

-- A certificate has at most one successor (RFC 9773 §5).
CREATE UNIQUE INDEX journal_replaces ON journal (replaces, kind)
    WHERE replaces IS NOT NULL AND abandoned_at IS NULL;

-- Lists and limits by account, in time. Account ids are hashes: the beginning of one finds its rows, and
-- those of no other.
CREATE INDEX journal_account ON journal (substr(account, 1, 12), created_at) WHERE account IS NOT NULL;

-- Lists by issuer, and by expiry within each issuer.
CREATE INDEX journal_issuer ON journal (issuer, not_after);

-- The certificates of a compromised key.
CREATE INDEX journal_key ON journal (spki_sha256);

-- Lists by profile, and by time within each profile. New entries go to the end of their profile.
CREATE INDEX journal_profile ON journal (profile, created_at);

-- Intents under way: as many entries as there are signatures being made.
CREATE INDEX journal_pending ON journal (lease_until_ms) WHERE lease_until_ms IS NOT NULL;

-- Abandoned entries of an order, and of a newOrder JWS: almost none exist.
CREATE INDEX journal_abandoned ON journal (order_id) WHERE abandoned_at IS NOT NULL;
CREATE INDEX journal_abandoned_new_order ON journal (new_order) WHERE abandoned_at IS NOT NULL;

CREATE TABLE evidence (
    entry     INTEGER PRIMARY KEY REFERENCES journal (id),
    new_order BLOB NOT NULL,
    finalize  BLOB NOT NULL,
    receipts  BLOB NOT NULL,
    lints     BLOB NOT NULL
) STRICT;

-- Names, their labels reversed (`org.example.www`), so that a domain is a range. Written with its entry and
-- never apart, so that no reference to it has to be checked each time.
CREATE TABLE journal_names (
    name  TEXT    NOT NULL,
    entry INTEGER NOT NULL,
    PRIMARY KEY (name, entry)
) STRICT, WITHOUT ROWID;

-- Registered domains, labels reversed, of entries that limits count, in time: a limit reads what lies in its period, however
-- many certificates a domain has had before.
CREATE TABLE journal_domains (
    domain     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    entry      INTEGER NOT NULL,
    PRIMARY KEY (domain, created_at, entry)
) STRICT, WITHOUT ROWID;

-- Revocation. In the order of revisions: a CRL is read as it lies.

CREATE TABLE revocations (
    issuer           TEXT    NOT NULL,
    shard            INTEGER NOT NULL,
    serial           BLOB    NOT NULL,
    revision         INTEGER NOT NULL,
    revoked_at       INTEGER NOT NULL,
    reason           INTEGER NOT NULL,
    not_after        INTEGER NOT NULL,
    upgrade_revision INTEGER,
    upgraded_at      INTEGER,
    PRIMARY KEY (issuer, shard, revision)
) STRICT, WITHOUT ROWID;

-- A certificate is revoked once; its revocation is read with its entry.
CREATE UNIQUE INDEX revocations_serial ON revocations (issuer, shard, serial);

-- What was revoked for another reason since a revision: almost nothing.
CREATE UNIQUE INDEX revocations_upgrade ON revocations (issuer, shard, upgrade_revision)
    WHERE upgrade_revision IS NOT NULL;

-- Entries whose certificates ended in the meantime leave the next CRL.
CREATE INDEX revocations_end ON revocations (issuer, shard, not_after);

-- Who asked for a revocation and how; apart, so that making a CRL does not read it.
CREATE TABLE revocation_requests (
    serial  BLOB    NOT NULL,
    upgrade INTEGER NOT NULL,
    source  TEXT    NOT NULL,
    request BLOB,
    PRIMARY KEY (serial, upgrade)
) STRICT;

CREATE TABLE crl_shards (
    issuer          TEXT    NOT NULL,
    shard           INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    published       INTEGER,
    published_delta INTEGER,
    PRIMARY KEY (issuer, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE crls (
    issuer         TEXT    NOT NULL,
    shard          INTEGER NOT NULL,
    number         INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    base           INTEGER,
    base_revision  INTEGER,
    this_update    INTEGER NOT NULL,
    next_update    INTEGER NOT NULL,
    expired_before INTEGER NOT NULL,
    entries        INTEGER NOT NULL,
    tbs_sha256     BLOB    NOT NULL,
    signature      BLOB,
    PRIMARY KEY (issuer, shard, number)
) STRICT, WITHOUT ROWID;

-- CRLs of authorities whose keys are elsewhere, as operators imported them: one an authority.
CREATE TABLE imported_crls (
    authority   TEXT    PRIMARY KEY,
    number      INTEGER NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    der         BLOB    NOT NULL,
    imported_at INTEGER NOT NULL,
    imported_by TEXT    NOT NULL
) STRICT;

-- Incidents: certificates that are to be replaced by a deadline, and are revoked after it.

CREATE TABLE incidents (
    id           TEXT    PRIMARY KEY,
    title        TEXT    NOT NULL,
    url          TEXT    NOT NULL,
    settings     TEXT    NOT NULL,
    reason       INTEGER NOT NULL,
    waves        INTEGER NOT NULL,
    begins_at    INTEGER NOT NULL,
    wave_seconds INTEGER NOT NULL,
    deadline     INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    ended_at     INTEGER,
    version      INTEGER NOT NULL,
    mac_version  INTEGER NOT NULL,
    mac          BLOB    NOT NULL
) STRICT;

-- Lists, newest first; those that signers work on are few.
CREATE INDEX incidents_by_time ON incidents (created_at, id);

-- Names are as in `journal_names`.
CREATE TABLE incident_members (
    incident TEXT    NOT NULL,
    serial   BLOB    NOT NULL,
    account  TEXT    NOT NULL,
    names    TEXT    NOT NULL,
    wave     INTEGER NOT NULL,
    state    TEXT    NOT NULL,
    PRIMARY KEY (incident, serial)
) STRICT, WITHOUT ROWID;

-- What is left of an incident; and the incidents of a certificate.
CREATE INDEX incident_members_left ON incident_members (incident, serial) WHERE state = 'left';
CREATE INDEX incident_members_serial ON incident_members (serial) WHERE state = 'left';

-- Numbers by account.
CREATE INDEX incident_members_account ON incident_members (incident, account, state);

-- Audit.

CREATE TABLE audit (
    incarnation INTEGER NOT NULL REFERENCES incarnations (number),
    sequence    INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    hash        BLOB    NOT NULL,
    PRIMARY KEY (incarnation, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE refusals (
    hour      INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    directory TEXT    NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (hour, reason, directory)
) STRICT, WITHOUT ROWID;
