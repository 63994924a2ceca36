//! Retention: dead rows go in chunks, so that nobody waits long for the writer.

use acme_store::Purged;
use acme_store::Timestamp;
use sqlx::PgConnection;

use crate::{failure::Failure, stored::seconds, writer::Change};

/// [`purge`](acme_store::AcmeStore::purge).
pub(super) struct Purge {
    pub(super) before: Timestamp,
    pub(super) now: Timestamp,
    pub(super) limit: u32,
}

impl Change<()> for Purge {
    type Outcome = Purged;

    async fn apply(&self, connection: &mut PgConnection, (): &mut ()) -> Result<Purged, Failure> {
        let (before, now) = (seconds(self.before), seconds(self.now));
        let orders = sqlx::query!(
            "DELETE FROM orders WHERE row IN (
                SELECT row FROM orders WHERE expires_at < $1 AND status <> 'processing'
                ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            before,
            i64::from(self.limit)
        )
        .execute(&mut *connection)
        .await?;
        let authorizations = sqlx::query!(
            "DELETE FROM authorizations WHERE id IN (
                SELECT id FROM authorizations WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            before,
            i64::from(self.limit)
        )
        .execute(&mut *connection)
        .await?;
        let counters = sqlx::query!(
            "DELETE FROM counters WHERE (key, start_at) IN (
                SELECT key, start_at FROM counters WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now,
            i64::from(self.limit)
        )
        .execute(&mut *connection)
        .await?;
        let failures = sqlx::query!(
            "DELETE FROM failures WHERE row IN (
                SELECT row FROM failures WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now,
            i64::from(self.limit)
        )
        .execute(connection)
        .await?;
        Ok(Purged {
            orders: orders.rows_affected(),
            authorizations: authorizations.rows_affected(),
            counters: counters.rows_affected(),
            failures: failures.rows_affected(),
        })
    }
}
