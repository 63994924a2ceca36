//! Limits, counted in the journal inside the intent's transaction (DESIGN §5, "Limits by trust"), and asked before.

use ca_store::{CitedTable, JournalKind, Limit, LimitScope, NewIntent, Timestamp, indexed_name};
use sqlx::PgConnection;

use super::entry::JOURNAL;
use crate::{
    failure::Failure,
    stored::{columns, seconds},
};

/// Keeps the entries that these intents' limits count still: another signer that counts the same waits for our commit.
/// (One that writes without counting does not: an intent of a directory without a limit.)
pub(super) async fn lock(connection: &mut PgConnection, intents: &[&NewIntent]) -> Result<(), Failure> {
    let scopes: Vec<String> = intents
        .iter()
        .flat_map(|intent| &intent.limits)
        .map(|limit| {
            let (kind, scope) = text(&limit.scope);
            format!("{kind} {scope}")
        })
        .collect();
    if scopes.is_empty() {
        return Ok(());
    }
    // In one order, so that nobody waits in a circle.
    sqlx::query!(
        r#"SELECT count(pg_advisory_xact_lock(hash)) AS "count!"
           FROM (SELECT DISTINCT hashtextextended(scope, 0) AS hash FROM UNNEST($1::text[]) AS s (scope)
                 ORDER BY hash) AS ordered"#,
        &scopes
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// The limits that are reached: intent (its number in the round) and the limit's place in it, the
/// first of each intent.
pub(super) async fn reached(
    connection: &mut PgConnection,
    round: &[(usize, &NewIntent)],
) -> Result<Vec<(usize, usize)>, Failure> {
    let mut limits = Vec::new();
    for (number, (_, intent)) in (0..).zip(round) {
        limits.extend((0..).zip(&intent.limits).map(|(place, limit)| (number, place, limit)));
    }
    let mut reached: Vec<(usize, usize)> = Vec::new();
    for Reached { number, place, .. } in look(connection, &limits).await? {
        if reached.last().is_none_or(|(last, _)| *last != number) {
            reached.push((number, place));
        }
    }
    Ok(reached)
}

/// [`reached_limits`](ca_store::CaStore::reached_limits).
pub(super) async fn newest(
    connection: &mut PgConnection,
    limits: &[Limit],
) -> Result<Vec<Option<Timestamp>>, Failure> {
    let mut newest = vec![None; limits.len()];
    let placed: Vec<_> = (0..).zip(limits).map(|(place, limit)| (0, place, limit)).collect();
    for reached in look(connection, &placed).await? {
        if let Some(found) = newest.get_mut(reached.place) {
            *found = Some(JOURNAL.time("created_at", reached.oldest)?);
        }
    }
    Ok(newest)
}

/// A limit that is reached.
struct Reached {
    /// Of the intent, or whatever has it.
    number: usize,
    place: usize,
    /// When the oldest of the newest `most` entries was intended.
    oldest: i64,
}

/// Those of these limits that are reached, by number and place.
async fn look(connection: &mut PgConnection, limits: &[(i64, i64, &Limit)]) -> Result<Vec<Reached>, Failure> {
    columns!(limits, |limit| {
        numbers: i64 = limit.0,
        places: i64 = limit.1,
        kinds: &str = text(&limit.2.scope).0,
        scopes: String = text(&limit.2.scope).1,
        since: i64 = seconds(limit.2.since),
        most: i64 = i64::from(limit.2.most),
        directories: &str = limit.2.directory.as_str(),
    });
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file!(
        "sql/limits.sql",
        &numbers,
        &places,
        &kinds as &[&str],
        &scopes,
        &since,
        &most,
        &directories as &[&str]
    )
    .fetch_all(connection)
    .await?;
    let place = |value: i64| usize::try_from(value).map_err(|_| JOURNAL.corrupt("limit"));
    rows.into_iter()
        .map(|row| Ok(Reached { number: place(row.number)?, place: place(row.place)?, oldest: row.oldest }))
        .collect()
}

/// A scope as the statements have it. Names hold no comma.
fn text(scope: &LimitScope) -> (&'static str, String) {
    match scope {
        LimitScope::Account(account) => ("account", account.clone()),
        LimitScope::Registration(registration) => ("registration", registration.clone()),
        LimitScope::Domain(domain) => ("domain", indexed_name(domain)),
        LimitScope::Names(names) => ("names", sorted(names).join(",")),
    }
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
