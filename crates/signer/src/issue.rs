//! From finalize to certificate: steps 4 to 11 of DESIGN §3, under the same numbers. `docs/issuance.md` tells the story.
//!
//! [`Finalization`] → [`Authorized`] → [`Linted`] → [`Journaled`] → certificate: each is moved into the next.

use std::sync::Arc;

use aws_lc_rs::digest;
use ca_store::{JournalEntry, JournalKey, JournalKind, JournalRow};
use pki::{Serial, Tbs};

use crate::authority::{Finalization, IssueOrder};
use crate::ca::Ca;
use crate::journal::{CertificateDraft, CertificateIntent, Commit, Journaled, Record};
use crate::limits::rate_limited;
use crate::refusal::{Failure, Outcome, Reason};
use crate::renewal::already_replaced;

mod in_flight;
mod make;

pub(crate) use in_flight::InFlight;
pub(crate) use make::{Subject, bad_key, csr_reason, lint_record, shard_of};

use in_flight::{Entry, Flight};
use make::Linted;

/// The answer to a finalization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuance {
    /// The certificate.
    Issued(Issued),
    /// It is being made, here or by another signer: ask again.
    Processing,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its serial.
    pub serial: Serial,
    /// The issuer's identity in `ca`.
    pub issuer: String,
    /// DER.
    pub certificate: Vec<u8>,
}

/// What the journal has of an order.
enum Past {
    /// The entry of its certificate.
    Open(Box<JournalEntry>),
    /// Entries that are no obstacle, by their MACs.
    Over(Vec<[u8; 32]>),
}

/// Decisions that concurrent changes made void are made again so often.
const TRIES: u32 = 4;

impl Ca {
    /// Issues the certificate of an order, or answers with the one that it has: at most one, whoever asks how often.
    ///
    /// The work goes on when the caller goes away, and when the answer is [`Issuance::Processing`].
    ///
    /// # Errors
    /// A refusal, after which the order may be finalized anew; or what keeps it from being done now, after which the same
    /// request is to be repeated.
    pub async fn issue(self: &Arc<Self>, order: IssueOrder) -> Outcome<Issuance> {
        let request = Finalization::read(&self.registry, order)?;
        let ca = Arc::clone(self);
        let task = self.in_flight.spawn(async move { ca.issue_alone(request).await });
        match tokio::time::timeout(self.limits.issue_wait(), task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Failure::Stopping),
            Err(_) => Ok(Issuance::Processing),
        }
    }

    /// One at a time for each order: whoever comes second waits, and then finds what the first has left.
    async fn issue_alone(&self, request: Finalization) -> Outcome<Issuance> {
        loop {
            match self.in_flight.enter(request.order)? {
                Entry::First(flight) => return self.issue_order(&request, &flight).await,
                Entry::Behind(first) => first.landed().await,
            }
        }
    }

    async fn issue_order(&self, request: &Finalization, flight: &Flight) -> Outcome<Issuance> {
        let mut past = Vec::new();
        for _ in 0..TRIES {
            let linted = match self.decide(request).await {
                Ok(linted) => linted,
                // Step 4: an order that has an entry is answered with it, whatever speaks against it by now.
                Err(failure) => return self.answer_known(request, flight).await?.ok_or(failure),
            };
            let Linted { draft, counted } = linted;
            let draft = CertificateDraft { past: past.clone(), ..draft };
            match self.journal.commit(draft).await? {
                Commit::Committed(intent) => return self.finish(intent, flight).await.map(Issuance::Issued),
                Commit::OrderTaken(entry) => return self.answer(request, *entry, flight).await,
                Commit::NewOrderTaken(_) => {
                    let detail = "a certificate was issued for this newOrder request already";
                    return Err(request.finalize.refuse(Reason::NewOrderTaken, detail).into());
                }
                Commit::AlreadyReplaced => return Err(already_replaced(&request.finalize).into()),
                Commit::AuthorizationDeactivated(_) => {
                    let detail = "an authorization of the order was deactivated";
                    return Err(request.finalize.refuse(Reason::AuthorizationDeactivated, detail).into());
                }
                Commit::LimitReached(_) => {
                    let now = self.now()?;
                    let directory = request.finalize.directory().name();
                    if let Some(reached) = self.reached_limit(directory, &counted, now).await? {
                        return Err(rate_limited(&request.finalize, &reached, now).into());
                    }
                    // What stood in the way has left in this moment.
                }
                Commit::OrderHasPast => match self.look_back(request).await? {
                    Past::Open(entry) => return self.answer(request, *entry, flight).await,
                    Past::Over(macs) => past = macs,
                },
                Commit::KeyBlocked => return Err(bad_key(Some(&request.finalize), false).into()),
                Commit::KeyOfAccount => return Err(bad_key(Some(&request.finalize), true).into()),
                // Decide anew, from what is there now.
                Commit::SerialTaken => {}
                Commit::AuthorityChanged(_) => self.forget_account(&request.account).await,
            }
        }
        Err(Failure::Contended)
    }

    /// Steps 5 to 8. Step 4 costs nothing where nothing speaks against the request: the transaction of step 9 finds the entry
    /// that an order has.
    async fn decide(&self, request: &Finalization) -> Outcome<Linted> {
        let authorized = self.authorize(request).await?;
        self.make(request, authorized)
    }

    /// What an order is answered with that has an entry.
    async fn answer_known(&self, request: &Finalization, flight: &Flight) -> Outcome<Option<Issuance>> {
        match self.look_back(request).await? {
            Past::Open(entry) => self.answer(request, *entry, flight).await.map(Some),
            Past::Over(_) => Ok(None),
        }
    }

    /// The entries of an order. Each is verified before it is passed over: a row that only says that it is abandoned, or of
    /// another kind, must not free its order.
    async fn look_back(&self, request: &Finalization) -> Outcome<Past> {
        let mut macs = Vec::new();
        for entry in self.store.journal(&JournalKey::Order(request.order.to_string())).await? {
            let row = self.journal.open(entry.clone())?;
            if row.kind == JournalKind::Final && row.abandoned_at.is_none() {
                return Ok(Past::Open(Box::new(entry)));
            }
            macs.push(entry.row.mac().mac);
        }
        Ok(Past::Over(macs))
    }

    async fn answer(
        &self,
        request: &Finalization,
        entry: JournalEntry,
        flight: &Flight,
    ) -> Outcome<Issuance> {
        let lease = entry.lease;
        let row = self.journal.open(entry.clone())?;
        let order = request.order.to_string();
        let (account, directory) =
            (request.account.to_string(), request.finalize.directory().name().as_str());
        let same = row.order.as_deref() == Some(&order)
            && row.account.as_deref() == Some(&account)
            && row.directory.as_deref() == Some(directory);
        if !same {
            return Err(request
                .finalize
                .refuse(Reason::OrderForeign, "the order is another account's")
                .into());
        }
        if row.csr_sha256 != Some(self.digest_of_csr(request).await?) {
            let detail = "the order is being, or was, finalized with another CSR";
            return Err(request.finalize.refuse(Reason::OrderTaken, detail).into());
        }
        if row.signature.is_some() {
            return Ok(Issuance::Issued(issued(&row)?));
        }
        // Ours, and not in flight: an earlier try of this process failed after the commit. Go on from the same bytes.
        if lease.is_some_and(|lease| lease.owner == self.info.incarnation)
            && let Some(intent) = self.journal.adopt(entry)?
        {
            return self.finish(intent, flight).await.map(Issuance::Issued);
        }
        Ok(Issuance::Processing)
    }

    /// The CSR of a finalization that any of the account's keys has signed: the one in force when it was accepted may
    /// have been changed since, and the front repeats what it has.
    async fn digest_of_csr(&self, request: &Finalization) -> Outcome<[u8; 32]> {
        let account = self.account_of(&request.finalize, &request.account).await?;
        let mut outcome =
            Err(request.finalize.refuse(Reason::JwsSignature, "not signed by the order's account"));
        for key in account.all_keys() {
            match request.finalize.verify(key) {
                Ok(verified) => {
                    let finalize = acme::order::Finalize::from_verified(&verified)?;
                    return Ok(sha256(&finalize.csr));
                }
                Err(refusal) => outcome = Err(refusal),
            }
        }
        Ok(outcome?)
    }

    /// Steps 10 and 11: the key signs what is durable; the first signature that is recorded is the certificate's.
    pub(crate) async fn finish(
        &self,
        intent: Journaled<CertificateIntent>,
        flight: &Flight,
    ) -> Outcome<Issued> {
        flight.journaled(intent.intent().row().serial);
        match self.sign_and_record(intent).await? {
            Record::Issued(row) => issued(&row),
            // Given up between our commit and our record: only after a long time, or by an operator.
            Record::Abandoned => Err(Failure::Contended),
        }
    }

    /// Signs an intent of any kind through the door that it is for, and records the signature.
    ///
    /// # Errors
    /// When the token does not sign, or the store does not record. The intent stays, and is taken up again.
    pub async fn sign_and_record(&self, intent: Journaled<CertificateIntent>) -> Outcome<Record> {
        match intent.into_node_request() {
            Ok(request) => {
                self.clock.now()?;
                let signature = self.doors.node()?.sign(&request).await?;
                self.journal.record(request.journaled(), signature, self.clock.now()?).await
            }
            Err(intent) => {
                // While time is wrong no key signs; it may go wrong again while one does.
                self.clock.now()?;
                let door = self.doors.issuer(&intent.intent().row().issuer)?;
                fail::fail_point!("signer.sign.before");
                let signature = door.sign(&intent).await?;
                fail::fail_point!("signer.sign.after");
                self.journal.record(&intent, signature, self.clock.now()?).await
            }
        }
    }
}

/// The certificate of a row that is signed.
pub(crate) fn issued(row: &JournalRow) -> Outcome<Issued> {
    let unreadable =
        |detail: &str| Failure::Unreadable { table: "journal", detail: format!("{}: {detail}", row.serial) };
    let signature = row.signature.as_deref().ok_or_else(|| unreadable("it is not signed"))?;
    let tbs = Tbs::from_der(&row.tbs).map_err(|error| unreadable(&error.to_string()))?;
    Ok(Issued { serial: row.serial, issuer: row.issuer.clone(), certificate: pki::assemble(&tbs, signature) })
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
