//! Rows that grant or take authority, as they are written.

use ca_store::{AuthorityRow, IncidentRow, Sealable, Sealed};
use sqlx::PgConnection;

use crate::{
    failure::Failure,
    stored::{number, optional_seconds, seconds},
};

/// Replaces a row of a table, columns and MAC.
macro_rules! replace {
    ($connection:expr, $sql:literal, $sealed:expr, |$row:ident| $($column:expr),+) => {{
        let (key_version, mac) = mac($sealed);
        let $row = $sealed.unverified();
        sqlx::query!($sql, $($column,)+ key_version, mac).execute($connection).await?
    }};
}

fn mac<T: Sealable>(sealed: &Sealed<T>) -> (i64, &[u8]) {
    (i64::from(sealed.mac().key_version), sealed.mac().mac.as_slice())
}

/// Writes a row whose place was checked.
pub(super) async fn write(connection: &mut PgConnection, row: &AuthorityRow) -> Result<(), Failure> {
    match row {
        AuthorityRow::Tenant(_)
        | AuthorityRow::Directory(_)
        | AuthorityRow::Profile(_)
        | AuthorityRow::Issuer(_) => registry(connection, row).await,
        AuthorityRow::EabKey(_) => eab_key(connection, row).await,
        AuthorityRow::Registration(_) | AuthorityRow::Permit(_) | AuthorityRow::Grant(_) => {
            granted(connection, row).await
        }
        AuthorityRow::Node(_)
        | AuthorityRow::JoinToken(_)
        | AuthorityRow::Deactivation(_)
        | AuthorityRow::BlockedKey(_) => rest(connection, row).await,
        AuthorityRow::Incident(it) => incident(connection, it).await,
    }
}

async fn registry(connection: &mut PgConnection, row: &AuthorityRow) -> Result<(), Failure> {
    match row {
        AuthorityRow::Tenant(it) => replace!(
            connection,
            "INSERT INTO tenants (
                id, title, state, created_at, version, mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (id) DO UPDATE SET
                title = excluded.title, state = excluded.state, created_at =
                excluded.created_at, version = excluded.version, mac_version =
                excluded.mac_version, mac = excluded.mac",
            it,
            |row| row.id,
            row.title,
            row.state.as_str(),
            seconds(row.created_at),
            number(row.version)
        ),
        AuthorityRow::Directory(it) => replace!(
            connection,
            "INSERT INTO directories (
                name, tenant, policy, state, created_at, version, mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (name) DO UPDATE SET
                tenant = excluded.tenant, policy = excluded.policy, state =
                excluded.state, created_at = excluded.created_at, version =
                excluded.version, mac_version = excluded.mac_version, mac = excluded.mac",
            it,
            |row| row.name,
            row.tenant,
            row.policy,
            row.state.as_str(),
            seconds(row.created_at),
            number(row.version)
        ),
        AuthorityRow::Profile(it) => replace!(
            connection,
            "INSERT INTO profiles (
                name, body, state, created_at, version, mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (name) DO UPDATE SET
                body = excluded.body, state = excluded.state, created_at =
                excluded.created_at, version = excluded.version, mac_version =
                excluded.mac_version, mac = excluded.mac",
            it,
            |row| row.name,
            row.body,
            row.state.as_str(),
            seconds(row.created_at),
            number(row.version)
        ),
        AuthorityRow::Issuer(it) => replace!(
            connection,
            "INSERT INTO issuers (
                id, certificate, settings, shards, state, created_at, version,
                mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (id) DO UPDATE SET
                certificate = excluded.certificate, settings = excluded.settings, shards
                = excluded.shards, state = excluded.state, created_at =
                excluded.created_at, version = excluded.version, mac_version =
                excluded.mac_version, mac = excluded.mac",
            it,
            |row| row.id,
            row.certificate,
            row.settings,
            i64::from(row.shards),
            row.state.as_str(),
            seconds(row.created_at),
            number(row.version)
        ),
        _ => return Ok(()),
    };
    Ok(())
}

async fn granted(connection: &mut PgConnection, row: &AuthorityRow) -> Result<(), Failure> {
    match row {
        AuthorityRow::Registration(it) => replace!(
            connection,
            "INSERT INTO registrations (
                id, directory, title, settings, state, created_at, version,
                mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (id) DO UPDATE SET
                directory = excluded.directory, title = excluded.title, settings =
                excluded.settings, state = excluded.state, created_at =
                excluded.created_at, version = excluded.version, mac_version =
                excluded.mac_version, mac = excluded.mac",
            it,
            |row| row.id,
            row.directory,
            row.title,
            row.settings,
            row.state.as_str(),
            seconds(row.created_at),
            number(row.version)
        ),
        AuthorityRow::Permit(it) => replace!(
            connection,
            "INSERT INTO permits (
                id, registration, scope, name, state, created_at, version,
                mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (id) DO UPDATE SET
                registration = excluded.registration, scope = excluded.scope, name =
                excluded.name, state = excluded.state, created_at = excluded.created_at,
                version = excluded.version, mac_version = excluded.mac_version, mac =
                excluded.mac",
            it,
            |row| row.id,
            row.registration,
            row.scope.as_str(),
            row.name,
            row.state.as_str(),
            seconds(row.created_at),
            number(row.version)
        ),
        AuthorityRow::Grant(it) => replace!(
            connection,
            "INSERT INTO grants (
                id, registration, scope, name, state, expires_at, created_at,
                version, mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (id) DO UPDATE SET
                registration = excluded.registration, scope = excluded.scope, name =
                excluded.name, state = excluded.state, expires_at = excluded.expires_at,
                created_at = excluded.created_at, version = excluded.version,
                mac_version = excluded.mac_version, mac = excluded.mac",
            it,
            |row| row.id,
            row.registration,
            row.scope.as_str(),
            row.name,
            row.state.as_str(),
            optional_seconds(row.expires_at),
            seconds(row.created_at),
            number(row.version)
        ),
        _ => return Ok(()),
    };
    Ok(())
}

async fn eab_key(connection: &mut PgConnection, row: &AuthorityRow) -> Result<(), Failure> {
    match row {
        AuthorityRow::EabKey(it) => replace!(
            connection,
            "INSERT INTO eab_keys (
                kid, registration, secret_version, epoch, max_uses, uses, state,
                expires_at, created_at, version, mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (kid) DO UPDATE SET
                registration = excluded.registration, secret_version =
                excluded.secret_version, epoch = excluded.epoch, max_uses =
                excluded.max_uses, uses = excluded.uses, state = excluded.state,
                expires_at = excluded.expires_at, created_at = excluded.created_at,
                version = excluded.version, mac_version = excluded.mac_version, mac =
                excluded.mac",
            it,
            |row| row.kid,
            row.registration,
            i64::from(row.secret_version),
            number(row.epoch),
            row.max_uses.map(i64::from),
            i64::from(row.uses),
            row.state.as_str(),
            optional_seconds(row.expires_at),
            seconds(row.created_at),
            number(row.version)
        ),
        _ => return Ok(()),
    };
    Ok(())
}

async fn rest(connection: &mut PgConnection, row: &AuthorityRow) -> Result<(), Failure> {
    match row {
        AuthorityRow::Node(it) => replace!(
            connection,
            "INSERT INTO nodes (
                role, name, settings, receipt_key, server_names, state, created_at,
                version, mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (role, name) DO UPDATE SET
                settings = excluded.settings, receipt_key = excluded.receipt_key,
                server_names = excluded.server_names, state = excluded.state, created_at
                = excluded.created_at, version = excluded.version, mac_version =
                excluded.mac_version, mac = excluded.mac",
            it,
            |row| row.role,
            row.name,
            row.settings,
            row.receipt_key,
            &row.server_names,
            row.state.as_str(),
            seconds(row.created_at),
            number(row.version)
        ),
        AuthorityRow::JoinToken(it) => replace!(
            connection,
            "INSERT INTO join_tokens (
                digest, role, name, server_names, settings, expires_at, used_at,
                created_at, version, mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (digest) DO UPDATE SET
                role = excluded.role, name = excluded.name, server_names =
                excluded.server_names, settings = excluded.settings, expires_at =
                excluded.expires_at, used_at = excluded.used_at, created_at =
                excluded.created_at, version = excluded.version, mac_version =
                excluded.mac_version, mac = excluded.mac",
            it,
            |row| row.digest.as_slice(),
            row.role,
            row.name,
            &row.server_names,
            row.settings,
            seconds(row.expires_at),
            optional_seconds(row.used_at),
            seconds(row.created_at),
            number(row.version)
        ),
        AuthorityRow::Deactivation(it) => replace!(
            connection,
            "INSERT INTO deactivations (
                authorization_id, account, request, at, mac_version, mac)
             VALUES ($1, $2, $3, $4, $5, $6)",
            it,
            |row| row.authorization,
            row.account,
            row.request,
            seconds(row.at)
        ),
        AuthorityRow::BlockedKey(it) => {
            sqlx::query!(
                "INSERT INTO blocked_keys (spki_sha256, reason, source, at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT DO NOTHING",
                it.spki_sha256.as_slice(),
                it.reason,
                it.source,
                seconds(it.at)
            )
            .execute(connection)
            .await?
        }
        _ => return Ok(()),
    };
    Ok(())
}

async fn incident(connection: &mut PgConnection, it: &Sealed<IncidentRow>) -> Result<(), Failure> {
    replace!(
        connection,
        "INSERT INTO incidents (
            id, title, url, settings, reason, waves, begins_at, wave_seconds, deadline, state, created_at, ended_at,
            version, mac_version, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         ON CONFLICT (id) DO UPDATE SET
            title = excluded.title, url = excluded.url, settings = excluded.settings, reason = excluded.reason,
            waves = excluded.waves, begins_at = excluded.begins_at, wave_seconds = excluded.wave_seconds,
            deadline = excluded.deadline, state = excluded.state, created_at = excluded.created_at,
            ended_at = excluded.ended_at, version = excluded.version, mac_version = excluded.mac_version,
            mac = excluded.mac",
        it,
        |row| row.id,
        row.title,
        row.url,
        row.settings,
        i64::from(row.reason),
        i64::from(row.waves),
        seconds(row.begins_at),
        number(row.wave_seconds),
        seconds(row.deadline),
        row.state.as_str(),
        seconds(row.created_at),
        optional_seconds(row.ended_at),
        number(row.version)
    );
    Ok(())
}
