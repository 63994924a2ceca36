//! Counters of limits: all of a batch in one statement.

use std::collections::BTreeMap;

use acme_store::{Ended, FailureRow, Hit, HitCount, Identifier, ValidationEnd};
use sqlx::PgConnection;

use crate::{
    failure::Failure,
    stored::{Table, columns, seconds},
    writer::Job,
};

const COUNTERS: Table = Table("counters");
const FAILURES: Table = Table("failures");

type Counts = Job<Vec<Hit>, Vec<HitCount>>;

/// What a batch does to one counter.
#[derive(Default)]
struct Counter {
    expires_at: i64,
    /// All of the batch's hits.
    hits: i64,
    /// Its count as of the hit that is being answered.
    count: i64,
}

/// Counts the hits of all jobs.
pub(super) async fn count(connection: &mut PgConnection, jobs: &mut [&mut Counts]) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    // In one order, so that no two fronts wait in a circle.
    let mut counters: BTreeMap<(String, i64), Counter> = BTreeMap::new();
    for hit in jobs.iter().flat_map(|job| &job.input) {
        let counter = counters.entry((hit.key.clone(), seconds(hit.window))).or_default();
        counter.expires_at = counter.expires_at.max(seconds(hit.expires_at));
        counter.hits += i64::from(hit.count);
    }
    let taken_back = jobs.iter().flat_map(|job| &job.input).any(|hit| hit.count < 0);
    add(connection, &mut counters, taken_back).await?;
    for job in jobs {
        let mut counts = Vec::with_capacity(job.input.len());
        for hit in &job.input {
            let counter = counters.entry((hit.key.clone(), seconds(hit.window))).or_default();
            counter.count = counter.count.saturating_add(i64::from(hit.count)).max(0);
            counts.push(HitCount(COUNTERS.unsigned("count", counter.count)?));
        }
        job.outcome = Some(counts);
    }
    Ok(())
}

/// Adds the hits, and finds what the counters showed before them. Where something was taken back, counters at 0 go.
async fn add(
    connection: &mut PgConnection,
    counters: &mut BTreeMap<(String, i64), Counter>,
    taken_back: bool,
) -> Result<(), Failure> {
    columns!(&*counters, |counter| {
        keys: &str = counter.0.0.as_str(),
        starts: i64 = counter.0.1,
        ends: i64 = counter.1.expires_at,
        hits: i64 = counter.1.hits,
    });
    let rows = sqlx::query!(
        r#"WITH n AS (
               SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
                   AS n (key, start_at, expires_at, hits, place)
           ), counted AS (
               INSERT INTO counters (key, start_at, expires_at, count)
               SELECT key, start_at, expires_at, greatest(hits, 0) FROM n WHERE hits <> 0 ORDER BY place
               ON CONFLICT (key, start_at) DO UPDATE SET count = greatest(counters.count + (
                   SELECT n.hits FROM n WHERE n.key = counters.key AND n.start_at = counters.start_at), 0)
               RETURNING key, start_at, count
           )
           SELECT key AS "key!", start_at AS "start_at!", count AS "count!" FROM counted
           UNION ALL
           SELECT c.key, c.start_at, c.count
           FROM n JOIN counters AS c ON c.key = n.key AND c.start_at = n.start_at WHERE n.hits = 0"#,
        &keys as &[&str],
        &starts,
        &ends,
        &hits
    )
    .fetch_all(&mut *connection)
    .await?;
    if taken_back {
        sqlx::query!(
            "DELETE FROM counters AS c USING UNNEST($1::text[], $2::bigint[]) AS n (key, start_at)
             WHERE c.key = n.key AND c.start_at = n.start_at AND c.count = 0",
            &keys as &[&str],
            &starts
        )
        .execute(connection)
        .await?;
    }
    for row in rows {
        if let Some(counter) = counters.get_mut(&(row.key, row.start_at)) {
            counter.count = (row.count - counter.hits).max(0);
        }
    }
    Ok(())
}

type Ends = Job<Vec<ValidationEnd>, ()>;

/// Notes how the validations of all jobs ended.
pub(super) async fn end_validations(
    connection: &mut PgConnection,
    jobs: &mut [&mut Ends],
) -> Result<(), Failure> {
    let ended: Ended<'_> = jobs.iter().flat_map(|job| &job.input).collect();
    if !ended.forgotten.is_empty() {
        columns!(&ended.forgotten, |forgotten| {
            accounts: &str = forgotten.0,
            identifiers: &str = forgotten.1,
            wildcards: bool = forgotten.2,
        });
        sqlx::query!(
            "DELETE FROM failures AS f
             USING UNNEST($1::text[], $2::text[], $3::boolean[]) AS n (account, identifier, wildcard)
             WHERE substr(f.account, 1, 12) = substr(n.account, 1, 12) AND f.account = n.account
               AND f.identifier = n.identifier AND f.wildcard = n.wildcard",
            &accounts as &[&str],
            &identifiers as &[&str],
            &wildcards
        )
        .execute(&mut *connection)
        .await?;
    }
    if !ended.failed.is_empty() {
        columns!(&ended.failed, |failed| {
            accounts: &str = failed.0.account.as_str(),
            identifiers: &str = failed.0.identifier.value.as_str(),
            wildcards: bool = failed.0.identifier.wildcard,
            times: i64 = seconds(failed.1.at),
            ends: i64 = seconds(failed.1.expires_at),
        });
        sqlx::query!(
            "INSERT INTO failures (account, identifier, wildcard, at, expires_at)
             SELECT * FROM UNNEST($1::text[], $2::text[], $3::boolean[], $4::bigint[], $5::bigint[])",
            &accounts as &[&str],
            &identifiers as &[&str],
            &wildcards,
            &times,
            &ends
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
    connection: &mut PgConnection,
    account: &str,
    identifiers: &[Identifier],
    limit: u32,
) -> Result<Vec<FailureRow>, Failure> {
    columns!(identifiers, |identifier| {
        names: &str = identifier.value.as_str(),
        wildcards: bool = identifier.wildcard,
    });
    let rows = sqlx::query!(
        "SELECT f.identifier, f.wildcard, f.at
         FROM UNNEST($1::text[], $2::boolean[]) AS wanted (identifier, wildcard)
              JOIN failures AS f ON f.identifier = wanted.identifier AND f.wildcard = wanted.wildcard
         WHERE substr(f.account, 1, 12) = substr($3, 1, 12) AND f.account = $3
         ORDER BY f.at DESC, f.row DESC LIMIT $4",
        &names as &[&str],
        &wildcards,
        account,
        i64::from(limit)
    )
    .fetch_all(connection)
    .await?;
    let row = |identifier, wildcard, at| {
        let identifier = Identifier { value: identifier, wildcard };
        Ok(FailureRow { identifier, at: FAILURES.time("at", at)? })
    };
    rows.into_iter().map(|one| row(one.identifier, one.wildcard, one.at)).collect()
}
