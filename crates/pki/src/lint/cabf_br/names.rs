//! BR §7.1.2.7.12 and §4.2.2: the names in a subscriber's certificate.

use const_oid::db::rfc5280 as oid;
use std::net::IpAddr;
use x509_cert::ext::pkix::name::GeneralName;

use super::is_subscriber;
use crate::lint::{LintContext, Rule, View, must};

pub(super) const RULES: &[Rule] = &[
    must("cabf_br.alt_name_present", "BR §7.1.2.7.6", present),
    must("cabf_br.alt_name_critical", "BR §7.1.2.7.12", critical),
    must("cabf_br.alt_name_kinds", "BR §7.1.2.7.12", kinds),
    must("cabf_br.dns_name_lower_case_ldh", "BR §7.1.2.7.12", ldh),
    must("cabf_br.dns_name_reserved_label", "BR §7.1.2.7.12", reserved_label),
    must("cabf_br.dns_name_a_label", "BR §7.1.2.7.12", a_label),
    must("cabf_br.dns_name_public", "BR §4.2.2, §7.1.2.7.12", public),
    must("cabf_br.dns_name_below_suffix", "BR §3.2.2.6", below_suffix),
    must("cabf_br.dns_name_reserved_zone", "BR §4.2.2, appendix B, RFC 8375", reserved_zone),
    must("cabf_br.ip_address_reserved", "BR §4.2.2, §7.1.2.7.12", reserved_address),
];

/// The DNS names of a subscriber's certificate, wildcards without their first label.
fn bases<'v>(view: &'v View<'_>, context: &LintContext<'_>) -> impl Iterator<Item = &'v str> {
    let subscriber = is_subscriber(context);
    view.dns_names().filter(move |_| subscriber).map(|name| name.strip_prefix("*.").unwrap_or(name))
}

fn present(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_subscriber(context) && view.names().is_empty())
        .then(|| "there is no subject alternative name".to_owned())
}

fn critical(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let critical = view.is_critical(oid::ID_CE_SUBJECT_ALT_NAME);
    (is_subscriber(context) && critical != view.has_empty_subject())
        .then(|| format!("critical is {critical}, the subject is empty: {}", view.has_empty_subject()))
}

fn kinds(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let other =
        view.names().iter().any(|name| !matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_)));
    (is_subscriber(context) && other).then(|| "a name is neither a DNS name nor an IP address".to_owned())
}

fn ldh(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let octet =
        |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'-' | b'.');
    let bad = bases(view, context).find(|name| {
        !name.bytes().all(octet) || name.ends_with('.') || !name.split('.').all(|label| !label.is_empty())
    });
    bad.map(|name| {
        format!("{name:?} has another character, such as an underscore or upper case, or an empty label")
    })
}

/// "a Reserved LDH Label that is not a P-Label".
fn reserved_label(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let reserved = |label: &str| label.as_bytes().get(2..4) == Some(b"--") && !label.starts_with("xn--");
    let bad = bases(view, context).find(|name| name.split('.').any(reserved));
    bad.map(|name| format!("{name:?} has a reserved label"))
}

fn a_label(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let bad = bases(view, context).filter(|name| name.contains("xn--")).find(|name| {
        let (unicode, result) = idna::domain_to_unicode(name);
        result.is_err() || !idna::domain_to_ascii_strict(&unicode).is_ok_and(|ascii| ascii == **name)
    });
    bad.map(|name| format!("{name:?} has an A-label that does not decode and encode to itself"))
}

/// Not an internal name: the top-level domain, at least, is one that is listed.
fn public(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let bad = bases(view, context)
        .find(|name| !psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known()));
    bad.map(|name| format!("{name:?} does not end in a known public suffix"))
}

fn below_suffix(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let is_suffix =
        |name: &str| psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix == name && suffix.is_known());
    // A rule such as `*.kawasaki.jp` makes suffixes of all that the wildcard stands for.
    let spans_suffixes =
        |name: &str| name.strip_prefix('*').is_some_and(|rest| is_suffix(&format!("any{rest}")));
    let bad = bases(view, context).find(|name| is_suffix(name));
    let bad = bad.or_else(|| view.dns_names().find(|name| is_subscriber(context) && spans_suffixes(name)));
    bad.map(|name| format!("{name:?} is itself a public suffix, or a wildcard over suffixes"))
}

/// Reverse zones; `home.arpa`, which every home has; `onion`, which needs other validation methods.
fn reserved_zone(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let zones = [".in-addr.arpa", ".ip6.arpa", ".home.arpa", ".onion"];
    let bad = bases(view, context).find(|name| zones.iter().any(|zone| format!(".{name}").ends_with(zone)));
    bad.map(|name| format!("{name:?} is in a reserved zone"))
}

fn reserved_address(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let bad = view.addresses().filter(|_| is_subscriber(context)).find(|octets| {
        let address = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
        let address = address.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
        address.is_ok_and(crate::reserved::is_reserved)
    });
    bad.map(|octets| format!("address {} is reserved", hex::encode(octets)))
}
