//! CRLs: their numbers, entries, journal and publication (DESIGN §2.5, §6).

use ca_store::Reason;
use ca_store::{
    BeginCrl, CrlDraft, CrlEdits, CrlEntries, CrlEntry, CrlJournal, CrlKey, CrlPiece, CrlRow, CrlShard,
    CrlShardRow, CrlSince, PublishCrl, PublishOutcome,
};
use sqlx::SqliteConnection;

use super::Context;
use crate::{
    failure::{Cause, Failure},
    stored::{Table, number, seconds},
    writer::Change,
};

const SHARDS: Table = Table("crl_shards");
const CRLS: Table = Table("crls");
const REVOCATIONS: Table = Table("revocations");

/// A CRL as it is stored.
struct Stored {
    issuer: String,
    shard: i64,
    number: i64,
    revision: i64,
    base: Option<i64>,
    base_revision: Option<i64>,
    this_update: i64,
    next_update: i64,
    expired_before: i64,
    entries: i64,
    tbs_sha256: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl Stored {
    fn row(self) -> Result<CrlRow, Failure> {
        let optional =
            |column, value: Option<i64>| value.map(|value| CRLS.unsigned(column, value)).transpose();
        Ok(CrlRow {
            key: CrlKey {
                shard: CrlShard { issuer: self.issuer, shard: CRLS.small("shard", self.shard)? },
                number: CRLS.unsigned("number", self.number)?,
            },
            revision: CRLS.unsigned("revision", self.revision)?,
            base: optional("base", self.base)?,
            base_revision: optional("base_revision", self.base_revision)?,
            this_update: CRLS.time("this_update", self.this_update)?,
            next_update: CRLS.time("next_update", self.next_update)?,
            expired_before: CRLS.time("expired_before", self.expired_before)?,
            entries: CRLS.unsigned("entries", self.entries)?,
            tbs_sha256: CRLS.digest("tbs_sha256", self.tbs_sha256)?,
            signature: self.signature,
        })
    }
}

async fn crl(
    connection: &mut SqliteConnection,
    shard: &CrlShard,
    number: i64,
) -> Result<Option<CrlRow>, Failure> {
    let stored = sqlx::query_as!(
        Stored,
        "SELECT issuer, shard, number, revision, base, base_revision, this_update, next_update, expired_before,
                entries, tbs_sha256, signature
         FROM crls WHERE issuer = ? AND shard = ? AND number = ?",
        shard.issuer,
        shard.shard,
        number
    )
    .fetch_optional(connection)
    .await?;
    stored.map(Stored::row).transpose()
}

async fn published(
    connection: &mut SqliteConnection,
    shard: &CrlShard,
    number: Option<i64>,
) -> Result<Option<CrlRow>, Failure> {
    match number {
        Some(number) => crl(connection, shard, number).await,
        None => Ok(None),
    }
}

/// [`crl_shards`](ca_store::CaStore::crl_shards); the connection is in a transaction.
pub(super) async fn shards(
    connection: &mut SqliteConnection,
    issuer: Option<&str>,
) -> Result<Vec<CrlShardRow>, Failure> {
    let rows = sqlx::query!(
        "SELECT issuer, shard, revision, number, published, published_delta FROM crl_shards
         WHERE ?1 IS NULL OR issuer = ?1 ORDER BY issuer, shard",
        issuer
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut shards = Vec::with_capacity(rows.len());
    for row in rows {
        let shard = CrlShard { issuer: row.issuer, shard: SHARDS.small("shard", row.shard)? };
        shards.push(CrlShardRow {
            revision: SHARDS.unsigned("revision", row.revision)?,
            number: SHARDS.unsigned("number", row.number)?,
            published: published(connection, &shard, row.published).await?,
            published_delta: published(connection, &shard, row.published_delta).await?,
            shard,
        });
    }
    Ok(shards)
}

impl Change<Context> for BeginCrl {
    type Outcome = CrlDraft;

    async fn apply(&self, connection: &mut SqliteConnection, _: &mut Context) -> Result<CrlDraft, Failure> {
        let row = sqlx::query!(
            "INSERT INTO crl_shards (issuer, shard, revision, number)
             SELECT ?, ?, (epoch - 1) * 34359738368, (epoch - 1) * 34359738368 + 1 FROM ca_meta WHERE true
             ON CONFLICT (issuer, shard) DO UPDATE SET number = number + 1
             RETURNING revision, number, published, published_delta",
            self.shard.issuer,
            self.shard.shard
        )
        .fetch_one(&mut *connection)
        .await?;
        Ok(CrlDraft {
            shard: self.shard.clone(),
            number: SHARDS.unsigned("number", row.number)?,
            revision: SHARDS.unsigned("revision", row.revision)?,
            published: published(connection, &self.shard, row.published).await?,
            published_delta: published(connection, &self.shard, row.published_delta).await?,
        })
    }
}

/// [`crl_entries`](ca_store::CaStore::crl_entries). The rows of a piece come as one: a row of sqlx costs several times what
/// its contents do, and a CRL may have a million. Serials are joined as octets, which the cast leaves as they are; the rest
/// of an entry is one number.
pub(super) async fn entries(
    connection: &mut SqliteConnection,
    wanted: &CrlEntries,
) -> Result<CrlPiece, Failure> {
    let nothing = CrlPiece { entries: Vec::new(), reached: wanted.revision };
    let Some(first) = first(connection, wanted).await? else { return Ok(nothing) };
    let last = last(wanted, first);
    // Of one row after another, in the order of the key: what a subquery with its own order would say costs as much again.
    let row = sqlx::query!(
        r#"SELECT CAST(group_concat(serial, '') AS BLOB) AS "serials: Vec<u8>",
                  group_concat(revoked_at * 512 + CASE WHEN upgrade_revision <= ?1 THEN ?2 ELSE reason END * 32
                               + length(serial)) AS "facts: String"
           FROM revocations NOT INDEXED
           WHERE issuer = ?3 AND shard = ?4 AND revision >= ?5 AND revision <= ?6 AND not_after >= ?7
             AND (revision > ?8 OR upgrade_revision > ?8 AND upgrade_revision <= ?1)"#,
        number(wanted.revision),
        i64::from(Reason::KeyCompromise.code()),
        wanted.shard.issuer,
        wanted.shard.shard,
        first,
        last,
        seconds(wanted.expired_before),
        number(wanted.after_revision)
    )
    .fetch_one(connection)
    .await?;
    let entries = parse(&row.serials.unwrap_or_default(), &row.facts.unwrap_or_default(), wanted.span)?;
    Ok(CrlPiece { entries, reached: REVOCATIONS.unsigned("revision", last)? })
}

/// The last revision of a piece: `after + span`, but behind a gap that is wider than that.
fn last(wanted: &CrlEntries, first: i64) -> i64 {
    let (after, span) = (number(wanted.after), i64::from(wanted.span));
    let expected = after.saturating_add(span);
    let last = if first <= expected { expected } else { first.saturating_add(span).saturating_sub(1) };
    last.min(number(wanted.revision))
}

/// The revision of the next entry.
async fn first(connection: &mut SqliteConnection, wanted: &CrlEntries) -> Result<Option<i64>, Failure> {
    let (after, base) = (number(wanted.after), number(wanted.after_revision));
    let upgraded = if base > after {
        sqlx::query_scalar!(
            r#"SELECT min(revision) AS "revision: i64" FROM revocations INDEXED BY revocations_upgrade
               WHERE issuer = ? AND shard = ? AND upgrade_revision IS NOT NULL AND upgrade_revision > ?
                 AND upgrade_revision <= ? AND revision > ? AND revision <= ? AND not_after >= ?"#,
            wanted.shard.issuer,
            wanted.shard.shard,
            base,
            number(wanted.revision),
            after,
            base,
            seconds(wanted.expired_before)
        )
        .fetch_one(&mut *connection)
        .await?
    } else {
        None
    };
    if upgraded.is_some() {
        return Ok(upgraded);
    }
    Ok(sqlx::query_scalar!(
        "SELECT revision FROM revocations
         WHERE issuer = ? AND shard = ? AND revision > ? AND revision <= ? AND not_after >= ?
         ORDER BY revision LIMIT 1",
        wanted.shard.issuer,
        wanted.shard.shard,
        after.max(base),
        number(wanted.revision),
        seconds(wanted.expired_before)
    )
    .fetch_optional(connection)
    .await?)
}

fn parse(serials: &[u8], facts: &str, span: u32) -> Result<Vec<CrlEntry>, Failure> {
    let mut entries = Vec::with_capacity(usize::try_from(span).unwrap_or(0).min(facts.len() / 8));
    let mut left = serials;
    for fact in facts.split(',').filter(|fact| !fact.is_empty()) {
        let fact: i64 = fact.parse().map_err(|_| REVOCATIONS.corrupt("revoked_at"))?;
        let length = usize::try_from(fact & 31).unwrap_or_default();
        let (serial, rest) = left.split_at_checked(length).ok_or(REVOCATIONS.corrupt("serial"))?;
        left = rest;
        entries.push(CrlEntry {
            serial: REVOCATIONS.serial("serial", serial)?,
            revoked_at: REVOCATIONS.time("revoked_at", fact >> 9)?,
            reason: REVOCATIONS.reason("reason", fact >> 5 & 15)?,
        });
    }
    Ok(entries)
}

/// [`crl_edits`](ca_store::CaStore::crl_edits).
pub(super) async fn edits(
    connection: &mut SqliteConnection,
    since: &CrlSince,
) -> Result<Option<CrlEdits>, Failure> {
    let earlier = crl(&mut *connection, &since.earlier.shard, number(since.earlier.number)).await?;
    if earlier.is_none_or(|earlier| earlier.tbs_sha256 != since.earlier_tbs_sha256) {
        return Ok(None);
    }
    let limit = i64::from(since.limit).saturating_add(1);
    // By the key, it would walk through all that were revoked before.
    let left = sqlx::query_scalar!(
        "SELECT serial FROM revocations INDEXED BY revocations_end
         WHERE issuer = ? AND shard = ? AND not_after >= ? AND not_after < ? AND revision <= ? LIMIT ?",
        since.earlier.shard.issuer,
        since.earlier.shard.shard,
        seconds(since.earlier_expired_before),
        seconds(since.expired_before),
        number(since.earlier_revision),
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    let raised = sqlx::query_scalar!(
        "SELECT serial FROM revocations INDEXED BY revocations_upgrade
         WHERE issuer = ? AND shard = ? AND upgrade_revision IS NOT NULL AND upgrade_revision > ?
           AND upgrade_revision <= ? AND revision <= ? AND not_after >= ? LIMIT ?",
        since.earlier.shard.issuer,
        since.earlier.shard.shard,
        number(since.earlier_revision),
        number(since.revision),
        number(since.earlier_revision),
        seconds(since.expired_before),
        limit
    )
    .fetch_all(connection)
    .await?;
    let limit = usize::try_from(since.limit).unwrap_or(usize::MAX);
    if left.len() > limit || raised.len() > limit {
        return Ok(None);
    }
    let serials = |column: Vec<Vec<u8>>| -> Result<Vec<_>, Failure> {
        column.iter().map(|serial| REVOCATIONS.serial("serial", serial)).collect()
    };
    Ok(Some(CrlEdits { left: serials(left)?, raised: serials(raised)? }))
}

impl Change<Context> for CrlJournal {
    type Outcome = ();

    async fn apply(&self, connection: &mut SqliteConnection, context: &mut Context) -> Result<(), Failure> {
        let row = &self.row;
        if !was_allocated(connection, row).await? {
            return Err(Failure::Refused(Cause::new(NotAllocated(row.key.number))));
        }
        let there = crl(connection, &row.key.shard, number(row.key.number)).await?;
        if let Some(there) = there {
            // Repeated, perhaps after it was signed.
            return if (CrlRow { signature: None, ..there }) == (CrlRow { signature: None, ..row.clone() }) {
                Ok(())
            } else {
                Err(Failure::Refused(Cause::new(NumberTaken(row.key.number))))
            };
        }
        sqlx::query!(
            "INSERT INTO crls (
                issuer, shard, number, revision, base, base_revision, this_update, next_update, expired_before,
                entries, tbs_sha256)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row.key.shard.issuer,
            row.key.shard.shard,
            number(row.key.number),
            number(row.revision),
            row.base.map(number),
            row.base_revision.map(number),
            seconds(row.this_update),
            seconds(row.next_update),
            seconds(row.expired_before),
            number(row.entries),
            row.tbs_sha256.as_slice()
        )
        .execute(connection)
        .await?;
        context.audit.extend_from_slice(&self.audit);
        Ok(())
    }
}

/// Whether [`BeginCrl`] gave this number out, at this revision or a later one.
async fn was_allocated(connection: &mut SqliteConnection, row: &CrlRow) -> Result<bool, Failure> {
    let shard = sqlx::query!(
        "SELECT number, revision FROM crl_shards WHERE issuer = ? AND shard = ?",
        row.key.shard.issuer,
        row.key.shard.shard
    )
    .fetch_optional(connection)
    .await?;
    Ok(shard.is_some_and(|shard| {
        number(row.key.number) <= shard.number && number(row.revision) <= shard.revision
    }))
}

#[derive(Debug, thiserror::Error)]
#[error("no CRL was begun with number {0}, or not at its revision")]
struct NotAllocated(u64);

#[derive(Debug, thiserror::Error)]
#[error("another CRL was journaled with number {0}")]
struct NumberTaken(u64);

impl Change<Context> for PublishCrl {
    type Outcome = PublishOutcome;

    async fn apply(
        &self,
        connection: &mut SqliteConnection,
        context: &mut Context,
    ) -> Result<PublishOutcome, Failure> {
        let shard = &self.key.shard;
        let new = number(self.key.number);
        let Some(row) = crl(connection, shard, new).await? else { return Ok(PublishOutcome::Unknown) };
        let is_delta = row.base.is_some();
        let standing = sqlx::query!(
            "SELECT published, published_delta FROM crl_shards WHERE issuer = ? AND shard = ?",
            shard.issuer,
            shard.shard
        )
        .fetch_optional(&mut *connection)
        .await?;
        let Some(standing) = standing else { return Ok(PublishOutcome::Unknown) };
        // Both kinds are of one sequence (RFC 5280 §5.2.3); its own kind is what a maker wants to hear of.
        let (own, other) = match is_delta {
            true => (standing.published_delta, standing.published),
            false => (standing.published, standing.published_delta),
        };
        for current in [own, other] {
            if let Some(current) = published(connection, shard, current).await?
                && !rises(&current, &row)
            {
                return Ok(PublishOutcome::Superseded(Box::new(current)));
            }
        }
        let signature = self.signature.as_slice();
        sqlx::query!(
            "UPDATE crls SET signature = ? WHERE issuer = ? AND shard = ? AND number = ?",
            signature,
            shard.issuer,
            shard.shard,
            new
        )
        .execute(&mut *connection)
        .await?;
        sqlx::query!(
            "UPDATE crl_shards SET published = CASE WHEN ?1 THEN published ELSE ?2 END,
                    published_delta = CASE WHEN ?1 THEN ?2 ELSE published_delta END
             WHERE issuer = ?3 AND shard = ?4",
            is_delta,
            new,
            shard.issuer,
            shard.shard
        )
        .execute(connection)
        .await?;
        context.audit.extend_from_slice(&self.audit);
        Ok(PublishOutcome::Published)
    }
}

/// Number and `thisUpdate` rise, the revision does not fall.
fn rises(current: &CrlRow, new: &CrlRow) -> bool {
    new.key.number > current.key.number
        && new.this_update > current.this_update
        && new.revision >= current.revision
}
