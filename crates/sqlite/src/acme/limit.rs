//! Counters of limits.

use acme_store::{Ended, FailureRow, Hit, HitCount, Identifier, ValidationEnd};
use sqlx::SqliteConnection;

use crate::{
    failure::Failure,
    rows::Rows,
    stored::{Table, seconds},
    writer::{Change, Job},
};

const COUNTERS: Table = Table("counters");
const FAILURES: Table = Table("failures");

/// [`count`](acme_store::AcmeStore::count).
pub(super) struct Count(pub(super) Vec<Hit>);

impl Change<()> for Count {
    type Outcome = Vec<HitCount>;

    async fn apply(&self, connection: &mut SqliteConnection, (): &mut ()) -> Result<Vec<HitCount>, Failure> {
        let mut counts = Vec::with_capacity(self.0.len());
        for hit in &self.0 {
            let count =
                if hit.count == 0 { ask(connection, hit).await? } else { add(connection, hit).await? };
            counts.push(HitCount(COUNTERS.unsigned("count", count)?));
        }
        Ok(counts)
    }
}

async fn ask(connection: &mut SqliteConnection, hit: &Hit) -> Result<i64, Failure> {
    let count = sqlx::query_scalar!(
        "SELECT count FROM counters WHERE key = ? AND start_at = ?",
        hit.key,
        seconds(hit.window)
    )
    .fetch_optional(connection)
    .await?;
    Ok(count.unwrap_or(0))
}

async fn add(connection: &mut SqliteConnection, hit: &Hit) -> Result<i64, Failure> {
    let row = sqlx::query!(
        "INSERT INTO counters (key, start_at, expires_at, count) VALUES (?1, ?2, ?3, max(?4, 0))
         ON CONFLICT (key, start_at) DO UPDATE SET count = max(count + ?4, 0)
         RETURNING count",
        hit.key,
        seconds(hit.window),
        seconds(hit.expires_at),
        hit.count
    )
    .fetch_one(&mut *connection)
    .await?;
    if row.count == 0 {
        sqlx::query!("DELETE FROM counters WHERE key = ? AND start_at = ?", hit.key, seconds(hit.window))
            .execute(connection)
            .await?;
    }
    Ok(row.count)
}

type Ends = Job<Vec<ValidationEnd>, ()>;

/// Notes how the validations of all jobs ended.
pub(super) async fn end_validations(
    connection: &mut SqliteConnection,
    jobs: &mut [&mut Ends],
) -> Result<(), Failure> {
    let ended: Ended<'_> = jobs.iter().flat_map(|job| &job.input).collect();
    if !ended.forgotten.is_empty() {
        let mut forgotten = Rows::new();
        for (account, identifier, wildcard) in &ended.forgotten {
            forgotten.row().text(*account).text(*identifier).number(i64::from(*wildcard));
        }
        let (forgotten, _) = forgotten.finish();
        sqlx::query!(
            "DELETE FROM failures WHERE row IN (
                SELECT f.row FROM json_each(?) AS r CROSS JOIN failures AS f
                WHERE substr(f.account, 1, 12) = substr(r.value ->> 0, 1, 12) AND f.account = r.value ->> 0
                  AND f.identifier = r.value ->> 1 AND f.wildcard = r.value ->> 2)",
            forgotten
        )
        .execute(&mut *connection)
        .await?;
    }
    if !ended.failed.is_empty() {
        let mut failed = Rows::new();
        for (end, note) in &ended.failed {
            failed
                .row()
                .text(end.account.as_str())
                .text(end.identifier.value.as_str())
                .number(i64::from(end.identifier.wildcard))
                .number(seconds(note.at))
                .number(seconds(note.expires_at));
        }
        let (failed, _) = failed.finish();
        sqlx::query!(
            "INSERT INTO failures (account, identifier, wildcard, at, expires_at)
             SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4
             FROM json_each(?) AS r",
            failed
        )
        .execute(&mut *connection)
        .await?;
    }
    for job in jobs {
        job.outcome = Some(());
    }
    Ok(())
}

/// [`failures`](acme_store::AcmeStore::failures).
pub(super) async fn failures(
    connection: &mut SqliteConnection,
    account: &str,
    identifiers: &[Identifier],
    limit: u32,
) -> Result<Vec<FailureRow>, Failure> {
    let mut wanted = Rows::new();
    for identifier in identifiers {
        wanted.row().text(identifier.value.as_str()).number(i64::from(identifier.wildcard));
    }
    let (wanted, _) = wanted.finish();
    let rows = sqlx::query!(
        r#"SELECT f.identifier, f.wildcard AS "wildcard: bool", f.at
           FROM json_each(?1) AS r CROSS JOIN failures AS f
           WHERE substr(f.account, 1, 12) = substr(?2, 1, 12) AND f.account = ?2
             AND f.identifier = r.value ->> 0 AND f.wildcard = r.value ->> 1
           ORDER BY f.at DESC, f.row DESC LIMIT ?3"#,
        wanted,
        account,
        limit
    )
    .fetch_all(connection)
    .await?;
    let row = |identifier, wildcard, at| {
        let identifier = Identifier { value: identifier, wildcard };
        Ok(FailureRow { identifier, at: FAILURES.time("at", at)? })
    };
    rows.into_iter().map(|one| row(one.identifier, one.wildcard, one.at)).collect()
}
