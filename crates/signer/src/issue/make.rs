//! Steps 6 to 8: from a request with authority to bytes that may be journaled.

use std::sync::Arc;

use ca_store::{Evidence, JournalKind, JournalRow};
use pki::lint::{self, Expected, Finding};
use pki::tbs::{self, LeafRequest};
use pki::{Csr, CsrError, NameSet, Profile, PublicKey, Serial, TbsError, Timestamp, ValidityError};
use serde_json::json;

use super::sha256;
use crate::account;
use crate::audit::Event;
use crate::authority::{Authorized, Finalization};
use crate::ca::Ca;
use crate::journal::CertificateDraft;
use crate::limits::Counted;
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::registry::{IssuerEntry, IssuerPool};
use crate::request::ClientRequest;

impl Ca {
    /// Steps 6 to 8.
    pub(super) fn make(&self, request: &Finalization, authorized: Authorized) -> Outcome<Linted> {
        let csr = self.check_csr(&request.finalize, &authorized)?;
        let (made, findings) = self.make_tbs(&Subject {
            request: Some(&request.finalize),
            profile: &authorized.terms.profile,
            pool: request.finalize.directory().pool(),
            csr: &csr,
            names: &authorized.terms.names,
            not_before: authorized.terms.not_before,
            not_after: authorized.terms.not_after,
            assumed: authorized.assumed,
            at: authorized.at,
        })?;
        let counted = authorized.counted.clone().unwrap_or_default();
        Ok(Linted { draft: draft_of(request, authorized, &csr, made, &findings), counted })
    }

    /// Step 6: the CSR says what the order says, and its key is one that the profile takes. Whether it is blocked, or an
    /// account's, the intent's transaction says.
    fn check_csr(&self, request: &ClientRequest, authorized: &Authorized) -> Result<Csr, Refusal> {
        let csr = Csr::from_der(&authorized.csr)
            .map_err(|error| request.refuse(csr_reason(&error), error.to_string()))?;
        if *csr.names() != authorized.terms.names {
            return Err(request.refuse(Reason::CsrNames, "the CSR's names are not the order's"));
        }
        self.check_certificate_key(Some(request), &authorized.terms.profile, csr.public_key())?;
        Ok(csr)
    }

    /// Whether the profile takes a key, and it is not weak.
    pub(crate) fn check_certificate_key(
        &self,
        request: Option<&ClientRequest>,
        profile: &Profile,
        key: &PublicKey,
    ) -> Result<(), Refusal> {
        if !profile.allows_key(key) {
            let taken: Vec<_> = profile.key_algorithms().iter().map(ToString::to_string).collect();
            let (name, given, taken) = (profile.name(), key.algorithm(), taken.join(", "));
            let detail = format!("profile {name:?} does not take {given} keys, but: {taken}");
            return Err(refuse(request, Reason::CsrKeyUnacceptable, detail));
        }
        match self.weak_keys.weakness(key) {
            None => Ok(()),
            Some(weakness) => {
                let detail = format!("the CSR's key is weak: {weakness}");
                Err(refuse(request, Reason::CsrKeyWeak, detail))
            }
        }
    }

    /// Steps 7 and 8: the bytes, from profile and issuer alone, and what the lints say of them.
    pub(crate) fn make_tbs(&self, subject: &Subject<'_>) -> Outcome<(Made, Vec<Finding>)> {
        let Some((entry, _)) = subject.pool.choose(&self.doors) else {
            return Err(Failure::NoIssuer { pool: subject.pool.name().to_owned() });
        };
        if subject.assumed && !entry.issuer.certificate().is_test_ca() {
            let detail = format!("nobody looked for control, and issuer {:?} is no test CA", entry.id);
            return Err(refuse(subject.request, Reason::IssuerNotTest, detail).into());
        }
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
                format!(
                    "profile {:?} does not offer the TLS feature status_request (must-staple)",
                    subject.profile.name()
                ),
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
}

/// What the intent's transaction has found out about the key of a certificate.
pub(crate) fn bad_key(request: Option<&ClientRequest>, of_account: bool) -> Refusal {
    if of_account {
        return refuse(request, Reason::CsrAccountKey, "the CSR's key is an account key");
    }
    refuse(request, Reason::CsrKeyBlocked, "the CSR's key is known to be compromised or weak")
}

/// Why a CSR cannot be read.
pub(crate) const fn csr_reason(error: &CsrError) -> Reason {
    match error {
        CsrError::Signature => Reason::CsrSignature,
        _ => Reason::CsrInvalid,
    }
}

/// A certificate whose bytes passed the lints.
pub(super) struct Linted {
    pub(super) draft: CertificateDraft,
    /// The limits of the draft, in its order.
    pub(super) counted: Vec<Counted>,
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
    /// Whether the names are those of somebody of whom nobody asked a proof.
    pub(crate) assumed: bool,
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
    parsed: &Csr,
    made: Made,
    findings: &[Finding],
) -> CertificateDraft {
    let Authorized {
        account,
        terms,
        csr,
        cites,
        authorizations,
        record,
        quorum,
        counted,
        domains,
        at,
        assumed: _,
    } = authorized;
    let name = request.finalize.directory().name();
    let directory = name.to_string();
    let event = Event::CertificateIntended {
        serial: made.serial,
        actor: &account.row.id,
        issuer: &made.issuer.id,
        directory: Some(&directory),
        quorum,
        replaces: terms.replaces.as_ref().map(|id| id.serial),
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
        tbs: made.tbs,
        created_at: at,
        signature: None,
        signed_at: None,
        abandoned_at: None,
        replaces: terms.replaces.as_ref().map(|id| id.serial),
        counted: counted.is_some(),
    };
    let evidence = Evidence {
        new_order: request.new_order_jws().to_vec(),
        finalize: request.finalize_jws().to_vec(),
        receipts: record,
        lints: lint_record(terms.profile.name(), findings),
    };
    CertificateDraft {
        row,
        names: terms.names.iter().map(ToString::to_string).collect(),
        domains,
        evidence: Some(evidence),
        cites,
        authorizations,
        account_key: account::thumbprint_of(parsed.public_key()),
        past: Vec::new(),
        limits: counted.iter().flatten().map(|counted| counted.at(name, at)).collect(),
        audit,
    }
}

/// What is kept of the lints: which sets ran, and what they found.
pub(crate) fn lint_record(profile: &str, findings: &[Finding]) -> Vec<u8> {
    let found: Vec<_> = findings
        .iter()
        .map(|finding| json!({ "lint": finding.lint, "clause": finding.clause, "detail": finding.detail }))
        .collect();
    json!({ "profile": profile, "version": env!("CARGO_PKG_VERSION"), "findings": found })
        .to_string()
        .into_bytes()
}

/// The shard is the serial's, so that it is as random and as fixed.
pub(crate) fn shard_of(serial: &Serial, shards: u32) -> u32 {
    let low = serial.as_bytes().iter().rev().take(4).fold(0_u32, |sum, octet| (sum << 8) | u32::from(*octet));
    low.checked_rem(shards).unwrap_or(0)
}

fn tbs_failure(subject: &Subject<'_>, error: TbsError) -> Failure {
    let reason = match &error {
        TbsError::KeyAlgorithm(_) | TbsError::IssuerKey => Reason::CsrKeyUnacceptable,
        TbsError::TooManyNames { .. } | TbsError::Name { .. } => Reason::ProfileMismatch,
        TbsError::MustStaple => Reason::CsrInvalid,
        TbsError::Validity | TbsError::Signature { .. } | TbsError::CommonName(_) | TbsError::Read(_) => {
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
