//! Incidents and their members.

use ca_store::{
    AccountMembers, AuditEvent, Cursor, IncidentMember, IncidentRow, IncidentState, MemberCount, MemberState,
    NewMember, Page, Paged, Sealed, Serial, indexed_name,
};
use sqlx::PgConnection;

use super::Context;
use crate::{
    failure::Failure,
    page,
    stored::{Table, columns},
    writer::Change,
};

mod follow;

pub(super) use follow::{Note, look};

const INCIDENTS: Table = Table("incidents");
const MEMBERS: Table = Table("incident_members");

/// An incident as it is stored.
struct Stored {
    id: String,
    title: String,
    url: String,
    settings: String,
    reason: i64,
    waves: i64,
    begins_at: i64,
    wave_seconds: i64,
    deadline: i64,
    state: String,
    created_at: i64,
    ended_at: Option<i64>,
    version: i64,
    mac_version: i64,
    mac: Vec<u8>,
}

impl Stored {
    fn row(self) -> Result<Sealed<IncidentRow>, Failure> {
        let row = IncidentRow {
            id: self.id,
            title: self.title,
            url: self.url,
            settings: self.settings,
            reason: INCIDENTS.small("reason", self.reason)?,
            waves: INCIDENTS.small("waves", self.waves)?,
            begins_at: INCIDENTS.time("begins_at", self.begins_at)?,
            wave_seconds: INCIDENTS.unsigned("wave_seconds", self.wave_seconds)?,
            deadline: INCIDENTS.time("deadline", self.deadline)?,
            state: INCIDENTS.word("state", &self.state, IncidentState::from_word)?,
            created_at: INCIDENTS.time("created_at", self.created_at)?,
            ended_at: INCIDENTS.optional_time("ended_at", self.ended_at)?,
            version: INCIDENTS.unsigned("version", self.version)?,
        };
        Ok(Sealed::from_stored(row, INCIDENTS.mac(self.mac_version, self.mac)?))
    }
}

/// The incidents that the rest of a query, with its arguments, selects from `incidents AS i`.
macro_rules! incidents {
    ($rest:literal $(, $argument:expr)+) => {
        sqlx::query_as!(
            Stored,
            "SELECT i.id, i.title, i.url, i.settings, i.reason, i.waves, i.begins_at, i.wave_seconds, i.deadline,
                    i.state, i.created_at, i.ended_at, i.version, i.mac_version, i.mac
             FROM incidents AS i " + $rest
            $(, $argument)+
        )
    };
}

/// [`incident`](ca_store::CaStore::incident).
pub(super) async fn by_id(
    connection: &mut PgConnection,
    id: &str,
) -> Result<Option<Sealed<IncidentRow>>, Failure> {
    let stored = incidents!("WHERE i.id = $1", id).fetch_optional(connection).await?;
    stored.map(Stored::row).transpose()
}

/// [`incidents`](ca_store::CaStore::incidents). The cursor is time and id.
pub(super) async fn list(
    connection: &mut PgConnection,
    current: bool,
    page: &Page,
) -> Result<Paged<Sealed<IncidentRow>>, Failure> {
    let after = page.after.as_ref().and_then(|cursor| cursor.0.split_once(' '));
    let (time, id) = after.map_or((i64::MAX, ""), |(time, id)| (time.parse().unwrap_or(i64::MAX), id));
    let limit = page.limit.max(1);
    let rows = incidents!(
        "WHERE (i.created_at < $1 OR i.created_at = $1 AND i.id < $2)
           AND (NOT $3 OR i.state IN ('collecting', 'open'))
         ORDER BY i.created_at DESC, i.id DESC LIMIT $4",
        time,
        id,
        current,
        i64::from(limit)
    )
    .fetch_all(connection)
    .await?;
    let next = page::next(rows.len(), limit, || {
        rows.last().map(|row| Cursor(format!("{} {}", row.created_at, row.id)))
    });
    Ok(Paged { items: rows.into_iter().map(Stored::row).collect::<Result<_, _>>()?, next })
}

/// A member as it is stored.
struct StoredMember {
    serial: Vec<u8>,
    account: String,
    wave: i64,
    state: String,
}

impl StoredMember {
    fn member(self) -> Result<IncidentMember, Failure> {
        Ok(IncidentMember {
            serial: MEMBERS.serial("serial", &self.serial)?,
            account: self.account,
            wave: MEMBERS.small("wave", self.wave)?,
            state: MEMBERS.word("state", &self.state, MemberState::from_word)?,
        })
    }
}

/// [`add_members`](ca_store::CaStore::add_members).
pub(super) struct Add {
    pub(super) incident: String,
    pub(super) members: Vec<NewMember>,
    pub(super) audit: Vec<AuditEvent>,
}

impl Change<Context> for Add {
    type Outcome = Option<u64>;

    async fn apply(
        &self,
        connection: &mut PgConnection,
        context: &mut Context,
    ) -> Result<Option<u64>, Failure> {
        let state = sqlx::query_scalar!("SELECT state FROM incidents WHERE id = $1", self.incident)
            .fetch_optional(&mut *connection)
            .await?;
        if state.as_deref() != Some(IncidentState::Collecting.as_str()) {
            return Ok(None);
        }
        columns!(&self.members, |new| {
            serials: &[u8] = new.member.serial.as_bytes(),
            accounts: &str = new.member.account.as_str(),
            waves: i64 = i64::from(new.member.wave),
            states: &str = new.member.state.as_str(),
            // Lists of lists are none in SQL. No name has a comma.
            names: String = new.names.iter().map(|name| indexed_name(name)).collect::<Vec<_>>().join(","),
        });
        let added = sqlx::query!(
            "INSERT INTO incident_members (incident, serial, account, wave, state, names)
             SELECT $1, n.serial, n.account, n.wave, n.state, string_to_array(n.names, ',')
             FROM UNNEST($2::bytea[], $3::text[], $4::bigint[], $5::text[], $6::text[])
                      AS n (serial, account, wave, state, names)
             ON CONFLICT DO NOTHING",
            self.incident,
            &serials as &[&[u8]],
            &accounts as &[&str],
            &waves,
            &states as &[&str],
            &names
        )
        .execute(connection)
        .await?
        .rows_affected();
        if added > 0 {
            context.audit.extend_from_slice(&self.audit);
        }
        Ok(Some(added))
    }
}

/// [`members`](ca_store::CaStore::members).
pub(super) async fn members(
    connection: &mut PgConnection,
    incident: &str,
    left: bool,
    page: &Page,
) -> Result<Paged<IncidentMember>, Failure> {
    let after = page.after.as_ref().and_then(|cursor| Serial::from_hex(&cursor.0).ok());
    let after: &[u8] = after.as_ref().map_or(&[], Serial::as_bytes);
    let limit = page.limit.max(1);
    // Two statements, each with an index of its own.
    let rows = if left {
        sqlx::query_as!(
            StoredMember,
            "SELECT serial, account, wave, state FROM incident_members
             WHERE incident = $1 AND serial > $2 AND state = 'left' ORDER BY serial LIMIT $3",
            incident,
            after,
            i64::from(limit)
        )
        .fetch_all(connection)
        .await?
    } else {
        sqlx::query_as!(
            StoredMember,
            "SELECT serial, account, wave, state FROM incident_members
             WHERE incident = $1 AND serial > $2 ORDER BY serial LIMIT $3",
            incident,
            after,
            i64::from(limit)
        )
        .fetch_all(connection)
        .await?
    };
    let items: Vec<_> = rows.into_iter().map(StoredMember::member).collect::<Result<_, _>>()?;
    let next = page::next(items.len(), limit, || items.last().map(|last| Cursor(last.serial.to_string())));
    Ok(Paged { items, next })
}

/// [`member_counts`](ca_store::CaStore::member_counts).
pub(super) async fn counts(
    connection: &mut PgConnection,
    incident: &str,
) -> Result<Vec<MemberCount>, Failure> {
    let rows = sqlx::query!(
        r#"SELECT wave, state, count(*) AS "count!" FROM incident_members
           WHERE incident = $1 GROUP BY wave, state ORDER BY wave, state"#,
        incident
    )
    .fetch_all(connection)
    .await?;
    let count = |wave, state: &str, count| {
        Ok(MemberCount {
            wave: MEMBERS.small("wave", wave)?,
            state: MEMBERS.word("state", state, MemberState::from_word)?,
            count: MEMBERS.unsigned("count", count)?,
        })
    };
    rows.into_iter().map(|row| count(row.wave, &row.state, row.count)).collect()
}

/// [`account_members`](ca_store::CaStore::account_members).
pub(super) async fn accounts(
    connection: &mut PgConnection,
    incident: &str,
    page: &Page,
) -> Result<Paged<AccountMembers>, Failure> {
    let after = page.after.as_ref().map(|cursor| cursor.0.as_str());
    let limit = page.limit.max(1);
    let rows = sqlx::query!(
        r#"SELECT account, state, count(*) AS "count!" FROM incident_members
           WHERE incident = $1 AND account IN (
               SELECT DISTINCT account FROM incident_members
               WHERE incident = $1 AND ($2::text IS NULL OR account > $2) ORDER BY account LIMIT $3)
           GROUP BY account, state ORDER BY account, state"#,
        incident,
        after,
        i64::from(limit)
    )
    .fetch_all(connection)
    .await?;
    let mut items: Vec<AccountMembers> = Vec::new();
    for row in rows {
        let state = MEMBERS.word("state", &row.state, MemberState::from_word)?;
        let count = (state, MEMBERS.unsigned("count", row.count)?);
        match items.last_mut() {
            Some(last) if last.account == row.account => last.counts.push(count),
            _ => items.push(AccountMembers { account: row.account, counts: vec![count] }),
        }
    }
    let next = page::next(items.len(), limit, || items.last().map(|last| Cursor(last.account.clone())));
    Ok(Paged { items, next })
}

/// [`incidents_of`](ca_store::CaStore::incidents_of).
pub(super) async fn of(
    connection: &mut PgConnection,
    serial: &Serial,
) -> Result<Vec<(Sealed<IncidentRow>, IncidentMember)>, Failure> {
    let octets = serial.as_bytes();
    let members = sqlx::query!(
        "SELECT incident, account, wave FROM incident_members WHERE serial = $1 AND state = 'left'",
        octets
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut found = Vec::new();
    for member in members {
        let incident = incidents!("WHERE i.id = $1 AND i.state = 'open'", member.incident)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(incident) = incident {
            let (account, wave) = (member.account, MEMBERS.small("wave", member.wave)?);
            let member = IncidentMember { serial: *serial, account, wave, state: MemberState::Left };
            found.push((incident.row()?, member));
        }
    }
    Ok(found)
}
