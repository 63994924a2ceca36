//! Receipts: what each perspective saw, and whether enough of them saw the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use acme::AccountUrl;
use acme::receipt::{self, Outcome as Observation, Perspective, Receipt, ReceiptError, Run};
use acme::resource::Resource;
use pki::{Period, Timestamp};

use super::{Claim, NameEvidence};
use crate::membership::Nodes;
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
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.confirmed, self.asked)
    }
}

/// Several tries of a client leave several sets; more than this is not a client's doing.
const MAXIMUM_RECEIPTS: usize = 128;
/// BR §3.2.2.8: a CAA answer may be used for its TTL, or for this long if that is longer.
const CAA_LIFETIME: Period = Period::from_hours(8);

impl Witnesses<'_> {
    /// Counts the quorum for one name. Receipts that do not count are as if they were not there; the first reason why
    /// one did not is the refusal's if there is no quorum without it.
    pub(super) fn count(&self, evidence: &NameEvidence, minted: Timestamp) -> Result<Tally, Refusal> {
        let directory = self.claim.request.directory();
        let quorum = &directory.policy.quorum;
        let mut first_fault = None;
        // Results of different runs are never added up (BR §3.2.2.9).
        let mut runs: BTreeMap<Run, BTreeMap<Perspective, bool>> = BTreeMap::new();
        for compact in evidence.receipts.iter().take(MAXIMUM_RECEIPTS) {
            match self.check(compact, evidence, minted) {
                Ok(seen) => {
                    // A perspective that said both yes and no in one run said no.
                    let confirmed = runs.entry(seen.run).or_default().entry(seen.perspective).or_insert(true);
                    *confirmed &= seen.confirmed;
                    first_fault = first_fault.or(seen.fault);
                }
                Err(refusal) => first_fault = first_fault.or(Some(refusal)),
            }
        }
        let asked = quorum.perspectives.len();
        let needed =
            asked.saturating_sub(usize::try_from(quorum.maximum_dissent).unwrap_or(usize::MAX)).max(1);
        let counts =
            |perspectives: &BTreeMap<Perspective, bool>| confirmations(perspectives, &quorum.perspectives);
        let confirmed = runs.values().map(counts).max().unwrap_or(0);
        if confirmed >= needed {
            return Ok(Tally { confirmed, asked });
        }
        Err(first_fault.unwrap_or_else(|| {
            let detail = format!(
                "{}: {confirmed} of {asked} perspectives confirmed control, {needed} are needed",
                evidence.name
            );
            self.refuse(Reason::QuorumMissed, detail)
        }))
    }

    fn check(&self, compact: &str, evidence: &NameEvidence, minted: Timestamp) -> Result<Seen, Refusal> {
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
        if let Observation::Invalid(problem) = &receipt.outcome {
            let fault =
                self.refuse(Reason::QuorumMissed, format!("{name}: {perspective}: {}", problem.detail));
            return Ok(Seen { run: receipt.run, perspective, confirmed: false, fault: Some(fault) });
        }
        let fault = self.check_caa(&receipt).err();
        Ok(Seen { run: receipt.run, perspective, confirmed: fault.is_none(), fault })
    }

    /// Every field of a receipt that says what it is about. (That its token is the authorization's, [`receipt`] has seen.)
    fn check_subject(&self, receipt: &Receipt, evidence: &NameEvidence) -> Result<(), Refusal> {
        let directory = self.claim.request.directory();
        let covers = evidence.ancestor.is_none() || receipt.method.covers_subdomains();
        let method_counts = directory.policy.methods.contains(&receipt.method)
            && receipt.method.fits(&receipt.name)
            && covers;
        let key_counts = self.claim.account.had_key(&receipt.thumbprint, receipt.finished, self.skew);
        let (reason, other) = if receipt.authorization != evidence.authorization {
            (Reason::ReceiptAuthorization, "authorization")
        } else if receipt.directory != *directory.name() {
            (Reason::ReceiptDirectory, "directory")
        } else if receipt.account != self.claim.account.id {
            (Reason::ReceiptAccount, "account")
        } else if !self.is_account_url(&receipt.account_url) {
            (Reason::ReceiptAccountUrl, "account URL")
        } else if receipt.name != evidence.authorized() {
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

    /// Not before its authorization, not from the future, and young enough: as old as an order may get, or for an
    /// authorization of another request as old as the directory lets validations be reused. One that was made without an
    /// order (RFC 8555 §7.4.1) waits for its first as long as an order would.
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
        let stale =
            |reason, detail| Err(self.refuse(reason, format!("a receipt for {} is {detail}", evidence.name)));
        if receipt.started.plus(skew) < minted {
            return stale(Reason::ReceiptEarly, "older than its authorization");
        }
        if receipt.finished > self.claim.now.plus(skew) {
            return stale(Reason::ReceiptFuture, "from the future");
        }
        if self.claim.now.since(receipt.finished) > oldest {
            return stale(Reason::ReceiptStale, "too old");
        }
        Ok(())
    }

    /// What CAA said where it was asked: it must permit, and the answer must not be too old (RFC 8659, BR §3.2.2.8).
    fn check_caa(&self, receipt: &Receipt) -> Result<(), Refusal> {
        let Some(caa) = &receipt.caa else { return Ok(()) };
        if !caa.permitted {
            return Err(
                self.refuse(Reason::Caa, format!("CAA records forbid the issuance for {}", receipt.name))
            );
        }
        let lifetime = CAA_LIFETIME.max(Period::from_seconds(u64::from(caa.ttl_seconds)));
        if self.claim.now.since(caa.checked) > lifetime {
            let detail = format!("CAA was asked too long ago for {}", receipt.name);
            return Err(self.refuse(Reason::Caa, detail));
        }
        Ok(())
    }

    fn refuse(&self, reason: Reason, detail: impl Into<String>) -> Refusal {
        self.claim.request.refuse(reason, detail)
    }
}

/// One receipt that counts, for or against.
struct Seen {
    run: Run,
    perspective: Perspective,
    confirmed: bool,
    /// Why not, where it is against.
    fault: Option<Refusal>,
}

/// Distinct perspectives of the quorum that confirmed.
fn confirmations(perspectives: &BTreeMap<Perspective, bool>, quorum: &BTreeSet<String>) -> usize {
    perspectives.iter().filter(|(name, confirmed)| **confirmed && quorum.contains(name.as_str())).count()
}
