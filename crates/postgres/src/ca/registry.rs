//! Tenants, directories, profiles, issuers, read.

use ca_store::{DirectoryRow, IssuerRow, IssuerState, ProfileRow, Registry, Sealed, State, TenantRow};
use sqlx::{Connection, PgConnection};

use crate::{failure::Failure, stored::Table};

const TENANTS: Table = Table("tenants");
const DIRECTORIES: Table = Table("directories");
const PROFILES: Table = Table("profiles");
const ISSUERS: Table = Table("issuers");

pub(super) async fn registry(connection: &mut PgConnection) -> Result<Registry, Failure> {
    let mut snapshot = connection.begin().await?;
    let registry = Registry {
        tenants: tenants(&mut snapshot).await?,
        directories: directories(&mut snapshot).await?,
        profiles: profiles(&mut snapshot).await?,
        issuers: issuers(&mut snapshot).await?,
    };
    snapshot.rollback().await?;
    Ok(registry)
}

async fn tenants(connection: &mut PgConnection) -> Result<Vec<Sealed<TenantRow>>, Failure> {
    let rows = sqlx::query!(
        "SELECT id, title, state, created_at, version, mac_version, mac FROM tenants ORDER BY id"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let tenant = TenantRow {
                id: row.id,
                title: row.title,
                state: TENANTS.word("state", &row.state, State::from_word)?,
                created_at: TENANTS.time("created_at", row.created_at)?,
                version: TENANTS.unsigned("version", row.version)?,
            };
            Ok(Sealed::from_stored(tenant, TENANTS.mac(row.mac_version, row.mac)?))
        })
        .collect()
}

async fn directories(connection: &mut PgConnection) -> Result<Vec<Sealed<DirectoryRow>>, Failure> {
    let rows = sqlx::query!(
        "SELECT name, tenant, policy, state, created_at, version, mac_version, mac FROM directories ORDER BY name"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let directory = DirectoryRow {
                name: row.name,
                tenant: row.tenant,
                policy: row.policy,
                state: DIRECTORIES.word("state", &row.state, State::from_word)?,
                created_at: DIRECTORIES.time("created_at", row.created_at)?,
                version: DIRECTORIES.unsigned("version", row.version)?,
            };
            Ok(Sealed::from_stored(directory, DIRECTORIES.mac(row.mac_version, row.mac)?))
        })
        .collect()
}

async fn profiles(connection: &mut PgConnection) -> Result<Vec<Sealed<ProfileRow>>, Failure> {
    let rows = sqlx::query!(
        "SELECT name, body, state, created_at, version, mac_version, mac FROM profiles ORDER BY name"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let profile = ProfileRow {
                name: row.name,
                body: row.body,
                state: PROFILES.word("state", &row.state, State::from_word)?,
                created_at: PROFILES.time("created_at", row.created_at)?,
                version: PROFILES.unsigned("version", row.version)?,
            };
            Ok(Sealed::from_stored(profile, PROFILES.mac(row.mac_version, row.mac)?))
        })
        .collect()
}

async fn issuers(connection: &mut PgConnection) -> Result<Vec<Sealed<IssuerRow>>, Failure> {
    let rows = sqlx::query!(
        "SELECT id, certificate, settings, shards, state, created_at, version, mac_version, mac
         FROM issuers ORDER BY id"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let issuer = IssuerRow {
                id: row.id,
                certificate: row.certificate,
                settings: row.settings,
                shards: ISSUERS.small("shards", row.shards)?,
                state: ISSUERS.word("state", &row.state, IssuerState::from_word)?,
                created_at: ISSUERS.time("created_at", row.created_at)?,
                version: ISSUERS.unsigned("version", row.version)?,
            };
            Ok(Sealed::from_stored(issuer, ISSUERS.mac(row.mac_version, row.mac)?))
        })
        .collect()
}
