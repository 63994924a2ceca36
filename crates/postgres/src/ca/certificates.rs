//! Certificates, listed.

use ca_store::{CertificateFilter, CertificateQuery, Cursor, JournalEntry, Paged, TimeRange, indexed_name};
use sqlx::PgConnection;

use super::entry::{Stored, entries};
use crate::{failure::Failure, page, stored::seconds};

/// The bounds of a query as arguments; those that it does not have exclude nothing.
struct Bounds<'a> {
    created_from: i64,
    created_before: i64,
    expires_from: i64,
    expires_before: i64,
    profile: Option<&'a str>,
    limit: u32,
}

impl<'a> Bounds<'a> {
    fn of(query: &'a CertificateQuery) -> Self {
        let bounds = |range: Option<TimeRange>| {
            range.map_or((0, i64::MAX), |range| (seconds(range.from), seconds(range.before)))
        };
        let (created_from, created_before) = bounds(query.created);
        let (expires_from, expires_before) = bounds(query.expires);
        Self {
            created_from,
            created_before,
            expires_from,
            expires_before,
            profile: query.profile.as_deref(),
            limit: query.page.limit.max(1),
        }
    }
}

/// Entries within the bounds (arguments 1 to 6), where a condition (arguments from 7 on) holds.
macro_rules! bounded {
    ($connection:expr, $bounds:expr, $from:literal, $order:literal $(, $argument:expr)+) => {
        entries!(
            $from + " AND j.created_at >= $1 AND j.created_at < $2 AND j.not_after >= $3 AND j.not_after < $4
                      AND ($5::text IS NULL OR j.profile = $5) ORDER BY " + $order + " LIMIT $6",
            $bounds.created_from,
            $bounds.created_before,
            $bounds.expires_from,
            $bounds.expires_before,
            $bounds.profile,
            i64::from($bounds.limit)
            $(, $argument)+
        )
        .fetch_all(&mut *$connection)
        .await?
    };
}

pub(super) async fn page(
    connection: &mut PgConnection,
    query: &CertificateQuery,
) -> Result<Paged<JournalEntry>, Failure> {
    let bounds = Bounds::of(query);
    let cursor = query.page.after.as_ref().map(|cursor| cursor.0.as_str());
    match &query.filter {
        CertificateFilter::All if query.created.is_some() || query.profile.is_some() => {
            by_profile(connection, &bounds, cursor).await
        }
        CertificateFilter::All if query.expires.is_some() => every_issuer(connection, &bounds, cursor).await,
        CertificateFilter::All => {
            let [after] = page::numbers(cursor, [0]);
            let rows = bounded!(connection, bounds, "WHERE j.id > $7", "j.id", after);
            paged(rows, bounds.limit, by_id)
        }
        CertificateFilter::Issuer(issuer) => {
            let rows = of_issuer(connection, &bounds, issuer, page::numbers(cursor, [0, 0])).await?;
            paged(rows, bounds.limit, |row| format!("{} {}", row.not_after, row.id))
        }
        CertificateFilter::Account(account) => {
            let [created, after] = page::numbers(cursor, [bounds.created_from, 0]);
            let rows = bounded!(
                connection,
                bounds,
                "WHERE substr(j.account, 1, 12) = substr($7, 1, 12) AND j.account = $7 AND j.created_at >= $8 AND (j.created_at > $8 OR j.id > $9)",
                "j.created_at, j.id",
                account,
                created,
                after
            );
            paged(rows, bounds.limit, |row| format!("{} {}", row.created_at, row.id))
        }
        CertificateFilter::Key(key) => {
            let [after] = page::numbers(cursor, [0]);
            let key = key.as_slice();
            let rows =
                bounded!(connection, bounds, "WHERE j.spki_sha256 = $7 AND j.id > $8", "j.id", key, after);
            paged(rows, bounds.limit, by_id)
        }
        CertificateFilter::Name(name) => {
            let [after] = page::numbers(cursor, [0]);
            let name = indexed_name(name);
            let rows = bounded!(
                connection,
                bounds,
                "JOIN journal_names AS n ON n.entry = j.id WHERE n.name = $7 AND n.entry > $8",
                "n.entry",
                name,
                after
            );
            paged(rows, bounds.limit, by_id)
        }
        CertificateFilter::Domain(domain) => {
            in_domain(connection, &bounds, &indexed_name(domain), cursor).await
        }
    }
}

fn by_id(row: &Stored) -> String {
    row.id.to_string()
}

fn paged(
    rows: Vec<Stored>,
    limit: u32,
    cursor: impl Fn(&Stored) -> String,
) -> Result<Paged<JournalEntry>, Failure> {
    let next = page::next(rows.len(), limit, || rows.last().map(|row| Cursor(cursor(row))));
    Ok(Paged { items: rows.into_iter().map(Stored::entry).collect::<Result<_, _>>()?, next })
}

/// By expiry, after an expiry and an id.
async fn of_issuer(
    connection: &mut PgConnection,
    bounds: &Bounds<'_>,
    issuer: &str,
    [expiry, after]: [i64; 2],
) -> Result<Vec<Stored>, Failure> {
    let from = expiry.max(bounds.expires_from);
    Ok(bounded!(
        connection,
        bounds,
        "WHERE j.issuer = $7 AND j.not_after >= $8 AND (j.not_after > $9 OR j.id > $10)",
        "j.not_after, j.id",
        issuer,
        from,
        expiry,
        after
    ))
}

/// By issuer, then by expiry. The cursor is expiry, id and issuer.
async fn every_issuer(
    connection: &mut PgConnection,
    bounds: &Bounds<'_>,
    cursor: Option<&str>,
) -> Result<Paged<JournalEntry>, Failure> {
    let mut issuer = cursor.and_then(|cursor| cursor.splitn(3, ' ').nth(2)).map(str::to_owned);
    let mut position =
        page::numbers(cursor.and_then(|cursor| cursor.rsplit_once(' ')).map(|(numbers, _)| numbers), [0, 0]);
    let mut rows = Vec::new();
    let wanted = usize::try_from(bounds.limit).unwrap_or(usize::MAX);
    if issuer.is_none() {
        issuer = issuer_after(connection, "").await?;
    }
    while let Some(name) = issuer {
        rows.extend(of_issuer(connection, bounds, &name, position).await?);
        if rows.len() >= wanted {
            break;
        }
        issuer = issuer_after(connection, &name).await?;
        position = [0, 0];
    }
    rows.truncate(wanted);
    paged(rows, bounds.limit, |row| format!("{} {} {}", row.not_after, row.id, row.issuer()))
}

/// By profile, then by the time of the intent. The cursor is time, id and profile.
async fn by_profile(
    connection: &mut PgConnection,
    bounds: &Bounds<'_>,
    cursor: Option<&str>,
) -> Result<Paged<JournalEntry>, Failure> {
    let started = cursor.and_then(|cursor| cursor.splitn(3, ' ').nth(2)).map(str::to_owned);
    let first = [bounds.created_from, 0];
    let mut position =
        page::numbers(cursor.and_then(|cursor| cursor.rsplit_once(' ')).map(|(numbers, _)| numbers), first);
    let mut profile = match started.or_else(|| bounds.profile.map(str::to_owned)) {
        None => profile_after(connection, "").await?,
        profile => profile,
    };
    let mut rows = Vec::new();
    let wanted = usize::try_from(bounds.limit).unwrap_or(usize::MAX);
    while let Some(name) = profile {
        let [created, after] = position;
        rows.extend(bounded!(
            connection,
            bounds,
            "WHERE j.profile = $7 AND j.created_at >= $8 AND (j.created_at > $8 OR j.id > $9)",
            "j.created_at, j.id",
            name,
            created,
            after
        ));
        if rows.len() >= wanted || bounds.profile.is_some() {
            break;
        }
        profile = profile_after(connection, &name).await?;
        position = first;
    }
    rows.truncate(wanted);
    paged(rows, bounds.limit, |row| format!("{} {} {}", row.created_at, row.id, row.profile))
}

/// The next profile in the index: one look-up, however many certificates it has.
async fn profile_after(connection: &mut PgConnection, profile: &str) -> Result<Option<String>, Failure> {
    Ok(sqlx::query_scalar!(
        "SELECT profile FROM journal WHERE profile > $1 ORDER BY profile LIMIT 1",
        profile
    )
    .fetch_optional(connection)
    .await?)
}

/// The next issuer in the index: one look-up, however many certificates it has.
async fn issuer_after(connection: &mut PgConnection, issuer: &str) -> Result<Option<String>, Failure> {
    Ok(sqlx::query_scalar!("SELECT issuer FROM journal WHERE issuer > $1 ORDER BY issuer LIMIT 1", issuer)
        .fetch_optional(connection)
        .await?)
}

/// By name, then by id. The cursor is id and name.
async fn in_domain(
    connection: &mut PgConnection,
    bounds: &Bounds<'_>,
    domain: &str,
    cursor: Option<&str>,
) -> Result<Paged<JournalEntry>, Failure> {
    let (after, name) = cursor
        .and_then(|cursor| cursor.split_once(' '))
        .and_then(|(id, name)| Some((id.parse::<i64>().ok()?, name)))
        .unwrap_or((0, domain));
    // Names first: an entry has them in several places of this order.
    let names = sqlx::query!(
        "SELECT n.name, n.entry FROM journal_names AS n JOIN journal AS j ON j.id = n.entry
         WHERE (n.name, n.entry) > ($1, $3) AND n.name < $2::text || '/'
           AND (n.name = $2 OR substr(n.name, length($2) + 1, 1) = '.')
           AND j.created_at >= $4 AND j.created_at < $5 AND j.not_after >= $6 AND j.not_after < $7
           AND ($8::text IS NULL OR j.profile = $8)
         ORDER BY n.name, n.entry LIMIT $9",
        name,
        domain,
        after,
        bounds.created_from,
        bounds.created_before,
        bounds.expires_from,
        bounds.expires_before,
        bounds.profile,
        i64::from(bounds.limit)
    )
    .fetch_all(&mut *connection)
    .await?;
    let next = page::next(names.len(), bounds.limit, || {
        names.last().map(|last| Cursor(format!("{} {}", last.entry, last.name)))
    });
    let mut ids: Vec<i64> = names.iter().map(|name| name.entry).collect();
    ids.sort_unstable();
    ids.dedup();
    let rows = super::entry::by_ids(connection, &ids).await?;
    Ok(Paged { items: super::entry::all(rows)?, next })
}
