//! RFC 6960 §4.2.2.2 and BR §7.1.2.8: certificates of delegated OCSP responders, and that nothing
//! else can sign answers.

use const_oid::db::{rfc4519, rfc5280 as oid, rfc6960::ID_PKIX_OCSP_NOCHECK};

use super::{
    LintContext, Rule, Subject, View,
    cabf_br::{DAY, attributes, count},
    must, should,
};

/// For every certificate, public or not.
pub(super) const RULES: &[Rule] = &[
    must("rfc6960.responder_ext_key_usage", "RFC 6960 §4.2.2.2", ext_key_usage),
    must("rfc6960.ocsp_signing_only_for_responders", "RFC 6960 §4.2.2.2", only_for_responders),
    must("rfc6960.responder_key_usage", "RFC 6960 §4.2.2.2, RFC 5280 §4.2.1.12", key_usage),
    must("rfc6960.responder_nocheck", "RFC 6960 §4.2.2.2.1", nocheck),
    must("rfc6960.responder_has_subject", "RFC 6960 §4.2.1, RFC 5280 §4.1.2.6", has_subject),
];

/// For publicly trusted ones.
pub(super) const PUBLIC_RULES: &[Rule] = &[
    must("cabf_br.responder_subject", "BR §7.1.2.8, §7.1.2.10.2", public_subject),
    must("cabf_br.responder_not_before", "BR §7.1.2.8.1", not_before),
    must("cabf_br.responder_ext_key_usage", "BR §7.1.2.8.5", only_ocsp_signing),
    must("cabf_br.responder_key_usage", "BR §7.1.2.8.7", only_digital_signature),
    must("cabf_br.responder_no_extension", "BR §7.1.2.8.2", no_extension),
    should("cabf_br.responder_no_authority_info_access", "BR §7.1.2.8.2", no_authority_info_access),
];

fn is_responder(context: &LintContext<'_>) -> bool {
    context.subject == Subject::Responder
}

fn usages<'v>(view: &'v View<'_>) -> &'v [const_oid::ObjectIdentifier] {
    view.extended_key_usage.as_ref().map_or(&[], |usages| usages.0.as_slice())
}

fn ext_key_usage(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_responder(context) && !usages(view).contains(&oid::ID_KP_OCSP_SIGNING))
        .then(|| "it has no OCSPSigning".to_owned())
}

/// A subscriber with OCSPSigning could answer for everybody; one with nocheck is believed for ever.
fn only_for_responders(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let signs = usages(view).contains(&oid::ID_KP_OCSP_SIGNING);
    let nocheck = view.extension(ID_PKIX_OCSP_NOCHECK).is_some();
    (!is_responder(context) && (signs || nocheck))
        .then(|| "it is not a responder's, but has OCSPSigning or nocheck".to_owned())
}

/// Without digitalSignature its answers do not count.
fn key_usage(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let signs = view.key_usage.as_ref().is_some_and(x509_cert::ext::pkix::KeyUsage::digital_signature);
    (is_responder(context) && !signs).then(|| "its key usage is not digitalSignature".to_owned())
}

/// "The value of the extension SHALL be NULL."
fn nocheck(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_responder(context) && view.ocsp_nocheck.is_none()).then(|| {
        "there is no id-pkix-ocsp-nocheck with NULL: its own state would have to be asked for".to_owned()
    })
}

/// Clients that know responders by name need one.
fn has_subject(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_responder(context) && view.has_empty_subject()).then(|| "the subject is empty".to_owned())
}

fn public_subject(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    if !is_responder(context) {
        return None;
    }
    let required = [rfc4519::COUNTRY_NAME, rfc4519::ORGANIZATION_NAME, rfc4519::COMMON_NAME];
    let unit = attributes(view).any(|attribute| attribute.oid == rfc4519::ORGANIZATIONAL_UNIT_NAME);
    (unit || required.iter().any(|id| count(view, *id) != 1)).then(|| {
        "country, organization and common name have to be there once each, and no organizational unit"
            .to_owned()
    })
}

/// "One day prior to the time of signing" at the earliest, that time at the latest.
fn not_before(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let signed_at = context.signed_at.unix();
    let good = (signed_at.saturating_sub(DAY)..=signed_at).contains(&view.not_before.seconds);
    (is_responder(context) && !good).then(|| "notBefore is not within the day before the signing".to_owned())
}

fn only_ocsp_signing(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_responder(context) && usages(view) != [oid::ID_KP_OCSP_SIGNING])
        .then(|| "it has another purpose than OCSPSigning".to_owned())
}

fn only_digital_signature(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let value = view.extension(oid::ID_CE_KEY_USAGE).filter(|extension| extension.critical);
    let good = value.is_some_and(|extension| extension.extn_value.as_bytes() == [0x03, 0x02, 0x07, 0x80]);
    (is_responder(context) && !good)
        .then(|| "its key usage is not critical, or not digitalSignature alone".to_owned())
}

fn no_extension(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let never = [
        oid::ID_CE_SUBJECT_ALT_NAME,
        oid::ID_CE_NAME_CONSTRAINTS,
        oid::ID_CE_CERTIFICATE_POLICIES,
        oid::ID_CE_CRL_DISTRIBUTION_POINTS,
        oid::ID_CE_FRESHEST_CRL,
    ];
    let found = never.into_iter().find(|id| view.extension(*id).is_some()).filter(|_| is_responder(context));
    found.map(|id| format!("extension {id} has no place in a responder's certificate"))
}

fn no_authority_info_access(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_responder(context) && view.authority_info.is_some()).then(|| "there is one".to_owned())
}
