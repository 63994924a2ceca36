//! What a set of CAA records says: pure rules over bytes.

use acme::AccountUrl;
use acme::challenge::Method;
use pki::DnsName;

use crate::failure::excerpt;
use crate::issue_value::{IssueValue, TWICE};

/// One CAA record (RFC 8659 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaRecord {
    /// The issuer critical flag.
    pub critical: bool,
    /// The property tag, in any case.
    pub tag: String,
    /// The property value.
    pub value: Vec<u8>,
}

/// Who wants to issue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applicant<'a> {
    pub(super) identities: &'a [DnsName],
    pub(super) account_url: &'a AccountUrl,
    pub(super) method: Method,
    pub(super) wildcard: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Permitted,
    /// Why not, in words for the client's operator.
    Forbidden(String),
}

/// RFC 8659 §4: no record of the kind that restricts is permission; one that fits is as well.
pub(super) fn judge(records: &[CaaRecord], applicant: &Applicant<'_>) -> Verdict {
    let is = |record: &CaaRecord, tag: &str| record.tag.eq_ignore_ascii_case(tag);
    let unknown = |record: &&CaaRecord| record.critical && !KNOWN_TAGS.iter().any(|tag| is(record, tag));
    if let Some(record) = records.iter().find(unknown) {
        let tag = excerpt(record.tag.as_bytes());
        return Verdict::Forbidden(format!("the property {tag} is critical and not understood"));
    }
    let of = |tag| records.iter().filter(|record| is(record, tag)).collect::<Vec<_>>();
    let wild = if applicant.wildcard { of("issuewild") } else { Vec::new() };
    let (tag, restricting) = if wild.is_empty() { ("issue", of("issue")) } else { ("issuewild", wild) };
    let mut first = None;
    for record in &restricting {
        match fits(&record.value, applicant) {
            Ok(()) => return Verdict::Permitted,
            Err(why) => first = first.or(Some((record, why))),
        }
    }
    match first {
        None => Verdict::Permitted,
        Some((record, why)) => Verdict::Forbidden(format!("{tag} {}: {why}", excerpt(&record.value))),
    }
}

/// Those that are understood, a report's address (`iodef`) by not being used.
const KNOWN_TAGS: [&str; 3] = ["issue", "issuewild", "iodef"];

/// Whether an issue value lets the applicant issue.
fn fits(value: &[u8], applicant: &Applicant<'_>) -> Result<(), &'static str> {
    let value = IssueValue::parse(value).ok_or("it is malformed, and permits nobody")?;
    if value.issuer.is_none() {
        return Err("it permits nobody");
    }
    if !value.names(applicant.identities) {
        return Err("another CA is named");
    }
    if value.has_duplicates() {
        return Err(TWICE);
    }
    // RFC 8657 §3: octet by octet.
    if value.parameter("accounturi").is_some_and(|uri| uri != applicant.account_url.as_str()) {
        return Err("accounturi is another account");
    }
    // RFC 8657 §4.
    if let Some(methods) = value.parameter("validationmethods") {
        let label = |text: &str| {
            !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        };
        if !methods.split(',').all(label) {
            return Err("validationmethods is malformed, and cannot be satisfied");
        }
        if !methods.split(',').any(|method| method == applicant.method.name()) {
            return Err("validationmethods does not have the method");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "https://ca.example/acme/open/account/1";

    fn record(tag: &str, value: &str) -> CaaRecord {
        CaaRecord { critical: false, tag: tag.to_owned(), value: value.as_bytes().to_vec() }
    }

    fn asked(records: &[CaaRecord], wildcard: bool) -> bool {
        let identities = ["ca.example", "pki.example"].map(|name| DnsName::parse(name).unwrap());
        let account_url = ACCOUNT.parse().unwrap();
        let applicant =
            Applicant { identities: &identities, account_url: &account_url, method: Method::Dns01, wildcard };
        judge(records, &applicant) == Verdict::Permitted
    }

    fn issue(value: &str) -> bool {
        asked(&[record("issue", value)], false)
    }

    #[test]
    fn h2_issue_names_who_may() {
        for good in [
            "ca.example",
            " CA.Example\t",
            "pki.example",
            "ca.example;",
            "ca.example; ",
            "ca.example; x=y; z=",
        ] {
            assert!(issue(good), "{good:?}");
        }
        for bad in [
            "",
            ";",
            " ; ",
            "other.example",
            "xca.example",
            "ca.example.",
            "ca..example",
            "-ca.example",
            "ca.example-",
            "ca.example x=y",
            "ca.example; x",
            "ca.example; =y",
            "ca.example; x=y;",
            "ca.example; ;x=y",
            "ca.example; x=y z",
            "ca.example; -x=y",
            "%%%%%",
            "ca.example\n",
            "c\u{e4}.example",
            "ca.example; x=\u{7f}",
        ] {
            assert!(!issue(bad), "{bad:?}");
        }
        assert!(!asked(&[CaaRecord { value: b"ca.example; x=\xff".to_vec(), ..record("issue", "") }], false));
        // They add up.
        assert!(asked(&[record("issue", ";"), record("ISSUE", "ca.example")], false));
        assert!(!asked(&[record("issue", ";"), record("issue", "other.example")], false));
    }

    #[test]
    fn h2_issuewild_is_for_wildcards_and_comes_before_issue() {
        let (wild, plain) = (record("issuewild", "ca.example"), record("issue", "ca.example"));
        let (no_wild, no_plain) = (record("issuewild", ";"), record("issue", ";"));
        for (records, of_wildcard, of_name) in [
            (vec![wild.clone(), no_plain.clone()], true, false),
            (vec![no_wild.clone(), plain.clone()], false, true),
            (vec![no_wild.clone()], false, true),
            (vec![no_plain], false, false),
            (vec![plain], true, true),
            (vec![wild, no_wild], true, true),
        ] {
            assert_eq!(
                (asked(&records, true), asked(&records, false)),
                (of_wildcard, of_name),
                "{records:?}"
            );
        }
    }

    #[test]
    fn h3_a_critical_property_must_be_understood_and_iodef_restricts_nothing() {
        let critical = |tag: &str| CaaRecord { critical: true, ..record(tag, "ca.example") };
        assert!(!asked(&[record("issue", "ca.example"), critical("tbs")], false));
        assert!(asked(&[record("issue", "ca.example"), record("tbs", "Unknown")], false));
        assert!(asked(&[critical("issue"), critical("IODEF"), critical("issuewild")], true));
        assert!(asked(&[record("iodef", "mailto:a@example.org")], true));
        assert!(asked(&[], false));
    }

    #[test]
    fn h5_accounturi_is_one_exact_url() {
        assert!(issue(&format!("ca.example; accounturi={ACCOUNT}")));
        assert!(issue(&format!("ca.example ;\tAccountURI = {ACCOUNT} ; a=b")));
        for bad in [
            format!("accounturi={ACCOUNT}/"),
            format!("accounturi={}", ACCOUNT.to_ascii_uppercase()),
            "accounturi=".to_owned(),
            format!("accounturi={ACCOUNT}; accounturi={ACCOUNT}"),
            format!("accounturi={ACCOUNT}; accounturi=https://ca.example/2"),
            format!("accounturi={ACCOUNT}; x=1; X=2"),
        ] {
            assert!(!issue(&format!("ca.example; {bad}")), "{bad}");
        }
        // Another record may permit what this one does not.
        let other = record("issue", "ca.example; accounturi=https://ca.example/2");
        assert!(asked(&[other, record("issue", "ca.example")], false));
    }

    #[test]
    fn h5_validationmethods_is_a_list_of_labels() {
        for good in ["dns-01", "http-01,dns-01", "x,dns-01,ca-own-Method7"] {
            assert!(issue(&format!("ca.example; validationmethods={good}")), "{good}");
        }
        for bad in [
            "",
            "http-01",
            "DNS-01",
            "dns-01,",
            ",dns-01",
            "dns-01,,x",
            "dns_01,dns-01",
            "dns-01,x/y",
            "dns-01 http-01",
        ] {
            assert!(!issue(&format!("ca.example; validationmethods={bad}")), "{bad}");
        }
        assert!(!issue("ca.example; validationmethods=dns-01; validationmethods=dns-01"));
    }
}
