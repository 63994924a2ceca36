//! Authorizations, read.

use acme_store::Timestamp;
use acme_store::{AuthorizationRow, AuthorizationStatus, Identifier};
use sqlx::PgConnection;

use crate::{
    failure::Failure,
    stored::{Table, columns, seconds},
};

pub(super) const AUTHORIZATIONS: Table = Table("authorizations");

/// An authorization as it is stored.
struct Stored {
    id: String,
    directory: String,
    account: String,
    identifier: String,
    wildcard: bool,
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
            identifier: Identifier { value: self.identifier, wildcard: self.wildcard },
            status: AUTHORIZATIONS.word("status", &self.status, AuthorizationStatus::from_word)?,
            state: self.state,
            created_at: AUTHORIZATIONS.time("created_at", self.created_at)?,
            expires_at: AUTHORIZATIONS.time("expires_at", self.expires_at)?,
            version: AUTHORIZATIONS.unsigned("version", self.version)?,
        })
    }
}

pub(super) async fn by_ids(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<Vec<AuthorizationRow>, Failure> {
    let rows = sqlx::query_as!(
        Stored,
        "SELECT a.id, a.directory, a.account, a.identifier, a.wildcard, a.status, a.state, a.created_at,
                a.expires_at, a.version
         FROM UNNEST($1::text[]) WITH ORDINALITY AS wanted (id, place) JOIN authorizations AS a ON a.id = wanted.id
         ORDER BY wanted.place",
        ids
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Stored::authorization).collect()
}

pub(super) async fn reusable(
    connection: &mut PgConnection,
    account: &str,
    identifiers: &[Identifier],
    now: Timestamp,
) -> Result<Vec<AuthorizationRow>, Failure> {
    columns!(identifiers, |identifier| {
        names: &str = identifier.value.as_str(),
        wildcards: bool = identifier.wildcard,
    });
    // The longest-lived of each identifier.
    let rows = sqlx::query_as!(
        Stored,
        "SELECT a.id, a.directory, a.account, a.identifier, a.wildcard, a.status, a.state, a.created_at,
                a.expires_at, a.version
         FROM UNNEST($1::text[], $2::boolean[]) WITH ORDINALITY AS wanted (identifier, wildcard, place)
              CROSS JOIN LATERAL (
                SELECT * FROM authorizations AS candidate
                WHERE substr(candidate.account, 1, 12) = substr($3, 1, 12) AND candidate.account = $3
                  AND candidate.status = 'valid' AND candidate.identifier = wanted.identifier
                  AND candidate.wildcard = wanted.wildcard AND candidate.expires_at > $4
                ORDER BY candidate.expires_at DESC LIMIT 1) AS a
         ORDER BY wanted.place",
        &names as &[&str],
        &wildcards,
        account,
        seconds(now)
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Stored::authorization).collect()
}
