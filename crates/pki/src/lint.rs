//! Lints: an independent reading of the very octets that are about to be signed.
//!
//! Nothing of the encoder is used here, and nothing of our own reader: `x509-cert` decodes, and each
//! rule is a function in a table, named after its clause. An [`Severity::Error`] stops the signature.

mod cabf_br;
mod crl;
mod ocsp;
mod operator;
mod responder;
mod rfc5280;
mod view;

use serde::{Deserialize, Serialize};

use crate::{Certificate, DnsName, Issuer, NameSet, Period, PublicKey, Serial, Timestamp, Validity};

pub use crl::{CrlLintContext, check_crl};
pub use ocsp::{OcspLintContext, check_ocsp};
use view::View;

/// A set of lints that a profile switches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LintSet {
    /// The MUSTs of RFC 5280 and its updates.
    Rfc5280,
    /// The Baseline Requirements of the CA/Browser Forum.
    CabfBr,
    /// The operator's own limits, and that the certificate is the one that was asked for.
    Operator,
}

/// What kind of certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A subscriber's.
    Subscriber,
    /// A self-signed CA's.
    Root,
    /// A CA's below a root.
    Intermediate,
    /// A node's of this CA.
    Node,
    /// A delegated OCSP responder's.
    Responder,
}

/// Whether a finding stops the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Against a SHOULD: recorded.
    Warning,
    /// Against a MUST: nothing is signed.
    Error,
}

/// What a lint found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The lint's name, such as `rfc5280.serial_positive`.
    pub lint: &'static str,
    /// The clause that it holds to, such as `RFC 5280 §4.1.2.2`.
    pub clause: &'static str,
    /// Whether it stops the signature.
    pub severity: Severity,
    /// What was seen.
    pub detail: String,
}

/// What the lints know beside the octets.
#[derive(Clone, Copy, Debug)]
pub struct LintContext<'a> {
    /// What kind of certificate it is to be.
    pub subject: Subject,
    /// Which lints run.
    pub sets: &'a [LintSet],
    /// The issuer; `None` for a self-signed certificate.
    pub issuer: Option<&'a Issuer>,
    /// When it will be signed.
    pub signed_at: Timestamp,
    /// The longest validity that the operator allows.
    pub maximum_validity: Option<Period>,
    /// The domains that DNS names have to be in or below; empty means any.
    pub name_suffixes: &'a [DnsName],
    /// What was asked for.
    pub expected: Option<Expected<'a>>,
}

/// What the certificate has to contain, from the request itself.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The serial number that was drawn.
    pub serial: Serial,
    /// The names of the order.
    pub names: Option<&'a NameSet>,
    /// The key of the request.
    pub public_key: &'a PublicKey,
    /// The validity that was computed.
    pub validity: Validity,
    /// The shard of the CRL that a subscriber's certificate names.
    pub shard: Option<u32>,
}

impl<'a> LintContext<'a> {
    fn issuer_certificate(&self) -> Option<&'a Certificate> {
        self.issuer.map(Issuer::certificate)
    }

    /// For a certificate of the CA's own: root, intermediate, node or OCSP responder, by RFC 5280 alone.
    #[must_use]
    pub fn new(subject: Subject, issuer: Option<&'a Issuer>, signed_at: Timestamp) -> Self {
        Self {
            subject,
            sets: &[LintSet::Rfc5280, LintSet::Operator],
            issuer,
            signed_at,
            maximum_validity: None,
            name_suffixes: &[],
            expected: None,
        }
    }

    /// The same with the Baseline Requirements' lints, for a publicly trusted hierarchy.
    #[must_use]
    pub const fn publicly_trusted(mut self) -> Self {
        self.sets = &[LintSet::Rfc5280, LintSet::CabfBr, LintSet::Operator];
        self
    }

    /// The same with what the certificate has to contain.
    #[must_use]
    pub const fn expecting(mut self, expected: Expected<'a>) -> Self {
        self.expected = Some(expected);
        self
    }
}

/// One rule: its name, its clause, how bad a breach is, and the function that looks for it.
struct Rule {
    name: &'static str,
    clause: &'static str,
    severity: Severity,
    find: Find,
}

/// Looks for one fault, and says what it saw.
type Find = fn(&View<'_>, &LintContext<'_>) -> Option<String>;

const fn must(name: &'static str, clause: &'static str, find: Find) -> Rule {
    Rule { name, clause, severity: Severity::Error, find }
}

const fn should(name: &'static str, clause: &'static str, find: Find) -> Rule {
    Rule { name, clause, severity: Severity::Warning, find }
}

/// Runs the lints of the context's sets over a TBSCertificate. No error among the findings means
/// that it may be signed.
#[must_use]
pub fn check(tbs: &[u8], context: &LintContext<'_>) -> Vec<Finding> {
    let view = match View::read(tbs) {
        Ok(view) => view,
        Err(finding) => return vec![finding],
    };
    let mut findings = Vec::new();
    for set in context.sets {
        findings.extend(rules(*set).filter_map(|rule| {
            let detail = (rule.find)(&view, context)?;
            Some(Finding { lint: rule.name, clause: rule.clause, severity: rule.severity, detail })
        }));
    }
    findings
}

fn rules(set: LintSet) -> impl Iterator<Item = &'static Rule> {
    let tables = match set {
        LintSet::Rfc5280 => rfc5280::RULES,
        LintSet::CabfBr => cabf_br::RULES,
        LintSet::Operator => operator::RULES,
    };
    tables.iter().copied().flatten()
}

/// Whether one of the findings stops the signature.
#[must_use]
pub fn stops(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

#[cfg(test)]
mod tests;
