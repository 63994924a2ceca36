//! Authorizations, read.

use acme_store::Timestamp;
use acme_store::{AuthorizationRow, AuthorizationStatus, Identifier};
use sqlx::SqliteConnection;

use crate::{
    failure::Failure,
    rows::{Rows, list},
    stored::{Table, seconds},
};

pub(super) const AUTHORIZATIONS: Table = Table("authorizations");

/// An authorization as it is stored.
struct Stored {
    id: String,
    directory: String,
    account: String,
    identifier: String,
    wildcard: i64,
    status: String,
    state: String,
    created_at: i64,
    expires_at: i64,
    version: i64,
}

impl Stored {
    fn authorization(self) -> Result<AuthorizationRow, Failure> {
        Ok(AuthorizationRow {
            id: self.id,
            directory: self.directory,
            account: self.account,
            identifier: Identifier { value: self.identifier, wildcard: self.wildcard != 0 },
            status: AUTHORIZATIONS.word("status", &self.status, AuthorizationStatus::from_word)?,
            state: self.state,
            created_at: AUTHORIZATIONS.time("created_at", self.created_at)?,
            expires_at: AUTHORIZATIONS.time("expires_at", self.expires_at)?,
            version: AUTHORIZATIONS.unsigned("version", self.version)?,
        })
    }
}

pub(super) async fn by_ids(
    connection: &mut SqliteConnection,
    ids: &[String],
) -> Result<Vec<AuthorizationRow>, Failure> {
    let rows = sqlx::query_as!(
        Stored,
        "SELECT a.id, a.directory, a.account, a.identifier, a.wildcard, a.status, a.state, a.created_at,
                a.expires_at, a.version
         FROM json_each(?) AS r CROSS JOIN authorizations AS a ON a.id = r.value
         ORDER BY r.key",
        list(ids)
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Stored::authorization).collect()
}

pub(super) async fn reusable(
    connection: &mut SqliteConnection,
    account: &str,
    identifiers: &[Identifier],
    now: Timestamp,
) -> Result<Vec<AuthorizationRow>, Failure> {
    let mut wanted = Rows::new();
    for identifier in identifiers {
        wanted.row().text(identifier.value.as_str()).number(i64::from(identifier.wildcard));
    }
    let (wanted, _) = wanted.finish();
    // The longest-lived of each identifier: `max` of a group brings the other columns of its row.
    // "IN (…)" says to the planner that the partial index has all that is wanted.
    let rows = sqlx::query_as!(
        Stored,
        r#"SELECT a.id, a.directory, a.account, a.identifier, a.wildcard, a.status, a.state, a.created_at,
                  max(a.expires_at) AS "expires_at!: i64", a.version
           FROM json_each(?1) AS r CROSS JOIN authorizations AS a
           WHERE substr(a.account, 1, 12) = substr(?2, 1, 12) AND a.account = ?2
             AND a.status IN ('pending', 'valid') AND a.status = 'valid'
             AND a.identifier = r.value ->> 0 AND a.wildcard = r.value ->> 1 AND a.expires_at > ?3
           GROUP BY r.key ORDER BY r.key"#,
        wanted,
        account,
        seconds(now)
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Stored::authorization).collect()
}
