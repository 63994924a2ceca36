//! Lints of OCSP answers (RFC 6960 §4.2, RFC 9654, BR §4.9.9 and §7.3): the octets that a responder
//! is about to sign. Cheap: an answer may be made for a client that waits.

mod view;

use aws_lc_rs::digest;
use const_oid::{
    ObjectIdentifier,
    db::{rfc5912, rfc6960},
};
use der::{Decode, Encode, asn1::OctetStringRef};
use x509_cert::{
    ext::{Extension, pkix::CrlReason},
    spki::SubjectPublicKeyInfoRef,
};

use super::{Finding, Severity};
use crate::{Certificate, Timestamp, ocsp::CertId};
use view::{OcspView, RevokedView, SingleView, StatusView, seconds};

/// What the lints know beside the octets of a ResponseData.
#[derive(Clone, Copy, Debug)]
pub struct OcspLintContext<'a> {
    /// The issuer of the certificates that were asked for.
    pub issuer: &'a Certificate,
    /// The certificate of the responder that will sign.
    pub responder: &'a Certificate,
    /// When it will be signed.
    pub signed_at: Timestamp,
    /// The certificates that the request asks for, in its order.
    pub asked: &'a [CertId],
    /// The nonce of the request.
    pub nonce: Option<&'a [u8]>,
    /// Whether the Baseline Requirements' rules apply as well.
    pub publicly_trusted: bool,
}

/// One rule: its name, its clause, whether only publicly trusted answers follow it, and the function
/// that looks for a breach.
struct OcspRule {
    name: &'static str,
    clause: &'static str,
    public: bool,
    find: Find,
}

type Find = fn(&OcspView<'_>, &OcspLintContext<'_>) -> Option<String>;

const fn must(name: &'static str, clause: &'static str, find: Find) -> OcspRule {
    OcspRule { name, clause, public: false, find }
}

const fn public(name: &'static str, clause: &'static str, find: Find) -> OcspRule {
    OcspRule { name, clause, public: true, find }
}

const RULES: &[OcspRule] = &[
    must("rfc6960.ocsp_version", "RFC 6960 §4.2.1", version),
    must("rfc6960.ocsp_responder_id", "RFC 6960 §4.2.1, §4.2.2.3", responder_id),
    must("rfc6960.ocsp_delegated", "RFC 6960 §4.2.2.2", delegated),
    must("rfc6960.ocsp_cert_ids", "RFC 6960 §4.2.1, §3.2", cert_ids),
    must("rfc6960.ocsp_issuer", "RFC 6960 §4.1.1", issuer),
    must("rfc6960.ocsp_times", "RFC 6960 §4.2.2.1", times),
    must("rfc6960.ocsp_revoked_at", "RFC 6960 §2.4, §4.2.1", revoked_at),
    must("rfc6960.ocsp_reason", "RFC 6960 §4.2.1, RFC 5280 §5.3.1", reason),
    must("rfc6960.ocsp_extensions", "RFC 6960 §4.4", extensions),
    must("rfc6960.ocsp_archive_cutoff", "RFC 6960 §4.4.4", archive_cutoff),
    must("rfc9654.ocsp_nonce", "RFC 9654 §2.1", nonce),
    must("rfc9919.ocsp_next_update", "RFC 9919 §3.2.4", next_update),
    must("operator.ocsp_within_responder", "policy: no answer outlives its responder", within_responder),
    public("cabf_br.ocsp_validity", "BR §4.9.9", public_validity),
    public("cabf_br.ocsp_reason", "BR §7.3, §7.2.2", public_reason),
];

/// Runs the lints over a ResponseData. No error among the findings means that it may be signed.
#[must_use]
pub fn check_ocsp(data: &[u8], context: &OcspLintContext<'_>) -> Vec<Finding> {
    let view = match OcspView::from_der(data) {
        Ok(view) => view,
        Err(error) => {
            let detail = format!("not a ResponseData in DER: {error}");
            return vec![finding("rfc6960.ocsp_decodes", "RFC 6960 §4.2.1", detail)];
        }
    };
    let mut findings = Vec::new();
    if !view.to_der().is_ok_and(|der| der == data) {
        let detail = "it is not in the canonical encoding of what it says".to_owned();
        findings.push(finding("rfc6960.ocsp_der", "RFC 6960 §4.2.1, X.690 §10", detail));
    }
    let rules = RULES.iter().filter(|rule| context.publicly_trusted || !rule.public);
    findings
        .extend(rules.filter_map(|rule| Some(finding(rule.name, rule.clause, (rule.find)(&view, context)?))));
    findings
}

fn finding(lint: &'static str, clause: &'static str, detail: String) -> Finding {
    Finding { lint, clause, severity: Severity::Error, detail }
}

fn version(view: &OcspView<'_>, _: &OcspLintContext<'_>) -> Option<String> {
    (view.version != 0).then(|| "the version is not v1".to_owned())
}

/// "SHA-1 hash of responder's public key (excluding the tag, length, and unused bits)"
fn responder_id(view: &OcspView<'_>, context: &OcspLintContext<'_>) -> Option<String> {
    let key = public_key(context.responder)?;
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key);
    let found = view.responder_key_hash();
    (found != Some(hash.as_ref())).then(|| "it does not name the responder by its key".to_owned())
}

fn public_key(certificate: &Certificate) -> Option<&[u8]> {
    let spki = SubjectPublicKeyInfoRef::from_der(certificate.public_key().spki_der()).ok()?;
    spki.subject_public_key.as_bytes()
}

/// The signature of the issuer under the responder's certificate was verified when it was made.
fn delegated(_: &OcspView<'_>, context: &OcspLintContext<'_>) -> Option<String> {
    let OcspLintContext { issuer, responder, .. } = context;
    let issued =
        responder.issuer_der() == issuer.subject_der() && responder.authority_key_id() == issuer.key_id();
    (!issued || !responder.may_sign_ocsp() || !responder.is_valid_at(context.signed_at)).then(|| {
        "the responder's certificate is of another issuer, not for OCSPSigning, or not valid now".to_owned()
    })
}

fn cert_ids(view: &OcspView<'_>, context: &OcspLintContext<'_>) -> Option<String> {
    let same = view.responses.len() == context.asked.len()
        && view
            .responses
            .iter()
            .zip(context.asked)
            .all(|(single, asked)| single.cert_id.to_der().is_ok_and(|der| der == asked.as_der()));
    (!same || context.asked.is_empty())
        .then(|| "it does not speak of the certificates of the request, in their order".to_owned())
}

fn issuer(view: &OcspView<'_>, context: &OcspLintContext<'_>) -> Option<String> {
    let key = public_key(context.issuer)?;
    let of_issuer = |single: &SingleView<'_>| {
        let id = single.read_id().ok()?;
        let hash = match id.algorithm.oid {
            rfc5912::ID_SHA_1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            rfc5912::ID_SHA_256 => &digest::SHA256,
            _ => return None,
        };
        let hash = |octets| digest::digest(hash, octets);
        let same = hash(context.issuer.subject_der()).as_ref() == id.name_hash.as_bytes()
            && hash(key).as_ref() == id.key_hash.as_bytes();
        same.then_some(())
    };
    let other = view.responses.iter().position(|single| of_issuer(single).is_none());
    other.map(|at| format!("single response {at} is not about a certificate of this issuer"))
}

/// "Responses where the thisUpdate time is later than the local system time SHOULD be considered
/// unreliable"; those whose nextUpdate is past as well.
fn times(view: &OcspView<'_>, context: &OcspLintContext<'_>) -> Option<String> {
    let (produced, now) = (seconds(&view.produced_at), context.signed_at.unix());
    let wrong = |single: &SingleView<'_>| {
        let this = seconds(&single.this_update);
        this > produced
            || single.next_update.is_some_and(|next| seconds(&next) <= this || seconds(&next) <= now)
    };
    (produced > now || view.responses.iter().any(wrong)).then(|| {
        "producedAt is in the future or before thisUpdate, or nextUpdate is past or not after thisUpdate"
            .to_owned()
    })
}

fn revoked<'v>(view: &'v OcspView<'_>) -> impl Iterator<Item = (&'v SingleView<'v>, &'v RevokedView)> {
    view.responses.iter().filter_map(|single| match &single.status {
        StatusView::Revoked(revoked) => Some((single, revoked)),
        _ => None,
    })
}

fn revoked_at(view: &OcspView<'_>, _: &OcspLintContext<'_>) -> Option<String> {
    revoked(view)
        .any(|(single, revoked)| seconds(&revoked.at) > seconds(&single.this_update))
        .then(|| "a certificate is revoked after thisUpdate".to_owned())
}

/// As in CRLs: `unspecified` is left out, and nothing undoes a revocation.
fn reason(view: &OcspView<'_>, _: &OcspLintContext<'_>) -> Option<String> {
    let never = [CrlReason::Unspecified, CrlReason::CertificateHold, CrlReason::RemoveFromCRL];
    revoked(view)
        .any(|(_, revoked)| revoked.reason.is_some_and(|reason| never.contains(&reason)))
        .then(|| "the reason is unspecified, or would undo a revocation".to_owned())
}

/// The nonce and the archive cutoff are all that this CA writes, neither of them critical. A
/// reasonCode in singleExtensions is forbidden by BR §7.3.2.
fn extensions(view: &OcspView<'_>, _: &OcspLintContext<'_>) -> Option<String> {
    let fault = |list: &Option<Vec<Extension>>, only: ObjectIdentifier| match list.as_deref() {
        None => false,
        Some([extension]) => extension.extn_id != only || extension.critical,
        Some(_) => true,
    };
    let singles =
        view.responses.iter().any(|single| fault(&single.extensions, rfc6960::ID_PKIX_OCSP_ARCHIVE_CUTOFF));
    (singles || fault(&view.extensions, rfc6960::ID_PKIX_OCSP_NONCE)).then(|| {
        "there is another extension than a nonce or an archive cutoff, an empty list, or a critical one"
            .to_owned()
    })
}

fn archive_cutoff(view: &OcspView<'_>, _: &OcspLintContext<'_>) -> Option<String> {
    let produced = seconds(&view.produced_at);
    let mut cutoffs = view.responses.iter().flat_map(|single| single.extensions.iter().flatten());
    cutoffs
        .any(|extension| {
            let cutoff = der::asn1::GeneralizedTime::from_der(extension.extn_value.as_bytes());
            extension.extn_id == rfc6960::ID_PKIX_OCSP_ARCHIVE_CUTOFF
                && cutoff.map_or(true, |cutoff| seconds(&cutoff) > produced)
        })
        .then(|| "the archive cutoff is not a time before producedAt".to_owned())
}

fn nonce(view: &OcspView<'_>, context: &OcspLintContext<'_>) -> Option<String> {
    let mut extensions = view.extensions.iter().flatten();
    let extension = extensions.find(|extension| extension.extn_id == rfc6960::ID_PKIX_OCSP_NONCE);
    let value = extension.map(|extension| <&OctetStringRef>::from_der(extension.extn_value.as_bytes()));
    let same = match (value, context.nonce) {
        (None, None) => true,
        (Some(Ok(found)), Some(asked)) => found.as_bytes() == asked,
        _ => false,
    };
    (!same).then(|| "the nonce is not that of the request".to_owned())
}

fn next_update(view: &OcspView<'_>, _: &OcspLintContext<'_>) -> Option<String> {
    let missing = view.responses.iter().any(|single| single.next_update.is_none());
    missing.then(|| "nextUpdate is missing".to_owned())
}

/// Mozilla Root Store Policy 3.1 §6 wants it; who checks the chain at nextUpdate as well.
fn within_responder(view: &OcspView<'_>, context: &OcspLintContext<'_>) -> Option<String> {
    let end = context.responder.not_after().unix();
    let over = view.responses.iter().filter_map(|single| single.next_update).any(|at| seconds(&at) > end);
    over.then(|| "nextUpdate is after the end of the responder's certificate".to_owned())
}

/// "a validity interval greater than or equal to eight hours; […] less than or equal to ten days".
fn public_validity(view: &OcspView<'_>, _: &OcspLintContext<'_>) -> Option<String> {
    view.responses.iter().find_map(|single| {
        let interval = seconds(&single.next_update?).saturating_sub(seconds(&single.this_update));
        (!(8 * 3_600..=10 * 86_400).contains(&interval)).then(|| format!("it is for {interval} seconds"))
    })
}

/// "The CRLReason indicated MUST contain a value permitted for CRLs": of subscribers' certificates.
fn public_reason(view: &OcspView<'_>, _: &OcspLintContext<'_>) -> Option<String> {
    let permitted = [
        CrlReason::KeyCompromise,
        CrlReason::AffiliationChanged,
        CrlReason::Superseded,
        CrlReason::CessationOfOperation,
        CrlReason::PrivilegeWithdrawn,
    ];
    revoked(view)
        .any(|(_, revoked)| revoked.reason.is_some_and(|reason| !permitted.contains(&reason)))
        .then(|| "the reason is not one that the Baseline Requirements leave".to_owned())
}

#[cfg(test)]
mod tests;
