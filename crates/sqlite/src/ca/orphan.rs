//! Intents whose owner stopped working on them: takeover, extension, abandonment.

use std::time::Duration;

use ca_store::Serial;
use ca_store::{AbandonOutcome, Abandonment, JournalEntry};
use sqlx::SqliteConnection;

use super::{Context, entry, record};
use crate::{
    failure::Failure,
    rows::Rows,
    stored::{milliseconds, optional_seconds},
    writer::Change,
};

/// The lock says that no other incarnation lives: what they left is free at once.
pub(super) async fn free_leases(connection: &mut SqliteConnection) -> Result<(), Failure> {
    sqlx::query!("UPDATE journal SET lease_until_ms = 0 WHERE lease_until_ms IS NOT NULL")
        .execute(&mut *connection)
        .await?;
    sqlx::query!("DELETE FROM leases").execute(connection).await?;
    Ok(())
}

/// [`claim_orphans`](ca_store::CaStore::claim_orphans).
pub(super) struct Claim {
    pub(super) lease: Duration,
    pub(super) limit: u32,
}

impl Change<Context> for Claim {
    type Outcome = Vec<JournalEntry>;

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        context: &mut Context,
    ) -> Result<Vec<JournalEntry>, Failure> {
        let lease = milliseconds(self.lease);
        let claimed = sqlx::query!(
            "UPDATE journal SET owner = ?, lease_until_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?
             WHERE id IN (
                SELECT id FROM journal
                WHERE lease_until_ms IS NOT NULL AND lease_until_ms <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
                ORDER BY lease_until_ms, id LIMIT ?)
             RETURNING id",
            context.owner,
            lease,
            self.limit
        )
        .fetch_all(&mut *connection)
        .await?;
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        let ids = serde_json::Value::from(claimed.iter().map(|row| row.id).collect::<Vec<i64>>()).to_string();
        entry::all(entry::by_ids(connection, &ids).await?)
    }
}

/// [`extend_leases`](ca_store::CaStore::extend_leases).
pub(super) struct Extend {
    pub(super) serials: Vec<Serial>,
    pub(super) lease: Duration,
}

impl Change<Context> for Extend {
    type Outcome = u64;

    async fn apply(&self, connection: &mut SqliteConnection, context: &mut Context) -> Result<u64, Failure> {
        let mut rows = Rows::new();
        for serial in &self.serials {
            rows.row().octets(serial.as_bytes());
        }
        let (json, octets) = rows.finish();
        let octets = octets.as_slice();
        let lease = milliseconds(self.lease);
        let extended = sqlx::query!(
            "UPDATE journal SET lease_until_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?
             WHERE serial IN (SELECT substr(?, r.value ->> 0, r.value ->> 1) FROM json_each(?) AS r)
               AND lease_until_ms IS NOT NULL AND owner = ?",
            lease,
            octets,
            json,
            context.owner
        )
        .execute(connection)
        .await?;
        Ok(extended.rows_affected())
    }
}

/// [`abandon`](ca_store::CaStore::abandon).
pub(super) struct Abandon(pub(super) Vec<Abandonment>);

impl Change<Context> for Abandon {
    type Outcome = Vec<AbandonOutcome>;

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        context: &mut Context,
    ) -> Result<Vec<AbandonOutcome>, Failure> {
        let mut outcomes = Vec::with_capacity(self.0.len());
        for abandonment in &self.0 {
            outcomes.push(abandon(connection, context, abandonment).await?);
        }
        Ok(outcomes)
    }
}

async fn abandon(
    connection: &mut SqliteConnection,
    context: &mut Context,
    abandonment: &Abandonment,
) -> Result<AbandonOutcome, Failure> {
    let row = abandonment.row.unverified();
    let mac = abandonment.row.mac();
    let (serial, kind) = (row.serial.as_bytes(), row.kind.as_str());
    let at = optional_seconds(row.abandoned_at);
    let (version, octets) = (i64::from(mac.key_version), mac.mac.as_slice());
    // Another's intent is first to be taken over.
    let abandoned = sqlx::query!(
        "UPDATE journal SET abandoned_at = ?, mac_version = ?, mac = ?, owner = NULL, lease_until_ms = NULL
         WHERE serial = ? AND kind = ? AND signature IS NULL AND abandoned_at IS NULL AND owner = ?",
        at,
        version,
        octets,
        serial,
        kind,
        context.owner
    )
    .execute(&mut *connection)
    .await?;
    if abandoned.rows_affected() > 0 {
        context.audit.extend_from_slice(&abandonment.audit);
        return Ok(AbandonOutcome::Abandoned);
    }
    Ok(match record::entry(connection, row.serial, row.kind).await? {
        Some(entry) => AbandonOutcome::Lost(Box::new(entry)),
        None => AbandonOutcome::Unknown,
    })
}
