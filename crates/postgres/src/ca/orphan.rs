//! Intents whose owner stopped working on them: takeover, extension, abandonment.

use std::time::Duration;

use ca_store::Serial;
use ca_store::{AbandonOutcome, Abandonment, JournalEntry};
use sqlx::PgConnection;

use super::{Context, entry, record};
use crate::{
    failure::Failure,
    stored::{milliseconds, optional_seconds},
    writer::Change,
};

/// [`claim_orphans`](ca_store::CaStore::claim_orphans).
pub(super) struct Claim {
    pub(super) lease: Duration,
    pub(super) limit: u32,
}

impl Change<Context> for Claim {
    type Outcome = Vec<JournalEntry>;

    async fn apply(
        &self,
        connection: &mut PgConnection,
        context: &mut Context,
    ) -> Result<Vec<JournalEntry>, Failure> {
        let lease = milliseconds(self.lease);
        // What another signer is at this moment taking or recording is passed over.
        let claimed = sqlx::query_scalar!(
            "WITH due AS (
                SELECT entry FROM pending WHERE lease_until_ms <= (SELECT now_ms())
                ORDER BY lease_until_ms, entry LIMIT $3 FOR UPDATE SKIP LOCKED)
             UPDATE pending SET owner = $1, lease_until_ms = now_ms() + $2
             FROM due WHERE pending.entry = due.entry
             RETURNING pending.entry",
            context.owner,
            lease,
            i64::from(self.limit)
        )
        .fetch_all(&mut *connection)
        .await?;
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        entry::all(entry::by_ids(connection, &claimed).await?)
    }
}

/// [`extend_leases`](ca_store::CaStore::extend_leases).
pub(super) struct Extend {
    pub(super) serials: Vec<Serial>,
    pub(super) lease: Duration,
}

impl Change<Context> for Extend {
    type Outcome = u64;

    async fn apply(&self, connection: &mut PgConnection, context: &mut Context) -> Result<u64, Failure> {
        let serials: Vec<&[u8]> = self.serials.iter().map(Serial::as_bytes).collect();
        let extended = sqlx::query!(
            "UPDATE pending SET lease_until_ms = now_ms() + $1
             FROM journal AS j
             WHERE j.serial = ANY($2) AND pending.entry = j.id AND pending.owner = $3",
            milliseconds(self.lease),
            &serials as &[&[u8]],
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
        connection: &mut PgConnection,
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
    connection: &mut PgConnection,
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
        "WITH taken AS (
            DELETE FROM pending USING journal AS j
            WHERE pending.entry = j.id AND j.serial = $4 AND j.kind = $5 AND pending.owner = $6
            RETURNING pending.entry)
         UPDATE journal SET abandoned_at = $1, mac_version = $2, mac = $3
         FROM taken WHERE journal.id = taken.entry",
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
