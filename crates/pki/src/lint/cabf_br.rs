//! The CA/Browser Forum's Baseline Requirements 2.2.6 for certificates of subscribers (§7.1.2.7).
//! Those for CAs are in `authority`.

mod authority;
mod names;

use const_oid::{ObjectIdentifier, db::rfc4519, db::rfc5280 as oid};
use der::Tagged;
use x509_cert::ext::pkix::name::GeneralName;

use super::{
    LintContext, Rule, Subject, View, must, responder,
    rfc5280::algorithm::{self, Family},
    should,
};

/// Every table.
pub(super) const RULES: &[&[Rule]] = &[SUBSCRIBER, names::RULES, authority::RULES, responder::PUBLIC_RULES];

const SUBSCRIBER: &[Rule] = &[
    must("cabf_br.serial", "BR §7.1.2.7", serial),
    must("cabf_br.not_before", "BR §7.1.2.7", not_before),
    must("cabf_br.validity", "BR §6.3.2", validity),
    must("cabf_br.signature_algorithm", "BR §7.1.3.2", signature_algorithm),
    must("cabf_br.subject_key", "BR §6.1.5, §6.1.6, §7.1.3.1", subject_key),
    must("cabf_br.subject_attributes", "BR §7.1.2.7.2", subject_attributes),
    should("cabf_br.no_common_name", "BR §7.1.2.7.2", no_common_name),
    must("cabf_br.key_usage", "BR §7.1.2.7.11", key_usage),
    must("cabf_br.ext_key_usage", "BR §7.1.2.7.10", ext_key_usage),
    should("cabf_br.client_auth", "BR §7.1.2.7.10, Chrome Root Program 1.8", client_auth),
    must("cabf_br.basic_constraints", "BR §7.1.2.7.8", basic_constraints),
    must("cabf_br.policies", "BR §7.1.2.7.9", policies),
    must("cabf_br.authority_key_id", "BR §7.1.2.11.1", authority_key_id),
    should("cabf_br.no_subject_key_id", "BR §7.1.2.7.6", no_subject_key_id),
    must("cabf_br.authority_info_access", "BR §7.1.2.7.7", authority_info_access),
    should("cabf_br.ca_issuers", "BR §7.1.2.7.7", ca_issuers),
    must("cabf_br.crl_points", "BR §7.1.2.11.2", crl_points),
    must("cabf_br.revocation_information", "BR §7.1.2.7.6, §7.1.2.11.2", revocation_information),
    should("cabf_br.no_freshest_crl", "BR §7.1.2.7.6", no_freshest_crl),
    must("cabf_br.no_name_constraints", "BR §7.1.2.7.6", no_name_constraints),
];

pub(super) const DAY: u64 = 86_400;

fn is_subscriber(context: &LintContext<'_>) -> bool {
    context.subject == Subject::Subscriber
}

/// "greater than zero and less than 2^159 containing at least 64 bits of output from a CSPRNG": fewer
/// than 8 octets cannot contain them.
fn serial(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let octets = view.serial.len();
    (!(8..=20).contains(&octets)).then(|| format!("the serial number has {octets} octets"))
}

fn not_before(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let distance = view.not_before.seconds.abs_diff(context.signed_at.unix());
    (is_subscriber(context) && distance > 2 * DAY)
        .then(|| format!("notBefore is {distance} seconds away from the signing"))
}

fn validity(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    // A backdated notBefore does not make the day of issuance earlier.
    let days = maximum_days(view.not_before.seconds.max(context.signed_at.unix()));
    (is_subscriber(context) && view.validity_seconds() > days * DAY)
        .then(|| format!("valid for {} seconds, more than {days} days", view.validity_seconds()))
}

/// By the date of issuance.
const fn maximum_days(issued_at: u64) -> u64 {
    match issued_at {
        1_868_227_200.. => 47,  // 2029-03-15
        1_805_068_800.. => 100, // 2027-03-15
        1_773_532_800.. => 200, // 2026-03-15
        _ => 398,
    }
}

fn signature_algorithm(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let spki = context.issuer_certificate().map_or(view.spki, |issuer| issuer.public_key().spki_der());
    unlisted_signature(view.signature, spki)
}

/// Whether BR §7.1.3.2 lists this algorithm for this issuer's key; it ties the hash to the curve.
pub(super) fn unlisted_signature(identifier: &[u8], issuer_spki: &[u8]) -> Option<String> {
    let (family, hash) = algorithm::signature(identifier)?;
    let listed = match family {
        Family::Rsa => true,
        Family::Ed25519 => false,
        Family::Ecdsa => {
            let info = x509_cert::spki::SubjectPublicKeyInfoRef::try_from(issuer_spki).ok();
            let curve = info.as_ref().and_then(algorithm::curve);
            curve.and_then(algorithm::hash_of_curve) == Some(hash)
        }
    };
    (!listed).then(|| "Ed25519, or a hash that does not belong to the curve".to_owned())
}

fn subject_key(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    match view.key_family? {
        Family::Ecdsa => None,
        Family::Ed25519 => Some("Ed25519 keys are not permitted".to_owned()),
        Family::Rsa => {
            let (modulus, exponent) = algorithm::rsa_numbers(view.key.subject_public_key.as_bytes()?)?;
            let leading = modulus.first().map_or(8, |first| first.leading_zeros());
            let good_modulus = leading == 0 && modulus.len() >= 256;
            let good_exponent = exponent.last().is_some_and(|last| last & 1 == 1)
                && (exponent.len() > 3
                    || (exponent.len() == 3 && exponent.as_slice() >= [1, 0, 1].as_slice()));
            (!good_modulus || !good_exponent)
                .then(|| format!("RSA with {} bits, or an exponent below 65537", modulus.len() * 8))
        }
    }
}

pub(super) fn attributes<'v>(
    view: &'v View<'_>,
) -> impl Iterator<Item = &'v x509_cert::attr::AttributeTypeAndValue> {
    view.subject_name.iter().flat_map(|rdn| rdn.iter())
}

pub(super) fn count(view: &View<'_>, id: ObjectIdentifier) -> usize {
    attributes(view).filter(|attribute| attribute.oid == id).count()
}

fn subject_attributes(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    if !is_subscriber(context) {
        return None;
    }
    let allowed = [rfc4519::COUNTRY_NAME, rfc4519::COMMON_NAME];
    let other = attributes(view).find(|attribute| !allowed.contains(&attribute.oid));
    if let Some(attribute) = other {
        return Some(format!("a domain validated subject has no attribute {}", attribute.oid));
    }
    if allowed.iter().any(|id| count(view, *id) > 1) {
        return Some("an attribute of the subject is there twice".to_owned());
    }
    // "exactly one entry that is one of the values contained in the subjectAltName extension"
    let common_name = attributes(view).find(|attribute| attribute.oid == rfc4519::COMMON_NAME)?;
    let text = common_name.value.value();
    (!view.dns_names().any(|name| name.as_bytes() == text)).then(|| {
        format!("the common name, a {}, is not one of the alternative names", common_name.value.tag())
    })
}

fn no_common_name(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_subscriber(context) && count(view, rfc4519::COMMON_NAME) > 0)
        .then(|| "there is a common name".to_owned())
}

fn key_usage(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    if !is_subscriber(context) {
        return None;
    }
    let usage = view.key_usage.as_ref()?;
    let family = view.key_family?;
    let forbidden = usage.non_repudiation()
        || usage.key_cert_sign()
        || usage.crl_sign()
        || usage.encipher_only()
        || usage.decipher_only()
        || usage.data_encipherment();
    let missing = match family {
        Family::Rsa => !usage.digital_signature() && !usage.key_encipherment(),
        Family::Ecdsa | Family::Ed25519 => !usage.digital_signature(),
    };
    let wrong_family = family != Family::Rsa && usage.key_encipherment();
    (forbidden || missing || wrong_family || !view.is_critical(oid::ID_CE_KEY_USAGE)).then(|| {
        "it is not critical, or has other bits than digitalSignature, or keyEncipherment of RSA".to_owned()
    })
}

fn ext_key_usage(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    if !is_subscriber(context) {
        return None;
    }
    let usages = view.extended_key_usage.as_ref().map_or(&[][..], |usages| usages.0.as_slice());
    let allowed = [oid::ID_KP_SERVER_AUTH, oid::ID_KP_CLIENT_AUTH];
    let good = usages.contains(&oid::ID_KP_SERVER_AUTH)
        && usages.iter().all(|usage| allowed.contains(usage))
        && !view.is_critical(oid::ID_CE_EXT_KEY_USAGE);
    (!good).then(|| "it lacks serverAuth, has something else, or is critical".to_owned())
}

fn client_auth(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let client = view.extended_key_usage.as_ref()?.0.contains(&oid::ID_KP_CLIENT_AUTH);
    (is_subscriber(context) && client).then(|| "clientAuth is there".to_owned())
}

/// Absent, or critical and an empty SEQUENCE.
fn basic_constraints(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let extension = view.extension(oid::ID_CE_BASIC_CONSTRAINTS).filter(|_| is_subscriber(context))?;
    let good = extension.critical && extension.extn_value.as_bytes() == [0x30, 0x00];
    (!good).then(|| "basicConstraints is not critical, or not 3000".to_owned())
}

/// domain-, organization-, individual- and extended-validated.
const RESERVED_POLICIES: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("2.23.140.1.2.1"),
    ObjectIdentifier::new_unwrap("2.23.140.1.2.2"),
    ObjectIdentifier::new_unwrap("2.23.140.1.2.3"),
    ObjectIdentifier::new_unwrap("2.23.140.1.1"),
];

fn policies(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    if !is_subscriber(context) {
        return None;
    }
    let policies = view.policies.as_ref().map_or(&[][..], |policies| policies.0.as_slice());
    let is_reserved = |id: &ObjectIdentifier| RESERVED_POLICIES.contains(id);
    let reserved = policies.iter().filter(|policy| is_reserved(&policy.policy_identifier)).count();
    let good = policies.first().is_some_and(|policy| policy.policy_identifier == RESERVED_POLICIES[0])
        && reserved == 1
        && policies
            .iter()
            .all(|policy| policy.policy_identifier != oid::ANY_POLICY && policy.policy_qualifiers.is_none())
        && !view.is_critical(oid::ID_CE_CERTIFICATE_POLICIES);
    (!good).then(|| "they do not begin with domain-validated as the one reserved policy, or have qualifiers, anyPolicy or critical".to_owned())
}

fn authority_key_id(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let id = view.authority_key_id.as_ref()?;
    (id.key_identifier.is_none()
        || id.authority_cert_issuer.is_some()
        || id.authority_cert_serial_number.is_some())
    .then(|| "it has something else than the key identifier".to_owned())
}

fn no_subject_key_id(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_subscriber(context) && view.subject_key_id.is_some())
        .then(|| "there is a subject key identifier".to_owned())
}

fn authority_info_access(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let allowed = [oid::ID_AD_OCSP, oid::ID_AD_CA_ISSUERS];
    let bad = view
        .authority_info
        .as_ref()?
        .0
        .iter()
        .any(|access| !allowed.contains(&access.access_method) || !is_http(&access.access_location));
    bad.then(|| "it has another method, or a location that is not plain HTTP".to_owned())
}

fn is_http(name: &GeneralName) -> bool {
    super::rfc5280::is_uri(name, &["http://"])
}

fn has_access(view: &View<'_>, method: ObjectIdentifier) -> bool {
    view.authority_info.iter().flat_map(|list| &list.0).any(|access| access.access_method == method)
}

fn ca_issuers(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let asks = !matches!(context.subject, Subject::Root | Subject::Responder);
    (asks && !has_access(view, oid::ID_AD_CA_ISSUERS)).then(|| "there is no caIssuers".to_owned())
}

fn crl_points(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let points = &view.crl_points.as_ref()?.0;
    let simple = points.iter().all(|point| point.reasons.is_none() && point.crl_issuer.is_none());
    let names: Vec<_> = view.crl_names().collect();
    let one_http_name = matches!(names.as_slice(), [name] if is_http(name));
    (points.len() != 1 || !simple || !one_http_name || view.is_critical(oid::ID_CE_CRL_DISTRIBUTION_POINTS))
        .then(|| {
            "it is critical, or has not exactly one distribution point with one plain HTTP URL".to_owned()
        })
}

/// A short-lived certificate (BR §1.6.1, since 2026-03-15: at most 7 days) needs neither.
fn revocation_information(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let long_lived = view.validity_seconds() > 7 * DAY;
    let missing = view.crl_points.is_none() && !has_access(view, oid::ID_AD_OCSP);
    (is_subscriber(context) && long_lived && missing)
        .then(|| "neither CRL nor OCSP, and longer than short-lived".to_owned())
}

/// "Any other extension: NOT RECOMMENDED".
fn no_freshest_crl(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_subscriber(context) && view.extension(oid::ID_CE_FRESHEST_CRL).is_some())
        .then(|| "there is a freshest CRL".to_owned())
}

fn no_name_constraints(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_subscriber(context) && view.extension(oid::ID_CE_NAME_CONSTRAINTS).is_some())
        .then(|| "there are name constraints".to_owned())
}
