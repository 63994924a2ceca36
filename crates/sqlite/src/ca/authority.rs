//! Registrations and what hangs on them, read.

use ca_store::{
    Authority, AuthoritySelector, Cursor, EabKeyRow, EabState, GrantRow, NameScope, Page, Paged, PermitRow,
    RegistrationRow, Sealed, State,
};
use sqlx::{Connection, SqliteConnection};

use crate::{failure::Failure, rows::list, stored::Table};

const REGISTRATIONS: Table = Table("registrations");
const EAB_KEYS: Table = Table("eab_keys");
const PERMITS: Table = Table("permits");
const GRANTS: Table = Table("grants");

struct StoredRegistration {
    id: String,
    directory: String,
    title: String,
    settings: String,
    state: String,
    created_at: i64,
    version: i64,
    mac_version: i64,
    mac: Vec<u8>,
}

impl StoredRegistration {
    fn row(self) -> Result<Sealed<RegistrationRow>, Failure> {
        let row = RegistrationRow {
            id: self.id,
            directory: self.directory,
            title: self.title,
            settings: self.settings,
            state: REGISTRATIONS.word("state", &self.state, State::from_word)?,
            created_at: REGISTRATIONS.time("created_at", self.created_at)?,
            version: REGISTRATIONS.unsigned("version", self.version)?,
        };
        Ok(Sealed::from_stored(row, REGISTRATIONS.mac(self.mac_version, self.mac)?))
    }
}

pub(super) async fn authority(
    connection: &mut SqliteConnection,
    selector: &AuthoritySelector,
) -> Result<Option<Authority>, Failure> {
    let mut snapshot = connection.begin().await?;
    let registration = match selector {
        AuthoritySelector::Registration(id) => {
            sqlx::query_as!(
                StoredRegistration,
                "SELECT id, directory, title, settings, state, created_at, version, mac_version, mac
                 FROM registrations WHERE id = ?",
                id
            )
            .fetch_optional(&mut *snapshot)
            .await?
        }
        AuthoritySelector::EabKey(kid) => {
            sqlx::query_as!(
                StoredRegistration,
                "SELECT id, directory, title, settings, state, created_at, version, mac_version, mac
                 FROM registrations WHERE id = (SELECT registration FROM eab_keys WHERE kid = ?)",
                kid
            )
            .fetch_optional(&mut *snapshot)
            .await?
        }
    };
    let Some(registration) = registration else { return Ok(None) };
    let id = registration.id.clone();
    let authority = Authority {
        registration: registration.row()?,
        eab_keys: eab_keys(&mut snapshot, &id).await?,
        permits: permits(&mut snapshot, &id).await?,
        grants: grants(&mut snapshot, &id).await?,
    };
    snapshot.rollback().await?;
    Ok(Some(authority))
}

async fn eab_keys(
    connection: &mut SqliteConnection,
    registration: &str,
) -> Result<Vec<Sealed<EabKeyRow>>, Failure> {
    let rows = sqlx::query!(
        "SELECT kid, registration, secret_version, epoch, max_uses, uses, state, expires_at, created_at, version,
                mac_version, mac
         FROM eab_keys WHERE registration = ? ORDER BY kid",
        registration
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let key = EabKeyRow {
                kid: row.kid,
                registration: row.registration,
                secret_version: EAB_KEYS.small("secret_version", row.secret_version)?,
                epoch: EAB_KEYS.unsigned("epoch", row.epoch)?,
                max_uses: row.max_uses.map(|uses| EAB_KEYS.small("max_uses", uses)).transpose()?,
                uses: EAB_KEYS.small("uses", row.uses)?,
                state: EAB_KEYS.word("state", &row.state, EabState::from_word)?,
                expires_at: EAB_KEYS.optional_time("expires_at", row.expires_at)?,
                created_at: EAB_KEYS.time("created_at", row.created_at)?,
                version: EAB_KEYS.unsigned("version", row.version)?,
            };
            Ok(Sealed::from_stored(key, EAB_KEYS.mac(row.mac_version, row.mac)?))
        })
        .collect()
}

async fn permits(
    connection: &mut SqliteConnection,
    registration: &str,
) -> Result<Vec<Sealed<PermitRow>>, Failure> {
    let rows = sqlx::query!(
        "SELECT id, registration, scope, name, state, created_at, version, mac_version, mac
         FROM permits WHERE registration = ? ORDER BY id",
        registration
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let permit = PermitRow {
                id: row.id,
                registration: row.registration,
                scope: PERMITS.word("scope", &row.scope, NameScope::from_word)?,
                name: row.name,
                state: PERMITS.word("state", &row.state, State::from_word)?,
                created_at: PERMITS.time("created_at", row.created_at)?,
                version: PERMITS.unsigned("version", row.version)?,
            };
            Ok(Sealed::from_stored(permit, PERMITS.mac(row.mac_version, row.mac)?))
        })
        .collect()
}

async fn grants(
    connection: &mut SqliteConnection,
    registration: &str,
) -> Result<Vec<Sealed<GrantRow>>, Failure> {
    let rows = sqlx::query!(
        "SELECT id, registration, scope, name, state, expires_at, created_at, version, mac_version, mac
         FROM grants WHERE registration = ? ORDER BY id",
        registration
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let grant = GrantRow {
                id: row.id,
                registration: row.registration,
                scope: GRANTS.word("scope", &row.scope, NameScope::from_word)?,
                name: row.name,
                state: GRANTS.word("state", &row.state, State::from_word)?,
                expires_at: GRANTS.optional_time("expires_at", row.expires_at)?,
                created_at: GRANTS.time("created_at", row.created_at)?,
                version: GRANTS.unsigned("version", row.version)?,
            };
            Ok(Sealed::from_stored(grant, GRANTS.mac(row.mac_version, row.mac)?))
        })
        .collect()
}

/// Those of these authorizations that were deactivated.
pub(super) async fn deactivated(
    connection: &mut SqliteConnection,
    authorizations: &[String],
) -> Result<Vec<String>, Failure> {
    let found = sqlx::query_scalar!(
        "SELECT DISTINCT d.authorization_id FROM json_each(?) AS a
         CROSS JOIN deactivations AS d ON d.authorization_id = a.value",
        list(authorizations)
    )
    .fetch_all(connection)
    .await?;
    Ok(found)
}

pub(super) async fn registrations(
    connection: &mut SqliteConnection,
    directory: Option<&str>,
    page: &Page,
) -> Result<Paged<Sealed<RegistrationRow>>, Failure> {
    let after = page.after.as_ref().map_or("", |cursor| cursor.0.as_str());
    let limit = page.limit.max(1);
    let rows = sqlx::query_as!(
        StoredRegistration,
        "SELECT id, directory, title, settings, state, created_at, version, mac_version, mac
         FROM registrations WHERE id > ?1 AND (?2 IS NULL OR directory = ?2) ORDER BY id LIMIT ?3",
        after,
        directory,
        limit
    )
    .fetch_all(connection)
    .await?;
    let next = crate::page::next(rows.len(), limit, || rows.last().map(|row| Cursor(row.id.clone())));
    let items = rows.into_iter().map(StoredRegistration::row).collect::<Result<_, _>>()?;
    Ok(Paged { items, next })
}
