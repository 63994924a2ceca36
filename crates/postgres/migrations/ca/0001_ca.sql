-- The signers' database. Rows and their meaning: crate `ca-store`. Everything is in the schema `ca`, which
-- is the search path while migrations run.
--
-- Times are seconds since the epoch, leases milliseconds of this database's clock. Columns `mac_version`
-- and `mac` are a row's MAC (crate `ca-store`, `RowMac`); columns that grant nothing (owner, lease,
-- bookkeeping of CRLs) are outside it. Texts compare by their octets: cursors and ranges of names must not
-- depend on a locale. An index is written with every row: each says what it is for.

CREATE FUNCTION now_ms() RETURNS BIGINT LANGUAGE SQL VOLATILE
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint';

CREATE TABLE ca_meta (
    one          BIGINT PRIMARY KEY CHECK (one = 1),
    epoch        BIGINT NOT NULL,
    epoch_random BYTEA    NOT NULL,
    high_water   BIGINT NOT NULL
);

INSERT INTO ca_meta (one, epoch, epoch_random, high_water) VALUES (1, 1, decode(replace(gen_random_uuid()::text, '-', ''), 'hex'), 0);

-- One life of one signer. Its number names it in leases and in the audit.
CREATE TABLE incarnations (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id     BYTEA NOT NULL UNIQUE,
    node   TEXT COLLATE "C" NOT NULL
);

CREATE TABLE leases (
    name     TEXT COLLATE "C" PRIMARY KEY,
    owner    BIGINT NOT NULL,
    until_ms BIGINT NOT NULL
);

-- What an operator configures.

CREATE TABLE tenants (
    id          TEXT COLLATE "C" PRIMARY KEY,
    title       TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    mac_version BIGINT NOT NULL,
    mac         BYTEA    NOT NULL
);

CREATE TABLE directories (
    name        TEXT COLLATE "C" PRIMARY KEY,
    tenant      TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    policy      TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    mac_version BIGINT NOT NULL,
    mac         BYTEA    NOT NULL
);

CREATE TABLE profiles (
    name        TEXT COLLATE "C" PRIMARY KEY,
    body        TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    mac_version BIGINT NOT NULL,
    mac         BYTEA    NOT NULL
);

CREATE TABLE issuers (
    id          TEXT COLLATE "C" PRIMARY KEY,
    certificate BYTEA    NOT NULL,
    settings    TEXT COLLATE "C" NOT NULL,
    shards      BIGINT NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    mac_version BIGINT NOT NULL,
    mac         BYTEA    NOT NULL
);

-- What an operator granted to whom.

CREATE TABLE registrations (
    id          TEXT COLLATE "C" PRIMARY KEY,
    directory   TEXT COLLATE "C" NOT NULL REFERENCES directories (name),
    title       TEXT COLLATE "C" NOT NULL,
    settings    TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    mac_version BIGINT NOT NULL,
    mac         BYTEA    NOT NULL
);

-- Lists by directory.
CREATE INDEX registrations_of_directory ON registrations (directory);

CREATE TABLE eab_keys (
    kid            TEXT COLLATE "C" PRIMARY KEY,
    registration   TEXT COLLATE "C" NOT NULL REFERENCES registrations (id),
    secret_version BIGINT NOT NULL,
    epoch          BIGINT NOT NULL,
    max_uses       BIGINT,
    uses           BIGINT NOT NULL,
    state          TEXT COLLATE "C" NOT NULL,
    expires_at     BIGINT,
    created_at     BIGINT NOT NULL,
    version        BIGINT NOT NULL,
    mac_version    BIGINT NOT NULL,
    mac            BYTEA    NOT NULL
);

-- What hangs on a registration.
CREATE INDEX eab_keys_of_registration ON eab_keys (registration);

CREATE TABLE permits (
    id           TEXT COLLATE "C" PRIMARY KEY,
    registration TEXT COLLATE "C" NOT NULL REFERENCES registrations (id),
    scope        TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    state        TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    version      BIGINT NOT NULL,
    mac_version  BIGINT NOT NULL,
    mac          BYTEA    NOT NULL
);

CREATE INDEX permits_of_registration ON permits (registration);

CREATE TABLE grants (
    id           TEXT COLLATE "C" PRIMARY KEY,
    registration TEXT COLLATE "C" NOT NULL REFERENCES registrations (id),
    scope        TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    state        TEXT COLLATE "C" NOT NULL,
    expires_at   BIGINT,
    created_at   BIGINT NOT NULL,
    version      BIGINT NOT NULL,
    mac_version  BIGINT NOT NULL,
    mac          BYTEA    NOT NULL
);

CREATE INDEX grants_of_registration ON grants (registration);

-- "authorization" is an SQL keyword.
CREATE TABLE deactivations (
    authorization_id TEXT COLLATE "C" PRIMARY KEY,
    account          TEXT COLLATE "C" NOT NULL,
    request          BYTEA    NOT NULL,
    at               BIGINT NOT NULL,
    mac_version      BIGINT NOT NULL,
    mac              BYTEA    NOT NULL
);

CREATE TABLE nodes (
    role         TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    settings     TEXT COLLATE "C" NOT NULL,
    receipt_key  BYTEA,
    server_names TEXT[] COLLATE "C" NOT NULL,
    state        TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    version      BIGINT NOT NULL,
    mac_version  BIGINT NOT NULL,
    mac          BYTEA    NOT NULL,
    PRIMARY KEY (role, name)
);

CREATE TABLE join_tokens (
    digest       BYTEA    PRIMARY KEY,
    role         TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    server_names TEXT[] COLLATE "C" NOT NULL,
    settings     TEXT COLLATE "C" NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT,
    created_at   BIGINT NOT NULL,
    version      BIGINT NOT NULL,
    mac_version  BIGINT NOT NULL,
    mac          BYTEA    NOT NULL
);

CREATE TABLE blocked_keys (
    spki_sha256 BYTEA    PRIMARY KEY,
    reason      TEXT COLLATE "C" NOT NULL,
    source      TEXT COLLATE "C" NOT NULL,
    at          BIGINT NOT NULL
);

CREATE INDEX blocked_keys_by_time ON blocked_keys (at, spki_sha256);

-- Accounts.

CREATE TABLE accounts (
    row             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              TEXT COLLATE "C" NOT NULL UNIQUE,
    directory       TEXT COLLATE "C" NOT NULL,
    status          TEXT COLLATE "C" NOT NULL,
    contacts        TEXT[] COLLATE "C" NOT NULL,
    terms_agreed_at BIGINT,
    terms_agreed    TEXT COLLATE "C",
    registration    TEXT COLLATE "C" REFERENCES registrations (id),
    eab_kid         TEXT COLLATE "C",
    key             BYTEA    NOT NULL,
    created_at      BIGINT NOT NULL,
    version         BIGINT NOT NULL,
    mac_version     BIGINT NOT NULL,
    mac             BYTEA    NOT NULL
);

-- Lists by directory, and by registration (also counted by limits).
CREATE INDEX accounts_of_directory ON accounts (directory);
CREATE INDEX accounts_of_registration ON accounts (registration) WHERE registration IS NOT NULL;

-- A key exists once in a directory, for ever: a former key never returns.
CREATE TABLE account_keys (
    row         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    directory   TEXT COLLATE "C" NOT NULL,
    thumbprint  BYTEA    NOT NULL,
    account     TEXT COLLATE "C" NOT NULL REFERENCES accounts (id),
    jwk         TEXT COLLATE "C" NOT NULL,
    valid_from  BIGINT NOT NULL,
    valid_until BIGINT,
    mac_version BIGINT NOT NULL,
    mac         BYTEA    NOT NULL,
    UNIQUE (thumbprint, directory)
);

-- The keys of an account are read with it.
CREATE INDEX account_keys_of_account ON account_keys (account);

-- Accepted updates, by the digest of their JWS: a request is good once.
CREATE TABLE account_requests (
    account TEXT COLLATE "C" NOT NULL,
    digest  BYTEA NOT NULL,
    PRIMARY KEY (account, digest)
);

-- The journal, written once: what becomes of an entry is a row elsewhere, so that its nine indexes are
-- written once. Only the abandonment of an intent, which is rare, changes it. `id` orders it in time and
-- keeps the tables and indexes that refer to it small.

CREATE TABLE journal (
    id             BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    not_before     BIGINT NOT NULL,
    not_after      BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    shard          BIGINT NOT NULL,
    mac_version    BIGINT NOT NULL,
    name_count     BIGINT NOT NULL,
    abandoned_at   BIGINT,
    serial         BYTEA  NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL,
    order_id       TEXT COLLATE "C",
    new_order      BYTEA,
    directory      TEXT COLLATE "C",
    account        TEXT COLLATE "C",
    issuer         TEXT COLLATE "C" NOT NULL,
    profile        TEXT COLLATE "C" NOT NULL,
    spki_sha256    BYTEA  NOT NULL,
    csr_sha256     BYTEA,
    replaces       BYTEA,
    counted        BOOLEAN NOT NULL,
    tbs            BYTEA  NOT NULL,
    mac            BYTEA  NOT NULL
);

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
CREATE INDEX journal_key ON journal (spki_sha256, id);

-- Lists by profile, and by time within each profile. New entries go to the end of their profile.
CREATE INDEX journal_profile ON journal (profile, created_at);

-- Abandoned entries of an order, and of a newOrder JWS: almost none exist.
CREATE INDEX journal_abandoned ON journal (order_id) WHERE abandoned_at IS NOT NULL;
CREATE INDEX journal_abandoned_new_order ON journal (new_order) WHERE abandoned_at IS NOT NULL;

-- Intents under way, neither signed nor abandoned: who takes an entry out of here decides what becomes of
-- it, and nobody else can. Rows come and go, so that it has to be cleaned often, which is cheap.
CREATE TABLE pending (
    entry          BIGINT PRIMARY KEY,
    owner          BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Takeover.
CREATE INDEX pending_lease ON pending (lease_until_ms);

-- Signatures, with the MAC that the entry has from then on. Written with their entry's departure from
-- `pending`, as are evidence and names with its arrival, so that no reference has to be checked each time.
CREATE TABLE signatures (
    entry       BIGINT PRIMARY KEY,
    signed_at   BIGINT NOT NULL,
    mac_version BIGINT NOT NULL,
    signature   BYTEA  NOT NULL,
    mac         BYTEA  NOT NULL
);

CREATE TABLE evidence (
    entry     BIGINT PRIMARY KEY,
    new_order BYTEA NOT NULL,
    finalize  BYTEA NOT NULL,
    receipts  BYTEA NOT NULL,
    lints     BYTEA NOT NULL
);

-- Names, their labels reversed (`org.example.www`), so that a domain is a range.
CREATE TABLE journal_names (
    name  TEXT COLLATE "C" NOT NULL,
    entry BIGINT NOT NULL,
    PRIMARY KEY (name, entry)
);

-- Registered domains, labels reversed, of entries that limits count, in time: a limit reads what lies in its period, however
-- many certificates a domain has had before.
CREATE TABLE journal_domains (
    domain     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    entry      BIGINT NOT NULL,
    PRIMARY KEY (domain, created_at, entry)
);

-- Revocation.

CREATE TABLE revocations (
    issuer           TEXT COLLATE "C" NOT NULL,
    shard            BIGINT NOT NULL,
    serial           BYTEA    NOT NULL,
    revision         BIGINT NOT NULL,
    revoked_at       BIGINT NOT NULL,
    reason           BIGINT NOT NULL,
    not_after        BIGINT NOT NULL,
    upgrade_revision BIGINT,
    upgraded_at      BIGINT,
    PRIMARY KEY (issuer, shard, serial)
);

-- CRLs are made in the order of revisions, which is that of the rows on the disk. And what was revoked, or revoked for
-- another reason, since a revision.
CREATE UNIQUE INDEX revocations_revision ON revocations (issuer, shard, revision);
CREATE UNIQUE INDEX revocations_upgrade ON revocations (issuer, shard, upgrade_revision)
    WHERE upgrade_revision IS NOT NULL;

-- Entries whose certificates ended in the meantime leave the next CRL.
CREATE INDEX revocations_end ON revocations (issuer, shard, not_after);

-- Who asked for a revocation and how; apart, so that making a CRL does not read it.
CREATE TABLE revocation_requests (
    serial  BYTEA    NOT NULL,
    upgrade BOOLEAN NOT NULL,
    source  TEXT COLLATE "C" NOT NULL,
    request BYTEA,
    PRIMARY KEY (serial, upgrade)
);

CREATE TABLE crl_shards (
    issuer          TEXT COLLATE "C" NOT NULL,
    shard           BIGINT NOT NULL,
    revision        BIGINT NOT NULL,
    number          BIGINT NOT NULL,
    published       BIGINT,
    published_delta BIGINT,
    PRIMARY KEY (issuer, shard)
);

CREATE TABLE crls (
    issuer         TEXT COLLATE "C" NOT NULL,
    shard          BIGINT NOT NULL,
    number         BIGINT NOT NULL,
    revision       BIGINT NOT NULL,
    base           BIGINT,
    base_revision  BIGINT,
    this_update    BIGINT NOT NULL,
    next_update    BIGINT NOT NULL,
    expired_before BIGINT NOT NULL,
    entries        BIGINT NOT NULL,
    tbs_sha256     BYTEA    NOT NULL,
    signature      BYTEA,
    PRIMARY KEY (issuer, shard, number)
);

-- CRLs of authorities whose keys are elsewhere, as operators imported them: one an authority.
CREATE TABLE imported_crls (
    authority   TEXT COLLATE "C" PRIMARY KEY,
    number      BIGINT NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    der         BYTEA  NOT NULL,
    imported_at BIGINT NOT NULL,
    imported_by TEXT COLLATE "C" NOT NULL
);

-- Incidents: certificates that are to be replaced by a deadline, and are revoked after it.

CREATE TABLE incidents (
    id           TEXT COLLATE "C" PRIMARY KEY,
    title        TEXT COLLATE "C" NOT NULL,
    url          TEXT COLLATE "C" NOT NULL,
    settings     TEXT COLLATE "C" NOT NULL,
    reason       BIGINT NOT NULL,
    waves        BIGINT NOT NULL,
    begins_at    BIGINT NOT NULL,
    wave_seconds BIGINT NOT NULL,
    deadline     BIGINT NOT NULL,
    state        TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    ended_at     BIGINT,
    version      BIGINT NOT NULL,
    mac_version  BIGINT NOT NULL,
    mac          BYTEA   NOT NULL
);

-- Lists, newest first; those that signers work on are few.
CREATE INDEX incidents_by_time ON incidents (created_at, id);

-- Names are as in `journal_names`.
CREATE TABLE incident_members (
    incident TEXT COLLATE "C" NOT NULL,
    serial   BYTEA   NOT NULL,
    account  TEXT COLLATE "C" NOT NULL,
    names    TEXT[] COLLATE "C" NOT NULL,
    wave     BIGINT NOT NULL,
    state    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (incident, serial)
);

-- What is left of an incident; and the incidents of a certificate.
CREATE INDEX incident_members_left ON incident_members (incident, serial) WHERE state = 'left';
CREATE INDEX incident_members_serial ON incident_members (serial) WHERE state = 'left';

-- Numbers by account.
CREATE INDEX incident_members_account ON incident_members (incident, account, state);

-- Audit.

CREATE TABLE audit (
    incarnation BIGINT NOT NULL,
    sequence    BIGINT NOT NULL,
    at          BIGINT NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    actor       TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    detail      TEXT COLLATE "C" NOT NULL,
    hash        BYTEA    NOT NULL,
    PRIMARY KEY (incarnation, sequence)
);

CREATE TABLE refusals (
    hour      BIGINT NOT NULL,
    reason    TEXT COLLATE "C" NOT NULL,
    directory TEXT COLLATE "C" NOT NULL,
    count     BIGINT NOT NULL,
    PRIMARY KEY (hour, reason, directory)
);

-- What a signer may do: read all, add to what only grows, change what is kept up to date. It deletes what is
-- under way, and nothing else. Whoever applies migrations owns all this, and need not be trusted with running.
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'chancery_signer') THEN
        CREATE ROLE chancery_signer NOLOGIN;
    END IF;
EXCEPTION
    -- Made by another database's migration at the same time.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

REVOKE ALL ON SCHEMA ca FROM PUBLIC;
GRANT USAGE ON SCHEMA ca TO chancery_signer;
GRANT SELECT ON ALL TABLES IN SCHEMA ca TO chancery_signer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA ca TO chancery_signer;

GRANT INSERT ON
    incarnations, leases, tenants, directories, profiles, issuers, registrations, eab_keys, permits, grants,
    deactivations, nodes, join_tokens, blocked_keys, accounts, account_keys, account_requests, journal, pending,
    signatures, evidence, journal_names, journal_domains, revocations, revocation_requests, crl_shards, crls, imported_crls,
    incidents, incident_members, audit, refusals
    TO chancery_signer;
GRANT UPDATE ON
    ca_meta, leases, tenants, directories, profiles, issuers, registrations, eab_keys, permits, grants, nodes,
    join_tokens, accounts, pending, crl_shards, imported_crls, incidents, refusals
    TO chancery_signer;
GRANT UPDATE (valid_until, mac_version, mac) ON account_keys TO chancery_signer;
GRANT UPDATE (abandoned_at, mac_version, mac) ON journal TO chancery_signer;
GRANT UPDATE (upgrade_revision, upgraded_at) ON revocations TO chancery_signer;
GRANT UPDATE (signature) ON crls TO chancery_signer;
GRANT UPDATE (state) ON incident_members TO chancery_signer;
GRANT DELETE ON pending TO chancery_signer;
