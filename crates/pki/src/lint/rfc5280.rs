//! RFC 5280 (and RFC 3279, 4055, 5480, 5758, 8410, which it builds on) for certificates: fields.

pub(super) mod algorithm;
pub(super) use extensions::is_uri;
mod extensions;

use const_oid::db::{rfc4519, rfc5280 as oid};
use der::{Encode, Tag, Tagged};
use x509_cert::{ext::Extension, name::RdnSequence};

use super::{LintContext, Rule, Subject, View, must, responder};

/// Every table.
pub(super) const RULES: &[&[Rule]] = &[FIELDS, extensions::RULES, responder::RULES];

const FIELDS: &[Rule] = &[
    must("rfc5280.der", "RFC 5280 §4.1, X.690 §10", der),
    must("rfc5280.version", "RFC 5280 §4.1.2.1", version),
    must("rfc5280.serial_positive", "RFC 5280 §4.1.2.2", serial_positive),
    must("rfc5280.serial_length", "RFC 5280 §4.1.2.2", serial_length),
    must(
        "rfc5280.signature_algorithm",
        "RFC 5280 §4.1.1.2, RFC 4055 §5, RFC 5758 §3.2, RFC 8410 §3",
        signature_algorithm,
    ),
    must("rfc5280.signature_fits_issuer", "RFC 5280 §4.1.2.3", signature_fits_issuer),
    must("rfc5280.issuer_not_empty", "RFC 5280 §4.1.2.4", issuer_not_empty),
    must("rfc5280.issuer_is_issuers_subject", "RFC 5280 §4.1.2.4, §6.1", issuer_is_issuers_subject),
    must("rfc5280.name_strings", "RFC 5280 §4.1.2.4, appendix A.1", name_strings),
    must("rfc5280.validity_order", "RFC 5280 §4.1.2.5", validity_order),
    must("rfc5280.validity_encoding", "RFC 5280 §4.1.2.5", validity_encoding),
    must("rfc5280.subject_of_ca_not_empty", "RFC 5280 §4.1.2.6", subject_of_ca_not_empty),
    must(
        "rfc5280.subject_public_key",
        "RFC 5280 §4.1.2.7, RFC 3279 §2.3.1, RFC 5480 §2.1.1, RFC 8410 §3",
        subject_public_key,
    ),
    must("rfc5280.unique_ids", "RFC 5280 §4.1.2.8", unique_ids),
    must("rfc5280.extensions_present", "RFC 5280 §4.1.2.9", extensions_present),
];

/// What was decoded encodes to the same octets. `der` itself refuses most of what is not canonical;
/// this finds the rest: encoded defaults, unordered sets, padding that is not zero.
fn der(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let same = |value: der::Result<Vec<u8>>, octets: &[u8]| value.is_ok_and(|der| der == octets);
    let faults = [
        (!same(view.issuer_name.to_der(), view.issuer), "issuer"),
        (!same(view.subject_name.to_der(), view.subject), "subject"),
        (!same(view.key.to_der(), view.spki), "subjectPublicKeyInfo"),
        (!is_minimal(view.serial), "serialNumber"),
        (!same(encode_all(&view.extensions), view.extensions_der), "extensions"),
    ];
    let fault = faults.iter().find(|(fault, _)| *fault);
    fault.map(|(_, field)| format!("{field} is not in the canonical encoding of what it says"))
}

fn encode_all(extensions: &[Extension]) -> der::Result<Vec<u8>> {
    let mut octets = Vec::with_capacity(1024);
    extensions.iter().try_for_each(|extension| extension.encode_to_vec(&mut octets).map(drop))?;
    Ok(octets)
}

/// X.690 §8.3.2: the first nine bits are not all equal.
fn is_minimal(integer: &[u8]) -> bool {
    match integer {
        [] => false,
        [0, second, ..] => second & 0x80 != 0,
        [0xff, second, ..] => second & 0x80 == 0,
        _ => true,
    }
}

fn version(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (view.version != 2).then(|| format!("version is {}, not v3", u16::from(view.version) + 1))
}

fn serial_positive(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let negative = view.serial.first().is_none_or(|first| first & 0x80 != 0);
    let zero = view.serial.iter().all(|octet| *octet == 0);
    (negative || zero).then(|| format!("serial number {} is not positive", hex::encode(view.serial)))
}

fn serial_length(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (view.serial.len() > 20).then(|| format!("serial number has {} octets", view.serial.len()))
}

fn signature_algorithm(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.signature_family
        .is_none()
        .then(|| format!("algorithm identifier {} is not one of ours", hex::encode(view.signature)))
}

fn signature_fits_issuer(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let signature = view.signature_family?;
    let key = match context.issuer_certificate() {
        Some(issuer) => algorithm::key(issuer.public_key().spki_der()),
        None => view.key_family,
    };
    (key != Some(signature.0))
        .then(|| "the issuer's key does not make signatures of this algorithm".to_owned())
}

fn issuer_not_empty(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.issuer_name.is_empty().then(|| "the issuer is empty".to_owned())
}

/// Names match if their octets do: RFC 5280 §7.1 would allow more, BR §7.1.4.1 and this CA do not.
fn issuer_is_issuers_subject(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let expected = match (context.issuer_certificate(), context.subject) {
        (Some(issuer), _) => issuer.subject_der(),
        (None, Subject::Root) => view.subject,
        (None, _) => return Some("no issuer is known".to_owned()),
    };
    (view.issuer != expected)
        .then(|| "the issuer is not, octet by octet, the subject of its issuer".to_owned())
}

fn name_strings(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    [&view.issuer_name, &view.subject_name].into_iter().find_map(name_fault)
}

/// A string of another type than UTF8String or PrintableString, an empty one, or one that is longer
/// than its upper bound in RFC 5280 appendix A.1.
fn name_fault(name: &RdnSequence) -> Option<String> {
    for attribute in name.iter().flat_map(|rdn| rdn.iter()) {
        let country = attribute.oid == rfc4519::COUNTRY_NAME;
        let bound = if country { 2 } else { 64 };
        let text = str::from_utf8(attribute.value.value()).unwrap_or_default();
        let tag = attribute.value.tag();
        if tag != Tag::PrintableString && (country || tag != Tag::Utf8String) {
            return Some(format!("attribute {} is a {tag}", attribute.oid));
        }
        if text.is_empty() || text.chars().count() > bound {
            return Some(format!("attribute {} is empty or longer than {bound}", attribute.oid));
        }
    }
    None
}

fn validity_order(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (view.not_before.seconds > view.not_after.seconds).then(|| "notAfter is before notBefore".to_owned())
}

/// "dates in the year 2050 or later MUST be encoded as GeneralizedTime", those before as UTCTime.
fn validity_encoding(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    [view.not_before, view.not_after].into_iter().find_map(|moment| {
        let expected = if moment.seconds < YEAR_2050 { Tag::UtcTime } else { Tag::GeneralizedTime };
        (moment.tag != expected).then(|| format!("a time is a {}, not a {expected}", moment.tag))
    })
}

/// 2050-01-01T00:00:00Z.
pub(super) const YEAR_2050: u64 = 2_524_608_000;

fn subject_of_ca_not_empty(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (view.is_ca() && view.has_empty_subject()).then(|| "the subject of a CA is empty".to_owned())
}

fn subject_public_key(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.key_family.is_none().then(|| {
        format!("key of algorithm {} is not encoded as its specification says", view.key.algorithm.oid)
    })
}

fn unique_ids(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    view.has_unique_ids.then(|| "there is an issuer or subject unique identifier".to_owned())
}

fn extensions_present(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    let field = view.extension(oid::ID_CE_AUTHORITY_KEY_IDENTIFIER).or(view.extensions.first());
    field.is_none().then(|| "there are no extensions".to_owned())
}
