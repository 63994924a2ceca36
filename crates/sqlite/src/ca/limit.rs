//! Limits, counted in the journal inside the intent's transaction (DESIGN §5, "Limits by trust").

use ca_store::{CitedTable, JournalKind, LimitScope, NewIntent, indexed_name};
use sqlx::SqliteConnection;

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
            let count = count(connection, &limit.scope, seconds(limit.since), i64::from(limit.most)).await?;
            if count >= i64::from(limit.most) {
                reached.push((place_in_round, place));
                break;
            }
        }
    }
    Ok(reached)
}

/// How many entries there are, counted up to `most`.
async fn count(
    connection: &mut SqliteConnection,
    scope: &LimitScope,
    since: i64,
    most: i64,
) -> Result<i64, Failure> {
    let count = match scope {
        LimitScope::Account(account) => {
            sqlx::query_scalar!(
                "SELECT count(*) FROM (
                    SELECT 1 FROM journal
                    WHERE substr(account, 1, 12) = substr(?1, 1, 12) AND account = ?1 AND created_at >= ?2
                      AND kind = 'final' AND abandoned_at IS NULL LIMIT ?3)",
                account,
                since,
                most
            )
            .fetch_one(connection)
            .await?
        }
        LimitScope::Registration(registration) => {
            sqlx::query_scalar!(
                "SELECT count(*) FROM (
                    SELECT 1 FROM accounts AS a CROSS JOIN journal AS j
                    WHERE a.registration = ? AND substr(j.account, 1, 12) = substr(a.id, 1, 12)
                      AND j.account = a.id AND j.created_at >= ?
                      AND j.kind = 'final' AND j.abandoned_at IS NULL LIMIT ?)",
                registration,
                since,
                most
            )
            .fetch_one(connection)
            .await?
        }
        LimitScope::Domain(domain) => {
            let domain = indexed_name(domain);
            sqlx::query_scalar!(
                "SELECT count(*) FROM (
                    SELECT DISTINCT n.entry FROM journal_names AS n CROSS JOIN journal AS j
                    WHERE n.name >= ?1 AND n.name < ?1 || '/'
                      AND (n.name = ?1 OR substr(n.name, length(?1) + 1, 1) = '.')
                      AND j.id = n.entry AND j.created_at >= ?2 AND j.kind = 'final'
                      AND j.abandoned_at IS NULL LIMIT ?3)",
                domain,
                since,
                most
            )
            .fetch_one(connection)
            .await?
        }
        LimitScope::Names(names) => same_names(connection, names, since, most).await?,
    };
    Ok(count)
}

/// How many entries have exactly these names: those of the first that have as many, all among them.
async fn same_names(
    connection: &mut SqliteConnection,
    names: &[String],
    since: i64,
    most: i64,
) -> Result<i64, Failure> {
    let names = sorted(names);
    let Some(first) = names.first() else { return Ok(0) };
    let all = serde_json::Value::from(names.clone()).to_string();
    let names_in_all = number(names.len() as u64);
    Ok(sqlx::query_scalar!(
        "SELECT count(*) FROM (
            SELECT 1 FROM journal_names AS n CROSS JOIN journal AS j
            WHERE n.name = ? AND j.id = n.entry AND j.name_count = ? AND j.created_at >= ?
              AND j.kind = 'final' AND j.abandoned_at IS NULL
              AND NOT EXISTS (
                SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS (
                    SELECT 1 FROM journal_names AS has WHERE has.name = wanted.value AND has.entry = j.id))
            LIMIT ?)",
        first,
        names_in_all,
        since,
        all,
        most
    )
    .fetch_one(connection)
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
            LimitScope::Domain(domain) => earlier.names.iter().any(|name| is_under(name, domain)),
            LimitScope::Names(names) => sorted(&earlier.names) == sorted(names),
        })
}

fn is_under(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
