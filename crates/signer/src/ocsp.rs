//! OCSP answers (RFC 6960, DESIGN §6): of what the journal says, signed by the issuer's delegated responder.
//!
//! Here is the way of one question. `certificate` keeps the responders' certificates; `admission` bounds what is made at
//! once; `notices` tells status nodes what was revoked; `service` is what they call.

mod admission;
mod certificate;
mod notices;
mod service;

use std::sync::Arc;

use bytes::Bytes;
use pki::ocsp::{CertId, CertStatus, ErrorStatus, Request, RequestError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::service::ResponderService;

use self::admission::Admission;
use self::certificate::Certificates;
use crate::ca::Ca;
use crate::doors::DoorError;
use crate::ledger::{AnswerTerms, Ledger, LedgerAnswer, LedgerStatus, Place};
use crate::refusal::{Failure, Outcome};
use crate::registry::{IssuerEntry, OcspSettings};

/// Answers for the issuers that have a responder.
#[derive(Debug)]
pub struct Responder {
    ca: Arc<Ca>,
    ledger: Ledger,
    certificates: Certificates,
    admission: Admission,
}

/// An answer, and what it rests on.
#[derive(Debug, Clone)]
pub struct Answered {
    /// An OCSPResponse, DER.
    pub response: Bytes,
    /// The issuer, and where each certificate's changes are counted (`None`: it was never assigned). None with an error.
    pub basis: Option<(String, Vec<Option<Place>>)>,
}

/// Why a question is not answered by a signature.
#[derive(Debug)]
enum Unanswered {
    Malformed(RequestError),
    /// Certificates of an issuer that has no responder here, or of several issuers: a responder is delegated by one
    /// (RFC 6960 §4.2.2.2), and an answer has one signature.
    Unauthorized,
    /// As much is in progress as is taken.
    Full,
    /// The responder has no certificate (yet).
    NoCertificate,
    Failed(Failure),
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<DoorError> for Unanswered {
    fn from(error: DoorError) -> Self {
        Self::Failed(error.into())
    }
}

impl Unanswered {
    fn status(&self) -> ErrorStatus {
        match self {
            Self::Malformed(_) => ErrorStatus::MalformedRequest,
            Self::Unauthorized => ErrorStatus::Unauthorized,
            Self::Full | Self::NoCertificate => ErrorStatus::TryLater,
            // A responder that does not know what time it is is in a state in which it should not be.
            Self::Failed(Failure::Clock(_)) => ErrorStatus::InternalError,
            Self::Failed(failure) if failure.class() == pki::ErrorClass::Transient => ErrorStatus::TryLater,
            Self::Failed(_) => ErrorStatus::InternalError,
        }
    }
}

/// A question that was read.
struct Question<'a> {
    request: Request,
    issuer: &'a Arc<IssuerEntry>,
    ocsp: &'a OcspSettings,
}

impl Responder {
    /// For this CA.
    #[must_use]
    pub fn new(ca: Arc<Ca>) -> Self {
        Self {
            ledger: Ledger::new(Arc::clone(&ca.store), Arc::clone(&ca.secrets.rows)),
            certificates: Certificates::of(&ca.registry),
            admission: Admission::new(&ca.limits),
            ca,
        }
    }

    /// Keeps every responder's certificate current until the signer drains.
    ///
    /// # Errors
    /// Never: what fails is reported and tried again.
    pub async fn keep_current(
        self: Arc<Self>,
        draining: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        self.certificates.keep_current(&self.ca, &draining).await;
        Ok(())
    }

    /// Answers that are being made.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.admission.taken()
    }

    /// The answer to an OCSPRequest, whatever it is. `ahead`: nobody waits for it.
    pub async fn answer(&self, request: &[u8], ahead: bool) -> Answered {
        let started = Instant::now();
        let (answered, outcome) = match self.try_answer(request, ahead).await {
            Ok(answered) => {
                if !ahead {
                    metrics::histogram!("chancery_ocsp_answer_seconds")
                        .record(started.elapsed().as_secs_f64());
                }
                (answered, "signed")
            }
            Err(unanswered) => {
                self.report(&unanswered);
                let status = unanswered.status();
                let response = Bytes::from_static(pki::ocsp::error(status));
                (Answered { response, basis: None }, word(status))
            }
        };
        metrics::counter!("chancery_ocsp_answers_total", "outcome" => outcome).increment(1);
        answered
    }

    async fn try_answer(&self, request: &[u8], ahead: bool) -> Result<Answered, Unanswered> {
        let question = self.read(request)?;
        let Question { request, issuer, ocsp } = &question;
        let _place = self.admission.enter(ahead).ok_or(Unanswered::Full)?;
        let asked_at = self.ca.now()?;
        let statuses = self.look_up(issuer, request.cert_ids()).await?;
        let is_unassigned = statuses.iter().any(|status| status.place().is_none());
        let _share = if is_unassigned {
            Some(self.admission.enter_unassigned().ok_or(Unanswered::Full)?)
        } else {
            None
        };
        let now = self.ca.now()?;
        let responder = self.certificates.current(&issuer.id, now).ok_or(Unanswered::NoCertificate)?;
        let terms = AnswerTerms {
            issuer,
            ocsp,
            responder: &responder,
            ids: request.cert_ids(),
            nonce: request.nonce(),
            asked_at,
            now,
            ahead,
        };
        let answer = LedgerAnswer::new(terms, &statuses)?;
        let signature = self.ca.doors.responder(&issuer.id)?.sign(&answer).await?;
        // It may have taken long enough for time to go wrong, or for the certificate to be revoked.
        let now = self.ca.now()?;
        if self.certificates.current(&issuer.id, now).is_none() {
            return Err(Unanswered::NoCertificate);
        }
        for status in &statuses {
            let word = match status.at(now) {
                CertStatus::Good => "good",
                CertStatus::Revoked { .. } => "revoked",
                CertStatus::Unknown => "unknown",
            };
            metrics::counter!("chancery_ocsp_statuses_total", "status" => word).increment(1);
        }
        let places = statuses.iter().map(LedgerStatus::place).collect();
        let response = answer.into_response(&signature, &responder).into();
        Ok(Answered { response, basis: Some((issuer.id.clone(), places)) })
    }

    fn read(&self, der: &[u8]) -> Result<Question<'_>, Unanswered> {
        let request = Request::from_der(der).map_err(Unanswered::Malformed)?;
        let (first, others) = request.cert_ids().split_first().ok_or(Unanswered::Unauthorized)?;
        let of = |entry: &'_ Arc<IssuerEntry>, id: &CertId| {
            entry.ocsp.as_ref().is_some_and(|ocsp| id.is_of(&ocsp.hashes))
        };
        let issuer = self.ca.registry.issuers().find(|entry| of(entry, first));
        let issuer = issuer.ok_or(Unanswered::Unauthorized)?;
        let ocsp = issuer.ocsp.as_ref().ok_or(Unanswered::Unauthorized)?;
        if !others.iter().all(|id| of(issuer, id)) {
            return Err(Unanswered::Unauthorized);
        }
        Ok(Question { request, issuer, ocsp })
    }

    async fn look_up(&self, issuer: &IssuerEntry, ids: &[CertId]) -> Outcome<Vec<LedgerStatus>> {
        let lookups = ids.iter().map(|id| self.ledger.status(&issuer.id, id.serial()));
        futures::future::try_join_all(lookups).await
    }

    fn report(&self, unanswered: &Unanswered) {
        match unanswered {
            Unanswered::Malformed(error) => tracing::debug!(%error, "ocsp.malformed"),
            Unanswered::Unauthorized | Unanswered::Full | Unanswered::NoCertificate => {}
            Unanswered::Failed(failure) if failure.class() == pki::ErrorClass::Fatal => {
                self.ca.alarm(failure);
            }
            Unanswered::Failed(failure) => tracing::warn!(error = %failure, "ocsp.failed"),
        }
    }
}

const fn word(status: ErrorStatus) -> &'static str {
    match status {
        ErrorStatus::MalformedRequest => "malformed_request",
        ErrorStatus::InternalError => "internal_error",
        ErrorStatus::TryLater => "try_later",
        ErrorStatus::Unauthorized => "unauthorized",
    }
}
