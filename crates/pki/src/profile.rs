//! Certificate profiles: everything about a certificate that is not the request's.

mod settings;

use std::{fmt, str::FromStr};

use const_oid::ObjectIdentifier;
use serde::{Deserialize, Serialize};

use crate::{
    Csr, DnsName, ErrorClass, Issuer, KeyAlgorithm, Name, Period, PublicKey, Timestamp,
    lint::{LintContext, LintSet, Subject},
};

pub use settings::ProfileSettings;

/// A checked certificate profile. In TOML it is a [`ProfileSettings`], where every field but the
/// name has a default; here every question has its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ProfileSettings", into = "ProfileSettings")]
pub struct Profile {
    pub(crate) name: String,
    pub(crate) kind: ProfileKind,
    pub(crate) validity: Period,
    pub(crate) backdate: Period,
    pub(crate) key_algorithms: Vec<KeyAlgorithm>,
    pub(crate) extended_key_usages: Vec<ExtendedKeyUsage>,
    pub(crate) rsa_key_encipherment: bool,
    pub(crate) policies: Vec<PolicyOid>,
    pub(crate) common_name: CommonName,
    pub(crate) basic_constraints: bool,
    pub(crate) subject_key_identifier: bool,
    pub(crate) ca_issuers: bool,
    pub(crate) ocsp: bool,
    pub(crate) crl: bool,
    pub(crate) must_staple: MustStaple,
    pub(crate) max_names: usize,
    pub(crate) wildcards: bool,
    pub(crate) addresses: bool,
    pub(crate) name_suffixes: Vec<DnsName>,
    pub(crate) maximum_validity: Period,
    pub(crate) lints: Vec<LintSet>,
}

/// What a profile is for; it decides the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileKind {
    /// TLS inside an organisation: internal names and addresses, long keys of all kinds.
    #[default]
    Private,
    /// Publicly trusted, domain validated TLS (BR §7.1.2.7.2), with the Baseline Requirements' lints.
    PublicDv,
    /// The fronts' own HTTPS certificate: short-lived, renewed by themselves, no CRL or OCSP.
    Internal,
}

/// Purposes of a certificate (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtendedKeyUsage {
    /// id-kp-serverAuth.
    ServerAuth,
    /// id-kp-clientAuth.
    ClientAuth,
}

/// What stands in the subject's common name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommonName {
    /// Nothing; the subject is empty (RFC 9525, BR §7.1.2.7.2).
    #[default]
    Omitted,
    /// The first DNS name that is no wildcard and fits into 64 octets; empty if there is none.
    FirstDnsName,
}

/// What happens when a request asks for the TLS feature `status_request`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MustStaple {
    /// The request is refused: a certificate without what was asked for would be a surprise.
    #[default]
    Refuse,
    /// The certificate is issued without it.
    Ignore,
    /// The certificate has it.
    Honour,
}

/// The identifier of a certificate policy, in text with dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyOid(ObjectIdentifier);

/// First and last second of a certificate's validity (both inclusive, RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Validity {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

/// Why settings are not a profile. Always the operator's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not a name that ACME can carry in `meta.profiles` and people in a shell.
    #[error("a profile's name has 1 to 63 lower-case letters, digits, dots, hyphens and underscores")]
    Name,
    /// An empty list that has to have members, or one with duplicates.
    #[error("{0} must have at least one member, none of them twice")]
    List(&'static str),
    /// A validity of nothing, or of more than the maximum.
    #[error("validity must be longer than backdate, and at most maximum_validity")]
    Validity,
    /// Backdating by more than the 48 hours of BR §7.1.2.7.
    #[error("backdate must be at most 48h")]
    Backdate,
    /// No name at all, or more than a CRL distribution point and a browser bear.
    #[error("max_names must be 1 to 1000")]
    MaxNames,
    /// The lints of RFC 5280 cannot be switched off.
    #[error("lints must contain \"rfc5280\"")]
    Lints,
    /// A setting that the Baseline Requirements rule out.
    #[error("a public-dv profile cannot have {0}")]
    Public(&'static str),
}

/// Why a profile does not issue for a name (`rejectedIdentifier`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NameRefusal {
    /// The profile has no wildcards.
    #[error("this profile does not issue for wildcards")]
    Wildcard,
    /// The profile has no addresses.
    #[error("this profile does not issue for IP addresses")]
    Address,
    /// Not below one of the profile's suffixes.
    #[error("the name is outside of what this profile issues for")]
    Suffix,
    /// A wildcard directly below a public suffix, or the suffix itself: many owners.
    #[error("the name is a public suffix, or a wildcard over one")]
    PublicSuffix,
    /// Not below a suffix that the public suffix list knows.
    #[error("the name does not end in a public suffix")]
    NotPublic,
    /// A reserved address, or a name that stands for an address.
    #[error("the address, or the zone of the name, is reserved")]
    Reserved,
    /// Outside of the name constraints of the issuer (RFC 5280 §4.2.1.10).
    #[error("the issuer may not issue for the name")]
    Issuer,
}

/// Why there is no validity for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// The issuer's own certificate ends sooner, or has not begun.
    #[error("the issuer's certificate does not cover the validity")]
    Issuer,
    /// The times that the client asked for are not what the profile gives (RFC 8555 §7.4: honoured
    /// or refused, never changed).
    #[error("the profile does not give the requested notBefore or notAfter")]
    Requested,
}

impl Validity {
    /// How long it is; both seconds count (BR §6.3.2).
    #[must_use]
    pub fn period(&self) -> Period {
        Period::from_seconds(self.not_after.since(self.not_before).seconds().saturating_add(1))
    }
}

impl Profile {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> ProfileKind {
        self.kind
    }

    /// How long its certificates are valid.
    #[must_use]
    pub const fn validity(&self) -> Period {
        self.validity
    }

    /// How many names a certificate may have.
    #[must_use]
    pub const fn max_names(&self) -> usize {
        self.max_names
    }

    /// The kinds of keys that it issues for.
    #[must_use]
    pub fn key_algorithms(&self) -> &[KeyAlgorithm] {
        &self.key_algorithms
    }

    /// Whether it issues for this kind of key.
    #[must_use]
    pub fn allows_key(&self, key: &PublicKey) -> bool {
        self.key_algorithms.contains(&key.algorithm())
    }

    /// Whether a certificate for `csr` has the TLS feature `status_request`; `None` if the request
    /// has to be refused because it asks for it.
    #[must_use]
    pub const fn staples(&self, csr: &Csr) -> Option<bool> {
        match (csr.must_staple(), self.must_staple) {
            (false, _) | (true, MustStaple::Ignore) => Some(false),
            (true, MustStaple::Honour) => Some(true),
            (true, MustStaple::Refuse) => None,
        }
    }

    /// Whether the profile issues for `name` at all: at newOrder already, and again at issuance.
    ///
    /// # Errors
    /// Says why not.
    pub fn check_name(&self, name: &Name) -> Result<(), NameRefusal> {
        let Some(base) = name.base() else {
            return self.check_address(name);
        };
        if name.is_wildcard() && !self.wildcards {
            return Err(NameRefusal::Wildcard);
        }
        if !self.name_suffixes.is_empty() && !self.name_suffixes.iter().any(|suffix| base.is_within(suffix)) {
            return Err(NameRefusal::Suffix);
        }
        // Also for private profiles: `*.co.uk` and `*.github.io` have many owners everywhere.
        if name.is_wildcard() && (base.is_public_suffix() || base.is_above_public_suffixes()) {
            return Err(NameRefusal::PublicSuffix);
        }
        if self.kind == ProfileKind::PublicDv {
            if name.is_reserved() {
                return Err(NameRefusal::Reserved);
            }
            if base.is_public_suffix() {
                return Err(NameRefusal::PublicSuffix);
            }
            if base.registered_domain().is_none() {
                return Err(NameRefusal::NotPublic);
            }
        }
        Ok(())
    }

    fn check_address(&self, name: &Name) -> Result<(), NameRefusal> {
        if !self.addresses {
            return Err(NameRefusal::Address);
        }
        if self.kind == ProfileKind::PublicDv && name.is_reserved() {
            return Err(NameRefusal::Reserved);
        }
        Ok(())
    }

    /// The validity of a certificate issued at `now`, or the one that the client asked for in
    /// newOrder, if the profile gives it.
    ///
    /// # Errors
    /// When the issuer ends sooner, or the client asked for something else.
    pub fn validity_at(
        &self,
        now: Timestamp,
        issuer: &Issuer,
        requested_not_before: Option<Timestamp>,
        requested_not_after: Option<Timestamp>,
    ) -> Result<Validity, ValidityError> {
        let certificate = issuer.certificate();
        // A certificate does not begin before its issuer: a fresh CA issues at once, backdated less.
        let not_before =
            requested_not_before.unwrap_or_else(|| now.minus(self.backdate).max(certificate.not_before()));
        let longest = not_before.plus(self.validity).minus(Period::from_seconds(1));
        let not_after = requested_not_after.unwrap_or(longest);
        let validity = Validity { not_before, not_after };
        if requested_not_before
            .is_some_and(|at| !(now.minus(self.backdate)..=now.plus(MAX_BACKDATE)).contains(&at))
            || not_after > longest
            || not_after < not_before
            || not_after < now
        {
            return Err(ValidityError::Requested);
        }
        if now < certificate.not_before()
            || not_before < certificate.not_before()
            || not_after > certificate.not_after()
        {
            return Err(ValidityError::Issuer);
        }
        Ok(validity)
    }

    /// What the lints need to know about a certificate of this profile.
    #[must_use]
    pub fn lint_context<'a>(&'a self, issuer: &'a Issuer, signed_at: Timestamp) -> LintContext<'a> {
        LintContext {
            subject: Subject::Subscriber,
            sets: &self.lints,
            issuer: Some(issuer),
            signed_at,
            maximum_validity: Some(self.maximum_validity),
            name_suffixes: &self.name_suffixes,
            expected: None,
        }
    }
}

/// BR §7.1.2.7: notBefore within 48 hours of signing.
const MAX_BACKDATE: Period = Period::from_hours(48);

impl ExtendedKeyUsage {
    pub(crate) const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::ServerAuth => const_oid::db::rfc5280::ID_KP_SERVER_AUTH,
            Self::ClientAuth => const_oid::db::rfc5280::ID_KP_CLIENT_AUTH,
        }
    }
}

impl PolicyOid {
    /// domain-validated, BR §7.1.6.1.
    pub const DOMAIN_VALIDATED: Self = Self(ObjectIdentifier::new_unwrap("2.23.140.1.2.1"));

    /// The identifier.
    #[must_use]
    pub const fn oid(&self) -> ObjectIdentifier {
        self.0
    }
}

/// Text that is not an object identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy is an object identifier with dots, such as 2.23.140.1.2.1")]
pub struct PolicyOidError;

impl FromStr for PolicyOid {
    type Err = PolicyOidError;

    fn from_str(text: &str) -> Result<Self, PolicyOidError> {
        ObjectIdentifier::new(text).map(Self).map_err(|_| PolicyOidError)
    }
}

impl fmt::Display for PolicyOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<String> for PolicyOid {
    type Error = PolicyOidError;

    fn try_from(text: String) -> Result<Self, PolicyOidError> {
        text.parse()
    }
}

impl From<PolicyOid> for String {
    fn from(policy: PolicyOid) -> Self {
        policy.to_string()
    }
}

impl ProfileError {
    /// Always the operator's configuration.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Fatal
    }
}

#[cfg(test)]
mod tests;
