//! Counters of limits.

use acme_store::{FailureRow, Hit, HitCount, Identifier, ValidationEnd};
use sqlx::SqliteConnection;

use crate::{
    failure::Failure,
    rows::Rows,
    stored::{Table, seconds},
    writer::Change,
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

/// [`end_validations`](acme_store::AcmeStore::end_validations).
pub(super) struct EndValidations(pub(super) Vec<ValidationEnd>);

impl Change<()> for EndValidations {
    type Outcome = ();

    async fn apply(&self, connection: &mut SqliteConnection, (): &mut ()) -> Result<(), Failure> {
        for end in &self.0 {
            match end.failure {
                Some(failure) => {
                    sqlx::query!(
                        "INSERT INTO failures (account, identifier, wildcard, at, expires_at) VALUES (?, ?, ?, ?, ?)",
                        end.account,
                        end.identifier.value,
                        end.identifier.wildcard,
                        seconds(failure.at),
                        seconds(failure.expires_at)
                    )
                    .execute(&mut *connection)
                    .await?
                }
                None => {
                    sqlx::query!(
                        "DELETE FROM failures
                         WHERE substr(account, 1, 12) = substr(?1, 1, 12) AND account = ?1
                           AND identifier = ?2 AND wildcard = ?3",
                        end.account,
                        end.identifier.value,
                        end.identifier.wildcard
                    )
                    .execute(&mut *connection)
                    .await?
                }
            };
        }
        Ok(())
    }
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
