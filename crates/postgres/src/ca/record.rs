//! Signatures, recorded (DESIGN §3 step 11): all of a batch in one statement.

use std::collections::HashSet;

use ca_store::Serial;
use ca_store::{JournalEntry, JournalKind, RecordOutcome, SignedRow};
use sqlx::PgConnection;

use super::{
    Context,
    entry::{JOURNAL, entries},
};
use crate::{
    failure::Failure,
    stored::{columns, optional_seconds},
    writer::Job,
};

type Records = Job<Vec<SignedRow>, Vec<RecordOutcome>>;

/// Records the signatures of all jobs.
pub(super) async fn record(
    connection: &mut PgConnection,
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
    connection: &mut PgConnection,
    jobs: &[&mut Records],
) -> Result<HashSet<(Serial, JournalKind)>, Failure> {
    let mut firsts: HashSet<(Serial, JournalKind)> = HashSet::new();
    let rows = jobs.iter().flat_map(|job| &job.input).filter(|signed| {
        let row = signed.row.unverified();
        firsts.insert((row.serial, row.kind))
    });
    columns!(rows, |signed| {
        serials: &[u8] = signed.row.unverified().serial.as_bytes(),
        kinds: &str = signed.row.unverified().kind.as_str(),
        signatures: Option<&[u8]> = signed.row.unverified().signature.as_deref(),
        signed_at: Option<i64> = optional_seconds(signed.row.unverified().signed_at),
        mac_versions: i64 = i64::from(signed.row.mac().key_version),
        macs: &[u8] = signed.row.mac().mac.as_slice(),
    });
    let updated = sqlx::query_file!(
        "sql/record.sql",
        &serials as &[&[u8]],
        &kinds as &[&str],
        &signatures as &[Option<&[u8]>],
        &signed_at as &[Option<i64>],
        &mac_versions,
        &macs as &[&[u8]]
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
    connection: &mut PgConnection,
    serial: Serial,
    kind: JournalKind,
) -> Result<Option<JournalEntry>, Failure> {
    let (serial, kind) = (serial.as_bytes(), kind.as_str());
    let stored =
        entries!("WHERE j.serial = $1 AND j.kind = $2", serial, kind).fetch_optional(connection).await?;
    stored.map(super::entry::Stored::entry).transpose()
}
