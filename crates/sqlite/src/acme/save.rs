//! Changes of orders and authorizations by compare-and-swap: all of a batch in two statements.

use std::collections::HashMap;

use acme_store::{AuthorizationChange, OrderChange, SaveOutcome, Unit};
use sqlx::SqliteConnection;

use super::order::{ORDERS, SHORT};
use crate::{
    failure::Failure,
    rows::{Rows, list},
    stored::{milliseconds, number, seconds},
    writer::Job,
};

type Saves = Job<Vec<Unit>, Vec<SaveOutcome>>;

/// Saves the units of all jobs.
pub(super) async fn save(connection: &mut SqliteConnection, jobs: &mut [&mut Saves]) -> Result<(), Failure> {
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
    write(connection, &standing, orders.into_values(), authorizations.into_values()).await
}

/// The places of rows, and their versions as they are after the units accepted so far.
struct Standing {
    orders: HashMap<String, (i64, u64)>,
    authorizations: HashMap<String, (i64, u64)>,
}

impl Standing {
    /// Whether everything in a unit has the version that it expects; if so, it has the next one.
    fn accept(&mut self, unit: &Unit) -> bool {
        let has = |rows: &HashMap<String, (i64, u64)>, id: &str, expected: u64| {
            rows.get(id).is_some_and(|(_, version)| *version == expected)
        };
        let fits = unit.orders.iter().all(|change| has(&self.orders, &change.id, change.expected))
            && unit
                .authorizations
                .iter()
                .all(|change| has(&self.authorizations, &change.id, change.expected));
        if fits {
            for change in &unit.orders {
                self.orders.entry(change.id.clone()).and_modify(|(_, version)| *version += 1);
            }
            for change in &unit.authorizations {
                self.authorizations.entry(change.id.clone()).and_modify(|(_, version)| *version += 1);
            }
        }
        fits
    }
}

/// The place of a row that was accepted.
fn place(rows: &HashMap<String, (i64, u64)>, id: &str) -> Option<i64> {
    rows.get(id).map(|(row, _)| *row)
}

async fn versions(connection: &mut SqliteConnection, jobs: &[&mut Saves]) -> Result<Standing, Failure> {
    let units = || jobs.iter().flat_map(|job| &job.input);
    let orders: Vec<String> = units().flat_map(|unit| &unit.orders).map(|change| change.id.clone()).collect();
    let authorizations: Vec<String> =
        units().flat_map(|unit| &unit.authorizations).map(|change| change.id.clone()).collect();
    let rows = sqlx::query!(
        r#"SELECT 1 AS "is_order!: bool", o.row AS "row!", o.id AS "id!", o.version AS "version!"
           FROM json_each(?) AS r CROSS JOIN orders AS o ON o.id = r.value
           UNION ALL
           SELECT 0, a.rowid, a.id, a.version
           FROM json_each(?) AS r CROSS JOIN authorizations AS a ON a.id = r.value"#,
        list(&orders),
        list(&authorizations)
    )
    .fetch_all(connection)
    .await?;
    let mut standing = Standing { orders: HashMap::new(), authorizations: HashMap::new() };
    for row in rows {
        let versions = if row.is_order { &mut standing.orders } else { &mut standing.authorizations };
        versions.insert(row.id, (row.row, ORDERS.unsigned("version", row.version)?));
    }
    Ok(standing)
}

async fn write<'a>(
    connection: &mut SqliteConnection,
    standing: &Standing,
    orders: impl Iterator<Item = &'a OrderChange> + Send,
    authorizations: impl Iterator<Item = &'a AuthorizationChange> + Send,
) -> Result<(), Failure> {
    let (mut order_rows, mut authorization_rows) = (Rows::new(), Rows::new());
    for change in orders {
        order_rows
            .row()
            .number(place(&standing.orders, &change.id))
            .text(change.status.as_str())
            .octets(change.state.as_bytes())
            .number(seconds(change.expires_at))
            .number(change.lease.map(milliseconds))
            .number(number(change.expected + 1));
    }
    for change in authorizations {
        authorization_rows
            .row()
            .number(place(&standing.authorizations, &change.id))
            .text(change.status.as_str())
            .octets(change.state.as_bytes())
            .number(seconds(change.expires_at))
            .number(number(change.expected + 1));
    }
    if order_rows.is_empty() && authorization_rows.is_empty() {
        return Ok(());
    }
    let ((orders, states), (authorizations, more)) = (order_rows.finish(), authorization_rows.finish());
    let states = states.as_slice();
    sqlx::query_file!(
        "sql/save.sql",
        SHORT,
        states,
        orders,
        orders,
        SHORT,
        states,
        orders,
        SHORT,
        more.as_slice(),
        authorizations
    )
    .execute(connection)
    .await?;
    Ok(())
}
