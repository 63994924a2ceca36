//! Revocations (DESIGN §6).

use ca_store::Reason;
use ca_store::{
    AuthorityRow, CrlShard, NewRevocation, RevocationRow, RevokeOutcome, Revoked, RevokedAfter, StoreChange,
    Upgrade,
};
use sqlx::PgConnection;

use super::{
    Context,
    entry::{Stored, entries},
    put_rows,
};
use crate::{
    failure::Failure,
    lock::Locks,
    stored::{Table, number, seconds},
    writer::Change,
};

const SHARDS: Table = Table("crl_shards");
const REVOCATIONS: Table = Table("revocations");

/// [`revoke`](ca_store::CaStore::revoke).
pub(super) struct Revoke(pub(super) Vec<NewRevocation>);

impl Change<Context> for Revoke {
    type Outcome = Vec<RevokeOutcome>;

    const LOCKS: Locks = Locks::ALL;

    async fn apply(
        &self,
        connection: &mut PgConnection,
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
    connection: &mut PgConnection,
    context: &mut Context,
    new: &NewRevocation,
) -> Result<RevokeOutcome, Failure> {
    let serial = new.serial.as_bytes();
    // The lock of the transaction keeps other revocations off, and its statement sees all that were made before.
    // A precertificate and its final have the same issuer, shard and, but for the last, lifetime.
    let entry = entries!("WHERE j.serial = $1 ORDER BY j.not_after DESC LIMIT 1", serial)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(entry) = entry else { return Ok(RevokeOutcome::Unknown) };
    let outcome = match entry.revocation()? {
        None => RevokeOutcome::Revoked(insert(connection, context, entry, new).await?),
        Some(row)
            if new.upgrade && new.reason == Reason::KeyCompromise && row.current_reason() != new.reason =>
        {
            RevokeOutcome::Upgraded(upgrade(connection, context, row, new).await?)
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
    connection: &mut PgConnection,
    context: &mut Context,
    entry: Stored,
    new: &NewRevocation,
) -> Result<RevocationRow, Failure> {
    let revision = raise_revision(connection, context, entry.issuer(), entry.shard).await?;
    sqlx::query!(
        "INSERT INTO revocations (issuer, shard, serial, revision, revoked_at, reason, not_after)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
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
    connection: &mut PgConnection,
    context: &mut Context,
    row: RevocationRow,
    new: &NewRevocation,
) -> Result<RevocationRow, Failure> {
    let revision = raise_revision(connection, context, &row.issuer, i64::from(row.shard)).await?;
    sqlx::query!(
        "UPDATE revocations SET upgrade_revision = $1, upgraded_at = $2
         WHERE issuer = $3 AND shard = $4 AND serial = $5",
        revision,
        seconds(new.at),
        row.issuer,
        i64::from(row.shard),
        new.serial.as_bytes()
    )
    .execute(&mut *connection)
    .await?;
    keep_request(connection, new, true).await?;
    let upgrade = Upgrade { revision: SHARDS.unsigned("revision", revision)?, at: new.at };
    Ok(RevocationRow { upgrade: Some(upgrade), ..row })
}

async fn raise_revision(
    connection: &mut PgConnection,
    context: &mut Context,
    issuer: &str,
    shard: i64,
) -> Result<i64, Failure> {
    let row = sqlx::query!(
        "INSERT INTO crl_shards (issuer, shard, revision, number)
         SELECT $1, $2, (epoch - 1) * 34359738368 + 1, (epoch - 1) * 34359738368 FROM ca_meta WHERE true
         ON CONFLICT (issuer, shard) DO UPDATE SET revision = crl_shards.revision + 1
         RETURNING revision",
        issuer,
        shard
    )
    .fetch_one(connection)
    .await?;
    let shard = CrlShard { issuer: issuer.to_owned(), shard: SHARDS.small("shard", shard)? };
    context.changes.push(StoreChange::Revoked(shard));
    Ok(row.revision)
}

async fn keep_request(
    connection: &mut PgConnection,
    new: &NewRevocation,
    upgrade: bool,
) -> Result<(), Failure> {
    sqlx::query!(
        "INSERT INTO revocation_requests (serial, upgrade, source, request) VALUES ($1, $2, $3, $4)",
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
    connection: &mut PgConnection,
    after: &RevokedAfter,
) -> Result<Vec<Revoked>, Failure> {
    let rows = sqlx::query!(
        r#"SELECT revision AS "revision!", serial AS "serial!"
           FROM ((SELECT revision, serial FROM revocations
                  WHERE issuer = $1 AND shard = $2 AND revision > $3 ORDER BY revision LIMIT $4)
                 UNION ALL
                 (SELECT upgrade_revision, serial FROM revocations
                  WHERE issuer = $1 AND shard = $2 AND upgrade_revision > $3
                  ORDER BY upgrade_revision LIMIT $4)) AS changed
           ORDER BY revision LIMIT $4"#,
        after.shard.issuer,
        i64::from(after.shard.shard),
        number(after.revision),
        i64::from(after.limit)
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
