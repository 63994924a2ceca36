//! Counters of limits.

use acme_store::{Hit, HitCount};
use sqlx::SqliteConnection;

use crate::{
    failure::Failure,
    stored::{Table, seconds},
    writer::Change,
};

const COUNTERS: Table = Table("counters");

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
        "INSERT INTO counters (key, start_at, expires_at, count) VALUES (?, ?, ?, ?)
         ON CONFLICT (key, start_at) DO UPDATE SET count = count + excluded.count
         RETURNING count",
        hit.key,
        seconds(hit.window),
        seconds(hit.expires_at),
        hit.count
    )
    .fetch_one(connection)
    .await?;
    Ok(row.count)
}
