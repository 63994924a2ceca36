//! What the journal says about a certificate, and the only thing that an OCSP responder signs (DESIGN §2.1, §2.4).
//!
//! [`LedgerStatus`] is made here and nowhere else, and only from rows whose MAC was verified. An answer is made of such
//! statuses alone, and a responder's key accepts nothing else: see [`crate::doors`].

use std::collections::HashMap;
use std::sync::Arc;

use ca_store::{CaStore, JournalKind, LedgerEntry, RowMacKeys, StoreError};
use hsm::{Job, Lane};
use parking_lot::Mutex;
use pki::lint::{self, OcspLintContext};
use pki::ocsp::{CertId, CertStatus, Single};
use pki::{Certificate, PublicKey, Reason, Serial, SignatureAlgorithm, Timestamp};
use tokio::sync::oneshot;

use crate::refusal::{Failure, Outcome};
use crate::registry::{IssuerEntry, OcspSettings};

/// The journal, read for many at once: what is asked while one query runs goes into the next. No timer.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn CaStore>,
    keys: Arc<RowMacKeys>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    questions: Vec<Question>,
    is_reading: bool,
}

struct Question {
    serial: Serial,
    reply: oneshot::Sender<Result<Vec<LedgerEntry>, Arc<StoreError>>>,
}

/// More serials are left to the next query.
const MOST_AT_ONCE: usize = 1024;

impl Ledger {
    /// Of this database.
    #[must_use]
    pub fn new(store: Arc<dyn CaStore>, keys: Arc<RowMacKeys>) -> Self {
        Self { store, keys, waiting: Arc::default() }
    }

    /// What is known of a serial number of an issuer; of none, nobody has the certificate.
    ///
    /// # Errors
    /// [`Failure::Tampered`] when a row is not what a signer wrote: nothing is said about its certificate then.
    pub async fn status(&self, issuer: &str, serial: Option<Serial>) -> Outcome<LedgerStatus> {
        let entries = match serial {
            Some(serial) => self.entries(serial).await?,
            None => Vec::new(),
        };
        let mut status =
            LedgerStatus { issuer: issuer.to_owned(), serial, state: State::Unassigned, place: None };
        for LedgerEntry { entry, revision } in entries {
            let revocation = entry.revocation;
            let row = self.keys.open(entry.row)?;
            // A serial of another issuer of ours is not one of this issuer's.
            if row.issuer != issuer || Some(row.serial) != serial || !is_certificate_of_issuer(row.kind) {
                continue;
            }
            // A precertificate and its final share the shard and the revocation.
            status.place = Some(Place { shard: row.shard, revision });
            status.state = match revocation {
                Some(row) => State::Revoked { at: row.revoked_at, reason: row.current_reason() },
                None => State::Assigned,
            };
        }
        Ok(status)
    }

    async fn entries(&self, serial: Serial) -> Outcome<Vec<LedgerEntry>> {
        let (reply, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock();
            waiting.questions.push(Question { serial, reply });
            !std::mem::replace(&mut waiting.is_reading, true)
        };
        if is_first {
            // By itself: whoever asked first may go away, and others wait for it.
            tokio::spawn(self.clone().read());
        }
        answer.await.map_err(|_| Failure::Stopping)?.map_err(Failure::Ledger)
    }

    async fn read(self) {
        while let Some(questions) = self.next() {
            let mut serials: Vec<Serial> = questions.iter().map(|question| question.serial).collect();
            serials.sort_unstable();
            serials.dedup();
            let found = self.store.ledger(&serials).await.map_err(Arc::new);
            let found = found.map(|entries| {
                let mut by_serial: HashMap<Serial, Vec<LedgerEntry>> = HashMap::new();
                for entry in entries {
                    by_serial.entry(entry.entry.row.unverified().serial).or_default().push(entry);
                }
                by_serial
            });
            for Question { serial, reply } in questions {
                let answer = found
                    .as_ref()
                    .map(|found| found.get(&serial).cloned().unwrap_or_default())
                    .map_err(Arc::clone);
                // Whoever is gone needs none.
                let _ = reply.send(answer);
            }
        }
    }

    fn next(&self) -> Option<Vec<Question>> {
        let mut waiting = self.waiting.lock();
        if waiting.questions.is_empty() {
            waiting.is_reading = false;
            return None;
        }
        let most = waiting.questions.len().min(MOST_AT_ONCE);
        Some(waiting.questions.drain(..most).collect())
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

const fn is_certificate_of_issuer(kind: JournalKind) -> bool {
    matches!(
        kind,
        JournalKind::Final | JournalKind::Precertificate | JournalKind::Server | JournalKind::Responder
    )
}

/// What the journal says about one certificate. There is no way to make one but through [`Ledger`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStatus {
    issuer: String,
    serial: Option<Serial>,
    state: State,
    place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is, or may be, a certificate: also an intent that was given up (DESIGN §2.4).
    Assigned,
    /// It is that no more.
    Revoked { at: Timestamp, reason: Reason },
    /// Nobody has it.
    Unassigned,
}

/// Where changes of a certificate's state are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its shard.
    pub shard: u32,
    /// The shard's revision, of the same snapshot as the state.
    pub revision: u64,
}

impl LedgerStatus {
    /// Where its changes are counted; `None` for a serial that was never assigned.
    #[must_use]
    pub const fn place(&self) -> Option<Place> {
        self.place
    }

    /// Since when it is revoked, if it is.
    #[must_use]
    pub const fn revoked_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Revoked { at, .. } => Some(at),
            State::Assigned | State::Unassigned => None,
        }
    }

    /// As answers of this time say it.
    #[must_use]
    pub fn at(&self, this_update: Timestamp) -> CertStatus {
        match self.state {
            State::Assigned => CertStatus::Good,
            // As in CRLs: another signer's clock may have been a little ahead when it revoked.
            State::Revoked { at, reason } => CertStatus::Revoked { at: at.min(this_update), reason },
            State::Unassigned => CertStatus::Unknown,
        }
    }
}

/// What an answer is made of, beside the statuses.
#[derive(Debug, Clone, Copy)]
pub struct AnswerTerms<'a> {
    /// Whose certificates.
    pub issuer: &'a IssuerEntry,
    /// The issuer's responder.
    pub ocsp: &'a OcspSettings,
    /// The certificate of the responder that signs.
    pub responder: &'a Certificate,
    /// As the request named the certificates.
    pub ids: &'a [CertId],
    /// As the request has it.
    pub nonce: Option<&'a [u8]>,
    /// When the journal was asked.
    pub asked_at: Timestamp,
    /// The present.
    pub now: Timestamp,
    /// Nobody waits.
    pub ahead: bool,
}

/// An answer that rests on the journal: what a responder's key signs.
#[derive(Debug)]
pub struct LedgerAnswer {
    issuer: String,
    responder_key: PublicKey,
    data: Vec<u8>,
    ahead: bool,
}

impl LedgerAnswer {
    /// The answer to a request, from a status for each of its certificates, in order. Its octets are read independently and
    /// linted; it ends with what it rests on: its validity, the responder's certificate, the issuer's.
    ///
    /// # Errors
    /// [`Failure::Unmakeable`] when the statuses are not those of the certificates, or by the lints.
    pub fn new(terms: AnswerTerms<'_>, statuses: &[LedgerStatus]) -> Outcome<Self> {
        let AnswerTerms { issuer, ocsp, responder, ids, nonce, .. } = terms;
        let fits = |(id, status): (&CertId, &LedgerStatus)| {
            id.is_of(&ocsp.hashes) && status.issuer == issuer.id && status.serial == id.serial()
        };
        if ids.len() != statuses.len() || !ids.iter().zip(statuses).all(fits) {
            return Err(unmakeable("the statuses are not those of the certificates that were asked for"));
        }
        // It was right when it was asked for. What was revoked since then, and seen, is right from then on.
        let seen = statuses.iter().filter_map(LedgerStatus::revoked_at).map(|at| at.min(terms.now)).max();
        let this_update = seen.map_or(terms.asked_at, |seen| seen.max(terms.asked_at));
        let ends = [responder.not_after(), issuer.issuer.certificate().not_after()];
        let next_update = ends.into_iter().fold(this_update.plus(ocsp.validity), Timestamp::min);
        let single = |(id, status): (_, &LedgerStatus)| Single {
            id,
            status: status.at(this_update),
            this_update,
            next_update,
            archive_cutoff: ocsp.archive_cutoff.map(|period| terms.now.minus(period)),
        };
        let singles: Vec<Single<'_>> = ids.iter().zip(statuses).map(single).collect();
        let data = pki::ocsp::response_data(responder.public_key(), terms.now, &singles, nonce);
        let context = OcspLintContext {
            issuer: issuer.issuer.certificate(),
            responder,
            signed_at: terms.now,
            asked: ids,
            nonce,
            publicly_trusted: false,
        };
        let findings = lint::check_ocsp(&data, &context);
        if lint::stops(&findings) {
            let said: Vec<_> = findings.iter().map(|found| found.lint).collect();
            return Err(unmakeable(&format!("OCSP answer: {}", said.join(", "))));
        }
        Ok(Self {
            issuer: issuer.id.clone(),
            responder_key: responder.public_key().clone(),
            data,
            ahead: terms.ahead,
        })
    }

    /// The issuer's identity in `ca`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Which key is to sign.
    #[must_use]
    pub const fn responder_key(&self) -> &PublicKey {
        &self.responder_key
    }

    /// The whole response, with its signature.
    #[must_use]
    pub fn into_response(self, signature: &[u8], responder: &Certificate) -> Vec<u8> {
        let algorithm = self.responder_key.algorithm().default_signature();
        pki::ocsp::assemble(&self.data, algorithm, signature, &[responder.der()])
    }

    pub(crate) fn job(&self, algorithm: SignatureAlgorithm) -> Job {
        Job::for_message(algorithm, &self.data)
    }

    pub(crate) const fn lane(&self) -> Lane {
        if self.ahead { Lane::Bulk } else { Lane::Ocsp }
    }
}

fn unmakeable(detail: &str) -> Failure {
    Failure::Unmakeable { detail: detail.to_owned() }
}
