//! Entries of the journal, read.

use ca_store::{
    Evidence, JournalEntry, JournalKey, JournalKind, JournalRow, Lease, LedgerEntry, RevocationRow, Sealed,
    Serial, Upgrade,
};
use sqlx::SqliteConnection;

use crate::{failure::Failure, rows::Rows, stored::Table};

pub(super) const JOURNAL: Table = Table("journal");
const REVOCATIONS: Table = Table("revocations");
const SHARDS: Table = Table("crl_shards");

/// The entries that the rest of a query, with its arguments, selects from `journal AS j`.
macro_rules! entries {
    ($rest:literal $(+ $more:literal)* $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::ca::entry::Stored,
            r#"SELECT j.id AS "id!", j.serial, j.kind, j.order_id, j.new_order, j.directory, j.account, j.issuer,
                      j.profile, j.shard, j.spki_sha256, j.csr_sha256, j.not_before, j.not_after, j.tbs,
                      j.created_at, j.signature, j.signed_at, j.abandoned_at, j.replaces, j.counted AS "counted: bool",
                      j.mac_version, j.mac,
                      j.owner, j.lease_until_ms,
                      r.revision AS "revision?", r.revoked_at AS "revoked_at?", r.reason AS "reason?",
                      r.upgrade_revision AS "upgrade_revision?", r.upgraded_at AS "upgraded_at?",
                      q.source AS "source?",
                      coalesce(c.revision, (SELECT (epoch - 1) * 34359738368 FROM ca_meta)) AS "shard_revision!: i64"
               FROM journal AS j
                    LEFT JOIN revocations AS r
                           ON r.issuer = j.issuer AND r.shard = j.shard AND r.serial = j.serial
                    LEFT JOIN revocation_requests AS q ON q.serial = r.serial AND q.upgrade = 0
                    LEFT JOIN crl_shards AS c ON c.issuer = j.issuer AND c.shard = j.shard
            "# + $rest $(+ $more)*
            $(, $argument)*
        )
    };
}

pub(super) use entries;

/// An entry as it is stored.
pub(super) struct Stored {
    pub(super) id: i64,
    pub(super) serial: Vec<u8>,
    pub(super) kind: String,
    pub(super) order_id: Option<String>,
    pub(super) new_order: Option<Vec<u8>>,
    pub(super) directory: Option<String>,
    pub(super) account: Option<String>,
    pub(super) issuer: String,
    pub(super) profile: String,
    pub(super) shard: i64,
    pub(super) spki_sha256: Vec<u8>,
    pub(super) csr_sha256: Option<Vec<u8>>,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) tbs: Vec<u8>,
    pub(super) created_at: i64,
    pub(super) signature: Option<Vec<u8>>,
    pub(super) signed_at: Option<i64>,
    pub(super) abandoned_at: Option<i64>,
    pub(super) replaces: Option<Vec<u8>>,
    pub(super) counted: bool,
    pub(super) mac_version: i64,
    pub(super) mac: Vec<u8>,
    pub(super) owner: Option<i64>,
    pub(super) lease_until_ms: Option<i64>,
    pub(super) revision: Option<i64>,
    pub(super) revoked_at: Option<i64>,
    pub(super) reason: Option<i64>,
    pub(super) upgrade_revision: Option<i64>,
    pub(super) upgraded_at: Option<i64>,
    pub(super) source: Option<String>,
    /// Of the entry's shard: where the epoch begins, as long as it has no row.
    pub(super) shard_revision: i64,
}

impl Stored {
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn entry(self) -> Result<JournalEntry, Failure> {
        let revocation = self.revocation()?;
        let lease = match (self.owner, self.lease_until_ms) {
            (Some(owner), Some(until_ms)) => {
                Some(Lease { owner: JOURNAL.unsigned("owner", owner)?, until_ms })
            }
            _ => None,
        };
        let row = JournalRow {
            serial: JOURNAL.serial("serial", &self.serial)?,
            kind: JOURNAL.word("kind", &self.kind, JournalKind::from_word)?,
            order: self.order_id,
            new_order: JOURNAL.optional_digest("new_order", self.new_order)?,
            directory: self.directory,
            account: self.account,
            issuer: self.issuer,
            profile: self.profile,
            shard: JOURNAL.small("shard", self.shard)?,
            spki_sha256: JOURNAL.digest("spki_sha256", self.spki_sha256)?,
            csr_sha256: JOURNAL.optional_digest("csr_sha256", self.csr_sha256)?,
            not_before: JOURNAL.time("not_before", self.not_before)?,
            not_after: JOURNAL.time("not_after", self.not_after)?,
            tbs: self.tbs,
            created_at: JOURNAL.time("created_at", self.created_at)?,
            signature: self.signature,
            signed_at: JOURNAL.optional_time("signed_at", self.signed_at)?,
            abandoned_at: JOURNAL.optional_time("abandoned_at", self.abandoned_at)?,
            replaces: self.replaces.map(|serial| JOURNAL.serial("replaces", &serial)).transpose()?,
            counted: self.counted,
        };
        let mac = JOURNAL.mac(self.mac_version, self.mac)?;
        Ok(JournalEntry { row: Sealed::from_stored(row, mac), lease, revocation })
    }

    pub(super) fn revocation(&self) -> Result<Option<RevocationRow>, Failure> {
        let (Some(revision), Some(revoked_at), Some(reason)) = (self.revision, self.revoked_at, self.reason)
        else {
            return Ok(None);
        };
        let upgrade = match (self.upgrade_revision, self.upgraded_at) {
            (Some(revision), Some(at)) => Some(Upgrade {
                revision: REVOCATIONS.unsigned("upgrade_revision", revision)?,
                at: REVOCATIONS.time("upgraded_at", at)?,
            }),
            _ => None,
        };
        Ok(Some(RevocationRow {
            serial: JOURNAL.serial("serial", &self.serial)?,
            issuer: self.issuer.clone(),
            shard: JOURNAL.small("shard", self.shard)?,
            revision: REVOCATIONS.unsigned("revision", revision)?,
            revoked_at: REVOCATIONS.time("revoked_at", revoked_at)?,
            reason: REVOCATIONS.reason("reason", reason)?,
            source: self.source.clone().unwrap_or_default(),
            not_after: JOURNAL.time("not_after", self.not_after)?,
            upgrade,
        }))
    }
}

/// Entries, each as the trait has it.
pub(super) fn all(stored: Vec<Stored>) -> Result<Vec<JournalEntry>, Failure> {
    stored.into_iter().map(Stored::entry).collect()
}

/// [`journal`](ca_store::CaStore::journal).
pub(super) async fn by_key(
    connection: &mut SqliteConnection,
    key: &JournalKey,
) -> Result<Vec<JournalEntry>, Failure> {
    let stored = match key {
        JournalKey::Serial(serial) => {
            let serial = serial.as_bytes();
            entries!("WHERE j.serial = ? ORDER BY j.id", serial).fetch_all(connection).await?
        }
        // Two indexes, as an abandoned entry is in neither of the unique ones.
        JournalKey::Order(order) => {
            entries!(
                "WHERE j.order_id = ? AND j.abandoned_at IS NULL
                 OR j.order_id = ? AND j.abandoned_at IS NOT NULL
                 ORDER BY j.abandoned_at IS NOT NULL, j.id",
                order,
                order
            )
            .fetch_all(connection)
            .await?
        }
        JournalKey::NewOrder(digest) => {
            let digest = digest.as_slice();
            entries!(
                "WHERE j.new_order = ? AND j.abandoned_at IS NULL
                 OR j.new_order = ? AND j.abandoned_at IS NOT NULL
                 ORDER BY j.abandoned_at IS NOT NULL, j.id",
                digest,
                digest
            )
            .fetch_all(connection)
            .await?
        }
        JournalKey::Replacing(serial) => {
            let serial = serial.as_bytes();
            entries!("WHERE j.replaces = ? AND j.abandoned_at IS NULL ORDER BY j.id", serial)
                .fetch_all(connection)
                .await?
        }
    };
    all(stored)
}

/// Entries by their ids, a JSON list, in its order.
pub(super) async fn by_ids(connection: &mut SqliteConnection, ids: &str) -> Result<Vec<Stored>, Failure> {
    Ok(entries!("WHERE j.id IN (SELECT value FROM json_each(?)) ORDER BY j.id", ids)
        .fetch_all(connection)
        .await?)
}

/// [`ledger`](ca_store::CaStore::ledger): one statement, and so one snapshot.
pub(super) async fn ledger(
    connection: &mut SqliteConnection,
    serials: &[Serial],
) -> Result<Vec<LedgerEntry>, Failure> {
    let mut rows = Rows::new();
    for serial in serials {
        rows.row().octets(serial.as_bytes());
    }
    let (json, octets) = rows.finish();
    let octets = octets.as_slice();
    let stored = entries!(
        "WHERE j.serial IN (SELECT substr(?, r.value ->> 0, r.value ->> 1) FROM json_each(?) AS r) ORDER BY j.id",
        octets,
        json
    )
    .fetch_all(connection)
    .await?;
    let entry = |stored: Stored| {
        let revision = SHARDS.unsigned("revision", stored.shard_revision)?;
        Ok(LedgerEntry { entry: stored.entry()?, revision })
    };
    stored.into_iter().map(entry).collect()
}

/// [`evidence`](ca_store::CaStore::evidence).
pub(super) async fn evidence(
    connection: &mut SqliteConnection,
    serial: &Serial,
) -> Result<Option<Evidence>, Failure> {
    let serial = serial.as_bytes();
    let row = sqlx::query!(
        "SELECT e.new_order, e.finalize, e.receipts, e.lints
         FROM journal AS j JOIN evidence AS e ON e.entry = j.id
         WHERE j.serial = ? ORDER BY j.id LIMIT 1",
        serial
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Evidence {
        new_order: row.new_order,
        finalize: row.finalize,
        receipts: row.receipts,
        lints: row.lints,
    }))
}
