//! An operator's run: what a selector is for is revoked page by page, each page in one commit. The signer keeps nothing of a
//! run. It is begun again with the same words, and skips what is done.

use ca_store::{JournalRow, RevokeOutcome};
use pki::{Reason as Because, Serial, Timestamp};
use serde_json::json;

use super::selection::{Position, Selector, reaches_others};
use super::{By, Found, check_operators_reason, of_with};
use crate::audit::Event;
use crate::ca::Ca;
use crate::refusal::{Outcome, Reason, Refusal};

/// A page of a selection, revoked or to be revoked.
#[derive(Debug, Default)]
pub(crate) struct SelectionPage {
    /// What was revoked, or is to be.
    pub(crate) certificates: Vec<Selected>,
    /// Left out: revoked before.
    pub(crate) already: Vec<Serial>,
    /// Left out: expired.
    pub(crate) expired: Vec<Serial>,
    /// Named, and not there.
    pub(crate) unknown: Vec<Serial>,
    /// Changed by something else than a signer.
    pub(crate) tampered: Vec<Serial>,
    /// Keys that were blocked.
    pub(crate) blocked: u64,
    /// The run's id.
    pub(crate) run: String,
    /// Where to go on; none at the end.
    pub(crate) next: Option<String>,
}

/// A selected certificate.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Its row.
    pub(crate) row: JournalRow,
    /// Since when it is revoked, if it is.
    pub(crate) revoked_at: Option<Timestamp>,
    /// It was revoked before; its reason becomes keyCompromise.
    pub(crate) upgraded: bool,
    /// It is here because a selected certificate has its key.
    pub(crate) shares_key: bool,
}

/// What is asked of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageRequest<'a> {
    /// Which certificates.
    pub(crate) selector: &'a Selector,
    /// Why.
    pub(crate) reason: Because,
    /// As the page before said; empty: the first.
    pub(crate) token: &'a str,
    /// How many certificates are looked at; 0: as many as the signer allows.
    pub(crate) size: u32,
}

/// Who begins or goes on with a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunRequest<'a> {
    /// The operator's name.
    pub(crate) operator: &'a str,
    /// As the first page said; empty: it begins.
    pub(crate) run: &'a str,
    /// How many certificates the operator was told of; 0: not told.
    pub(crate) expected: u64,
}

/// Certificates of a page, with whether each is there for its key alone.
pub(super) type Candidates = Vec<(Found, bool)>;

impl Ca {
    /// A page of what [`Ca::revoke_selected`] would do. Nothing changes.
    ///
    /// # Errors
    /// A refusal when the selector, reason or token is none; by the store.
    pub(crate) async fn select(&self, request: PageRequest<'_>) -> Outcome<SelectionPage> {
        let now = self.now()?;
        let (candidates, mut page) = self.candidates(request, None, now).await?;
        for (found, shares_key) in candidates {
            if found.is_revocable(request.reason, now) {
                let upgraded = found.revocation.is_some();
                page.certificates.push(Selected { row: found.row, revoked_at: None, upgraded, shares_key });
            } else {
                page.leave_out(&found);
            }
        }
        Ok(page)
    }

    /// Revokes a page of what is selected, in one commit; with reason keyCompromise the keys are blocked before, and the other
    /// certificates that have them are revoked too (BR §4.9.1.1, §6.1.1.3). A page that is asked for again, because its answer
    /// was lost, answers the same, but for reasons that it raised: those it calls revoked already.
    ///
    /// # Errors
    /// As [`Ca::select`]. What was not answered may have been done.
    pub(crate) async fn revoke_selected(
        &self,
        who: RunRequest<'_>,
        request: PageRequest<'_>,
    ) -> Outcome<SelectionPage> {
        let now = self.now()?;
        let run = self.begin(who, request, now).await?;
        let by = By::Run(who.operator.to_owned(), run.clone());
        let (candidates, mut page) = self.candidates(request, Some(&by), now).await?;
        page.run = run;
        let source = by.to_string();
        let (mut chosen, mut new) = (Vec::new(), Vec::new());
        // The first one of a key is why the others are here.
        let with = |row: &JournalRow, shares_key: bool, chosen: &[(Found, bool)]| {
            let first = chosen.iter().find(|(other, _)| other.row.spki_sha256 == row.spki_sha256);
            first.filter(|_| shares_key).map(|(other, _)| other.row.serial)
        };
        for (found, shares_key) in candidates {
            match &found.revocation {
                // By this run, whose answer was lost.
                Some(row) if row.source == source => {
                    let revoked_at = Some(row.revoked_at);
                    page.certificates.push(Selected {
                        row: found.row,
                        revoked_at,
                        upgraded: false,
                        shares_key,
                    });
                }
                _ if found.is_revocable(request.reason, now) => {
                    let with = with(&found.row, shares_key, &chosen);
                    new.push(of_with(&found, request.reason, &by, now, with));
                    chosen.push((found, shares_key));
                }
                _ => page.leave_out(&found),
            }
        }
        let outcomes = self.revoke_all(chosen.iter().map(|(found, _)| &found.row), new, &by).await?;
        for ((found, shares_key), outcome) in chosen.into_iter().zip(outcomes) {
            let (revoked_at, upgraded) = match outcome {
                RevokeOutcome::Revoked(row) => (row.revoked_at, false),
                RevokeOutcome::Upgraded(row) => (row.revoked_at, true),
                // By somebody else in this moment.
                RevokeOutcome::Already(_) => {
                    page.already.push(found.row.serial);
                    continue;
                }
                RevokeOutcome::Unknown => {
                    page.unknown.push(found.row.serial);
                    continue;
                }
            };
            let revoked_at = Some(revoked_at);
            page.certificates.push(Selected { row: found.row, revoked_at, upgraded, shares_key });
        }
        Ok(page)
    }

    /// The run's id. Its beginning is in the audit trail before anything is done.
    async fn begin(&self, who: RunRequest<'_>, request: PageRequest<'_>, now: Timestamp) -> Outcome<String> {
        check_operators_reason(request.reason)?;
        request.selector.check()?;
        if !who.run.is_empty() {
            let is_id = who.run.len() == 2 * RUN_OCTETS && hex::decode(who.run).is_ok();
            let refusal = || Refusal::new(Reason::OperatorRequest, "the run is none of this signer's");
            return if is_id { Ok(who.run.to_owned()) } else { Err(refusal().into()) };
        }
        let run = hex::encode(self.random.bytes::<RUN_OCTETS>()?);
        let detail = json!({
            "selector": request.selector.to_json(),
            "reason": request.reason.as_str(),
            "expected": who.expected,
        });
        let (kind, operator) = ("revocation.begun", who.operator);
        let event = Event::Operator { kind, operator, subject: &run, detail };
        self.store.append_audit(vec![event.at(now)], Vec::new()).await?;
        Ok(run)
    }

    /// What a page is about; with `by` the keys that are said to be compromised are blocked before others that have them are
    /// looked for, so that none comes after them.
    pub(super) async fn candidates(
        &self,
        request: PageRequest<'_>,
        by: Option<&By>,
        now: Timestamp,
    ) -> Outcome<(Candidates, SelectionPage)> {
        check_operators_reason(request.reason)?;
        request.selector.check()?;
        let most = self.limits.revocation_page;
        let limit = if request.size == 0 { most } else { request.size.min(most) };
        let at = Position::read(request.token)?;
        let mut primary = self.primary(request.selector, &at, limit).await?;
        let mut page = SelectionPage::default();
        let mut next = primary.next();
        let mut others = Vec::new();
        if reaches_others(request.reason) {
            let keys = primary.keys(request.selector);
            if let Some(by) = by.filter(|_| at.is_page()) {
                page.blocked = self.block_keys(&keys, by, now).await?;
            }
            let (opened, more) = self.sharing(&primary, &keys, &at, limit).await?;
            others = opened.found;
            page.tampered = opened.tampered;
            next = more.or(next);
        }
        let mut candidates = Vec::new();
        if at.is_page() {
            page.unknown = primary.unknown;
            page.tampered.append(&mut primary.opened.tampered);
            candidates.extend(primary.opened.found.into_iter().map(|found| (found, false)));
        }
        candidates.extend(others.into_iter().map(|found| (found, true)));
        page.next = next.as_ref().map(Position::to_token);
        Ok((candidates, page))
    }
}

/// Random octets of a run's id.
const RUN_OCTETS: usize = 8;

impl SelectionPage {
    fn leave_out(&mut self, found: &Found) {
        let list = if found.revocation.is_some() { &mut self.already } else { &mut self.expired };
        list.push(found.row.serial);
    }
}
