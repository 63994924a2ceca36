//! A profile as an operator writes it.

use serde::{Deserialize, Serialize};

use super::{
    CommonName, ExtendedKeyUsage, MAX_BACKDATE, MustStaple, PolicyOid, Profile, ProfileError, ProfileKind,
};
use crate::{DnsName, KeyAlgorithm, Period, lint::LintSet};

/// A certificate profile as it stands in the policy file. Only `name` is required; the defaults of
/// the rest follow from `kind`. Unknown keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileSettings {
    /// The profile's name, as in `meta.profiles` of the ACME directory: 1 to 63 lower-case letters,
    /// digits, dots, hyphens and underscores. Required.
    pub name: String,
    /// What it is for: `private`, `public-dv` or `internal`. Default `private`.
    pub kind: ProfileKind,
    /// How long certificates are valid: seconds, or text such as `"90d"`; notAfter is the last second
    /// of it. Default 90 days; `internal` 7 days.
    pub validity: Option<Period>,
    /// How long before now notBefore lies, for relying parties with slow clocks: seconds, or text
    /// such as `"1h"`, at most 48 hours. Part of `validity`. Default 1 hour.
    pub backdate: Option<Period>,
    /// The kinds of subscriber keys that are accepted, of `ecdsa-p256`, `ecdsa-p384`, `ecdsa-p521`,
    /// `rsa-2048` to `rsa-8192` and `ed25519`. Default P-256, P-384, RSA-2048, -3072 and -4096, and
    /// Ed25519; `public-dv` without Ed25519 (BR §6.1.5).
    pub key_algorithms: Option<Vec<KeyAlgorithm>>,
    /// Purposes: `server-auth`, `client-auth`. Default `server-auth` alone, which is all that a
    /// `public-dv` profile can have (BR §7.1.2.7.10 and the root programs).
    pub extended_key_usages: Option<Vec<ExtendedKeyUsage>>,
    /// Whether RSA keys also get keyEncipherment, which only TLS 1.2 without forward secrecy needs.
    /// Default false.
    pub rsa_key_encipherment: Option<bool>,
    /// Certificate policies, as object identifiers with dots. Default none; `public-dv` has exactly
    /// `2.23.140.1.2.1`, domain validated, unless others follow it.
    pub policies: Option<Vec<PolicyOid>>,
    /// The subject's common name: `omitted`, `first-dns-name`. Default `omitted`.
    pub common_name: Option<CommonName>,
    /// Whether a critical basicConstraints says that the subject is no CA. Default true.
    pub basic_constraints: Option<bool>,
    /// Whether there is a subjectKeyIdentifier. Default true, as RFC 5280 §4.2.1.2 would have it;
    /// `public-dv` false, as BR §7.1.2.7.6 would.
    pub subject_key_identifier: Option<bool>,
    /// Whether the issuer's certificate URL is given, if the issuer has one. Default true;
    /// `internal` false.
    pub ca_issuers: Option<bool>,
    /// Whether the issuer's OCSP responder is given, if it has one. Default true; `internal` false.
    pub ocsp: Option<bool>,
    /// Whether the CRL of the certificate's shard is given, if the issuer publishes CRLs. Default
    /// true; `internal` false.
    pub crl: Option<bool>,
    /// What happens when a request asks for OCSP stapling (RFC 7633): `refuse`, `ignore`, `honour`.
    /// Default `refuse`.
    pub must_staple: Option<MustStaple>,
    /// How many names a certificate may have, 1 to 1000. Default 100.
    pub max_names: Option<usize>,
    /// Whether wildcards are issued. Default true; `internal` false.
    pub wildcards: Option<bool>,
    /// Whether IP addresses are issued. Default true; `public-dv` false.
    pub addresses: Option<bool>,
    /// The domains that DNS names have to be in or below; empty means any. Default empty.
    pub name_suffixes: Option<Vec<DnsName>>,
    /// The operator's own limit on the validity of what is signed, checked by the lints whatever
    /// `validity` says: seconds, or text. Default the same as `validity`.
    pub maximum_validity: Option<Period>,
    /// The lints that stop a signature: `rfc5280` (always there), `cabf-br`, `operator`. Default
    /// `rfc5280` and `operator`; `public-dv` all three.
    pub lints: Option<Vec<LintSet>>,
}

impl ProfileSettings {
    /// A profile of this name and kind with every default.
    #[must_use]
    pub fn new(name: &str, kind: ProfileKind) -> Self {
        Self { name: name.to_owned(), kind, ..Self::default() }
    }

    fn default_keys(kind: ProfileKind) -> Vec<KeyAlgorithm> {
        let mut keys = vec![
            KeyAlgorithm::EcdsaP256,
            KeyAlgorithm::EcdsaP384,
            KeyAlgorithm::Rsa { bits: 2048 },
            KeyAlgorithm::Rsa { bits: 3072 },
            KeyAlgorithm::Rsa { bits: 4096 },
        ];
        if kind != ProfileKind::PublicDv {
            keys.push(KeyAlgorithm::Ed25519);
        }
        keys
    }

    fn default_lints(kind: ProfileKind) -> Vec<LintSet> {
        match kind {
            ProfileKind::PublicDv => vec![LintSet::Rfc5280, LintSet::CabfBr, LintSet::Operator],
            ProfileKind::Private | ProfileKind::Internal => vec![LintSet::Rfc5280, LintSet::Operator],
        }
    }
}

impl TryFrom<ProfileSettings> for Profile {
    type Error = ProfileError;

    fn try_from(settings: ProfileSettings) -> Result<Self, ProfileError> {
        let kind = settings.kind;
        let public = kind == ProfileKind::PublicDv;
        let published = kind != ProfileKind::Internal;
        let validity = settings.validity.unwrap_or_else(|| Period::from_days(if published { 90 } else { 7 }));
        let default_policies = if public { vec![PolicyOid::DOMAIN_VALIDATED] } else { Vec::new() };
        let profile = Self {
            name: settings.name,
            kind,
            validity,
            backdate: settings.backdate.unwrap_or(Period::from_hours(1)),
            key_algorithms: settings.key_algorithms.unwrap_or_else(|| ProfileSettings::default_keys(kind)),
            extended_key_usages: settings
                .extended_key_usages
                .unwrap_or_else(|| vec![ExtendedKeyUsage::ServerAuth]),
            rsa_key_encipherment: settings.rsa_key_encipherment.unwrap_or(false),
            policies: settings.policies.unwrap_or(default_policies),
            common_name: settings.common_name.unwrap_or_default(),
            basic_constraints: settings.basic_constraints.unwrap_or(true),
            subject_key_identifier: settings.subject_key_identifier.unwrap_or(!public),
            ca_issuers: settings.ca_issuers.unwrap_or(published),
            ocsp: settings.ocsp.unwrap_or(published),
            crl: settings.crl.unwrap_or(published),
            must_staple: settings.must_staple.unwrap_or_default(),
            max_names: settings.max_names.unwrap_or(100),
            wildcards: settings.wildcards.unwrap_or(published),
            addresses: settings.addresses.unwrap_or(!public),
            name_suffixes: settings.name_suffixes.unwrap_or_default(),
            maximum_validity: settings.maximum_validity.unwrap_or(validity),
            lints: settings.lints.unwrap_or_else(|| ProfileSettings::default_lints(kind)),
        };
        profile.check()?;
        Ok(profile)
    }
}

impl From<Profile> for ProfileSettings {
    /// Every answer written out, so that a stored profile does not change with the defaults.
    fn from(profile: Profile) -> Self {
        Self {
            name: profile.name,
            kind: profile.kind,
            validity: Some(profile.validity),
            backdate: Some(profile.backdate),
            key_algorithms: Some(profile.key_algorithms),
            extended_key_usages: Some(profile.extended_key_usages),
            rsa_key_encipherment: Some(profile.rsa_key_encipherment),
            policies: Some(profile.policies),
            common_name: Some(profile.common_name),
            basic_constraints: Some(profile.basic_constraints),
            subject_key_identifier: Some(profile.subject_key_identifier),
            ca_issuers: Some(profile.ca_issuers),
            ocsp: Some(profile.ocsp),
            crl: Some(profile.crl),
            must_staple: Some(profile.must_staple),
            max_names: Some(profile.max_names),
            wildcards: Some(profile.wildcards),
            addresses: Some(profile.addresses),
            name_suffixes: Some(profile.name_suffixes),
            maximum_validity: Some(profile.maximum_validity),
            lints: Some(profile.lints),
        }
    }
}

impl Profile {
    /// The profile of this name and kind with every default.
    ///
    /// # Errors
    /// When the name is malformed.
    pub fn preset(name: &str, kind: ProfileKind) -> Result<Self, ProfileError> {
        ProfileSettings::new(name, kind).try_into()
    }

    fn check(&self) -> Result<(), ProfileError> {
        let name_octet =
            |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b".-_".contains(&octet);
        if !(1..=63).contains(&self.name.len()) || !self.name.bytes().all(name_octet) {
            return Err(ProfileError::Name);
        }
        non_empty_set("key_algorithms", &self.key_algorithms)?;
        non_empty_set("extended_key_usages", &self.extended_key_usages)?;
        if !self.policies.is_empty() {
            non_empty_set("policies", &self.policies)?;
        }
        if self.backdate > MAX_BACKDATE {
            return Err(ProfileError::Backdate);
        }
        if self.validity <= self.backdate || self.validity > self.maximum_validity {
            return Err(ProfileError::Validity);
        }
        if !(1..=1000).contains(&self.max_names) {
            return Err(ProfileError::MaxNames);
        }
        if !self.lints.contains(&LintSet::Rfc5280) {
            return Err(ProfileError::Lints);
        }
        if self.kind == ProfileKind::PublicDv { self.check_public() } else { Ok(()) }
    }

    /// What would only be found by the lints at the first certificate.
    fn check_public(&self) -> Result<(), ProfileError> {
        let rules = [
            (!self.lints.contains(&LintSet::CabfBr), "lints without \"cabf-br\""),
            (self.extended_key_usages != [ExtendedKeyUsage::ServerAuth], "purposes other than server-auth"),
            (
                self.policies.first() != Some(&PolicyOid::DOMAIN_VALIDATED),
                "a first policy other than 2.23.140.1.2.1",
            ),
            (self.key_algorithms.contains(&KeyAlgorithm::Ed25519), "Ed25519 keys"),
            (self.validity > Period::from_days(200), "a validity of more than 200 days"),
            (
                !self.crl && !self.ocsp && self.validity > Period::from_days(7),
                "neither CRL nor OCSP for more than 7 days",
            ),
        ];
        rules.iter().find(|(broken, _)| *broken).map_or(Ok(()), |(_, what)| Err(ProfileError::Public(what)))
    }
}

fn non_empty_set<T: PartialEq>(what: &'static str, list: &[T]) -> Result<(), ProfileError> {
    let twice =
        list.iter().enumerate().any(|(at, member)| list.iter().take(at).any(|earlier| earlier == member));
    if list.is_empty() || twice { Err(ProfileError::List(what)) } else { Ok(()) }
}
