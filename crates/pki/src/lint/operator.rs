//! The operator's own limits, and whether the certificate is the one that was asked for: mistakes of
//! our own that no standard forbids.

use std::net::IpAddr;

use const_oid::db::rfc5280::ID_AD_OCSP;
use x509_cert::ext::pkix::name::GeneralName;

use super::{LintContext, Rule, Subject, View, must};
use crate::Name;

pub(super) const RULES: &[&[Rule]] = &[&[
    must("operator.maximum_validity", "policy: maximum_validity", maximum_validity),
    must("operator.name_suffixes", "policy: name_suffixes", name_suffixes),
    must("operator.not_expired", "policy: nothing is signed that is over", not_expired),
    must("operator.within_issuer", "policy: no certificate outlives its issuer", within_issuer),
    must("operator.issuers_key", "policy: an issuer's key is not certified", not_issuers_key),
    must("operator.serial", "policy: the serial number that was drawn", serial),
    must("operator.names", "policy: the names of the order", names),
    must("operator.public_key", "policy: the key of the request", public_key),
    must("operator.validity", "policy: the validity that was computed", validity),
    must("operator.issuer_urls", "policy: the URLs of the issuer", issuer_urls),
    must("operator.freshest_crl", "policy: delta CRLs as the issuer makes them", freshest_crl),
    must("operator.node_uri", "policy: a node has one chancery:// name", node_uri),
    must("operator.test_ca", "policy: test CAs are marked, and nothing else is", test_ca),
]];

fn maximum_validity(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let maximum = context.maximum_validity?;
    (view.validity_seconds() > maximum.seconds())
        .then(|| format!("valid for {} seconds, more than {maximum}", view.validity_seconds()))
}

fn name_suffixes(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    if context.name_suffixes.is_empty() {
        return None;
    }
    let outside = view.dns_names().find(|name| {
        let dotted = format!(".{}", name.strip_prefix("*.").unwrap_or(name));
        !context.name_suffixes.iter().any(|suffix| dotted.ends_with(&format!(".{suffix}")))
    });
    outside.map(|name| format!("{name:?} is not below one of the suffixes"))
}

fn not_expired(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (view.not_after.seconds < context.signed_at.unix()).then(|| "notAfter is past".to_owned())
}

fn within_issuer(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let issuer = context.issuer_certificate()?;
    let inside = view.not_before.seconds >= issuer.not_before().unix()
        && view.not_after.seconds <= issuer.not_after().unix();
    (!inside).then(|| "the validity is not inside the issuer's".to_owned())
}

fn not_issuers_key(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (context.issuer_certificate()?.public_key().spki_der() == view.spki)
        .then(|| "the key is the issuer's own".to_owned())
}

fn serial(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (context.expected?.serial.as_bytes() != view.serial).then(|| "the serial number is another".to_owned())
}

fn public_key(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (context.expected?.public_key.spki_der() != view.spki).then(|| "the key is another".to_owned())
}

fn validity(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let expected = context.expected?.validity;
    let same = view.not_before.seconds == expected.not_before.unix()
        && view.not_after.seconds == expected.not_after.unix();
    (!same).then(|| "notBefore or notAfter is another".to_owned())
}

/// Each expected name once, and nothing else but a node's URI.
fn names(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let expected = context.expected?;
    let wanted = expected.names.map_or(&[][..], |names| names.as_slice());
    let found: Vec<_> = view.names().iter().filter(|name| uri(name).is_none()).collect();
    let uris = view.names().len() - found.len();
    // Usually in the order of the set; comparing all with all takes long for many names.
    let in_order = wanted.iter().zip(&found).all(|(name, found)| is_same(found, name));
    let all_there = in_order || wanted.iter().all(|name| found.iter().any(|found| is_same(found, name)));
    let uri_allowed = uris == 0 || context.subject == Subject::Node;
    (found.len() != wanted.len() || !all_there || !uri_allowed)
        .then(|| format!("{} names were asked for, {} are there, or others", wanted.len(), found.len()))
}

fn is_same(found: &GeneralName, wanted: &Name) -> bool {
    match (found, wanted) {
        (GeneralName::DnsName(found), Name::Dns(name)) => found.as_str() == name.as_str(),
        (GeneralName::DnsName(found), Name::Wildcard(base)) => {
            found.as_str().strip_prefix("*.") == Some(base.as_str())
        }
        (GeneralName::IpAddress(found), Name::Ip(IpAddr::V4(address))) => {
            found.as_bytes() == address.octets()
        }
        (GeneralName::IpAddress(found), Name::Ip(IpAddr::V6(address))) => {
            found.as_bytes() == address.octets()
        }
        _ => false,
    }
}

/// What relying parties are sent to is the issuer's own, and the CRL is that of the shard in which
/// the signer will list a revocation.
fn issuer_urls(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let issuer = context.issuer?;
    for access in view.authority_info.iter().flat_map(|list| &list.0) {
        let expected =
            if access.access_method == ID_AD_OCSP { issuer.ocsp_url() } else { issuer.ca_issuers_url() };
        if uri(&access.access_location) != expected {
            return Some(format!("the URL for {} is not {expected:?}", access.access_method));
        }
    }
    let expected = context.expected?.shard.and_then(|shard| issuer.crl_url(shard));
    let other = view.crl_names().any(|name| uri(name) != expected.as_deref());
    other.then(|| format!("the CRL's URL is not {expected:?}"))
}

/// Who is sent to the CRL is also sent to its delta, if the issuer makes one, and nobody else is.
fn freshest_crl(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let shard = context.expected?.shard.filter(|_| view.crl_points.is_some());
    let expected = shard.and_then(|shard| context.issuer?.delta_crl_url(shard));
    let found: Vec<_> = view.delta_crl_names().map(uri).collect();
    let wanted: Vec<_> = expected.iter().map(|url| Some(url.as_str())).collect();
    (found != wanted).then(|| format!("the delta CRL's URL is {found:?}, not {wanted:?}"))
}

fn uri(name: &GeneralName) -> Option<&str> {
    match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    }
}

/// A node's URI in a subscriber's certificate would be a key to the inside.
fn node_uri(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let uris = || view.names().iter().filter_map(uri);
    let expected = usize::from(context.subject == Subject::Node);
    let nodes = uris().filter(|uri| uri.parse::<crate::NodeIdentity>().is_ok()).count();
    (uris().count() != expected || nodes != expected)
        .then(|| format!("{} URIs, {nodes} of nodes", uris().count()))
}

/// A test CA's mark is its hierarchy's: none below a root that has it goes without, and none below another has it. What is no CA
/// never has it, whatever was asked for.
fn test_ca(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let marked = view.test_ca.is_some();
    match context.subject {
        Subject::Root => None,
        Subject::Intermediate => {
            let of_issuer = context.issuer_certificate()?.is_test_ca();
            (marked != of_issuer)
                .then(|| format!("the mark of a test CA: its issuer's is {of_issuer}, its own {marked}"))
        }
        Subject::Subscriber | Subject::Node | Subject::Responder => {
            marked.then(|| "it has the mark of a test CA".to_owned())
        }
    }
}
