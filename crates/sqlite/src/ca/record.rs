//! Signatures, recorded (DESIGN §3 step 11): all of a batch in one statement.

use std::collections::HashSet;

use ca_store::Serial;
use ca_store::{JournalEntry, JournalKind, RecordOutcome, SignedRow};
use sqlx::SqliteConnection;

use super::{
    Context,
    entry::{JOURNAL, entries},
};
use crate::{failure::Failure, rows::Rows, stored::optional_seconds, writer::Job};

type Records = Job<Vec<SignedRow>, Vec<RecordOutcome>>;

/// Records the signatures of all jobs.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    context: &mut Context,
    jobs: &mut [&mut Records],
) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    let mut recorded = update(connection, jobs).await?;
    for job in jobs {
        let mut outcomes = Vec::with_capacity(job.input.len());
        for signed in &job.input {
            let row = signed.row.unverified();
            // Taken out, so that a second signature of the same batch finds itself lost.
            outcomes.push(if recorded.remove(&(row.serial, row.kind)) {
                context.audit.extend_from_slice(&signed.audit);
                RecordOutcome::Recorded
            } else {
                match entry(connection, row.serial, row.kind).await? {
                    Some(entry) => RecordOutcome::Lost(Box::new(entry)),
                    None => RecordOutcome::Unknown,
                }
            });
        }
        job.outcome = Some(outcomes);
    }
    Ok(())
}

/// Writes the first signature of each entry that can have one; answers which had.
async fn update(
    connection: &mut SqliteConnection,
    jobs: &[&mut Records],
) -> Result<HashSet<(Serial, JournalKind)>, Failure> {
    let mut firsts: HashSet<(Serial, JournalKind)> = HashSet::new();
    let mut rows = Rows::new();
    for signed in jobs.iter().flat_map(|job| &job.input) {
        let row = signed.row.unverified();
        if !firsts.insert((row.serial, row.kind)) {
            continue;
        }
        let mac = signed.row.mac();
        rows.row()
            .octets(row.serial.as_bytes())
            .text(row.kind.as_str())
            .octets(row.signature.as_deref())
            .number(optional_seconds(row.signed_at))
            .number(i64::from(mac.key_version))
            .octets(mac.mac.as_slice());
    }
    let (json, octets) = rows.finish();
    let octets = octets.as_slice();
    let updated = sqlx::query!(
        "UPDATE journal SET signature = s.signature, signed_at = s.signed_at, mac_version = s.mac_version,
                mac = s.mac, owner = NULL, lease_until_ms = NULL
         FROM (SELECT substr(?, r.value ->> 0, r.value ->> 1) AS serial, r.value ->> 2 AS kind,
                      substr(?, r.value ->> 3, r.value ->> 4) AS signature, r.value ->> 5 AS signed_at,
                      r.value ->> 6 AS mac_version, substr(?, r.value ->> 7, r.value ->> 8) AS mac
               FROM json_each(?) AS r) AS s
         WHERE journal.serial = s.serial AND journal.kind = s.kind AND journal.signature IS NULL
           AND journal.abandoned_at IS NULL AND s.signature IS NOT NULL
         RETURNING serial, kind",
        octets,
        octets,
        octets,
        json
    )
    .fetch_all(connection)
    .await?;
    updated
        .into_iter()
        .map(|row| {
            Ok((
                JOURNAL.serial("serial", &row.serial)?,
                JOURNAL.word("kind", &row.kind, JournalKind::from_word)?,
            ))
        })
        .collect()
}

/// An entry by its key.
pub(super) async fn entry(
    connection: &mut SqliteConnection,
    serial: Serial,
    kind: JournalKind,
) -> Result<Option<JournalEntry>, Failure> {
    let (serial, kind) = (serial.as_bytes(), kind.as_str());
    let stored =
        entries!("WHERE j.serial = ? AND j.kind = ?", serial, kind).fetch_optional(connection).await?;
    stored.map(super::entry::Stored::entry).transpose()
}
