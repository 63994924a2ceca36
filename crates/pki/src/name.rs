//! Identifiers that a certificate can be for: DNS names, wildcards and IP addresses
//! (RFC 8555 §7.1.4, RFC 8738 §3, RFC 5280 §4.2.1.6, BR §7.1.2.7.12).

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::reserved;

/// A DNS name: A-labels or LDH labels in lower case, each at most 63 octets, together at most 253,
/// no trailing dot, and not something that a resolver could take for an IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsName(Arc<str>);

/// One identifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Name {
    /// A fully qualified DNS name.
    Dns(DnsName),
    /// `*.` and this name.
    Wildcard(DnsName),
    /// An address, in text as in RFC 5952.
    Ip(IpAddr),
}

/// One or more names, sorted, without duplicates. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<Name>", into = "Vec<Name>")]
pub struct NameSet(Arc<[Name]>);

/// Why text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("the name is empty")]
    Empty,
    /// A set without a member.
    #[error("there is no name")]
    NoNames,
    /// More than 253 octets.
    #[error("the name is longer than 253 octets")]
    TooLong,
    /// Two dots in a row, or one at either end.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// A label of more than 63 octets.
    #[error("a label of the name is longer than 63 octets")]
    LabelTooLong,
    /// Something else than letters, digits, hyphens and dots.
    #[error("the name has a character that is not a letter, a digit or a hyphen")]
    Character,
    /// A label that begins or ends with a hyphen.
    #[error("a label of the name begins or ends with a hyphen")]
    Hyphen,
    /// `ab--`: reserved by RFC 5890 §2.3.1 for encodings other than `xn--`.
    #[error("a label of the name has hyphens in its third and fourth place, but is not an A-label")]
    ReservedLabel,
    /// `xn--` and something that IDNA does not decode to a label that encodes to the same.
    #[error("a label of the name is not a valid A-label")]
    ALabel,
    /// The last label is a number.
    #[error("the name could be taken for an IP address")]
    LooksLikeAddress,
    /// An asterisk elsewhere than as the whole leftmost label.
    #[error("a wildcard is only possible as the whole leftmost label")]
    Wildcard,
    /// An address that is not in its canonical text form.
    #[error("the IP address is not in its canonical form (RFC 5952)")]
    Address,
}

impl DnsName {
    /// Reads a name; ASCII upper case becomes lower case, everything else has to be right already.
    ///
    /// # Errors
    /// Says the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > 253 {
            return Err(NameError::TooLong);
        }
        let mut idna = false;
        for label in text.split('.') {
            idna |= check_label(label)?;
        }
        if text.rsplit('.').next().is_some_and(is_number) {
            return Err(NameError::LooksLikeAddress);
        }
        let name: Arc<str> = if text.bytes().any(|octet| octet.is_ascii_uppercase()) {
            text.to_ascii_lowercase().into()
        } else {
            text.into()
        };
        if idna && !idna::domain_to_ascii_strict(&name).is_ok_and(|ascii| ascii == *name) {
            return Err(NameError::ALabel);
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels from left to right.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// The name without its leftmost label, if something is left.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, parent)| Self(parent.into()))
    }

    /// Whether this is `ancestor` or a name below it.
    #[must_use]
    pub fn is_within(&self, ancestor: &Self) -> bool {
        self.0.strip_suffix(&*ancestor.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Whether the public suffix list names this very name: nobody in particular owns it.
    #[must_use]
    pub fn is_public_suffix(&self) -> bool {
        psl::suffix(self.0.as_bytes())
            .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == self.0.as_bytes())
    }

    /// Whether every name directly below is a public suffix, as by the rule `*.kawasaki.jp`: a
    /// wildcard here would have as many owners as one over the suffix itself.
    #[must_use]
    pub fn is_above_public_suffixes(&self) -> bool {
        let below = format!("any-label.{}", self.0);
        psl::suffix(below.as_bytes())
            .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == below.as_bytes())
    }

    /// The registered domain, one label below a suffix that the public suffix list knows. `None`
    /// for suffixes themselves and for names of private networks.
    #[must_use]
    pub fn registered_domain(&self) -> Option<Self> {
        let domain = psl::domain(self.0.as_bytes())?;
        if !domain.suffix().is_known() {
            return None;
        }
        std::str::from_utf8(domain.as_bytes()).ok().map(|text| Self(text.into()))
    }
}

/// Whether the label needs IDNA to look at it.
fn check_label(label: &str) -> Result<bool, NameError> {
    let octets = label.as_bytes();
    let (Some(first), Some(last)) = (octets.first(), octets.last()) else {
        return Err(NameError::EmptyLabel);
    };
    if octets.iter().any(|octet| !octet.is_ascii_alphanumeric() && *octet != b'-') {
        return Err(if octets.contains(&b'*') { NameError::Wildcard } else { NameError::Character });
    }
    if octets.len() > 63 {
        return Err(NameError::LabelTooLong);
    }
    if *first == b'-' || *last == b'-' {
        return Err(NameError::Hyphen);
    }
    if octets.get(2..4) != Some(b"--") {
        return Ok(false);
    }
    let a_label = octets.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"xn"));
    if a_label { Ok(true) } else { Err(NameError::ReservedLabel) }
}

/// A last label of digits, or `0x` and hexadecimal, makes URL parsers and `inet_aton` read an IPv4
/// address (WHATWG URL, "ends in a number").
fn is_number(label: &str) -> bool {
    let octets = label.as_bytes();
    match octets {
        [b'0', b'x' | b'X', rest @ ..] => rest.iter().all(u8::is_ascii_hexdigit),
        _ => octets.iter().all(u8::is_ascii_digit),
    }
}

impl Name {
    /// Reads an ACME identifier of type `dns`, wildcard included; never an address.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse_dns(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            Some(base) => DnsName::parse(base).map(Self::Wildcard),
            None => DnsName::parse(text).map(Self::Dns),
        }
    }

    /// Reads an ACME identifier of type `ip`: RFC 8738 §3, the textual form of RFC 5952 only, so
    /// that one address has one spelling.
    ///
    /// # Errors
    /// When the text is not that.
    pub fn parse_ip(text: &str) -> Result<Self, NameError> {
        let address: IpAddr = text.parse().map_err(|_| NameError::Address)?;
        if address.to_string() == text { Ok(Self::Ip(address)) } else { Err(NameError::Address) }
    }

    /// The DNS name that authority over this name is looked for at: of a wildcard, its base.
    #[must_use]
    pub const fn base(&self) -> Option<&DnsName> {
        match self {
            Self::Dns(name) | Self::Wildcard(name) => Some(name),
            Self::Ip(_) => None,
        }
    }

    /// Whether this is a wildcard.
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        matches!(self, Self::Wildcard(_))
    }

    /// Whether the address is one that the Internet does not route to a single owner, or the name in
    /// a zone where nobody can own one (BR §4.2.2, §7.1.2.7.12).
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        match self {
            Self::Ip(address) => reserved::is_reserved(*address),
            Self::Dns(name) | Self::Wildcard(name) => reserved::is_reserved_zone(name),
        }
    }
}

impl NameSet {
    /// Sorts and merges. Also through [`TryFrom`] and, for one name, [`From`].
    ///
    /// # Errors
    /// When there is no name.
    pub fn new(names: impl IntoIterator<Item = Name>) -> Result<Self, NameError> {
        let mut names: Vec<Name> = names.into_iter().collect();
        if names.is_empty() {
            return Err(NameError::NoNames);
        }
        names.sort_unstable();
        names.dedup();
        Ok(Self(names.into()))
    }

    /// The names in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Name> {
        self.0.iter()
    }

    /// The names in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[Name] {
        &self.0
    }

    /// How many there are; never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a name set is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `name` itself is one of them; a wildcard does not contain what it matches.
    #[must_use]
    pub fn contains(&self, name: &Name) -> bool {
        self.0.binary_search(name).is_ok()
    }

    /// The first name, in their order, that is neither wildcard nor address.
    #[must_use]
    pub fn first_dns_name(&self) -> Option<&DnsName> {
        self.0.iter().find_map(|name| match name {
            Name::Dns(name) => Some(name),
            Name::Wildcard(_) | Name::Ip(_) => None,
        })
    }

    /// SHA-256 over the names as text, in their order, each ended by a zero octet, which no name
    /// contains. Equal sets, and only they, have equal digests.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for name in self.iter() {
            context.update(name.to_string().as_bytes());
            context.update(&[0]);
        }
        crate::key::octets32(context.finish().as_ref())
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for DnsName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for DnsName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<DnsName> for String {
    fn from(name: DnsName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(&name.0),
            Self::Wildcard(base) => write!(f, "*.{base}"),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// What [`Display`](fmt::Display) writes. Where the type of an identifier is known, use
    /// [`Name::parse_dns`] or [`Name::parse_ip`].
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.parse::<IpAddr>().is_ok() { Self::parse_ip(text) } else { Self::parse_dns(text) }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

impl From<Name> for NameSet {
    fn from(name: Name) -> Self {
        Self(Arc::new([name]))
    }
}

impl TryFrom<Vec<Name>> for NameSet {
    type Error = NameError;

    fn try_from(names: Vec<Name>) -> Result<Self, NameError> {
        Self::new(names)
    }
}

impl From<NameSet> for Vec<Name> {
    fn from(names: NameSet) -> Self {
        names.0.to_vec()
    }
}

impl<'a> IntoIterator for &'a NameSet {
    type Item = &'a Name;
    type IntoIter = std::slice::Iter<'a, Name>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
