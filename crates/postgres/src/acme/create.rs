//! New orders and authorizations: all of a batch in one go.

use std::collections::{BTreeMap, HashMap, HashSet};

use acme_store::{AuthorizationRow, CreateOutcome, NewOrder, OrderRow, PendingTally, Timestamp};
use sqlx::PgConnection;

use super::{authorization, order};
use crate::{
    failure::{Cause, Failure},
    stored::{columns, number, seconds},
    writer::{Change, Job},
};

type Creations = Job<Vec<NewOrder>, Vec<CreateOutcome>>;
/// Orders that are not created, each with the end of what stands in its way.
type Beyond = HashMap<String, Option<Timestamp>>;

/// Keeps the orders of all jobs.
pub(super) async fn create(
    connection: &mut PgConnection,
    jobs: &mut [&mut Creations],
) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    let beyond = beyond(connection, jobs).await?;
    let mut created = insert_orders(connection, jobs, &beyond).await?;
    // The authorizations of an order that is there already are there too, and stay as they are; those of one that is not
    // created are not kept.
    let new = jobs.iter().flat_map(|job| &job.input).filter(|new| created.contains(&new.order.id));
    insert_authorizations(connection, new.flat_map(|new| &new.authorizations)).await?;
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

/// The orders that would bring their account beyond its bound. Fronts that make orders of one account at once wait for each
/// other: before anything else, so that they do not wait in a circle, and in one order.
async fn beyond(connection: &mut PgConnection, jobs: &[&mut Creations]) -> Result<Beyond, Failure> {
    let orders = || jobs.iter().flat_map(|job| &job.input);
    let mut tally = PendingTally::of(orders());
    columns!(tally.accounts(), |account| { accounts: &str = account.0, times: i64 = seconds(account.1) });
    if accounts.is_empty() {
        return Ok(Beyond::new());
    }
    sqlx::query!(
        r#"SELECT count(pg_advisory_xact_lock(hash)) AS "count!"
           FROM (SELECT hashtextextended('pending ' || account, 0) AS hash
                 FROM UNNEST($1::text[]) AS n (account) ORDER BY hash) AS n"#,
        &accounts as &[&str]
    )
    .fetch_one(&mut *connection)
    .await?;
    // A statement of its own: it sees what was committed until the locks were there.
    let found = sqlx::query!(
        r#"SELECT n.account AS "account!", mine.count AS "count!", mine.first AS "first!"
           FROM UNNEST($1::text[], $2::bigint[]) AS n (account, now)
                CROSS JOIN LATERAL (
                    SELECT count(*) AS count, min(a.expires_at) AS first FROM authorizations AS a
                    WHERE substr(a.account, 1, 12) = substr(n.account, 1, 12) AND a.account = n.account
                      AND a.status = 'pending' AND a.expires_at > n.now
                ) AS mine
           WHERE mine.count > 0"#,
        &accounts as &[&str],
        &times
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
    connection: &mut PgConnection,
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
    // It may have come to nothing in this moment.
    match there {
        Some(there) => Ok(CreateOutcome::Replaced(Box::new(there))),
        None => Err(Failure::Unavailable(Cause::new(Contended))),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the order that stood in the way of a new one is gone")]
struct Contended;

async fn insert_orders(
    connection: &mut PgConnection,
    jobs: &[&mut Creations],
    beyond: &Beyond,
) -> Result<HashSet<String>, Failure> {
    let mut firsts = BTreeMap::new();
    for new in jobs.iter().flat_map(|job| &job.input).filter(|new| !beyond.contains_key(&new.order.id)) {
        firsts.entry(new.order.id.as_str()).or_insert(&new.order);
    }
    columns!(firsts.into_values(), |order| {
        ids: &str = order.id.as_str(),
        directories: &str = order.directory.as_str(),
        accounts: &str = order.account.as_str(),
        statuses: &str = order.status.as_str(),
        states: &str = order.state.as_str(),
        created_at: i64 = seconds(order.created_at),
        expires_at: i64 = seconds(order.expires_at),
        versions: i64 = number(order.version),
        counts: i64 = number(order.authorizations.len() as u64),
        authorizations: &[String] = order.authorizations.as_slice(),
        replaced: Option<&str> = order.replaces.as_deref(),
    });
    // Lists of lists are none in SQL: one list, of which each order has a piece.
    columns!(authorizations.iter().copied().flatten(), |id| { pieces: &str = id.as_str() });
    let created = sqlx::query_scalar!(
        "INSERT INTO orders (
            id, directory, account, status, state, created_at, expires_at, version, replaces, authorizations)
         SELECT n.id, n.directory, n.account, n.status, n.state, n.created_at, n.expires_at, n.version, n.replaces,
                ($9::text[])[sum(n.count) OVER (ORDER BY n.place) - n.count + 1 : sum(n.count) OVER (ORDER BY n.place)]
         FROM UNNEST(
                $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
                $10::bigint[], $11::text[]) WITH ORDINALITY
                AS n (id, directory, account, status, state, created_at, expires_at, version, count, replaces, place)
         ORDER BY n.replaces NULLS FIRST, n.place
         ON CONFLICT DO NOTHING
         RETURNING id",
        &ids as &[&str],
        &directories as &[&str],
        &accounts as &[&str],
        &statuses as &[&str],
        &states as &[&str],
        &created_at,
        &expires_at,
        &versions,
        &pieces as &[&str],
        &counts,
        &replaced as &[Option<&str>]
    )
    .fetch_all(connection)
    .await?;
    Ok(created.into_iter().collect())
}

async fn insert_authorizations<'a>(
    connection: &mut PgConnection,
    authorizations: impl Iterator<Item = &'a AuthorizationRow> + Send,
) -> Result<(), Failure> {
    let mut firsts = BTreeMap::new();
    for authorization in authorizations {
        firsts.entry(authorization.id.as_str()).or_insert(authorization);
    }
    if firsts.is_empty() {
        return Ok(());
    }
    columns!(firsts.into_values(), |authorization| {
        ids: &str = authorization.id.as_str(),
        directories: &str = authorization.directory.as_str(),
        accounts: &str = authorization.account.as_str(),
        identifiers: &str = authorization.identifier.value.as_str(),
        wildcards: bool = authorization.identifier.wildcard,
        statuses: &str = authorization.status.as_str(),
        states: &str = authorization.state.as_str(),
        created_at: i64 = seconds(authorization.created_at),
        expires_at: i64 = seconds(authorization.expires_at),
        versions: i64 = number(authorization.version),
    });
    sqlx::query!(
        "INSERT INTO authorizations (
            id, directory, account, identifier, wildcard, status, state, created_at, expires_at, version)
         SELECT * FROM UNNEST(
            $1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::text[], $8::bigint[],
            $9::bigint[], $10::bigint[])
         ON CONFLICT (id) DO NOTHING",
        &ids as &[&str],
        &directories as &[&str],
        &accounts as &[&str],
        &identifiers as &[&str],
        &wildcards,
        &statuses as &[&str],
        &states as &[&str],
        &created_at,
        &expires_at,
        &versions
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// [`create_authorizations`](acme_store::AcmeStore::create_authorizations).
pub(super) struct CreateAuthorizations(pub(super) Vec<AuthorizationRow>);

impl Change<()> for CreateAuthorizations {
    type Outcome = ();

    async fn apply(&self, connection: &mut PgConnection, (): &mut ()) -> Result<(), Failure> {
        insert_authorizations(connection, self.0.iter()).await
    }
}
