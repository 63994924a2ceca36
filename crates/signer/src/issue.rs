//! From finalize to certificate: steps 4 to 11 of DESIGN §3, under the same numbers. `docs/issuance.md` tells the story.
//!
//! [`Finalization`] → [`Authorized`] → [`Linted`] → [`Journaled`] → certificate: each is moved into the next.

use std::sync::Arc;

use aws_lc_rs::digest;
use ca_store::{Evidence, JournalEntry, JournalKey, JournalKind, JournalRow};
use pki::lint::{self, Expected, Finding};
use pki::tbs::{self, LeafRequest};
use pki::{Csr, NameSet, Profile, PublicKey, Serial, Tbs, TbsError, Timestamp, ValidityError};
use serde_json::json;

use crate::account::KeyUse;
use crate::audit::Event;
use crate::authority::{Authorized, Finalization, IssueOrder};
use crate::ca::Ca;
use crate::journal::{CertificateDraft, CertificateIntent, Commit, Journaled, Record};
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::registry::{IssuerEntry, IssuerPool};
use crate::request::ClientRequest;

mod in_flight;

pub(crate) use in_flight::InFlight;
use in_flight::{Entry, Flight};

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
    /// DER.
    pub certificate: Vec<u8>,
}

/// A certificate whose bytes passed the lints.
struct Linted {
    draft: CertificateDraft,
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
        if let Some(answer) = self.answer_known(request, flight).await? {
            return Ok(answer);
        }
        for _ in 0..TRIES {
            let authorized = self.authorize(request).await?;
            let linted = self.make(request, authorized).await?;
            match self.journal.commit(linted.draft).await? {
                Commit::Committed(intent) => return self.finish(intent, flight).await.map(Issuance::Issued),
                Commit::OrderTaken(entry) => return self.answer(request, *entry, flight).await,
                Commit::NewOrderTaken(_) => {
                    let detail = "a certificate was issued for this newOrder request already";
                    return Err(request.finalize.refuse(Reason::OrderTaken, detail).into());
                }
                Commit::AuthorizationDeactivated(_) => {
                    let detail = "an authorization of the order was deactivated";
                    return Err(request.finalize.refuse(Reason::AuthorizationDeactivated, detail).into());
                }
                Commit::LimitReached(_) => {
                    return Err(request.finalize.refuse(Reason::RateLimited, "a limit is reached").into());
                }
                // Decide anew, from what is there now.
                Commit::SerialTaken => {}
                Commit::AuthorityChanged(_) => self.forget_account(&request.account).await,
            }
        }
        Err(Failure::Contended)
    }

    /// Step 4: an order that has an entry is answered with it, whatever has become of the account since.
    async fn answer_known(&self, request: &Finalization, flight: &Flight) -> Outcome<Option<Issuance>> {
        let entries = self.store.journal(&JournalKey::Order(request.order.to_string())).await?;
        let open = |entry: &JournalEntry| {
            let row = entry.row.unverified();
            row.kind == JournalKind::Final && row.abandoned_at.is_none()
        };
        match entries.into_iter().find(open) {
            Some(entry) => self.answer(request, entry, flight).await.map(Some),
            None => Ok(None),
        }
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

    /// Steps 6 to 8.
    async fn make(&self, request: &Finalization, authorized: Authorized) -> Outcome<Linted> {
        let csr = self.check_csr(&request.finalize, &authorized).await?;
        let (made, findings) = self.make_tbs(&Subject {
            request: Some(&request.finalize),
            profile: &authorized.terms.profile,
            pool: request.finalize.directory().pool(),
            csr: &csr,
            names: &authorized.terms.names,
            not_before: authorized.terms.not_before,
            not_after: authorized.terms.not_after,
            at: authorized.at,
        })?;
        Ok(Linted { draft: draft_of(request, authorized, &made, &findings) })
    }

    /// Step 6: the CSR says what the order says, and its key is one that may be certified.
    async fn check_csr(&self, request: &ClientRequest, authorized: &Authorized) -> Outcome<Csr> {
        let csr = Csr::from_der(&authorized.csr)
            .map_err(|error| request.refuse(Reason::CsrInvalid, error.to_string()))?;
        if *csr.names() != authorized.terms.names {
            return Err(request.refuse(Reason::CsrNames, "the CSR's names are not the order's").into());
        }
        if !authorized.terms.profile.allows_key(csr.public_key()) {
            let detail = format!("the profile does not take {} keys", csr.public_key().algorithm());
            return Err(request.refuse(Reason::CsrKeyUnacceptable, detail).into());
        }
        self.check_certificate_key(Some(request), csr.public_key()).await?;
        Ok(csr)
    }

    pub(crate) async fn check_certificate_key(
        &self,
        request: Option<&ClientRequest>,
        key: &PublicKey,
    ) -> Outcome<()> {
        // Known-weak keys (Debian, ROCA, Fermat) will be looked for here: BR §6.1.1.3.
        let (reason, detail) = match self.certificate_key_use(key).await? {
            None | Some(KeyUse::Certificate) => return Ok(()),
            Some(KeyUse::Account) => (Reason::CsrAccountKey, "the CSR's key is an account key"),
            Some(KeyUse::Blocked) => {
                (Reason::CsrKeyBlocked, "the CSR's key is known to be compromised or weak")
            }
        };
        Err(refuse(request, reason, detail).into())
    }

    /// Steps 7 and 8: the bytes, from profile and issuer alone, and what the lints say of them.
    pub(crate) fn make_tbs(&self, subject: &Subject<'_>) -> Outcome<(Made, Vec<Finding>)> {
        let Some((entry, _)) = subject.pool.choose(&self.doors) else {
            return Err(Failure::NoIssuer { pool: subject.pool.name().to_owned() });
        };
        let serial = Serial::from_random(self.random.bytes()?);
        let validity =
            subject.profile.validity_at(subject.at, &entry.issuer, subject.not_before, subject.not_after);
        let validity = validity.map_err(|error| match error {
            ValidityError::Requested => {
                refuse(subject.request, Reason::ValidityRequested, error.to_string()).into()
            }
            ValidityError::Issuer => Failure::Unmakeable { detail: error.to_string() },
        })?;
        let must_staple = subject.profile.staples(subject.csr).ok_or_else(|| {
            refuse(
                subject.request,
                Reason::CsrInvalid,
                "the profile does not offer the TLS feature status_request",
            )
        })?;
        let shard = shard_of(&serial, entry.shards);
        let leaf = LeafRequest {
            serial,
            names: subject.names,
            public_key: subject.csr.public_key(),
            validity,
            shard,
            must_staple,
        };
        let tbs =
            tbs::leaf(subject.profile, &entry.issuer, leaf).map_err(|error| tbs_failure(subject, error))?;
        let expected = Expected {
            serial,
            names: Some(subject.names),
            public_key: subject.csr.public_key(),
            validity,
            shard: Some(shard),
        };
        let context = subject.profile.lint_context(&entry.issuer, subject.at).expecting(expected);
        let findings = lint::check(tbs.as_bytes(), &context);
        if lint::stops(&findings) {
            return Err(lint_refusal(subject.request, &findings).into());
        }
        let made = Made {
            serial,
            issuer: Arc::clone(entry),
            shard,
            tbs: tbs.as_bytes().to_vec(),
            spki_sha256: subject.csr.public_key().sha256(),
            validity,
        };
        Ok((made, findings))
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
                let signature = self.doors.node()?.sign(&request).await?;
                self.journal.record(request.journaled(), signature, self.clock.now()?).await
            }
            Err(intent) => {
                let door = self.doors.issuer(&intent.intent().row().issuer)?;
                let signature = door.sign(&intent).await?;
                self.journal.record(&intent, signature, self.clock.now()?).await
            }
        }
    }
}

/// What a certificate is to be made of.
pub(crate) struct Subject<'a> {
    /// Who is refused; none where no client asked.
    pub(crate) request: Option<&'a ClientRequest>,
    pub(crate) profile: &'a Profile,
    pub(crate) pool: &'a IssuerPool,
    pub(crate) csr: &'a Csr,
    pub(crate) names: &'a NameSet,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) not_after: Option<Timestamp>,
    pub(crate) at: Timestamp,
}

/// Bytes to be signed, and what the journal says of them.
pub(crate) struct Made {
    pub(crate) serial: Serial,
    pub(crate) issuer: Arc<IssuerEntry>,
    pub(crate) shard: u32,
    pub(crate) tbs: Vec<u8>,
    pub(crate) spki_sha256: [u8; 32],
    pub(crate) validity: pki::Validity,
}

/// Step 9's row, with what it rests on.
fn draft_of(
    request: &Finalization,
    authorized: Authorized,
    made: &Made,
    findings: &[Finding],
) -> CertificateDraft {
    let Authorized { account, terms, csr, cites, authorizations, record, quorum, at } = authorized;
    let directory = request.finalize.directory().name().to_string();
    let event = Event::CertificateIntended {
        serial: made.serial,
        actor: &account.row.id,
        issuer: &made.issuer.id,
        directory: Some(&directory),
        quorum,
    };
    let audit = vec![event.at(at)];
    let row = JournalRow {
        serial: made.serial,
        kind: JournalKind::Final,
        order: Some(request.order.to_string()),
        new_order: Some(request.new_order.jws().digest()),
        directory: Some(directory),
        account: Some(account.row.id.clone()),
        issuer: made.issuer.id.clone(),
        profile: terms.profile.name().to_owned(),
        shard: made.shard,
        spki_sha256: made.spki_sha256,
        csr_sha256: Some(sha256(&csr)),
        not_before: made.validity.not_before,
        not_after: made.validity.not_after,
        tbs: made.tbs.clone(),
        created_at: at,
        signature: None,
        signed_at: None,
        abandoned_at: None,
    };
    let evidence = Evidence {
        new_order: request.new_order_jws().to_vec(),
        finalize: request.finalize_jws().to_vec(),
        receipts: record,
        lints: lint_record(&terms.profile, findings),
    };
    CertificateDraft {
        row,
        names: terms.names.iter().map(ToString::to_string).collect(),
        evidence: Some(evidence),
        cites,
        authorizations,
        // Limits by account, domain and registration will be counted here, inside of the transaction.
        limits: Vec::new(),
        audit,
    }
}

/// What is kept of the lints: which sets ran, and what they found.
pub(crate) fn lint_record(profile: &Profile, findings: &[Finding]) -> Vec<u8> {
    let found: Vec<_> = findings
        .iter()
        .map(|finding| json!({ "lint": finding.lint, "clause": finding.clause, "detail": finding.detail }))
        .collect();
    json!({ "profile": profile.name(), "version": env!("CARGO_PKG_VERSION"), "findings": found })
        .to_string()
        .into_bytes()
}

/// The certificate of a row that is signed.
pub(crate) fn issued(row: &JournalRow) -> Outcome<Issued> {
    let unreadable =
        |detail: &str| Failure::Unreadable { table: "journal", detail: format!("{}: {detail}", row.serial) };
    let signature = row.signature.as_deref().ok_or_else(|| unreadable("it is not signed"))?;
    let tbs = Tbs::from_der(&row.tbs).map_err(|error| unreadable(&error.to_string()))?;
    Ok(Issued { serial: row.serial, certificate: pki::assemble(&tbs, signature) })
}

/// The shard is the serial's, so that it is as random and as fixed.
fn shard_of(serial: &Serial, shards: u32) -> u32 {
    let low = serial.as_bytes().iter().rev().take(4).fold(0_u32, |sum, octet| (sum << 8) | u32::from(*octet));
    low.checked_rem(shards).unwrap_or(0)
}

fn tbs_failure(subject: &Subject<'_>, error: TbsError) -> Failure {
    let reason = match &error {
        TbsError::KeyAlgorithm(_) | TbsError::IssuerKey => Reason::CsrKeyUnacceptable,
        TbsError::TooManyNames { .. } | TbsError::Name { .. } => Reason::ProfileMismatch,
        TbsError::MustStaple => Reason::CsrInvalid,
        TbsError::Validity | TbsError::Signature { .. } | TbsError::Read(_) => {
            return Failure::Unmakeable { detail: error.to_string() };
        }
    };
    refuse(subject.request, reason, error.to_string()).into()
}

fn lint_refusal(request: Option<&ClientRequest>, findings: &[Finding]) -> Refusal {
    let named: Vec<_> = findings
        .iter()
        .map(|finding| format!("{} ({}): {}", finding.lint, finding.clause, finding.detail))
        .collect();
    // Whatever a client sends, the profile should have refused it before: a profile or an encoder is wrong.
    tracing::error!(target: "alarm", findings = named.join("; "), "lint.refused");
    refuse(request, Reason::Lint, format!("the certificate would not be well-formed: {}", named.join("; ")))
}

fn refuse(request: Option<&ClientRequest>, reason: Reason, detail: impl Into<String>) -> Refusal {
    match request {
        Some(request) => request.refuse(reason, detail),
        None => Refusal::new(reason, detail),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
