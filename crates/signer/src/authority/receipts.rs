//! Receipts: what each perspective saw, and whether enough of them saw the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use acme::AccountUrl;
use acme::challenge::Method;
use acme::problem::ErrorType;
use acme::receipt::{self, Outcome as Observation, Perspective, Receipt, ReceiptError, Run};
use acme::resource::Resource;
use pki::{Name, Period, Timestamp};

use super::{Claim, NameEvidence};
use crate::membership::Nodes;
use crate::policy::public_reuse;
use crate::refusal::{Reason, Refusal};

/// Who is asked, and about what.
pub(super) struct Witnesses<'a> {
    pub(super) claim: &'a Claim<'a>,
    pub(super) nodes: &'a Nodes,
    pub(super) skew: Duration,
}

/// How many perspectives confirmed a name, out of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    confirmed: usize,
    asked: usize,
    /// Whether one of them looked at nothing.
    pub(super) assumed: bool,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.confirmed, self.asked, if self.assumed { " assumed" } else { "" })
    }
}

/// Several tries of a client leave several sets; more than this is not a client's doing.
const MAXIMUM_RECEIPTS: usize = 128;
/// BR §3.2.2.8: a CAA answer may be used for its TTL, or for this long if that is longer.
const CAA_LIFETIME: Period = Period::from_hours(8);
/// How long a persistent record may be relied upon in public trust.
const PERSISTED_REUSE: Period = Period::from_days(10);

impl Witnesses<'_> {
    /// Counts the quorum for one name: who saw control, and who read CAA not too long ago, where CAA counts. Receipts that do
    /// not count are as if they were not there; the first reason why one did not is the refusal's if there is no quorum
    /// without it.
    pub(super) fn count(&self, evidence: &NameEvidence, minted: Timestamp) -> Result<Tally, Refusal> {
        let quorum = &self.claim.request.directory().policy.quorum;
        let mut faults = Faults::default();
        let (mut control, mut caa) = (Count::default(), Count::default());
        let mut assumed = false;
        for compact in evidence.receipts.iter().take(MAXIMUM_RECEIPTS) {
            let (receipt, answer) = match self.check(compact, evidence, minted) {
                Ok(read) => read,
                Err(refusal) => {
                    faults.control = faults.control.or(Some(refusal));
                    continue;
                }
            };
            match &receipt.outcome {
                Observation::Valid => control.add(&receipt, !matches!(answer, CaaAnswer::Forbidden(_))),
                Observation::Invalid(problem) => {
                    control.add(&receipt, false);
                    let detail = format!("{}: {}: {}", evidence.name, receipt.perspective, problem.detail);
                    let reason = match problem.kind {
                        ErrorType::Caa => Reason::Caa,
                        _ => Reason::QuorumMissed,
                    };
                    faults.control = faults.control.or(Some(self.refuse(reason, detail)));
                }
                Observation::Caa => {}
                Observation::Assumed => {
                    assumed = true;
                    control.add(&receipt, true);
                }
            }
            // Of a domain above, CAA says nothing of the name: that may have records of its own.
            if receipt.name != evidence.name {
                continue;
            }
            match answer {
                CaaAnswer::NotAsked => {}
                CaaAnswer::Permitted => caa.add(&receipt, true),
                CaaAnswer::Forbidden(refusal) => {
                    caa.add(&receipt, false);
                    faults.control.get_or_insert(refusal);
                }
                CaaAnswer::Old(refusal) => {
                    caa.add(&receipt, false);
                    faults.caa.get_or_insert(refusal);
                }
            }
        }
        let asked = quorum.perspectives.len();
        let needed = quorum.needed();
        let confirmed = control.best(&quorum.perspectives);
        let shown = confirmed.values().copied().max().unwrap_or(0);
        if shown < needed {
            return Err(faults.control.unwrap_or_else(|| {
                let detail = format!(
                    "{}: {shown} of {asked} perspectives confirmed control, {needed} are needed",
                    evidence.name
                );
                self.refuse(Reason::QuorumMissed, detail)
            }));
        }
        if self.needs_caa(&evidence.name) {
            // For the same method: CAA may permit one and not another (RFC 8657 §4).
            let read = caa.best(&quorum.perspectives);
            let permits = |method| read.get(method).is_some_and(|count| *count >= needed);
            if !confirmed.iter().any(|(method, count)| *count >= needed && permits(method)) {
                return Err(faults.caa.unwrap_or_else(|| {
                    let detail = format!("{}: not enough perspectives have asked CAA", evidence.name);
                    self.refuse(Reason::Caa, detail)
                }));
            }
        }
        Ok(Tally { confirmed: shown, asked, assumed })
    }

    fn check(
        &self,
        compact: &str,
        evidence: &NameEvidence,
        minted: Timestamp,
    ) -> Result<(Receipt, CaaAnswer), Refusal> {
        let name = &evidence.name;
        let forged = |reason, detail: String| self.refuse(reason, format!("a receipt for {name}: {detail}"));
        let bad = |error: ReceiptError| {
            let reason = match error {
                ReceiptError::Signature => Reason::ReceiptSignature,
                _ => Reason::ReceiptMalformed,
            };
            forged(reason, error.to_string())
        };
        let perspective = receipt::perspective(compact).map_err(bad)?;
        let verifier = self.nodes.receipt_verifier(&perspective).ok_or_else(|| {
            let detail = format!("{perspective} is not an active validator");
            forged(Reason::ReceiptUnregistered, detail)
        })?;
        let receipt = verifier.verify(compact).map_err(bad)?;
        self.check_subject(&receipt, evidence)?;
        self.check_time(&receipt, evidence, minted)?;
        self.check_assumed(&receipt)?;
        self.check_public(&receipt)?;
        let above = receipt.name != evidence.name;
        let answer = if above { CaaAnswer::NotAsked } else { self.check_caa(&receipt)? };
        Ok((receipt, answer))
    }

    /// Every field of a receipt that says what it is about. (That its token is the authorization's, [`receipt`] has seen.)
    fn check_subject(&self, receipt: &Receipt, evidence: &NameEvidence) -> Result<(), Refusal> {
        let directory = self.claim.request.directory();
        let covers = evidence.ancestor.is_none() || receipt.method.covers_subdomains();
        let method_counts = directory.policy.methods.contains(&receipt.method)
            && receipt.method.fits(&receipt.name)
            && covers;
        // Nobody looked for a key authorization where CAA alone was asked.
        let caa_alone = receipt.outcome == Observation::Caa;
        let key_counts =
            caa_alone || self.claim.account.had_key(&receipt.thumbprint, receipt.finished, self.skew);
        // Of a domain above, control alone counts: its CAA records need not be the name's (RFC 9444, RFC 8659 §3).
        let subject = if caa_alone { evidence.name.clone() } else { evidence.authorized() };
        let (reason, other) = if receipt.authorization != evidence.authorization {
            (Reason::ReceiptAuthorization, "authorization")
        } else if receipt.directory != *directory.name() {
            (Reason::ReceiptDirectory, "directory")
        } else if receipt.account != self.claim.account.id {
            (Reason::ReceiptAccount, "account")
        } else if !self.is_account_url(&receipt.account_url) {
            (Reason::ReceiptAccountUrl, "account URL")
        } else if receipt.name != subject {
            (Reason::ReceiptName, "name")
        } else if !method_counts {
            (Reason::ReceiptMethod, "method")
        } else if !key_counts {
            (Reason::ReceiptKey, "account key")
        } else {
            return Ok(());
        };
        Err(self.refuse(reason, format!("a receipt for {} is for another {other}", evidence.name)))
    }

    /// A front says under which URL its client knows the account; DNS records can name it.
    fn is_account_url(&self, url: &AccountUrl) -> bool {
        let directory = self.claim.request.directory();
        Resource::parse(&directory.policy.base_urls, url.as_str()).is_ok_and(|located| {
            located.directory == *directory.name()
                && located.resource == Resource::Account(self.claim.account.id)
        })
    }

    /// Made while its authorization could be met, not from the future, and young enough: as old as an order may get, or for an
    /// authorization of another request as old as the directory lets validations be reused. One that was made without an
    /// order (RFC 8555 §7.4.1) waits for its first as long as an order would. Afterwards only CAA is asked again: what was shown
    /// for an old token later on, nobody asked the client for (BR 3.2.2.4: random values are for 30 days).
    fn check_time(
        &self,
        receipt: &Receipt,
        evidence: &NameEvidence,
        minted: Timestamp,
    ) -> Result<(), Refusal> {
        let policy = &self.claim.request.directory().policy;
        let oldest = match self.claim.own {
            Some(own) if evidence.created_by == own => policy.order_lifetime,
            Some(_) if evidence.authorization.scope().pre_authorization => {
                policy.order_lifetime.max(policy.validation_reuse)
            }
            Some(_) => policy.validation_reuse,
            None => policy.order_lifetime.max(policy.validation_reuse),
        };
        let skew = Period::from_seconds(self.skew.as_secs());
        let stale = |reason, detail: &str| {
            Err(self.refuse(reason, format!("a receipt for {} is {detail}", evidence.name)))
        };
        if receipt.started.plus(skew) < minted {
            return stale(Reason::ReceiptEarly, "older than its authorization");
        }
        let ended = minted.plus(policy.authorization_lifetime).plus(skew);
        if receipt.started > ended && receipt.outcome != Observation::Caa {
            return stale(Reason::ReceiptLate, "younger than its authorization lived");
        }
        if receipt.finished > self.claim.now.plus(skew) {
            return stale(Reason::ReceiptFuture, "from the future");
        }
        let another = self.claim.own.is_some_and(|own| evidence.created_by != own);
        if another && oldest.seconds() == 0 {
            return stale(Reason::ReceiptStale, "of another order, and this directory reuses nothing");
        }
        if let Some(since) = policy.validations_since.filter(|since| receipt.finished < *since) {
            return stale(Reason::ReceiptStale, &format!("from before {since}, and only later ones count"));
        }
        if self.claim.now.since(receipt.finished) > self.cap(oldest, receipt, evidence) {
            return stale(Reason::ReceiptStale, "too old");
        }
        Ok(())
    }

    /// What bounds the age of a validation whatever the directory says: in public trust its rules, and of a persistent record
    /// its TTL (draft-ietf-acme-dns-persist §8, BR 3.2.2.4.22). An order's own validation is good for eight hours at least.
    fn cap(&self, oldest: Period, receipt: &Receipt, evidence: &NameEvidence) -> Period {
        let public = self.claim.request.directory().policy.public_trust;
        let oldest = if public { oldest.min(public_reuse(self.claim.now)) } else { oldest };
        let Some(persisted) = &receipt.persisted else { return oldest };
        let oldest = if public { oldest.min(PERSISTED_REUSE) } else { oldest };
        let ttl = Period::from_seconds(persisted.ttl_seconds.into());
        match self.claim.own {
            Some(own) if evidence.created_by != own => oldest.min(ttl),
            _ => oldest.min(ttl.max(CAA_LIFETIME)),
        }
    }

    /// Who looked at nothing counts where the operator wants it so. (That the issuer is a test CA, issuance sees to.)
    fn check_assumed(&self, receipt: &Receipt) -> Result<(), Refusal> {
        if receipt.outcome != Observation::Assumed || self.claim.request.directory().policy.always_valid {
            return Ok(());
        }
        let detail = format!("a receipt for {} is of a perspective that looked at nothing", receipt.name);
        Err(self.refuse(Reason::ReceiptAssumed, detail))
    }

    /// What public trust demands of a perspective: a resolver that validates DNSSEC, and no address that is nobody's on the
    /// Internet (BR 3.2.2.4, 4.2.2).
    fn check_public(&self, receipt: &Receipt) -> Result<(), Refusal> {
        if !self.claim.request.directory().policy.public_trust {
            return Ok(());
        }
        if !receipt.dnssec {
            let detail = format!("a receipt for {} is of a perspective without DNSSEC", receipt.name);
            return Err(self.refuse(Reason::ReceiptDnssec, detail));
        }
        if let Some(address) = receipt.addresses.iter().find(|address| Name::Ip(**address).is_reserved()) {
            let detail = format!("a receipt for {} is of the reserved address {address}", receipt.name);
            return Err(self.refuse(Reason::ReceiptAddress, detail));
        }
        Ok(())
    }

    /// Whether an answer of CAA must be there: for DNS names of a directory that has a name in CAA records, when a certificate
    /// is to be issued; not where nobody need look at anything.
    pub(super) fn needs_caa(&self, name: &Name) -> bool {
        let policy = &self.claim.request.directory().policy;
        let asked = !policy.caa_identities.is_empty() && !policy.always_valid;
        self.claim.issuance && asked && name.base().is_some()
    }

    /// What CAA said: asked for this CA's names, and not too long ago (RFC 8659, BR §3.2.2.8).
    fn check_caa(&self, receipt: &Receipt) -> Result<CaaAnswer, Refusal> {
        let policy = &self.claim.request.directory().policy;
        let Some(caa) = &receipt.caa else {
            // A failure may have none: it counts against, whatever CAA says.
            if self.needs_caa(&receipt.name) && matches!(receipt.outcome, Observation::Valid) {
                let detail = format!("a receipt for {} does not say what CAA says", receipt.name);
                return Err(self.refuse(Reason::ReceiptCaa, detail));
            }
            return Ok(CaaAnswer::NotAsked);
        };
        if caa.identities != policy.caa_identities {
            let detail = format!("a receipt for {} asked CAA for another CA", receipt.name);
            return Err(self.refuse(Reason::ReceiptCaa, detail));
        }
        if !caa.permitted {
            let detail = format!("CAA records forbid the issuance for {}", receipt.name);
            return Ok(CaaAnswer::Forbidden(self.refuse(Reason::Caa, detail)));
        }
        let lifetime = CAA_LIFETIME.max(Period::from_seconds(u64::from(caa.ttl_seconds)));
        if self.claim.now.since(caa.checked) > lifetime {
            let detail = format!("CAA was asked too long ago for {}", receipt.name);
            return Ok(CaaAnswer::Old(self.refuse(Reason::Caa, detail)));
        }
        Ok(CaaAnswer::Permitted)
    }

    fn refuse(&self, reason: Reason, detail: impl Into<String>) -> Refusal {
        self.claim.request.refuse(reason, detail)
    }
}

/// What a receipt says of CAA.
enum CaaAnswer {
    NotAsked,
    Permitted,
    Forbidden(Refusal),
    /// It permitted, too long ago.
    Old(Refusal),
}

/// The first reason of each kind why a receipt did not count.
#[derive(Default)]
struct Faults {
    control: Option<Refusal>,
    caa: Option<Refusal>,
}

/// Who said yes and who no, in each run. Results of different runs are never added up (BR §3.2.2.9).
#[derive(Default)]
struct Count(BTreeMap<(Method, Run), BTreeMap<Perspective, bool>>);

impl Count {
    /// A perspective that said both yes and no in one run said no.
    fn add(&mut self, receipt: &Receipt, yes: bool) {
        let run = self.0.entry((receipt.method, receipt.run)).or_default();
        *run.entry(receipt.perspective.clone()).or_insert(true) &= yes;
    }

    /// The most that said yes in one run, by method.
    fn best(&self, quorum: &BTreeSet<String>) -> BTreeMap<Method, usize> {
        let mut best = BTreeMap::new();
        for ((method, _), run) in &self.0 {
            let count = confirmations(run, quorum);
            let most: &mut usize = best.entry(*method).or_default();
            *most = count.max(*most);
        }
        best
    }
}

/// Distinct perspectives of the quorum that confirmed.
fn confirmations(perspectives: &BTreeMap<Perspective, bool>, quorum: &BTreeSet<String>) -> usize {
    perspectives.iter().filter(|(name, confirmed)| **confirmed && quorum.contains(name.as_str())).count()
}
