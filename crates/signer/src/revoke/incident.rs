//! Incidents: a set of certificates that is to be replaced by a deadline, and is revoked after it.
//!
//! An operator opens one in three steps, each of which can be repeated: its row is made, pages of a selection become its
//! members, and it starts. From then on the members' windows of renewal are those of their waves (RFC 9773 §4.2), what becomes
//! of them is followed, and at the deadline what is left is revoked ([`run`]). A member's wave is its serial's: it never moves.

use acme::renewal::Window;
use ca_store::{
    AccountMembers, AuthorityChange, AuthorityChanges, AuthorityRow, Cursor, IncidentMember, IncidentRow,
    IncidentState, MemberCount, MemberState, NewMember, Page, Paged, Sealed,
};
use pki::{Period, Reason as Because, Serial, Timestamp};
use serde_json::{Value, json};
use url::Url;

use super::run::{PageRequest, SelectionPage};
use super::{Found, check_operators_reason, names_of};
use crate::audit::Event;
use crate::ca::Ca;
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::renewal::spread;

mod run;

use run::Reach;

pub use run::IncidentRound;
pub(crate) use run::{Cursors, ROUND as INCIDENT_ROUND};

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What it is about, for people.
    pub(crate) title: String,
    /// A page that says why.
    pub(crate) url: String,
    /// Why the certificates will be revoked.
    pub(crate) reason: Because,
    /// When what is left is revoked.
    pub(crate) deadline: Timestamp,
    /// When the first wave begins; absent: now.
    pub(crate) begins_at: Option<Timestamp>,
    /// How many waves.
    pub(crate) waves: u32,
    /// How long each wave's window is; absent: as long as leaves one more before the deadline.
    pub(crate) wave: Option<Period>,
}

/// A page of a selection that has become members.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Members that are new.
    pub(crate) added: u64,
    /// Of the page's certificates: those that are to be replaced,
    pub(crate) left: u64,
    /// those that are revoked already,
    pub(crate) revoked: u64,
    /// those that have expired.
    pub(crate) expired: u64,
    /// Named, and not there.
    pub(crate) unknown: Vec<Serial>,
    /// Changed by something else than a signer.
    pub(crate) tampered: Vec<Serial>,
    /// Where to go on; none at the end.
    pub(crate) next: Option<String>,
}

/// The most waves: a year of days.
const MOST_WAVES: u32 = 366;
/// The shortest window of a wave. Clients look every few hours; an incident of minutes is a test.
const SHORTEST_WAVE_SECONDS: u64 = 60;
/// The first wave may have begun so long ago.
const OLDEST_BEGIN: Period = Period::from_days(1);
const LONGEST_TITLE: usize = 200;
const LONGEST_URL: usize = 1000;
/// Octets of an incident's id.
const ID_OCTETS: usize = 6;
/// The octets of a serial that say which wave is its certificate's.
const WAVE_OCTETS: usize = 4;

impl Ca {
    /// Makes an incident, which collects its certificates from now on.
    ///
    /// # Errors
    /// A refusal of a plan that cannot be.
    pub(crate) async fn open_incident(&self, operator: &str, plan: Plan) -> Outcome<IncidentRow> {
        let now = self.now()?;
        let row = plan.row(hex::encode(self.random.bytes::<ID_OCTETS>()?), operator, now)?;
        let detail = json!({
            "title": row.title, "url": row.url, "reason": plan.reason.as_str(), "deadline": row.deadline.unix(),
            "waves": row.waves, "begins_at": row.begins_at.unix(), "wave_seconds": row.wave_seconds,
        });
        self.put_incident((operator, "incident.opened", detail), &row, None).await?;
        Ok(row)
    }

    /// Makes a page of a selection members of an incident that is collecting. The same page again adds nothing.
    ///
    /// # Errors
    /// A refusal when it is not collecting, or by the selection.
    pub(crate) async fn collect_members(
        &self,
        operator: &str,
        id: &str,
        request: PageRequest<'_>,
    ) -> Outcome<Collected> {
        let (_, row) = self.incident_row(id).await?;
        if row.state != IncidentState::Collecting {
            return Err(not_collecting(&row).into());
        }
        let now = self.now()?;
        let request = PageRequest { reason: row.reason(), ..request };
        let (candidates, page) = self.candidates(request, None, now).await?;
        let mut collected = Collected::of(page);
        let members: Vec<_> =
            candidates.iter().filter_map(|(found, _)| collected.member(&row, found, now)).collect();
        let detail = json!({
            "selector": request.selector.to_json(), "reason": request.reason.as_str(), "left": collected.left,
            "already_revoked": collected.revoked, "expired": collected.expired,
        });
        let event = Event::Operator { kind: "incident.collected", operator, subject: id, detail };
        let added = match members.is_empty() {
            true => Some(0),
            false => self.store.add_members(id, members, vec![event.at(now)]).await?,
        };
        // It was started in this moment.
        collected.added = added.ok_or_else(|| not_collecting(&row))?;
        Ok(collected)
    }

    /// Starts an incident: its members are all that it will have.
    ///
    /// # Errors
    /// A refusal when it is not collecting, has no member, or its deadline has come.
    pub(crate) async fn start_incident(&self, operator: &str, id: &str) -> Outcome<IncidentRow> {
        let (version, mut row) = self.incident_row(id).await?;
        match row.state {
            // The answer of a first time was lost.
            IncidentState::Open => return Ok(row),
            IncidentState::Collecting => {}
            IncidentState::Done | IncidentState::Closed => return Err(not_collecting(&row).into()),
        }
        let members: u64 = self.store.member_counts(id).await?.iter().map(|count| count.count).sum();
        if members == 0 {
            return Err(refused("the incident has no certificates").into());
        }
        if row.deadline <= self.now()? {
            return Err(refused("the deadline has come: extend it first").into());
        }
        row.state = IncidentState::Open;
        self.put_incident(
            (operator, "incident.started", json!({ "certificates": members })),
            &row,
            Some(version),
        )
        .await
    }

    /// Gives an incident up: windows are as before, nothing is revoked any more. What was revoked stays so.
    ///
    /// # Errors
    /// A refusal when there is no such incident, or it has ended.
    pub(crate) async fn close_incident(&self, operator: &str, id: &str) -> Outcome<IncidentRow> {
        let (version, mut row) = self.incident_row(id).await?;
        must_be_current(&row)?;
        row.state = IncidentState::Closed;
        row.ended_at = Some(self.now()?);
        self.put_incident((operator, "incident.closed", Value::Null), &row, Some(version)).await
    }

    /// Gives an incident another deadline, earlier or later; the waves stay where they are.
    ///
    /// # Errors
    /// A refusal when there is no such incident, it has ended, or the deadline has come or is before the last wave's end.
    pub(crate) async fn extend_incident(
        &self,
        operator: &str,
        id: &str,
        deadline: Timestamp,
    ) -> Outcome<IncidentRow> {
        let (version, mut row) = self.incident_row(id).await?;
        must_be_current(&row)?;
        check_deadline(&row, deadline, self.now()?)?;
        row.deadline = deadline;
        let detail = json!({ "deadline": deadline.unix() });
        self.put_incident((operator, "incident.extended", detail), &row, Some(version)).await
    }

    /// An incident, and how many members it has by wave and state.
    ///
    /// # Errors
    /// A refusal when there is no such incident.
    pub(crate) async fn incident(&self, id: &str) -> Outcome<(IncidentRow, Vec<MemberCount>)> {
        let (_, row) = self.incident_row(id).await?;
        Ok((row, self.store.member_counts(id).await?))
    }

    /// Incidents, newest first.
    ///
    /// # Errors
    /// By the store, or when a row was tampered with.
    pub(crate) async fn incidents(&self, current: bool, page: Page) -> Outcome<Paged<IncidentRow>> {
        let rows = self.store.incidents(current, &page).await?;
        let items: Result<Vec<_>, _> =
            rows.items.into_iter().map(|row| self.secrets.rows.open(row)).collect();
        Ok(Paged { items: items?, next: rows.next })
    }

    /// How many members each account has, by account.
    ///
    /// # Errors
    /// A refusal when there is no such incident.
    pub(crate) async fn incident_accounts(&self, id: &str, page: Page) -> Outcome<Paged<AccountMembers>> {
        self.incident_row(id).await?;
        Ok(self.store.account_members(id, &page).await?)
    }

    /// Looks what has become of a page of the members that are left; where to go on, and how many it looked at.
    ///
    /// # Errors
    /// A refusal when there is no such incident.
    pub(crate) async fn review_incident(
        &self,
        id: &str,
        after: Option<Cursor>,
    ) -> Outcome<(u64, Option<Cursor>)> {
        let (_, row) = self.incident_row(id).await?;
        if row.state != IncidentState::Open {
            return Ok((0, None));
        }
        let page = Page { after, limit: self.limits.revocation_page };
        let (members, next) = self.follow_members(&row, &page, Reach::Left).await?;
        Ok((members.len() as u64, next))
    }

    /// The window of a certificate in an incident, and the page that says why. It begins and ends with its wave's, or with the
    /// usual one where that is earlier: no client picks a time that is too late for the incident. Of several incidents each
    /// may pull it forward.
    pub(crate) async fn moved_window(
        &self,
        serial: &Serial,
        usual: Window,
    ) -> Outcome<Option<(Window, String)>> {
        let mut moved: Option<(Window, String)> = None;
        let mut first = None;
        for (sealed, member) in self.store.incidents_of(serial).await? {
            let row = match self.secrets.rows.open(sealed) {
                Ok(row) => row,
                Err(error) => {
                    self.alarm(&Failure::Tampered(error));
                    continue;
                }
            };
            let wave = wave_window(&row, member.wave);
            let (before, url) = moved.unwrap_or((usual, String::new()));
            // The page is that of the incident that begins first.
            let url = if first.is_none_or(|first| wave.start() < first) { row.url } else { url };
            first = Some(first.map_or(wave.start(), |first: Timestamp| first.min(wave.start())));
            moved = Some((earlier(before, wave), url));
        }
        Ok(moved)
    }

    /// An incident's row, and its version.
    async fn incident_row(&self, id: &str) -> Outcome<(u64, IncidentRow)> {
        let sealed = self.store.incident(id).await?;
        let sealed = sealed.ok_or_else(|| refused(&format!("there is no incident {id:?}")))?;
        let row = self.secrets.rows.open(sealed)?;
        Ok((row.version, row))
    }

    /// Writes an incident's row in place of the version that was read, and reports it in the same transaction.
    async fn put_incident(
        &self,
        (operator, kind, detail): (&str, &'static str, Value),
        row: &IncidentRow,
        expected: Option<u64>,
    ) -> Outcome<IncidentRow> {
        let row = IncidentRow { version: expected.unwrap_or(0) + 1, ..row.clone() };
        let event = match operator {
            "" => Event::Incident { kind, incident: &row.id, detail },
            operator => Event::Operator { kind, operator, subject: &row.id, detail },
        };
        let sealed: Sealed<IncidentRow> = self.secrets.rows.seal(row.clone());
        let changes = vec![AuthorityChange { row: AuthorityRow::Incident(sealed), expected }];
        self.put(AuthorityChanges { changes, audit: vec![event.at(self.now()?)] }).await?;
        Ok(row)
    }
}

impl Plan {
    fn row(&self, id: String, operator: &str, now: Timestamp) -> Result<IncidentRow, Refusal> {
        check_operators_reason(self.reason)?;
        let title = self.title.trim();
        if title.is_empty() || title.len() > LONGEST_TITLE || title.chars().any(char::is_control) {
            return Err(refused(&format!("a title is 1 to {LONGEST_TITLE} printable characters")));
        }
        let url = Url::parse(&self.url).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
        if url.is_none() || self.url.len() > LONGEST_URL {
            return Err(refused("the page that explains it is an http or https URL"));
        }
        if !(1..=MOST_WAVES).contains(&self.waves) {
            return Err(refused(&format!("there are 1 to {MOST_WAVES} waves")));
        }
        let begins_at = self.begins_at.unwrap_or(now);
        if begins_at < now.minus(OLDEST_BEGIN) {
            return Err(refused("the first wave began more than a day ago"));
        }
        // One more than there are waves: the last ones have that long, too, before they are revoked.
        let share = self.deadline.since(begins_at).seconds() / (u64::from(self.waves) + 1);
        let row = IncidentRow {
            id,
            title: title.to_owned(),
            url: self.url.clone(),
            settings: json!({ "opened_by": operator }).to_string(),
            reason: u32::from(self.reason.code()),
            waves: self.waves,
            begins_at,
            wave_seconds: self.wave.map_or(share, Period::seconds),
            deadline: self.deadline,
            state: IncidentState::Collecting,
            created_at: now,
            ended_at: None,
            version: 1,
        };
        check_deadline(&row, self.deadline, now)?;
        if row.wave_seconds < SHORTEST_WAVE_SECONDS {
            return Err(refused("a wave is a minute at least: fewer waves, or a later deadline"));
        }
        Ok(row)
    }
}

impl Collected {
    fn of(page: SelectionPage) -> Self {
        let SelectionPage { unknown, tampered, next, .. } = page;
        Self { unknown, tampered, next, ..Self::default() }
    }

    /// The member that a certificate becomes. What cannot be read as a certificate has no names, and no renewal that would show.
    fn member(&mut self, incident: &IncidentRow, found: &Found, now: Timestamp) -> Option<NewMember> {
        let row = &found.row;
        let (state, count) = if found.revocation.is_some() {
            (MemberState::RevokedOtherwise, &mut self.revoked)
        } else if row.not_after < now {
            (MemberState::Expired, &mut self.expired)
        } else {
            (MemberState::Left, &mut self.left)
        };
        *count += 1;
        let names = names_of(row).map(|names| names.iter().map(ToString::to_string).collect());
        let wave = wave_of(&row.serial, incident.waves);
        let account = row.account.clone().unwrap_or_default();
        let member = IncidentMember { serial: row.serial, account, wave, state };
        Some(NewMember { member, names: names.unwrap_or_default() })
    }
}

/// Which wave a certificate is in: as random as its serial, and as fixed.
fn wave_of(serial: &Serial, waves: u32) -> u32 {
    spread(serial, WAVE_OCTETS).checked_rem(waves).unwrap_or(0)
}

/// The window of a wave.
fn wave_window(incident: &IncidentRow, wave: u32) -> Window {
    let after = incident.wave_seconds.saturating_mul(wave.into());
    let start = incident.begins_at.plus(Period::from_seconds(after));
    Window::new(start, start.plus(Period::from_seconds(incident.wave_seconds)))
}

/// From the earlier beginning to the earlier end.
fn earlier(one: Window, other: Window) -> Window {
    Window::new(one.start().min(other.start()), one.end().min(other.end()))
}

/// Every window is before the deadline, and the deadline is to come.
fn check_deadline(incident: &IncidentRow, deadline: Timestamp, now: Timestamp) -> Result<(), Refusal> {
    if deadline <= now {
        return Err(refused("the deadline is in the past"));
    }
    let last = wave_window(incident, incident.waves.saturating_sub(1)).end();
    if deadline < last {
        return Err(refused(&format!("the last wave ends at {last}, after the deadline")));
    }
    Ok(())
}

fn must_be_current(row: &IncidentRow) -> Result<(), Refusal> {
    match row.state {
        IncidentState::Collecting | IncidentState::Open => Ok(()),
        IncidentState::Done | IncidentState::Closed => {
            Err(refused(&format!("incident {:?} is {} already", row.id, row.state)))
        }
    }
}

fn not_collecting(row: &IncidentRow) -> Refusal {
    refused(&format!("incident {:?} is {}, and takes no more certificates", row.id, row.state))
}

fn refused(detail: &str) -> Refusal {
    Refusal::new(Reason::OperatorRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_a_window_is_moved_forward_and_never_back() {
        let window = |start, end| Window::new(Timestamp::from_unix(start), Timestamp::from_unix(end));
        let wave = window(100, 200);
        let cases = [
            (window(300, 400), wave),
            (window(150, 400), wave),
            (window(50, 400), window(50, 200)),
            (window(50, 150), window(50, 150)),
            (window(120, 150), window(100, 150)),
        ];
        for (usual, expected) in cases {
            assert_eq!(earlier(usual, wave), expected, "{usual:?}");
        }
    }
}
