//! Limits, counted in the journal inside the intent's transaction (DESIGN §5, "Limits by trust"), and asked before.

use ca_store::{CitedTable, JournalKind, Limit, LimitScope, NewIntent, Timestamp, indexed_name};
use sqlx::SqliteConnection;

use super::entry::JOURNAL;
use crate::{
    failure::Failure,
    stored::{number, seconds},
};

/// The limits that are reached: intent (its number in the round) and the limit's place in it, the
/// first of each intent.
pub(super) async fn reached(
    connection: &mut SqliteConnection,
    round: &[(usize, &NewIntent)],
) -> Result<Vec<(usize, usize)>, Failure> {
    let mut reached = Vec::new();
    for (place_in_round, (_, intent)) in round.iter().enumerate() {
        for (place, limit) in intent.limits.iter().enumerate() {
            if oldest(connection, limit).await?.is_some() {
                reached.push((place_in_round, place));
                break;
            }
        }
    }
    Ok(reached)
}

/// [`reached_limits`](ca_store::CaStore::reached_limits).
pub(super) async fn newest(
    connection: &mut SqliteConnection,
    limits: &[Limit],
) -> Result<Vec<Option<Timestamp>>, Failure> {
    let mut newest = Vec::with_capacity(limits.len());
    for limit in limits {
        let oldest = oldest(connection, limit).await?;
        newest.push(oldest.map(|at| JOURNAL.time("created_at", at)).transpose()?);
    }
    Ok(newest)
}

/// When the oldest of the newest `most` entries was intended, if there are as many.
async fn oldest(connection: &mut SqliteConnection, limit: &Limit) -> Result<Option<i64>, Failure> {
    let since = seconds(limit.since);
    let newer = i64::from(limit.most) - 1;
    let directory = limit.directory.as_str();
    let oldest = match &limit.scope {
        LimitScope::Account(account) => {
            sqlx::query_scalar!(
                "SELECT created_at FROM journal
                 WHERE substr(account, 1, 12) = substr(?1, 1, 12) AND account = ?1 AND created_at >= ?2
                   AND kind = 'final' AND abandoned_at IS NULL AND counted AND directory = ?4
                 ORDER BY created_at DESC LIMIT 1 OFFSET ?3",
                account,
                since,
                newer,
                directory
            )
            .fetch_optional(connection)
            .await?
        }
        LimitScope::Registration(registration) => {
            sqlx::query_scalar!(
                "SELECT j.created_at FROM accounts AS a CROSS JOIN journal AS j
                 WHERE a.registration = ? AND substr(j.account, 1, 12) = substr(a.id, 1, 12)
                   AND j.account = a.id AND j.created_at >= ?
                   AND j.kind = 'final' AND j.abandoned_at IS NULL AND j.counted AND j.directory = ?
                 ORDER BY j.created_at DESC LIMIT 1 OFFSET ?",
                registration,
                since,
                directory,
                newer
            )
            .fetch_optional(connection)
            .await?
        }
        LimitScope::Domain(domain) => {
            let domain = indexed_name(domain);
            sqlx::query_scalar!(
                "SELECT d.created_at FROM journal_domains AS d CROSS JOIN journal AS j
                 WHERE d.domain = ?1 AND d.created_at >= ?2 AND j.id = d.entry AND j.kind = 'final'
                   AND j.abandoned_at IS NULL AND j.counted AND j.directory = ?4
                 ORDER BY d.created_at DESC LIMIT 1 OFFSET ?3",
                domain,
                since,
                newer,
                directory
            )
            .fetch_optional(connection)
            .await?
        }
        LimitScope::Names(names) => same_names(connection, names, directory, (since, newer)).await?,
    };
    Ok(oldest)
}

/// As [`oldest`], of the entries that have exactly these names: those of the first that have as many, all among them.
async fn same_names(
    connection: &mut SqliteConnection,
    names: &[String],
    directory: &str,
    (since, newer): (i64, i64),
) -> Result<Option<i64>, Failure> {
    let names = sorted(names);
    let Some(first) = names.first() else { return Ok(None) };
    let all = serde_json::Value::from(names.clone()).to_string();
    let names_in_all = number(names.len() as u64);
    Ok(sqlx::query_scalar!(
        "SELECT j.created_at FROM journal_names AS n CROSS JOIN journal AS j
         WHERE n.name = ? AND j.id = n.entry AND j.name_count = ? AND j.created_at >= ?
           AND j.kind = 'final' AND j.abandoned_at IS NULL AND j.counted AND j.directory = ?
           AND NOT EXISTS (
             SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS (
                 SELECT 1 FROM journal_names AS has WHERE has.name = wanted.value AND has.entry = j.id))
         ORDER BY j.created_at DESC LIMIT 1 OFFSET ?",
        first,
        names_in_all,
        since,
        directory,
        all,
        newer
    )
    .fetch_optional(connection)
    .await?)
}

/// Names as they are indexed, in order, each once.
pub(super) fn sorted(names: &[String]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| indexed_name(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether `earlier`, if it is committed, counts in a limit of `later`.
pub(super) fn counts(earlier: &NewIntent, later: &NewIntent) -> bool {
    let row = earlier.row.unverified();
    row.kind == JournalKind::Final
        && row.counted
        && later.limits.iter().any(|limit| match &limit.scope {
            LimitScope::Account(account) => row.account.as_ref() == Some(account),
            // An account's registration is in what the intent cites, or in its own limits.
            LimitScope::Registration(registration) => {
                earlier.limits.iter().any(|other| other.scope == limit.scope)
                    || earlier
                        .cites
                        .iter()
                        .any(|cited| cited.table == CitedTable::Registration && cited.key == *registration)
            }
            LimitScope::Domain(domain) => earlier.domains.contains(domain),
            LimitScope::Names(names) => sorted(&earlier.names) == sorted(names),
        })
}
