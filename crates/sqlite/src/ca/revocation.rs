//! Revocations (DESIGN §6).

use ca_store::Reason;
use ca_store::{AuthorityRow, NewRevocation, RevocationRow, RevokeOutcome, Revoked, RevokedAfter, Upgrade};
use sqlx::SqliteConnection;

use super::{
    Context,
    entry::{Stored, entries},
    put_rows,
};
use crate::{
    failure::Failure,
    stored::{Table, number, seconds},
    writer::Change,
};

const SHARDS: Table = Table("crl_shards");
const REVOCATIONS: Table = Table("revocations");

/// [`revoke`](ca_store::CaStore::revoke).
pub(super) struct Revoke(pub(super) Vec<NewRevocation>);

impl Change<Context> for Revoke {
    type Outcome = Vec<RevokeOutcome>;

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        context: &mut Context,
    ) -> Result<Vec<RevokeOutcome>, Failure> {
        let mut outcomes = Vec::with_capacity(self.0.len());
        for revocation in &self.0 {
            outcomes.push(revoke(connection, context, revocation).await?);
        }
        Ok(outcomes)
    }
}

async fn revoke(
    connection: &mut SqliteConnection,
    context: &mut Context,
    new: &NewRevocation,
) -> Result<RevokeOutcome, Failure> {
    let serial = new.serial.as_bytes();
    // A precertificate and its final have the same issuer, shard and, but for the last, lifetime.
    let entry = entries!("WHERE j.serial = ? ORDER BY j.not_after DESC LIMIT 1", serial)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(entry) = entry else { return Ok(RevokeOutcome::Unknown) };
    let outcome = match entry.revocation()? {
        None => RevokeOutcome::Revoked(insert(connection, entry, new).await?),
        Some(row)
            if new.upgrade && new.reason == Reason::KeyCompromise && row.current_reason() != new.reason =>
        {
            RevokeOutcome::Upgraded(upgrade(connection, row, new).await?)
        }
        // A key can become known as compromised after its certificate was revoked for that.
        Some(row) => RevokeOutcome::Already(row),
    };
    if let Some(block) = &new.block {
        put_rows::write(connection, &AuthorityRow::BlockedKey(block.clone())).await?;
    }
    if !matches!(outcome, RevokeOutcome::Already(_)) {
        context.audit.extend_from_slice(&new.audit);
    }
    Ok(outcome)
}

async fn insert(
    connection: &mut SqliteConnection,
    entry: Stored,
    new: &NewRevocation,
) -> Result<RevocationRow, Failure> {
    let revision = raise_revision(connection, entry.issuer(), entry.shard).await?;
    sqlx::query!(
        "INSERT INTO revocations (issuer, shard, serial, revision, revoked_at, reason, not_after)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        entry.issuer(),
        entry.shard,
        new.serial.as_bytes(),
        revision,
        seconds(new.at),
        i64::from(new.reason.code()),
        entry.not_after
    )
    .execute(&mut *connection)
    .await?;
    keep_request(connection, new, false).await?;
    let row = entry.entry()?.row;
    let row = row.unverified();
    Ok(RevocationRow {
        serial: new.serial,
        issuer: row.issuer.clone(),
        shard: row.shard,
        revision: SHARDS.unsigned("revision", revision)?,
        revoked_at: new.at,
        reason: new.reason,
        source: new.source.clone(),
        not_after: row.not_after,
        upgrade: None,
    })
}

async fn upgrade(
    connection: &mut SqliteConnection,
    row: RevocationRow,
    new: &NewRevocation,
) -> Result<RevocationRow, Failure> {
    let revision = raise_revision(connection, &row.issuer, i64::from(row.shard)).await?;
    sqlx::query!(
        "UPDATE revocations SET upgrade_revision = ?, upgraded_at = ?
         WHERE issuer = ? AND shard = ? AND serial = ?",
        revision,
        seconds(new.at),
        row.issuer,
        row.shard,
        new.serial.as_bytes()
    )
    .execute(&mut *connection)
    .await?;
    keep_request(connection, new, true).await?;
    let upgrade = Upgrade { revision: SHARDS.unsigned("revision", revision)?, at: new.at };
    Ok(RevocationRow { upgrade: Some(upgrade), ..row })
}

async fn raise_revision(connection: &mut SqliteConnection, issuer: &str, shard: i64) -> Result<i64, Failure> {
    let row = sqlx::query!(
        "INSERT INTO crl_shards (issuer, shard, revision, number)
         SELECT ?, ?, (epoch - 1) * 34359738368 + 1, (epoch - 1) * 34359738368 FROM ca_meta WHERE true
         ON CONFLICT (issuer, shard) DO UPDATE SET revision = revision + 1
         RETURNING revision",
        issuer,
        shard
    )
    .fetch_one(connection)
    .await?;
    Ok(row.revision)
}

async fn keep_request(
    connection: &mut SqliteConnection,
    new: &NewRevocation,
    upgrade: bool,
) -> Result<(), Failure> {
    sqlx::query!(
        "INSERT INTO revocation_requests (serial, upgrade, source, request) VALUES (?, ?, ?, ?)",
        new.serial.as_bytes(),
        upgrade,
        new.source,
        new.request
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// [`revoked_after`](ca_store::CaStore::revoked_after). Revisions of a shard are made under its row's lock: what is seen of
/// them has no gap.
pub(super) async fn after(
    connection: &mut SqliteConnection,
    after: &RevokedAfter,
) -> Result<Vec<Revoked>, Failure> {
    let rows = sqlx::query!(
        r#"SELECT revision AS "revision!: i64", serial AS "serial!: Vec<u8>"
           FROM (SELECT revision, serial FROM (
                     SELECT revision, serial FROM revocations
                     WHERE issuer = ?1 AND shard = ?2 AND revision > ?3 ORDER BY revision LIMIT ?4)
                 UNION ALL
                 SELECT revision, serial FROM (
                     SELECT upgrade_revision AS revision, serial FROM revocations
                     WHERE issuer = ?1 AND shard = ?2 AND upgrade_revision > ?3
                     ORDER BY upgrade_revision LIMIT ?4))
           ORDER BY revision LIMIT ?4"#,
        after.shard.issuer,
        after.shard.shard,
        number(after.revision),
        after.limit
    )
    .fetch_all(connection)
    .await?;
    let revoked = |row: (i64, Vec<u8>)| {
        Ok(Revoked {
            revision: REVOCATIONS.unsigned("revision", row.0)?,
            serial: REVOCATIONS.serial("serial", &row.1)?,
        })
    };
    rows.into_iter().map(|row| revoked((row.revision, row.serial))).collect()
}
