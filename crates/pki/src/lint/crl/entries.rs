//! Lints of the entries of a CRL: the first breach of each rule, with the index of its entry.

use const_oid::{ObjectIdentifier, db::rfc5280 as oid};
use der::{
    Decode, Reader, Sequence, SliceReader, Tag,
    asn1::{AnyRef, OctetStringRef},
};

use super::{CrlLintContext, CrlView, finding, time_fault};
use crate::lint::{Finding, view::Moment};

/// One entry of revokedCertificates.
struct EntryView<'a> {
    serial: &'a [u8],
    revoked_at: Moment,
    /// Octets of the content of crlEntryExtensions, if it is there.
    extensions_len: Option<usize>,
    /// The one extension; `None` if there is none, another one as well, or something else.
    extension: Option<ExtensionView<'a>>,
}

/// One extension, without the copies that `x509-cert`'s makes: there may be a million.
#[derive(Sequence)]
struct ExtensionView<'a> {
    id: ObjectIdentifier,
    #[asn1(default = "Default::default")]
    critical: bool,
    value: &'a OctetStringRef,
}

struct EntryRule {
    name: &'static str,
    clause: &'static str,
    public: bool,
    find: fn(&EntryView<'_>, &CrlView<'_>) -> Option<String>,
}

const RULES: &[EntryRule] = &[
    EntryRule {
        name: "rfc5280.crl_entry_serial",
        clause: "RFC 5280 §5.1.2.6, §4.1.2.2",
        public: false,
        find: serial,
    },
    EntryRule { name: "rfc5280.crl_entry_time", clause: "RFC 5280 §5.1.2.6", public: false, find: time },
    EntryRule {
        name: "rfc5280.crl_entry_extensions",
        clause: "RFC 5280 §5.3",
        public: false,
        find: extensions,
    },
    EntryRule { name: "rfc5280.crl_entry_reason", clause: "RFC 5280 §5.3.1", public: false, find: reason },
    EntryRule { name: "cabf_br.crl_entry_reason", clause: "BR §7.2.2", public: true, find: public_reason },
];

#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.name)
}

pub(super) fn check(view: &CrlView<'_>, context: &CrlLintContext<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Ok(mut reader) = SliceReader::new(view.entries.unwrap_or_default()) else {
        return findings;
    };
    let mut found = [false; RULES.len()];
    let mut index = 0_u64;
    while !reader.is_finished() {
        let entry = match reader.sequence(EntryView::read) {
            Ok(entry) => entry,
            Err(error) => {
                let detail = format!("entry {index} is not one in DER: {error}");
                findings.push(finding("rfc5280.crl_entry_decodes", "RFC 5280 §5.1.2.6", detail));
                return findings;
            }
        };
        for (rule, found) in RULES.iter().zip(&mut found) {
            if *found || (rule.public && !context.publicly_trusted) {
                continue;
            }
            if let Some(detail) = (rule.find)(&entry, view) {
                *found = true;
                findings.push(finding(rule.name, rule.clause, format!("entry {index}: {detail}")));
            }
        }
        index += 1;
    }
    findings
}

impl<'a> EntryView<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        let serial = AnyRef::decode(reader)?;
        serial.header().tag().assert_eq(Tag::Integer)?;
        let revoked_at = Moment::read(reader)?;
        let mut entry = Self { serial: serial.value(), revoked_at, extensions_len: None, extension: None };
        if !reader.is_finished() {
            let octets = reader.sequence(|reader| reader.read_slice(reader.remaining_len()))?;
            entry.extensions_len = Some(octets.len());
            entry.extension = ExtensionView::from_der(octets).ok();
        }
        Ok(entry)
    }
}

fn serial(entry: &EntryView<'_>, _: &CrlView<'_>) -> Option<String> {
    let good = (1..=20).contains(&entry.serial.len())
        && entry.serial.first().is_some_and(|first| first & 0x80 == 0)
        && entry.serial.iter().any(|octet| *octet != 0);
    (!good).then(|| format!("serial number {} is not positive, or too long", hex::encode(entry.serial)))
}

fn time(entry: &EntryView<'_>, view: &CrlView<'_>) -> Option<String> {
    if entry.revoked_at.seconds > view.this_update.seconds {
        return Some("it is revoked after thisUpdate".to_owned());
    }
    time_fault(entry.revoked_at)
}

/// The reason is the only extension that this CA gives entries; RFC 5280 §5.3.1: not critical.
fn extensions(entry: &EntryView<'_>, _: &CrlView<'_>) -> Option<String> {
    let octets = entry.extensions_len?;
    let is_reason =
        |extension: &ExtensionView<'_>| extension.id == oid::ID_CE_CRL_REASONS && !extension.critical;
    // `critical FALSE` written out would make it longer.
    let good = octets == REASON_LEN && entry.extension.as_ref().is_some_and(is_reason);
    (!good).then(|| {
        "it has an empty list of extensions, another extension than a reason, or a critical one".to_owned()
    })
}

/// Octets of an extension with identifier and reason, without anything that could be left out.
const REASON_LEN: usize = 12;

fn code<'e>(entry: &EntryView<'e>) -> Option<&'e [u8]> {
    let extension = entry.extension.as_ref().filter(|extension| extension.id == oid::ID_CE_CRL_REASONS);
    extension.map(|extension| extension.value.as_bytes())
}

/// "the reason code CRL entry extension SHOULD be absent instead of using the unspecified (0)
/// reasonCode value"; 7 does not exist, and 6 and 8, certificateHold and removeFromCRL, would undo a
/// revocation, which this CA never does: §5.2.4 wants 8 in a delta CRL only for what was on hold.
fn reason(entry: &EntryView<'_>, _: &CrlView<'_>) -> Option<String> {
    let good = matches!(code(entry)?, [0x0a, 1, 1..=5 | 9 | 10]);
    (!good).then(|| "the reason is unspecified, unknown, or would undo a revocation".to_owned())
}

/// Only keyCompromise, affiliationChanged, superseded, cessationOfOperation and privilegeWithdrawn
/// are left for subscribers' certificates, cACompromise for CAs'; never certificateHold.
fn public_reason(entry: &EntryView<'_>, view: &CrlView<'_>) -> Option<String> {
    let of_subscribers = view.scope.as_ref().is_some_and(|scope| scope.only_contains_user_certs);
    let good = match code(entry)? {
        [0x0a, 1, 1 | 3 | 4 | 5 | 9] => true,
        [0x0a, 1, 2] => !of_subscribers,
        _ => false,
    };
    (!good).then(|| "the reason is not one that the Baseline Requirements leave".to_owned())
}
