//! RFC 5280 §4.2: extensions of certificates.

use std::net::IpAddr;

use const_oid::{
    ObjectIdentifier,
    db::{rfc5280 as oid, rfc6960::ID_PKIX_OCSP_NOCHECK},
};
use x509_cert::ext::pkix::{
    crl::dp::DistributionPoint,
    name::{DistributionPointName, GeneralName},
};

use super::algorithm::Family;
use crate::lint::{LintContext, Rule, Subject, View, must, should, view::TEST_CA, view::TLS_FEATURE};

pub(super) const RULES: &[Rule] = &[
    must("rfc5280.extensions_unique", "RFC 5280 §4.2", extensions_unique),
    must("rfc5280.extensions_known", "RFC 5280 §4.2", extensions_known),
    must("rfc5280.extensions_decode", "RFC 5280 §4.2", extensions_decode),
    must("rfc5280.extensions_critical", "RFC 5280 §4.2.1, §4.2.2", extensions_critical),
    must("rfc5280.authority_key_id_present", "RFC 5280 §4.2.1.1", authority_key_id_present),
    must("rfc5280.authority_key_id_pair", "RFC 5280 §4.2.1.1", authority_key_id_pair),
    must("rfc5280.authority_key_id_matches", "RFC 5280 §4.2.1.1", authority_key_id_matches),
    must("rfc5280.subject_key_id_of_ca", "RFC 5280 §4.2.1.2", subject_key_id_of_ca),
    must("rfc5280.key_usage_of_ca", "RFC 5280 §4.2.1.3", key_usage_of_ca),
    must("rfc5280.key_usage_not_empty", "RFC 5280 §4.2.1.3", key_usage_not_empty),
    must("rfc5280.key_cert_sign", "RFC 5280 §4.2.1.3, §4.2.1.9", key_cert_sign),
    must("rfc5280.key_usage_fits_key", "RFC 5480 §3, RFC 8410 §5, RFC 3279 §2.3.1", key_usage_fits_key),
    should("rfc5280.key_usage_critical", "RFC 5280 §4.2.1.3", key_usage_critical),
    must("rfc5280.policies_unique", "RFC 5280 §4.2.1.4", policies_unique),
    must("rfc5280.alt_name_for_empty_subject", "RFC 5280 §4.1.2.6, §4.2.1.6", alt_name_for_empty_subject),
    should("rfc5280.alt_name_beside_subject", "RFC 5280 §4.2.1.6", alt_name_beside_subject),
    must("rfc5280.alt_name_not_empty", "RFC 5280 §4.2.1.6", alt_name_not_empty),
    must("rfc5280.alt_name_dns", "RFC 5280 §4.2.1.6, RFC 1034 §3.5, RFC 9549 §2.2", alt_name_dns),
    must("rfc5280.alt_name_ip", "RFC 5280 §4.2.1.6", alt_name_ip),
    must("rfc5280.alt_name_uri", "RFC 5280 §4.2.1.6", alt_name_uri),
    must("rfc5280.ca_flag", "RFC 5280 §4.2.1.9", ca_flag),
    must("rfc5280.path_length", "RFC 5280 §4.2.1.9", path_length),
    must("rfc5280.path_length_of_issuer", "RFC 5280 §4.2.1.9, §6.1.4", path_length_of_issuer),
    must("rfc5280.name_constraints_of_ca", "RFC 5280 §4.2.1.10", name_constraints_of_ca),
    must("rfc5280.name_constraints_of_issuer", "RFC 5280 §4.2.1.10, §6.1.3", name_constraints_of_issuer),
    must("rfc5280.ext_key_usage", "RFC 5280 §4.2.1.12", ext_key_usage),
    must("rfc5280.crl_points", "RFC 5280 §4.2.1.13", crl_points),
    must("rfc5280.freshest_crl", "RFC 5280 §4.2.1.15", freshest_crl),
    must("rfc5280.authority_info_access", "RFC 5280 §4.2.2.1", authority_info_access),
    must("rfc7633.tls_feature", "RFC 7633 §4", tls_feature),
];

/// Every extension that this CA writes or passes on, and whether it must (`Some(true)`), must not
/// (`Some(false)`) or may (`None`) be critical.
const KNOWN: &[(ObjectIdentifier, Option<bool>)] = &[
    (oid::ID_CE_AUTHORITY_KEY_IDENTIFIER, Some(false)), // §4.2.1.1
    (oid::ID_CE_SUBJECT_KEY_IDENTIFIER, Some(false)),   // §4.2.1.2
    (oid::ID_CE_KEY_USAGE, None),                       // §4.2.1.3, SHOULD
    (oid::ID_CE_CERTIFICATE_POLICIES, None),            // §4.2.1.4
    (oid::ID_CE_SUBJECT_ALT_NAME, None),                // §4.2.1.6, by the subject
    (oid::ID_CE_BASIC_CONSTRAINTS, None),               // §4.2.1.9, MUST for CAs: `ca_flag`
    (oid::ID_CE_NAME_CONSTRAINTS, Some(true)),          // §4.2.1.10
    (oid::ID_CE_EXT_KEY_USAGE, None),                   // §4.2.1.12
    (oid::ID_CE_CRL_DISTRIBUTION_POINTS, None),         // §4.2.1.13, SHOULD NOT
    (oid::ID_CE_FRESHEST_CRL, Some(false)),             // §4.2.1.15
    (oid::ID_PE_AUTHORITY_INFO_ACCESS, Some(false)),    // §4.2.2.1
    (ID_PKIX_OCSP_NOCHECK, Some(false)),                // RFC 6960 §4.2.2.2.1, SHOULD
    (TLS_FEATURE, Some(false)),                         // RFC 7633 §4, SHOULD NOT
    (TEST_CA, Some(false)),                             // ours: `operator.test_ca`
];

fn extensions_unique(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let twice = view.extensions.iter().enumerate().find(|(at, extension)| {
        view.extensions.iter().take(*at).any(|earlier| earlier.extn_id == extension.extn_id)
    });
    twice.map(|(_, extension)| format!("extension {} is there twice", extension.extn_id))
}

/// A certificate of ours has nothing that these lints do not understand.
fn extensions_known(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let unknown =
        view.extensions.iter().find(|extension| KNOWN.iter().all(|(id, _)| *id != extension.extn_id));
    unknown.map(|extension| format!("extension {} is not one of ours", extension.extn_id))
}

fn extensions_decode(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.undecodable.first().map(|id| format!("the value of extension {id} is not the DER of its type"))
}

fn extensions_critical(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.extensions.iter().find_map(|extension| {
        let (_, critical) = KNOWN.iter().find(|(id, _)| *id == extension.extn_id)?;
        critical.filter(|critical| *critical != extension.critical).map(|must| {
            format!("extension {} is{} critical", extension.extn_id, if must { " not" } else { "" })
        })
    })
}

fn authority_key_id_present(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    // Only a self-signed certificate may leave it out.
    let named = view.authority_key_id.as_ref().is_some_and(|id| id.key_identifier.is_some());
    (context.subject != Subject::Root && !named).then(|| "there is no authority key identifier".to_owned())
}

fn authority_key_id_pair(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let id = view.authority_key_id.as_ref()?;
    (id.authority_cert_issuer.is_some() != id.authority_cert_serial_number.is_some())
        .then(|| "of authorityCertIssuer and authorityCertSerialNumber one is missing".to_owned())
}

fn authority_key_id_matches(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let own = view.subject_key_id.as_ref().map(|id| id.0.as_bytes());
    let expected = context.issuer_certificate().map_or(own, |issuer| issuer.key_id());
    let id = view.authority_key_id.as_ref()?.key_identifier.as_ref()?;
    (Some(id.as_bytes()) != expected)
        .then(|| "the authority key identifier is not the issuer's subject key identifier".to_owned())
}

fn subject_key_id_of_ca(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let missing = view.subject_key_id.as_ref().is_none_or(|id| id.0.as_bytes().is_empty());
    (view.is_ca() && missing).then(|| "a CA has no subject key identifier".to_owned())
}

fn key_usage_of_ca(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (view.is_ca() && view.key_usage.is_none()).then(|| "a CA has no key usage".to_owned())
}

fn key_usage_not_empty(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.key_usage.as_ref()?.0.is_empty().then(|| "no bit of the key usage is set".to_owned())
}

fn key_cert_sign(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let signs = view.key_usage.as_ref()?.key_cert_sign();
    (signs != view.is_ca()).then(|| format!("keyCertSign is {signs}, cA is {}", view.is_ca()))
}

fn key_usage_fits_key(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let usage = view.key_usage.as_ref()?;
    let family = view.key_family?;
    let agreement = usage.key_agreement() || usage.encipher_only() || usage.decipher_only();
    let encipherment = usage.key_encipherment() || usage.data_encipherment();
    let wrong = match family {
        Family::Rsa => agreement,
        Family::Ecdsa => encipherment,
        Family::Ed25519 => agreement || encipherment,
    };
    wrong.then(|| format!("a key of the family {family:?} cannot be used so"))
}

fn key_usage_critical(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (view.key_usage.is_some() && !view.is_critical(oid::ID_CE_KEY_USAGE))
        .then(|| "it is not critical".to_owned())
}

fn policies_unique(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let policies = &view.policies.as_ref()?.0;
    let twice = policies.iter().enumerate().any(|(at, policy)| {
        policies.iter().take(at).any(|earlier| earlier.policy_identifier == policy.policy_identifier)
    });
    (twice || policies.is_empty()).then(|| "the policies are none, or one is there twice".to_owned())
}

fn alt_name_for_empty_subject(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (view.has_empty_subject() && !view.is_critical(oid::ID_CE_SUBJECT_ALT_NAME))
        .then(|| "the subject is empty, and no critical subject alternative name stands in for it".to_owned())
}

fn alt_name_beside_subject(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (!view.has_empty_subject() && view.is_critical(oid::ID_CE_SUBJECT_ALT_NAME))
        .then(|| "it is critical, though there is a subject".to_owned())
}

fn alt_name_not_empty(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.alternative_names.as_ref()?.0.is_empty().then(|| "there is no name in it".to_owned())
}

fn alt_name_dns(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let bad = view.dns_names().find(|name| !is_preferred_syntax(name.strip_prefix("*.").unwrap_or(name)));
    bad.map(|name| format!("{name:?} is not a DNS name in the preferred syntax"))
}

/// RFC 1034 §3.5 as modified by RFC 1123 §2.1; A-labels as IDNA has them.
pub(in crate::lint) fn is_preferred_syntax(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253
        && name.split('.').all(is_label)
        && (!name.contains("xn--") || idna::domain_to_unicode(name).1.is_ok())
}

fn alt_name_ip(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let bad = view.addresses().find(|octets| !matches!(octets.len(), 4 | 16));
    bad.map(|octets| format!("an IP address has {} octets", octets.len()))
}

/// "The name MUST NOT be a relative URI […] MUST include both a scheme and a scheme-specific-part."
fn alt_name_uri(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.names().iter().find_map(|name| {
        let GeneralName::UniformResourceIdentifier(uri) = name else { return None };
        let absolute = uri.as_str().split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
                && !rest.is_empty()
        });
        (!absolute).then(|| format!("{:?} is not an absolute URI", uri.as_str()))
    })
}

fn ca_flag(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let should_be = matches!(context.subject, Subject::Root | Subject::Intermediate);
    if view.is_ca() != should_be {
        return Some(format!("cA is {}", view.is_ca()));
    }
    (should_be && !view.is_critical(oid::ID_CE_BASIC_CONSTRAINTS))
        .then(|| "basicConstraints of a CA is not critical".to_owned())
}

fn path_length(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let constraints = view.basic_constraints.as_ref()?;
    let signs = view.key_usage.as_ref().is_some_and(x509_cert::ext::pkix::KeyUsage::key_cert_sign);
    (constraints.path_len_constraint.is_some() && !(constraints.ca && signs))
        .then(|| "there is a path length without cA or keyCertSign".to_owned())
}

fn path_length_of_issuer(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let remaining = context.issuer_certificate()?.path_length()?;
    let own = view.basic_constraints.as_ref().and_then(|constraints| constraints.path_len_constraint);
    let fits = remaining > 0 && own.is_none_or(|own| own < remaining);
    (view.is_ca() && !fits).then(|| format!("the issuer's path length is {remaining}"))
}

fn name_constraints_of_ca(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let constraints = view.name_constraints.as_ref()?;
    if !view.is_ca() {
        return Some("there are name constraints, but it is no CA".to_owned());
    }
    let lists = [&constraints.permitted_subtrees, &constraints.excluded_subtrees];
    let empty = lists.iter().all(|list| list.as_ref().is_none_or(Vec::is_empty));
    let bounded =
        lists.into_iter().flatten().flatten().any(|tree| tree.minimum != 0 || tree.maximum.is_some());
    (empty || bounded).then(|| "the name constraints are empty, or have a minimum or maximum".to_owned())
}

fn name_constraints_of_issuer(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let issuer = context.issuer_certificate()?;
    let dns = view.dns_names().find(|name| !issuer.permits_dns(name));
    if let Some(name) = dns {
        return Some(format!("{name:?} is outside of the issuer's name constraints"));
    }
    let ip = view.addresses().find(|octets| {
        let address = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
        let address = address.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
        !address.is_ok_and(|address| issuer.permits_ip(address))
    });
    ip.map(|octets| format!("address {} is outside of the issuer's name constraints", hex::encode(octets)))
}

fn ext_key_usage(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let usages = &view.extended_key_usage.as_ref()?.0;
    let twice =
        usages.iter().enumerate().any(|(at, usage)| usages.iter().take(at).any(|earlier| earlier == usage));
    (twice || usages.is_empty()).then(|| "the purposes are none, or one is there twice".to_owned())
}

fn crl_points(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let points = &view.crl_points.as_ref()?.0;
    let nameless = points.iter().any(|point| {
        point.distribution_point.is_none() && point.crl_issuer.as_ref().is_none_or(Vec::is_empty)
    });
    if points.is_empty() || nameless {
        return Some("a distribution point has no name".to_owned());
    }
    let fetchable = view.crl_names().any(|name| is_uri(name, &["http://", "ldap://"]));
    (!fetchable).then(|| "no distribution point can be fetched by HTTP or LDAP".to_owned())
}

/// It has the syntax of CRL distribution points, and makes sense only beside them.
fn freshest_crl(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let points = &view.freshest_crl.as_ref()?.0;
    let fetchable = |point: &DistributionPoint| match &point.distribution_point {
        Some(DistributionPointName::FullName(names)) => {
            names.iter().any(|name| is_uri(name, &["http://", "ldap://"]))
        }
        _ => false,
    };
    (points.is_empty() || !points.iter().all(fetchable) || view.crl_points.is_none()).then(|| {
        "a delta CRL cannot be fetched by HTTP or LDAP, or there is no complete CRL to add it to".to_owned()
    })
}

fn authority_info_access(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let descriptions = &view.authority_info.as_ref()?.0;
    let fetchable = |name| is_uri(name, &["http://", "https://", "ldap://"]);
    let bad = descriptions.iter().any(|access| !fetchable(&access.access_location));
    (descriptions.is_empty() || bad).then(|| "there is no access, or one that is not a URL".to_owned())
}

/// Whether `name` is a URI that begins so and goes on.
pub(in crate::lint) fn is_uri(name: &GeneralName, schemes: &[&str]) -> bool {
    match name {
        GeneralName::UniformResourceIdentifier(uri) => schemes.iter().any(|scheme| {
            let rest = uri.as_str().strip_prefix(scheme);
            rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|octet| octet.is_ascii_graphic()))
        }),
        _ => false,
    }
}

fn tls_feature(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let features = view.tls_features.as_ref()?;
    (features.as_slice() != [5]).then(|| format!("TLS features are {features:?}, not status_request alone"))
}
