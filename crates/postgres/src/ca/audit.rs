//! Audit rows and their chain; refusals.

use ca_store::Timestamp;
use ca_store::{AuditChain, AuditEvent, AuditHead, AuditRecord, Incarnation, RefusalCount};
use sqlx::PgConnection;

use super::Context;
use crate::{
    failure::Failure,
    stored::{Table, columns, number, seconds},
    writer::Change,
};

const AUDIT: Table = Table("audit");
const INCARNATIONS: Table = Table("incarnations");
const REFUSALS: Table = Table("refusals");

/// Appends what a batch reports to the chain.
pub(super) async fn append(
    connection: &mut PgConnection,
    incarnation: i64,
    chain: &mut AuditChain,
    events: Vec<AuditEvent>,
) -> Result<(), Failure> {
    if events.is_empty() {
        return Ok(());
    }
    let records: Vec<AuditRecord> = events.into_iter().map(|event| chain.append(event)).collect();
    columns!(&records, |record| {
        sequences: i64 = number(record.sequence),
        times: i64 = seconds(record.event.at),
        kinds: &str = record.event.kind.as_str(),
        actors: &str = record.event.actor.as_str(),
        subjects: &str = record.event.subject.as_str(),
        details: &str = record.event.detail.as_str(),
        hashes: &[u8] = record.hash.as_slice(),
    });
    sqlx::query!(
        "INSERT INTO audit (incarnation, sequence, at, kind, actor, subject, detail, hash)
         SELECT $1, * FROM UNNEST(
            $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[])",
        incarnation,
        &sequences,
        &times,
        &kinds as &[&str],
        &actors as &[&str],
        &subjects as &[&str],
        &details as &[&str],
        &hashes as &[&[u8]]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The chain of an incarnation as it is stored.
pub(super) async fn resume(
    connection: &mut PgConnection,
    number: i64,
    incarnation: &Incarnation,
) -> Result<AuditChain, Failure> {
    let last = sqlx::query!(
        "SELECT sequence, hash FROM audit WHERE incarnation = $1 ORDER BY sequence DESC LIMIT 1",
        number
    )
    .fetch_optional(connection)
    .await?;
    let Some(last) = last else { return Ok(AuditChain::start(incarnation)) };
    Ok(AuditChain::resume(&AuditHead {
        number: INCARNATIONS.unsigned("number", number)?,
        incarnation: incarnation.clone(),
        sequence: AUDIT.unsigned("sequence", last.sequence)?,
        hash: AUDIT.digest("hash", last.hash)?,
    }))
}

/// [`append_audit`](ca_store::CaStore::append_audit).
pub(super) struct Append {
    pub(super) events: Vec<AuditEvent>,
    pub(super) refusals: Vec<RefusalCount>,
}

impl Change<Context> for Append {
    type Outcome = ();

    async fn apply(&self, connection: &mut PgConnection, context: &mut Context) -> Result<(), Failure> {
        for refusal in &self.refusals {
            let hour = seconds(refusal.hour) / HOUR * HOUR;
            let count = number(refusal.count);
            sqlx::query!(
                "INSERT INTO refusals (hour, reason, directory, count) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (hour, reason, directory) DO UPDATE SET count = refusals.count + excluded.count",
                hour,
                refusal.reason,
                refusal.directory,
                count
            )
            .execute(&mut *connection)
            .await?;
        }
        context.audit.extend_from_slice(&self.events);
        Ok(())
    }
}

const HOUR: i64 = 3600;

pub(super) async fn page(
    connection: &mut PgConnection,
    incarnation: u64,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditRecord>, Failure> {
    let (incarnation, after) = (number(incarnation), number(after));
    let rows = sqlx::query!(
        "SELECT sequence, at, kind, actor, subject, detail, hash FROM audit
         WHERE incarnation = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
        incarnation,
        after,
        i64::from(limit)
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(AuditRecord {
                sequence: AUDIT.unsigned("sequence", row.sequence)?,
                event: AuditEvent {
                    at: AUDIT.time("at", row.at)?,
                    kind: row.kind,
                    actor: row.actor,
                    subject: row.subject,
                    detail: row.detail,
                },
                hash: AUDIT.digest("hash", row.hash)?,
            })
        })
        .collect()
}

pub(super) async fn heads(connection: &mut PgConnection) -> Result<Vec<AuditHead>, Failure> {
    let rows = sqlx::query!(
        r#"SELECT i.number, i.id, i.node, a.sequence AS "sequence?", a.hash AS "hash?"
           FROM incarnations AS i LEFT JOIN LATERAL (
                SELECT sequence, hash FROM audit WHERE incarnation = i.number ORDER BY sequence DESC LIMIT 1
                ) AS a ON TRUE
           ORDER BY i.number"#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let incarnation = Incarnation {
                id: row.id.try_into().map_err(|_| INCARNATIONS.corrupt("id"))?,
                node: row.node,
            };
            let hash = match row.hash {
                Some(hash) => AUDIT.digest("hash", hash)?,
                None => *AuditChain::start(&incarnation).hash(),
            };
            Ok(AuditHead {
                number: INCARNATIONS.unsigned("number", row.number)?,
                incarnation,
                sequence: AUDIT.unsigned("sequence", row.sequence.unwrap_or(0))?,
                hash,
            })
        })
        .collect()
}

pub(super) async fn refusals(
    connection: &mut PgConnection,
    since: Timestamp,
) -> Result<Vec<RefusalCount>, Failure> {
    let since = seconds(since) / HOUR * HOUR;
    let rows = sqlx::query!(
        "SELECT hour, reason, directory, count FROM refusals WHERE hour >= $1 ORDER BY hour, reason, directory",
        since
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(RefusalCount {
                hour: REFUSALS.time("hour", row.hour)?,
                reason: row.reason,
                directory: row.directory,
                count: REFUSALS.unsigned("count", row.count)?,
            })
        })
        .collect()
}
