//! Audit rows and their chain; refusals.

use ca_store::Timestamp;
use ca_store::{AuditChain, AuditEvent, AuditHead, AuditRecord, Incarnation, RefusalCount};
use sqlx::SqliteConnection;

use super::Context;
use crate::{
    failure::Failure,
    rows::Rows,
    stored::{Table, number, seconds},
    writer::Change,
};

const AUDIT: Table = Table("audit");
const INCARNATIONS: Table = Table("incarnations");
const REFUSALS: Table = Table("refusals");

/// Appends what a batch reports to the chain.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    incarnation: i64,
    chain: &mut AuditChain,
    events: Vec<AuditEvent>,
) -> Result<(), Failure> {
    if events.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new();
    for event in events {
        let AuditRecord { sequence, event, hash } = chain.append(event);
        rows.row()
            .number(number(sequence))
            .number(seconds(event.at))
            .text(event.kind.as_str())
            .octets(event.actor.as_bytes())
            .octets(event.subject.as_bytes())
            .octets(event.detail.as_bytes())
            .octets(hash.as_slice());
    }
    let (json, octets) = rows.finish();
    let octets = octets.as_slice();
    sqlx::query!(
        "INSERT INTO audit (incarnation, sequence, at, kind, actor, subject, detail, hash)
         SELECT ?, r.value ->> 0, r.value ->> 1, r.value ->> 2,
                CAST(substr(?, r.value ->> 3, r.value ->> 4) AS TEXT),
                CAST(substr(?, r.value ->> 5, r.value ->> 6) AS TEXT),
                CAST(substr(?, r.value ->> 7, r.value ->> 8) AS TEXT),
                substr(?, r.value ->> 9, r.value ->> 10)
         FROM json_each(?) AS r",
        incarnation,
        octets,
        octets,
        octets,
        octets,
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The chain of an incarnation as it is stored.
pub(super) async fn resume(
    connection: &mut SqliteConnection,
    number: i64,
    incarnation: &Incarnation,
) -> Result<AuditChain, Failure> {
    let last = sqlx::query!(
        "SELECT sequence, hash FROM audit WHERE incarnation = ? ORDER BY sequence DESC LIMIT 1",
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

    async fn apply(&self, connection: &mut SqliteConnection, context: &mut Context) -> Result<(), Failure> {
        for refusal in &self.refusals {
            let hour = seconds(refusal.hour) / HOUR * HOUR;
            let count = number(refusal.count);
            sqlx::query!(
                "INSERT INTO refusals (hour, reason, directory, count) VALUES (?, ?, ?, ?)
                 ON CONFLICT (hour, reason, directory) DO UPDATE SET count = count + excluded.count",
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
    connection: &mut SqliteConnection,
    incarnation: u64,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditRecord>, Failure> {
    let (incarnation, after) = (number(incarnation), number(after));
    let rows = sqlx::query!(
        "SELECT sequence, at, kind, actor, subject, detail, hash FROM audit
         WHERE incarnation = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        incarnation,
        after,
        limit
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

pub(super) async fn heads(connection: &mut SqliteConnection) -> Result<Vec<AuditHead>, Failure> {
    let rows = sqlx::query!(
        r#"SELECT i.number, i.id, i.node, a.sequence AS "sequence?", a.hash AS "hash?"
           FROM incarnations AS i LEFT JOIN audit AS a ON a.incarnation = i.number AND a.sequence =
                (SELECT max(sequence) FROM audit WHERE incarnation = i.number)
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
    connection: &mut SqliteConnection,
    since: Timestamp,
) -> Result<Vec<RefusalCount>, Failure> {
    let since = seconds(since) / HOUR * HOUR;
    let rows = sqlx::query!(
        "SELECT hour, reason, directory, count FROM refusals WHERE hour >= ? ORDER BY hour, reason, directory",
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
