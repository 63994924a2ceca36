//! Orders, read and claimed.

use std::time::Duration;

use acme_store::Timestamp;
use acme_store::{Cursor, OrderRow, OrderStatus, Page, Paged, PendingCounts, ProcessingClaim};
use sqlx::SqliteConnection;

use crate::{
    failure::Failure,
    page,
    stored::{Table, milliseconds, seconds},
    writer::Change,
};

pub(super) const ORDERS: Table = Table("orders");

/// How many octets a state has at most that is kept in the order's row.
pub(super) const SHORT: i64 = 512;

/// An order as it is stored.
struct Stored {
    row: i64,
    id: String,
    directory: String,
    account: String,
    status: String,
    authorizations: String,
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
            authorizations: ORDERS.list("authorizations", &self.authorizations)?,
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
            r#"SELECT row AS "row!", id, directory, account, status, authorizations, replaces,
                      coalesce(orders.state, order_states.state) AS "state!: String", created_at, expires_at,
                      lease_until_ms, version
               FROM orders LEFT JOIN order_states ON order_row = row "# + $rest
            $(, $argument)+
        )
    };
}

pub(super) async fn by_id(connection: &mut SqliteConnection, id: &str) -> Result<Option<OrderRow>, Failure> {
    let stored = orders!("WHERE id = ?", id).fetch_optional(connection).await?;
    stored.map(Stored::order).transpose()
}

/// The order that is to replace a certificate, but for those that came to nothing.
pub(super) async fn replacing(
    connection: &mut SqliteConnection,
    certificate: &str,
) -> Result<Option<OrderRow>, Failure> {
    let stored =
        orders!("WHERE replaces = ? AND status <> 'invalid'", certificate).fetch_optional(connection).await?;
    stored.map(Stored::order).transpose()
}

pub(super) async fn of_account(
    connection: &mut SqliteConnection,
    account: &str,
    now: Timestamp,
    page: &Page,
) -> Result<Paged<OrderRow>, Failure> {
    let [after] = page::numbers(page.after.as_ref().map(|cursor| cursor.0.as_str()), [0]);
    let limit = page.limit.max(1);
    let rows = orders!(
        "WHERE substr(account, 1, 12) = substr(?1, 1, 12) AND account = ?1 AND row > ?2 AND expires_at > ?3
         ORDER BY row LIMIT ?4",
        account,
        after,
        seconds(now),
        limit
    )
    .fetch_all(connection)
    .await?;
    let next = page::next(rows.len(), limit, || rows.last().map(|row| Cursor(row.row.to_string())));
    Ok(Paged { items: rows.into_iter().map(Stored::order).collect::<Result<_, _>>()?, next })
}

pub(super) async fn pending(
    connection: &mut SqliteConnection,
    account: &str,
    now: Timestamp,
) -> Result<PendingCounts, Failure> {
    let row = sqlx::query!(
        r#"SELECT
               (SELECT count(*) FROM orders
                WHERE substr(account, 1, 12) = substr(?1, 1, 12) AND account = ?1
                  AND status IN ('pending', 'ready', 'processing') AND expires_at > ?2) AS "orders!: i64",
               count(*) AS "authorizations!: i64", min(expires_at) AS "first?: i64"
           FROM authorizations
           WHERE substr(account, 1, 12) = substr(?1, 1, 12) AND account = ?1
             AND status IN ('pending', 'valid') AND status = 'pending' AND expires_at > ?2"#,
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

    async fn apply(&self, connection: &mut SqliteConnection, (): &mut ()) -> Result<Vec<OrderRow>, Failure> {
        let (order, limit) = match &self.claim {
            ProcessingClaim::Order(id) => (Some(id.as_str()), 1),
            ProcessingClaim::Any(limit) => (None, *limit),
        };
        let rows = match order {
            Some(id) => {
                orders!(
                    "WHERE id = ? AND lease_until_ms <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
                   AND status = 'processing'",
                    id
                )
                .fetch_all(&mut *connection)
                .await?
            }
            None => {
                orders!(
                    "WHERE lease_until_ms <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
                   AND status = 'processing' ORDER BY lease_until_ms LIMIT ?",
                    limit
                )
                .fetch_all(&mut *connection)
                .await?
            }
        };
        let ids = serde_json::Value::from(rows.iter().map(|row| row.row).collect::<Vec<i64>>()).to_string();
        let claimed = if rows.is_empty() {
            Vec::new()
        } else {
            sqlx::query!(
                r#"UPDATE orders SET version = version + 1,
                          lease_until_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?
                   WHERE row IN (SELECT value FROM json_each(?))
                   RETURNING row AS "row!", version, lease_until_ms AS "lease_until_ms?""#,
                milliseconds(self.lease),
                ids
            )
            .fetch_all(connection)
            .await?
        };
        rows.into_iter()
            .map(|mut stored| {
                if let Some(row) = claimed.iter().find(|row| row.row == stored.row) {
                    stored.version = row.version;
                    stored.lease_until_ms = row.lease_until_ms;
                }
                stored.order()
            })
            .collect()
    }
}
