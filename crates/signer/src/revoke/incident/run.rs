//! What signers do about open incidents by themselves: they follow what becomes of the certificates, and at the deadline
//! revoke what is left; where the keys are compromised, every certificate, whatever has become of it. One signer at a time, by a lease; a round that is cut off is taken up by the next, wherever it was.

use std::collections::BTreeMap;
use std::time::Duration;

use ca_store::{
    Cursor, FollowMembers, IncidentMember, IncidentRow, IncidentState, JournalKind, LeaseOutcome,
    MemberState, Page, RevokeOutcome,
};
use parking_lot::Mutex;
use pki::{Serial, Timestamp};
use serde_json::json;

use super::super::selection::reaches_others;
use super::super::{By, Found, Opened, of_with};
use crate::ca::Ca;
use crate::refusal::{Failure, Outcome};

/// Every signer looks this often.
pub(crate) const ROUND: Duration = Duration::from_secs(30);
/// Longer than a page takes; it is claimed anew with each.
const LEASE: Duration = Duration::from_secs(60);
const LEASE_NAME: &str = "incidents";
/// Pages of an incident that are followed in one round, before its deadline.
const PAGES: u32 = 20;
/// Incidents that are read at once.
const INCIDENTS: u32 = 100;

/// Where each incident is followed next, in this process. Whoever follows next begins anew.
#[derive(Debug, Default)]
pub(crate) struct Cursors(Mutex<BTreeMap<String, Cursor>>);

/// Which members are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those that are left: what was noted stays.
    Left,
    /// All: what had a successor may be left again, now that it counts.
    All,
}

/// What a round has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IncidentRound {
    /// Certificates that it revoked, or whose reason it raised.
    pub revoked: u64,
    /// Incidents of which nothing is left.
    pub done: u64,
}

impl Ca {
    /// A round over all open incidents.
    ///
    /// # Errors
    /// When the store does not answer, or the clock cannot be trusted. What was done is done.
    pub async fn run_incidents(&self) -> Outcome<IncidentRound> {
        let mut round = IncidentRound::default();
        if !self.has_incidents().await? {
            return Ok(round);
        }
        let mut page = Page::first(INCIDENTS);
        loop {
            let rows = self.store.incidents(true, &page).await?;
            for sealed in rows.items {
                let row = match self.secrets.rows.open(sealed) {
                    Ok(row) => row,
                    // Nothing follows from a row that somebody else wrote.
                    Err(error) => {
                        self.alarm(&Failure::Tampered(error));
                        continue;
                    }
                };
                if row.state == IncidentState::Open {
                    self.run_incident(&row, &mut round).await?;
                }
            }
            match rows.next {
                Some(cursor) => page = Page::after(cursor, INCIDENTS),
                None => break,
            }
        }
        // Freed at once: another signer need not wait.
        self.store.claim_lease(LEASE_NAME, Duration::ZERO).await?;
        if round != IncidentRound::default() {
            tracing::warn!(?round, "incidents.round");
        }
        Ok(round)
    }

    async fn has_incidents(&self) -> Outcome<bool> {
        if self.store.incidents(true, &Page::first(1)).await?.items.is_empty() {
            return Ok(false);
        }
        self.holds_incidents().await
    }

    async fn holds_incidents(&self) -> Outcome<bool> {
        Ok(matches!(self.store.claim_lease(LEASE_NAME, LEASE).await?, LeaseOutcome::Held { .. }))
    }

    async fn run_incident(&self, row: &IncidentRow, round: &mut IncidentRound) -> Outcome<()> {
        if self.now()? >= row.deadline {
            return self.revoke_left(&row.id, round).await;
        }
        let mut after = self.cursors.0.lock().get(&row.id).cloned();
        for _ in 0..PAGES {
            let page = Page { after: after.take(), limit: self.limits.revocation_page };
            let (_, next) = self.follow_members(row, &page, Reach::Left).await?;
            after = next;
            if after.is_none() || !self.holds_incidents().await? {
                break;
            }
        }
        let mut cursors = self.cursors.0.lock();
        match after {
            Some(cursor) => cursors.insert(row.id.clone(), cursor),
            None => cursors.remove(&row.id),
        };
        Ok(())
    }

    /// Looks what has become of a page of members.
    pub(super) async fn follow_members(
        &self,
        row: &IncidentRow,
        page: &Page,
        reach: Reach,
    ) -> Outcome<(Vec<IncidentMember>, Option<Cursor>)> {
        let members = self.store.members(&row.id, reach == Reach::Left, page).await?;
        let serials: Vec<_> = members.items.iter().map(|member| member.serial).collect();
        if serials.is_empty() {
            return Ok((Vec::new(), None));
        }
        Ok((self.follow_serials(row, serials, reach).await?, members.next))
    }

    async fn follow_serials(
        &self,
        row: &IncidentRow,
        serials: Vec<Serial>,
        reach: Reach,
    ) -> Outcome<Vec<IncidentMember>> {
        let (incident, source, now) = (row.id.clone(), By::Incident(row.id.clone()).to_string(), self.now()?);
        let again = reach == Reach::All;
        Ok(self.store.follow_members(FollowMembers { incident, serials, again, source, now }).await?)
    }

    /// Revokes what is left, page by page, each page in one commit; the incident is looked at again before each: it may have
    /// been closed or extended meanwhile. Of a compromised key nothing is spared, and no member passed over: a key that has
    /// only certificates of the past is blocked as well.
    async fn revoke_left(&self, id: &str, round: &mut IncidentRound) -> Outcome<()> {
        let mut after = None;
        let mut stuck = false;
        loop {
            if !self.holds_incidents().await? {
                return Ok(());
            }
            let (version, row) = self.incident_row(id).await?;
            let now = self.now()?;
            if row.state != IncidentState::Open || now < row.deadline {
                return Ok(());
            }
            let page = Page { after: after.take(), limit: self.limits.revocation_page };
            let (members, next) = self.follow_members(&row, &page, Reach::All).await?;
            let all = reaches_others(row.reason());
            let doomed: Vec<_> = members
                .into_iter()
                .filter(|member| all || member.state == MemberState::Left)
                .map(|member| member.serial)
                .collect();
            if !doomed.is_empty() {
                let (revoked, complete) = self.revoke_members(&row, &doomed, now).await?;
                round.revoked += revoked;
                stuck |= all && !complete;
                // A process that dies here, or in the commit (`signer.revoke.after`), leaves them revoked: the next round sees it.
                self.follow_serials(&row, doomed, Reach::All).await?;
            }
            match next {
                Some(cursor) => after = Some(cursor),
                None => return self.finish_incident(version, row, stuck, round).await,
            }
        }
    }

    /// One commit of revocations; says how many, and whether all could be read. With keyCompromise the keys are blocked
    /// before, and what else has them is revoked after: a certificate that replaced one with the same key as well.
    async fn revoke_members(
        &self,
        row: &IncidentRow,
        serials: &[Serial],
        now: Timestamp,
    ) -> Outcome<(u64, bool)> {
        let by = By::Incident(row.id.clone());
        let entries = self.store.ledger(serials).await?;
        let entries = entries.into_iter().map(|found| found.entry).collect();
        let Opened { mut found, tampered } = self.open_each(entries, |kind| kind != JournalKind::Node);
        // A precertificate and its final are one.
        found.sort_by_key(|found| found.row.serial);
        found.dedup_by_key(|found| found.row.serial);
        let mut keys = Vec::new();
        if reaches_others(row.reason()) {
            keys.extend(found.iter().map(|found| found.row.spki_sha256));
            keys.sort_unstable();
            keys.dedup();
            self.block_keys(&keys, &by, now).await?;
        }
        found.retain(|found| found.is_revocable(row.reason(), now));
        let revocation = |found: &Found| of_with(found, row.reason(), &by, now, None);
        let new = found.iter().map(revocation).collect();
        let outcomes = self.revoke_all(found.iter().map(|found| &found.row), new, &by).await?;
        let is_new = |outcome: &&RevokeOutcome| {
            matches!(outcome, RevokeOutcome::Revoked(_) | RevokeOutcome::Upgraded(_))
        };
        let mut revoked = outcomes.iter().filter(is_new).count() as u64;
        for key in keys {
            revoked += self.revoke_sharers(key, None, &by, now).await?;
        }
        Ok((revoked, tampered.is_empty()))
    }

    /// Nothing is left, unless something keeps a certificate from being revoked: then it is tried again.
    async fn finish_incident(
        &self,
        version: u64,
        mut row: IncidentRow,
        stuck: bool,
        round: &mut IncidentRound,
    ) -> Outcome<()> {
        let left = self.store.members(&row.id, true, &Page::first(1)).await?;
        if stuck || !left.items.is_empty() {
            self.warn_operators(&format!(
                "incident {:?}: a certificate is left that cannot be revoked",
                row.id
            ));
            return Ok(());
        }
        let counts = self.store.member_counts(&row.id).await?;
        let of =
            |state| counts.iter().filter(|count| count.state == state).map(|count| count.count).sum::<u64>();
        let detail = json!({
            "replaced": of(MemberState::Replaced), "renewed": of(MemberState::Renewed),
            "revoked": of(MemberState::Revoked), "revoked_otherwise": of(MemberState::RevokedOtherwise),
            "expired": of(MemberState::Expired),
        });
        row.state = IncidentState::Done;
        row.ended_at = Some(self.now()?);
        self.put_incident(("", "incident.done", detail), &row, Some(version)).await?;
        round.done += 1;
        Ok(())
    }
}
