//! Rows that grant or take authority, written: all of a set, or none.

use ca_store::{AuthorityChange, AuthorityChanges, AuthorityRow, PutOutcome, StoreChange};
use sqlx::PgConnection;

use super::{Context, put_rows::write};
use crate::{failure::Failure, lock::Locks, stored::number, writer::Change};

impl Change<Context> for AuthorityChanges {
    type Outcome = PutOutcome;

    const LOCKS: Locks = Locks::AUTHORITY;

    async fn apply(
        &self,
        connection: &mut PgConnection,
        context: &mut Context,
    ) -> Result<PutOutcome, Failure> {
        let mut missing = Vec::new();
        for (place, change) in self.changes.iter().enumerate() {
            match standing(connection, change).await? {
                Standing::Replaceable => missing.push(&change.row),
                Standing::There => {}
                Standing::Other => return Ok(PutOutcome::Conflict(place)),
            }
        }
        for row in &missing {
            write(connection, row).await?;
        }
        if missing.iter().any(|row| matches!(row, AuthorityRow::Node(_))) {
            context.changes.push(StoreChange::Nodes);
        }
        // A set that is there already was reported when it was written.
        if !missing.is_empty() || self.changes.is_empty() {
            context.audit.extend_from_slice(&self.audit);
        }
        Ok(PutOutcome::Applied)
    }
}

/// What a change finds.
pub(super) enum Standing {
    /// The version that it expects.
    Replaceable,
    /// The very row that it would write.
    There,
    /// Anything else.
    Other,
}

/// What a row that is stored has: its version, and its MAC.
struct Found {
    version: i64,
    mac: Vec<u8>,
}

macro_rules! found {
    ($query:literal, $connection:expr $(, $key:expr)+) => {
        sqlx::query_as!(Found, $query $(, $key)+).fetch_optional(&mut *$connection).await?
    };
}

/// What a change finds where its row belongs.
pub(super) async fn standing(
    connection: &mut PgConnection,
    change: &AuthorityChange,
) -> Result<Standing, Failure> {
    use AuthorityRow as Row;
    let (found, mac) = match &change.row {
        Row::Tenant(it) => (
            found!("SELECT version, mac FROM tenants WHERE id = $1", connection, it.unverified().id),
            it.mac(),
        ),
        Row::Directory(it) => (
            found!("SELECT version, mac FROM directories WHERE name = $1", connection, it.unverified().name),
            it.mac(),
        ),
        Row::Profile(it) => (
            found!("SELECT version, mac FROM profiles WHERE name = $1", connection, it.unverified().name),
            it.mac(),
        ),
        Row::Issuer(it) => (
            found!("SELECT version, mac FROM issuers WHERE id = $1", connection, it.unverified().id),
            it.mac(),
        ),
        Row::Registration(it) => (
            found!("SELECT version, mac FROM registrations WHERE id = $1", connection, it.unverified().id),
            it.mac(),
        ),
        Row::EabKey(it) => (
            found!("SELECT version, mac FROM eab_keys WHERE kid = $1", connection, it.unverified().kid),
            it.mac(),
        ),
        Row::Permit(it) => (
            found!("SELECT version, mac FROM permits WHERE id = $1", connection, it.unverified().id),
            it.mac(),
        ),
        Row::Grant(it) => (
            found!("SELECT version, mac FROM grants WHERE id = $1", connection, it.unverified().id),
            it.mac(),
        ),
        Row::Node(it) => {
            let node = it.unverified();
            let found = found!(
                "SELECT version, mac FROM nodes WHERE role = $1 AND name = $2",
                connection,
                node.role,
                node.name
            );
            (found, it.mac())
        }
        Row::JoinToken(it) => {
            let digest = it.unverified().digest.as_slice();
            (found!("SELECT version, mac FROM join_tokens WHERE digest = $1", connection, digest), it.mac())
        }
        Row::Incident(it) => (
            found!("SELECT version, mac FROM incidents WHERE id = $1", connection, it.unverified().id),
            it.mac(),
        ),
        // The first of a key stays.
        Row::Deactivation(_) | Row::BlockedKey(_) => return first(connection, &change.row).await,
    };
    Ok(match (found, change.expected) {
        (Some(found), _) if found.mac == mac.mac => Standing::There,
        (None, None) => Standing::Replaceable,
        (Some(found), Some(expected)) if found.version == number(expected) => Standing::Replaceable,
        _ => Standing::Other,
    })
}

async fn first(connection: &mut PgConnection, row: &AuthorityRow) -> Result<Standing, Failure> {
    let there = match row {
        AuthorityRow::Deactivation(it) => {
            let key = &it.unverified().authorization;
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM deactivations WHERE authorization_id = $1"#,
                key
            )
            .fetch_one(connection)
            .await?
        }
        AuthorityRow::BlockedKey(it) => {
            let key = it.spki_sha256.as_slice();
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM blocked_keys WHERE spki_sha256 = $1"#,
                key
            )
            .fetch_one(connection)
            .await?
        }
        _ => 0,
    };
    Ok(if there > 0 { Standing::There } else { Standing::Replaceable })
}
