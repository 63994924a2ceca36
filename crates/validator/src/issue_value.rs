//! `issue-value` of RFC 8659 §4.2: what CAA records and persistent validation records hold.

use pki::DnsName;

/// An issuer's name, if there is one, and parameters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IssueValue<'a> {
    pub(crate) issuer: Option<&'a str>,
    parameters: Vec<(&'a str, &'a str)>,
}

/// Why a value is not for this CA.
pub(crate) const TWICE: &str = "a parameter is there twice, and cannot be satisfied";

impl<'a> IssueValue<'a> {
    /// Nothing for what does not follow the grammar.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii())?;
        let (issuer, rest) = match text.split_once(';') {
            Some((issuer, rest)) => (issuer, Some(rest)),
            None => (text, None),
        };
        let issuer = trim(issuer);
        if !issuer.is_empty() && !issuer.split('.').all(is_label) {
            return None;
        }
        let mut parameters = Vec::new();
        let rest = trim(rest.unwrap_or_default());
        if !rest.is_empty() {
            for parameter in rest.split(';') {
                let (tag, value) = trim(parameter).split_once('=')?;
                let (tag, value) = (trim(tag), trim(value));
                // *(%x21-3A / %x3C-7E)
                if !is_label(tag) || !value.bytes().all(|octet| octet.is_ascii_graphic()) {
                    return None;
                }
                parameters.push((tag, value));
            }
        }
        Some(Self { issuer: Some(issuer).filter(|issuer| !issuer.is_empty()), parameters })
    }

    /// Whether one of these is the issuer.
    pub(crate) fn names(&self, identities: &[DnsName]) -> bool {
        let issuer = self.issuer.unwrap_or_default();
        identities.iter().any(|identity| identity.as_str().eq_ignore_ascii_case(issuer))
    }

    /// The value of a parameter, which is there once.
    pub(crate) fn parameter(&self, tag: &str) -> Option<&'a str> {
        self.all(tag).next()
    }

    /// Whether a parameter is there more than once, whichever.
    pub(crate) fn has_duplicates(&self) -> bool {
        self.parameters.iter().any(|(tag, _)| self.all(tag).count() > 1)
    }

    fn all(&self, tag: &str) -> impl Iterator<Item = &'a str> {
        self.parameters
            .iter()
            .filter(move |(name, _)| name.eq_ignore_ascii_case(tag))
            .map(|(_, value)| *value)
    }
}

/// `label` and `parameter-tag`: letters and digits, hyphens between them.
fn is_label(text: &str) -> bool {
    let inner = text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    inner && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
