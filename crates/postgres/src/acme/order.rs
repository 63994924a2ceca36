//! Orders, read and claimed.

use std::time::Duration;

use acme_store::Timestamp;
use acme_store::{Cursor, OrderRow, OrderStatus, Page, Paged, PendingCounts, ProcessingClaim};
use sqlx::PgConnection;

use crate::{
    failure::Failure,
    page,
    stored::{Table, milliseconds, seconds},
    writer::Change,
};

pub(super) const ORDERS: Table = Table("orders");

/// An order as it is stored.
struct Stored {
    row: i64,
    id: String,
    directory: String,
    account: String,
    status: String,
    authorizations: Vec<String>,
    replaces: Option<String>,
    state: String,
    created_at: i64,
    expires_at: i64,
    lease_until_ms: Option<i64>,
    version: i64,
}

impl Stored {
    fn order(self) -> Result<OrderRow, Failure> {
        Ok(OrderRow {
            id: self.id,
            directory: self.directory,
            account: self.account,
            status: ORDERS.word("status", &self.status, OrderStatus::from_word)?,
            authorizations: self.authorizations,
            replaces: self.replaces,
            state: self.state,
            created_at: ORDERS.time("created_at", self.created_at)?,
            expires_at: ORDERS.time("expires_at", self.expires_at)?,
            lease_until_ms: self.lease_until_ms,
            version: ORDERS.unsigned("version", self.version)?,
        })
    }
}

/// The orders that the rest of a query, with its arguments, selects.
macro_rules! orders {
    ($rest:literal $(, $argument:expr)+) => {
        sqlx::query_as!(
            Stored,
            "SELECT row, id, directory, account, status, authorizations, replaces, state, created_at,
                    expires_at, lease_until_ms, version
             FROM orders " + $rest
            $(, $argument)+
        )
    };
}

pub(super) async fn by_id(connection: &mut PgConnection, id: &str) -> Result<Option<OrderRow>, Failure> {
    let stored = orders!("WHERE id = $1", id).fetch_optional(connection).await?;
    stored.map(Stored::order).transpose()
}

/// The order that is to replace a certificate, but for those that came to nothing.
pub(super) async fn replacing(
    connection: &mut PgConnection,
    certificate: &str,
) -> Result<Option<OrderRow>, Failure> {
    let stored = orders!("WHERE replaces = $1 AND status <> 'invalid'", certificate)
        .fetch_optional(connection)
        .await?;
    stored.map(Stored::order).transpose()
}

pub(super) async fn of_account(
    connection: &mut PgConnection,
    account: &str,
    now: Timestamp,
    page: &Page,
) -> Result<Paged<OrderRow>, Failure> {
    let [after] = page::numbers(page.after.as_ref().map(|cursor| cursor.0.as_str()), [0]);
    let limit = page.limit.max(1);
    let rows = orders!(
        "WHERE substr(account, 1, 12) = substr($1, 1, 12) AND account = $1 AND row > $2 AND expires_at > $3
         ORDER BY row LIMIT $4",
        account,
        after,
        seconds(now),
        i64::from(limit)
    )
    .fetch_all(connection)
    .await?;
    let next = page::next(rows.len(), limit, || rows.last().map(|row| Cursor(row.row.to_string())));
    Ok(Paged { items: rows.into_iter().map(Stored::order).collect::<Result<_, _>>()?, next })
}

pub(super) async fn pending(
    connection: &mut PgConnection,
    account: &str,
    now: Timestamp,
) -> Result<PendingCounts, Failure> {
    let row = sqlx::query!(
        r#"SELECT
               (SELECT count(*) FROM orders
                WHERE substr(account, 1, 12) = substr($1, 1, 12) AND account = $1
                  AND status IN ('pending', 'ready', 'processing') AND expires_at > $2) AS "orders!",
               count(*) AS "authorizations!", min(expires_at) AS first
           FROM authorizations
           WHERE substr(account, 1, 12) = substr($1, 1, 12) AND account = $1
             AND status = 'pending' AND expires_at > $2"#,
        account,
        seconds(now)
    )
    .fetch_one(connection)
    .await?;
    Ok(PendingCounts {
        orders: ORDERS.unsigned("count", row.orders)?,
        authorizations: ORDERS.unsigned("count", row.authorizations)?,
        first_expires_at: row.first.map(|first| ORDERS.time("expires_at", first)).transpose()?,
    })
}

/// [`claim_processing`](acme_store::AcmeStore::claim_processing).
pub(super) struct Claim {
    pub(super) claim: ProcessingClaim,
    pub(super) lease: Duration,
}

impl Change<()> for Claim {
    type Outcome = Vec<OrderRow>;

    async fn apply(&self, connection: &mut PgConnection, (): &mut ()) -> Result<Vec<OrderRow>, Failure> {
        // An order that another front is at this moment taking or changing is passed over. Only what is `processing` has
        // a lease.
        macro_rules! take {
            ($which:literal $(, $argument:expr)?) => {
                sqlx::query_as!(
                    Stored,
                    "WITH due AS (SELECT row FROM orders WHERE lease_until_ms <= (SELECT now_ms()) "
                        + $which
                        + " FOR UPDATE SKIP LOCKED)
                     UPDATE orders SET version = version + 1, lease_until_ms = now_ms() + $1
                     FROM due WHERE orders.row = due.row
                     RETURNING orders.row, id, directory, account, status, authorizations, replaces, state,
                               created_at, expires_at, lease_until_ms, version",
                    milliseconds(self.lease)
                    $(, $argument)?
                )
                .fetch_all(connection)
                .await?
            };
        }
        let rows = match &self.claim {
            ProcessingClaim::Order(id) => take!("AND id = $2", id),
            ProcessingClaim::Any(limit) => take!("ORDER BY lease_until_ms LIMIT $2", i64::from(*limit)),
        };
        rows.into_iter().map(Stored::order).collect()
    }
}
