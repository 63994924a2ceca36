//! Changes of orders and authorizations by compare-and-swap: all of a batch in three statements.

use std::collections::HashMap;

use acme_store::{AuthorizationChange, OrderChange, SaveOutcome, Unit};
use sqlx::PgConnection;

use super::order::ORDERS;
use crate::{
    failure::Failure,
    stored::{columns, milliseconds, number, seconds},
    writer::Job,
};

type Saves = Job<Vec<Unit>, Vec<SaveOutcome>>;

/// Saves the units of all jobs.
pub(super) async fn save(connection: &mut PgConnection, jobs: &mut [&mut Saves]) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    let mut standing = versions(connection, jobs).await?;
    for job in &mut *jobs {
        let mut outcomes = Vec::with_capacity(job.input.len());
        for unit in &job.input {
            outcomes.push(if standing.accept(unit) { SaveOutcome::Saved } else { SaveOutcome::Conflict });
        }
        job.outcome = Some(outcomes);
    }
    let (mut orders, mut authorizations) = (HashMap::new(), HashMap::new());
    for job in &*jobs {
        let saved = job.outcome.iter().flatten().map(|outcome| *outcome == SaveOutcome::Saved);
        for unit in job.input.iter().zip(saved).filter_map(|(unit, saved)| saved.then_some(unit)) {
            // Of two changes of a row in a batch the later one remains.
            orders.extend(unit.orders.iter().map(|change| (change.id.as_str(), change)));
            authorizations.extend(unit.authorizations.iter().map(|change| (change.id.as_str(), change)));
        }
    }
    write_orders(connection, orders.into_values()).await?;
    write_authorizations(connection, authorizations.into_values()).await
}

/// The versions of rows as they are after the units accepted so far.
struct Standing {
    orders: HashMap<String, u64>,
    authorizations: HashMap<String, u64>,
}

impl Standing {
    /// Whether everything in a unit has the version that it expects; if so, it has the next one.
    fn accept(&mut self, unit: &Unit) -> bool {
        let has = |rows: &HashMap<String, u64>, id: &str, expected: u64| {
            rows.get(id).is_some_and(|version| *version == expected)
        };
        let fits = unit.orders.iter().all(|change| has(&self.orders, &change.id, change.expected))
            && unit
                .authorizations
                .iter()
                .all(|change| has(&self.authorizations, &change.id, change.expected));
        if fits {
            for change in &unit.orders {
                self.orders.entry(change.id.clone()).and_modify(|version| *version += 1);
            }
            for change in &unit.authorizations {
                self.authorizations.entry(change.id.clone()).and_modify(|version| *version += 1);
            }
        }
        fits
    }
}

/// Reads, and keeps from everybody else until the commit, in one order, so that no two fronts wait in a circle.
async fn versions(connection: &mut PgConnection, jobs: &[&mut Saves]) -> Result<Standing, Failure> {
    let units = || jobs.iter().flat_map(|job| &job.input);
    columns!(units().flat_map(|unit| &unit.orders), |change| { orders: &str = change.id.as_str() });
    columns!(units().flat_map(|unit| &unit.authorizations), |change| {
        authorizations: &str = change.id.as_str()
    });
    let rows = sqlx::query!(
        r#"WITH o AS MATERIALIZED (
               SELECT id, version FROM orders WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE
           ), a AS MATERIALIZED (
               SELECT id, version FROM authorizations WHERE id = ANY($2) ORDER BY id FOR NO KEY UPDATE
           )
           SELECT TRUE AS "is_order!", id AS "id!", version AS "version!" FROM o
           UNION ALL
           SELECT FALSE, id, version FROM a"#,
        &orders as &[&str],
        &authorizations as &[&str]
    )
    .fetch_all(connection)
    .await?;
    let mut standing = Standing { orders: HashMap::new(), authorizations: HashMap::new() };
    for row in rows {
        let versions = if row.is_order { &mut standing.orders } else { &mut standing.authorizations };
        versions.insert(row.id, ORDERS.unsigned("version", row.version)?);
    }
    Ok(standing)
}

async fn write_orders<'a>(
    connection: &mut PgConnection,
    orders: impl Iterator<Item = &'a OrderChange> + Send,
) -> Result<(), Failure> {
    columns!(orders, |change| {
        ids: &str = change.id.as_str(),
        statuses: &str = change.status.as_str(),
        states: &str = change.state.as_str(),
        expires_at: i64 = seconds(change.expires_at),
        leases: Option<i64> = change.lease.map(milliseconds),
        versions: i64 = number(change.expected + 1),
    });
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE orders SET status = s.status, state = s.state, expires_at = s.expires_at,
                lease_until_ms = CASE WHEN s.status = 'processing' THEN now_ms() + s.lease END,
                version = s.version
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
                  AS s (id, status, state, expires_at, lease, version)
         WHERE orders.id = s.id",
        &ids as &[&str],
        &statuses as &[&str],
        &states as &[&str],
        &expires_at,
        &leases as &[Option<i64>],
        &versions
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_authorizations<'a>(
    connection: &mut PgConnection,
    authorizations: impl Iterator<Item = &'a AuthorizationChange> + Send,
) -> Result<(), Failure> {
    columns!(authorizations, |change| {
        ids: &str = change.id.as_str(),
        statuses: &str = change.status.as_str(),
        states: &str = change.state.as_str(),
        expires_at: i64 = seconds(change.expires_at),
        versions: i64 = number(change.expected + 1),
    });
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE authorizations SET status = s.status, state = s.state, expires_at = s.expires_at,
                version = s.version
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
                  AS s (id, status, state, expires_at, version)
         WHERE authorizations.id = s.id",
        &ids as &[&str],
        &statuses as &[&str],
        &states as &[&str],
        &expires_at,
        &versions
    )
    .execute(connection)
    .await?;
    Ok(())
}
