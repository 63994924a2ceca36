//! New orders and authorizations: all of a batch in one go.

use std::collections::{HashMap, HashSet};

use acme_store::{AuthorizationRow, CreateOutcome, NewOrder, OrderRow, PendingTally, Timestamp};
use sqlx::SqliteConnection;

use super::{authorization, order};
use crate::{
    failure::Failure,
    rows::{Rows, list},
    stored::{number, seconds},
    writer::{Change, Job},
};

type Creations = Job<Vec<NewOrder>, Vec<CreateOutcome>>;
/// Orders that are not created, each with the end of what stands in its way.
type Beyond = HashMap<String, Option<Timestamp>>;

/// Keeps the orders of all jobs.
pub(super) async fn create(
    connection: &mut SqliteConnection,
    jobs: &mut [&mut Creations],
) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    let beyond = beyond(connection, jobs).await?;
    let mut created = insert(connection, jobs, &beyond).await?;
    for job in jobs {
        let mut outcomes = Vec::with_capacity(job.input.len());
        for new in &job.input {
            // Taken out, so that the second of two in a batch finds the first.
            outcomes.push(if created.remove(&new.order.id) {
                CreateOutcome::Created
            } else {
                obstacle(connection, &new.order, &beyond).await?
            });
        }
        job.outcome = Some(outcomes);
    }
    Ok(())
}

/// The orders that would bring their account beyond its bound.
async fn beyond(connection: &mut SqliteConnection, jobs: &[&mut Creations]) -> Result<Beyond, Failure> {
    let orders = || jobs.iter().flat_map(|job| &job.input);
    let mut tally = PendingTally::of(orders());
    let mut accounts = Rows::new();
    for (account, now) in tally.accounts() {
        accounts.row().text(account).number(seconds(now));
    }
    if accounts.is_empty() {
        return Ok(Beyond::new());
    }
    let (accounts, _) = accounts.finish();
    // "IN (…)" says to the planner that the partial index has all that is wanted.
    let found = sqlx::query!(
        r#"SELECT a.account, count(*) AS "count!: i64", min(a.expires_at) AS "first!: i64"
           FROM json_each(?) AS r CROSS JOIN authorizations AS a
           WHERE substr(a.account, 1, 12) = substr(r.value ->> 0, 1, 12) AND a.account = r.value ->> 0
             AND a.status IN ('pending', 'valid') AND a.status = 'pending' AND a.expires_at > r.value ->> 1
           GROUP BY a.account"#,
        accounts
    )
    .fetch_all(connection)
    .await?;
    for row in found {
        let first = authorization::AUTHORIZATIONS.time("expires_at", row.first)?;
        let count = authorization::AUTHORIZATIONS.unsigned("count", row.count)?;
        tally.found(&row.account, count, Some(first));
    }
    let refused = orders().filter_map(|new| Some((new.order.id.clone(), tally.admit(new).err()?)));
    Ok(refused.collect())
}

/// Why an order was not created.
async fn obstacle(
    connection: &mut SqliteConnection,
    order: &OrderRow,
    beyond: &Beyond,
) -> Result<CreateOutcome, Failure> {
    if let Some(there) = order::by_id(connection, &order.id).await? {
        return Ok(CreateOutcome::Exists(Box::new(there)));
    }
    if let Some(first) = beyond.get(&order.id) {
        return Ok(CreateOutcome::Bounded(*first));
    }
    let there = match &order.replaces {
        Some(certificate) => order::replacing(connection, certificate).await?,
        None => None,
    };
    Ok(CreateOutcome::Replaced(Box::new(there.ok_or(order::ORDERS.corrupt("id"))?)))
}

/// The authorizations of an order that is there already are there too, and stay as they are; those of one that is not
/// created are not kept.
async fn insert(
    connection: &mut SqliteConnection,
    jobs: &[&mut Creations],
    beyond: &Beyond,
) -> Result<HashSet<String>, Failure> {
    let (mut orders, mut authorizations) = (Rows::new(), Rows::new());
    for new in jobs.iter().flat_map(|job| &job.input).filter(|new| !beyond.contains_key(&new.order.id)) {
        let order = &new.order;
        orders
            .row()
            .text(order.id.as_str())
            .text(order.directory.as_str())
            .text(order.account.as_str())
            .text(order.status.as_str())
            .text(list(&order.authorizations).as_str())
            .octets(order.state.as_bytes())
            .number(seconds(order.created_at))
            .number(seconds(order.expires_at))
            .number(number(order.version))
            .text(order.replaces.as_deref());
        add(&mut authorizations, &new.authorizations, Some(&order.id));
    }
    let ((orders, states), (authorizations, more)) = (orders.finish(), authorizations.finish());
    let created = sqlx::query!(
        "INSERT OR IGNORE INTO orders (
            id, directory, account, status, authorizations, state, created_at, expires_at, version, replaces)
         SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4,
                CASE WHEN r.value ->> 6 <= ? THEN CAST(substr(?, r.value ->> 5, r.value ->> 6) AS TEXT) END,
                r.value ->> 7, r.value ->> 8, r.value ->> 9, r.value ->> 10
         FROM json_each(?) AS r
         RETURNING id;
         INSERT OR IGNORE INTO order_states (order_row, state)
         SELECT o.row, CAST(substr(?, r.value ->> 5, r.value ->> 6) AS TEXT)
         FROM json_each(?) AS r CROSS JOIN orders AS o ON o.id = r.value ->> 0
         WHERE o.state IS NULL;
         INSERT OR IGNORE INTO authorizations (
            id, directory, account, identifier, wildcard, status, state, created_at, expires_at, version)
         SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5,
                CAST(substr(?, r.value ->> 6, r.value ->> 7) AS TEXT), r.value ->> 8, r.value ->> 9,
                r.value ->> 10
         FROM json_each(?) AS r
         WHERE EXISTS (SELECT 1 FROM orders WHERE orders.id = r.value ->> 11)",
        order::SHORT,
        states.as_slice(),
        orders,
        states.as_slice(),
        orders,
        more.as_slice(),
        authorizations
    )
    .fetch_all(connection)
    .await?;
    Ok(created.into_iter().map(|row| row.id).collect())
}

fn add(rows: &mut Rows, authorizations: &[AuthorizationRow], order: Option<&str>) {
    for authorization in authorizations {
        rows.row()
            .text(authorization.id.as_str())
            .text(authorization.directory.as_str())
            .text(authorization.account.as_str())
            .text(authorization.identifier.value.as_str())
            .number(i64::from(authorization.identifier.wildcard))
            .text(authorization.status.as_str())
            .octets(authorization.state.as_bytes())
            .number(seconds(authorization.created_at))
            .number(seconds(authorization.expires_at))
            .number(number(authorization.version))
            .text(order);
    }
}

/// [`create_authorizations`](acme_store::AcmeStore::create_authorizations).
pub(super) struct CreateAuthorizations(pub(super) Vec<AuthorizationRow>);

impl Change<()> for CreateAuthorizations {
    type Outcome = ();

    async fn apply(&self, connection: &mut SqliteConnection, (): &mut ()) -> Result<(), Failure> {
        let mut rows = Rows::new();
        add(&mut rows, &self.0, None);
        let (json, states) = rows.finish();
        sqlx::query!(
            "INSERT OR IGNORE INTO authorizations (
                id, directory, account, identifier, wildcard, status, state, created_at, expires_at, version)
             SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5,
                    CAST(substr(?, r.value ->> 6, r.value ->> 7) AS TEXT), r.value ->> 8, r.value ->> 9,
                    r.value ->> 10
             FROM json_each(?) AS r",
            states.as_slice(),
            json
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}
