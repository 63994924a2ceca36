//! The database itself: epoch, high-water mark of time, incarnations, leases.

use std::time::Duration;

use ca_store::Timestamp;
use ca_store::{AuditEvent, Clock, Epoch, Incarnation, Info, LeaseOutcome};
use sqlx::PgConnection;

use super::Context;
use crate::{
    failure::Failure,
    lock::Locks,
    stored::{Table, milliseconds, seconds},
    writer::Change,
};

const META: Table = Table("ca_meta");
const LEASES: Table = Table("leases");

/// Gives this incarnation its number.
pub(super) async fn begin_incarnation(
    connection: &mut PgConnection,
    incarnation: &Incarnation,
) -> Result<i64, Failure> {
    let id = incarnation.id.as_slice();
    let row = sqlx::query!(
        "INSERT INTO incarnations (id, node) VALUES ($1, $2) RETURNING number",
        id,
        incarnation.node
    )
    .fetch_one(connection)
    .await?;
    Ok(row.number)
}

pub(super) async fn info(connection: &mut PgConnection, incarnation: i64) -> Result<Info, Failure> {
    let schema: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await?;
    Ok(Info {
        schema: META.unsigned("version", schema)?,
        epoch: epoch(connection).await?,
        incarnation: META.unsigned("incarnation", incarnation)?,
    })
}

async fn epoch(connection: &mut PgConnection) -> Result<Epoch, Failure> {
    let row = sqlx::query!("SELECT epoch, epoch_random FROM ca_meta").fetch_one(connection).await?;
    Ok(Epoch {
        number: META.unsigned("epoch", row.epoch)?,
        random: row.epoch_random.try_into().map_err(|_| META.corrupt("epoch_random"))?,
    })
}

/// [`advance_clock`](ca_store::CaStore::advance_clock).
pub(super) struct AdvanceClock(pub(super) Timestamp);

impl Change<Context> for AdvanceClock {
    type Outcome = Clock;

    async fn apply(&self, connection: &mut PgConnection, _: &mut Context) -> Result<Clock, Failure> {
        let row = sqlx::query!(r#"SELECT high_water, now_ms() AS "now_ms!" FROM ca_meta"#)
            .fetch_one(&mut *connection)
            .await?;
        let now = seconds(self.0);
        if now > row.high_water {
            sqlx::query!("UPDATE ca_meta SET high_water = $1 WHERE high_water < $1", now)
                .execute(connection)
                .await?;
        }
        Ok(Clock { database_ms: row.now_ms, high_water: META.time("high_water", row.high_water)? })
    }
}

/// [`begin_epoch`](ca_store::CaStore::begin_epoch).
pub(super) struct BeginEpoch {
    pub(super) random: [u8; 16],
    pub(super) audit: Vec<AuditEvent>,
}

/// [`EPOCH_JUMP`](ca_store::EPOCH_JUMP). Rows that a shard gets later begin there: in SQL it is written out.
const JUMP: i64 = 34_359_738_368;
const _: () = assert!(JUMP.unsigned_abs() == ca_store::EPOCH_JUMP);

impl Change<Context> for BeginEpoch {
    type Outcome = Epoch;

    const LOCKS: Locks = Locks::ALL;

    async fn apply(&self, connection: &mut PgConnection, context: &mut Context) -> Result<Epoch, Failure> {
        let random = self.random.as_slice();
        let before = epoch(connection).await?;
        // Said twice (its answer was lost), it is begun once.
        if before.random == self.random {
            return Ok(before);
        }
        sqlx::query!("UPDATE ca_meta SET epoch = epoch + 1, epoch_random = $1", random)
            .execute(&mut *connection)
            .await?;
        sqlx::query!("UPDATE crl_shards SET number = number + $1, revision = revision + $2", JUMP, JUMP)
            .execute(&mut *connection)
            .await?;
        context.audit.extend_from_slice(&self.audit);
        epoch(connection).await
    }
}

/// [`claim_lease`](ca_store::CaStore::claim_lease).
pub(super) struct ClaimLease {
    pub(super) name: String,
    pub(super) ttl: Duration,
}

impl Change<Context> for ClaimLease {
    type Outcome = LeaseOutcome;

    async fn apply(
        &self,
        connection: &mut PgConnection,
        context: &mut Context,
    ) -> Result<LeaseOutcome, Failure> {
        let ttl = milliseconds(self.ttl);
        let held = sqlx::query!(
            r#"INSERT INTO leases (name, owner, until_ms)
               VALUES ($1, $2, now_ms() + $3)
               ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until_ms = excluded.until_ms
               WHERE leases.owner = excluded.owner
                  OR leases.until_ms <= now_ms()
               RETURNING until_ms"#,
            self.name,
            context.owner,
            ttl
        )
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(held) = held {
            return Ok(LeaseOutcome::Held { until_ms: held.until_ms });
        }
        let taken = sqlx::query!("SELECT owner, until_ms FROM leases WHERE name = $1", self.name)
            .fetch_one(connection)
            .await?;
        Ok(LeaseOutcome::Taken { owner: LEASES.unsigned("owner", taken.owner)?, until_ms: taken.until_ms })
    }
}
