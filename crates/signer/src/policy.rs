//! The operator's reviewed record: `policy.toml`.
//!
//! Tenants, issuers, profiles and directories are declared here, in a file that can be reviewed and kept under version
//! control, and are copied into `ca` with row MACs when a signer starts. Nothing else makes a directory or an issuer.

use std::collections::{BTreeMap, BTreeSet};

use acme::challenge::Method;
use acme::directory::DirectoryName;
use acme::limit::{LimitSettings, Limits};
use acme::resource::BaseUrl;
use ca_store::IssuerState;
use hsm::Origin;
use pki::{DnsName, Name, Period, Profile, ProfileKind, Reason, Timestamp};
use runtime::config::{FilePath, Version};
use serde::{Deserialize, Serialize};
use url::Url;

mod check;
mod moment;
mod public_trust;
mod renewal;

pub use check::PolicyError;
pub use renewal::RenewalPolicy;

/// `policy.toml`. Whoever may write it decides what this CA signs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Always 1.
    pub version: Version,
    /// Organisations that directories belong to.
    #[serde(default)]
    pub tenant: Vec<TenantPolicy>,
    /// Intermediate certificates whose keys are in a token.
    #[serde(default)]
    pub issuer: Vec<IssuerPolicy>,
    /// Roots, published for relying parties. Their keys are elsewhere.
    #[serde(default)]
    pub root: Vec<RootPolicy>,
    /// What certificates look like.
    #[serde(default)]
    pub profile: Vec<Profile>,
    /// ACME directories.
    #[serde(default)]
    pub directory: Vec<DirectoryPolicy>,
    /// Where fronts get their own HTTPS certificates. Absent: from the one profile of kind `internal` and the one pool, if
    /// there is exactly one of each; else fronts bring files.
    #[serde(default)]
    pub server_certificates: Option<ServerCertificatePolicy>,
}

/// Certificates of our own servers, for names that an operator gave to the node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerCertificatePolicy {
    /// A profile of kind `internal`.
    pub profile: String,
    /// The issuer pool.
    pub pool: String,
}

/// An organisation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantPolicy {
    /// Its name, unique; also its identity in `ca`.
    pub name: String,
}

/// An intermediate certificate and where its key is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerPolicy {
    /// Its name, unique.
    pub name: String,
    /// PEM file: the issuer's certificate first, then those above it, without the root.
    pub certificate: FilePath,
    /// PEM files with other chains for the same key and subject, as a cross-certificate makes them: each the issuer's
    /// certificate, or another one of the same subject and key, and those above it, without the root. Clients find them by
    /// `Link: rel="alternate"` (RFC 8555 §7.4.2), in this order, after the chain of `certificate`. A chain is offered until
    /// one of its certificates ends. At most 8. Default none.
    #[serde(default)]
    pub alternates: Vec<FilePath>,
    /// Name of the `[[token]]` in `signer.toml` that has the key.
    pub token: String,
    /// `CKA_ID` of the key, hexadecimal.
    pub key_id: String,
    /// How the key came into the token: `generated` there (default) or `cloned` on the operator's word.
    #[serde(default = "generated")]
    pub origin: Origin,
    /// The pool that directories refer to. Several issuers may be in one pool.
    pub pool: String,
    /// CRL shards. A certificate's shard is fixed at issuance, so this number only ever grows. Default 1.
    #[serde(default = "default_shards")]
    pub shards: u32,
    /// URL under which `{issuer key id}/{shard}.crl` is served: `http`, no trailing slash. Written into certificates.
    pub crl_url_base: Url,
    /// URL of the issuer's certificate for AIA; absent: no AIA in certificates.
    #[serde(default)]
    pub ca_issuers_url: Option<Url>,
    /// From a CRL's thisUpdate to its nextUpdate. Default 4 days.
    #[serde(default = "default_crl_lifetime")]
    pub crl_lifetime: Period,
    /// A CRL is made anew after this time even when nothing was revoked. Default 1 day.
    #[serde(default = "default_crl_interval")]
    pub crl_interval: Period,
    /// Delta CRLs (RFC 5280 §5.2.4): certificates and complete CRLs say where they are, a revocation makes one within a
    /// second, and complete CRLs are made by the timer. For private directories only. Default false.
    #[serde(default)]
    pub delta_crls: bool,
    /// From a delta CRL's thisUpdate to its nextUpdate; it is made anew after half of this. Default 1 day.
    #[serde(default = "default_delta_crl_lifetime")]
    pub delta_crl_lifetime: Period,
    /// A complete CRL is made before its time when the delta has more than this many entries, and more than
    /// `delta_crl_percent` of the complete one's. Default 1000.
    #[serde(default = "default_delta_crl_entries")]
    pub delta_crl_entries: u64,
    /// See `delta_crl_entries`. Default 10.
    #[serde(default = "default_delta_crl_percent")]
    pub delta_crl_percent: u64,
    /// Whether it issues. Default `"active"`.
    #[serde(default)]
    pub state: IssuerPolicyState,
    /// Of a retired issuer: its CRLs are made once more, valid until its certificate ends, and never again. Without it that
    /// happens when all its certificates have expired. Default false.
    #[serde(default)]
    pub last_crl: bool,
    /// Its OCSP responder; absent: there is none.
    #[serde(default)]
    pub ocsp: Option<OcspPolicy>,
}

/// What an issuer does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerPolicyState {
    /// Issues certificates.
    #[default]
    Active,
    /// Issues when no active one of its pool is healthy.
    Standby,
    /// Signs CRLs and OCSP answers only.
    Retired,
}

impl From<IssuerPolicyState> for IssuerState {
    fn from(state: IssuerPolicyState) -> Self {
        match state {
            IssuerPolicyState::Active => Self::Active,
            IssuerPolicyState::Standby => Self::Standby,
            IssuerPolicyState::Retired => Self::Retired,
        }
    }
}

/// The delegated OCSP responder of an issuer (RFC 6960 §4.2.2.2). Its certificate is issued by the issuer itself, and renewed
/// by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OcspPolicy {
    /// URL at which status nodes answer: `http`, its path ends with `/ocsp`. Written into certificates whose profile has
    /// `ocsp`.
    pub url: Url,
    /// Name of the `[[token]]` in `signer.toml` that has the responder's key.
    pub token: String,
    /// `CKA_ID` of the key, hexadecimal. It is none of an issuer's and not the node CA's; several issuers may name the same.
    /// Whoever can use it can call revoked certificates good, and sign nothing else.
    pub key_id: String,
    /// How the key came into the token: `generated` there (default) or `cloned` on the operator's word.
    #[serde(default = "generated")]
    pub origin: Origin,
    /// From an answer's thisUpdate to its nextUpdate: 8 hours to 10 days (BR §4.9.9). Default 2 days.
    #[serde(default = "default_ocsp_validity")]
    pub validity: Period,
    /// How long a certificate of the responder is valid: longer than an answer, and at most 90 days. Nobody can revoke it for
    /// those who know it, so that it is to be short. It is renewed when half of what it is longer than an answer has passed.
    /// Default 7 days.
    #[serde(default = "default_responder_lifetime")]
    pub certificate_lifetime: Period,
    /// How long after its end a certificate's state is still told, as answers say (RFC 6960 §4.4.4). Absent: they do not say
    /// it; the state is told all the same.
    #[serde(default)]
    pub archive_cutoff: Option<Period>,
}

/// A root certificate, and the CRL that its ceremony made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPolicy {
    /// Its name, unique among roots and issuers; its certificate is published as `issuer/{name}.cer`.
    pub name: String,
    /// PEM file.
    pub certificate: FilePath,
    /// DER or PEM file.
    #[serde(default)]
    pub crl: Option<FilePath>,
}

/// An ACME directory. The signer keeps it, as JSON, in the directory's row.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryPolicy {
    /// Its name, the path segment after `/acme/`; unique.
    pub name: DirectoryName,
    /// The tenant that it belongs to.
    pub tenant: String,
    /// `https` URLs, without slash at the end, under which clients may address it; the first is canonical. A request
    /// that was signed for any other URL is refused.
    pub base_urls: Vec<BaseUrl>,
    /// The issuer pool.
    pub pool: String,
    /// Names of the profiles that clients may choose; the first is the default.
    pub profiles: Vec<String>,
    /// What a client is told about a profile: a sentence or a URL. Default: the profile's name.
    #[serde(default)]
    pub profile_descriptions: BTreeMap<String, String>,
    /// Whether its certificates are publicly trusted, so that the Baseline Requirements hold: CAA is asked, every receipt is of a
    /// resolver that validates DNSSEC and of no reserved address, no grant replaces a validation, all profiles are of the kind
    /// `public-dv` (which refuses reserved names and public suffixes), and a validation is used for 200 days at most, or less
    /// when BR 4.2.1 says so. Default false.
    #[serde(default)]
    pub public_trust: bool,
    /// For tests of ACME clients: whether receipts of validators count that looked at nothing (`always_valid` of `validator.toml`),
    /// so that every challenge succeeds; CAA need not be asked either. Only if the ceremony marked every issuer of the pool, with
    /// all its chains, as a test CA (`test_ca`); never with `public_trust`. Receipts of validators that looked count as well.
    /// Default false.
    #[serde(default)]
    pub always_valid: bool,
    /// Validation methods offered to clients: `http-01`, `dns-01`, `tls-alpn-01`; `dns-account-01` and `dns-persist-01` only if
    /// every client can do with them: some give up an authorization with a challenge that they do not know. `dns-persist-01`
    /// needs `caa_identities`. Default `["http-01"]`.
    #[serde(default = "default_methods")]
    pub methods: Vec<Method>,
    /// Whether an account needs an external account binding. Default false.
    #[serde(default)]
    pub external_account_required: bool,
    /// URL of the terms of service; when set, a client must agree to them. Another version has another URL.
    #[serde(default)]
    pub terms_of_service: Option<Url>,
    /// What becomes of accounts that agreed to other terms than those of today, or to none: `"ignore"` (default) lets them
    /// go on, and asks new accounts alone; `"ask"` refuses their newOrder, newAuthz and finalize with `userActionRequired`
    /// until they agree by an account update (RFC 8555 §7.3.3). Most clients cannot: with `"ask"`, renewals stop until a
    /// person acts. Whatever is set, an account can be updated, revoke and leave.
    #[serde(default)]
    pub terms_change: TermsChange,
    /// Whether clients may ask for authorizations without an order (RFC 8555 §7.4.1): newAuthz. What was shown for one counts
    /// for orders as long as `order_lifetime`, or `validation_reuse` if that is longer. Default false.
    #[serde(default)]
    pub pre_authorization: bool,
    /// Whether control of a domain, shown by DNS, counts for the names below it where a client asks for that (RFC 9444): in an
    /// order by `ancestorDomain`, in newAuthz by `subdomainAuthAllowed`. Never for wildcards, nor for names beside. CAA is
    /// looked at for the very name (RFC 8659 §3). Needs a DNS method in `methods`. Default false.
    #[serde(default)]
    pub subdomain_auth: bool,
    /// URL of a page about the CA.
    #[serde(default)]
    pub website: Option<Url>,
    /// Names by which CAA records refer to this CA, at most 10. With any, CAA is asked for every DNS name, and decides (RFC 8659);
    /// without, it is not asked. Default: none.
    #[serde(default)]
    pub caa_identities: Vec<DnsName>,
    /// Names in one order. Default 100.
    #[serde(default = "default_maximum_names")]
    pub maximum_names: u32,
    /// How long an order may wait for its finalization. Default 7 days.
    #[serde(default = "default_order_lifetime")]
    pub order_lifetime: Period,
    /// How long an authorization may wait for its validation. Default 7 days.
    #[serde(default = "default_order_lifetime")]
    pub authorization_lifetime: Period,
    /// How old a validation may be when a certificate is issued on it. `0s`: only as old as the order's own lifetime.
    /// Default 0s.
    #[serde(default = "default_reuse")]
    pub validation_reuse: Period,
    /// Validations that were finished before this time count no more, whatever their age: those before a validation was
    /// mended that had not been good enough. As `"2026-11-30T08:00:00Z"`. Default: none.
    #[serde(default, with = "moment", skip_serializing_if = "Option::is_none")]
    pub validations_since: Option<Timestamp>,
    /// Which perspectives must agree.
    pub quorum: QuorumPolicy,
    /// Which names are issued for.
    #[serde(default)]
    pub names: NamePolicy,
    /// Limits (RFC 8555 §6.6), each as `"50 in 7d"` or `"none"`: `certificates_per_domain`, `duplicate_certificates`,
    /// `failed_validations`, `accounts_per_address`, `orders_per_account`, `failures_until_paused`, `certificates_per_account`,
    /// `certificates_per_registration`. Default for a publicly trusted directory: `50 in 7d`, `5 in 7d`, `5 in 1h`, `10 in 3h`,
    /// `300 in 3h`, `100 in 7d`, and for the last two none; for others none at all. A registration may have others.
    #[serde(default, skip_serializing_if = "LimitSettings::is_empty")]
    pub limits: LimitSettings,
    /// The reasons that clients may give for a revocation (RFC 8555 §7.6), by their names in RFC 5280 §5.3.1. Default
    /// `["unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"]`, what BR §7.2.2 leaves
    /// to subscribers; no others can be allowed.
    #[serde(default = "default_revocation_reasons")]
    pub revocation_reasons: Vec<Reason>,
    /// Whether an account may say that a key is compromised without proof that it has it. The certificate is revoked then, and
    /// the key is not blocked. Default true (BR §7.2.2).
    #[serde(default = "yes")]
    pub key_compromise_by_account: bool,
    /// Renewal information (RFC 9773).
    #[serde(default)]
    pub renewal: RenewalPolicy,
}

/// What becomes of accounts that agreed to other terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TermsChange {
    /// They go on.
    #[default]
    Ignore,
    /// They are asked to agree.
    Ask,
}

/// Whose receipts count, and how many may disagree.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct QuorumPolicy {
    /// Names of validator nodes. All but `maximum_dissent` of them must have seen the proof.
    pub perspectives: BTreeSet<String>,
    /// How many of them may have failed or be silent. Default 0.
    #[serde(default)]
    pub maximum_dissent: u32,
}

impl QuorumPolicy {
    /// How many must have seen the proof: one at least.
    #[must_use]
    pub fn needed(&self) -> usize {
        let dissent = usize::try_from(self.maximum_dissent).unwrap_or(usize::MAX);
        self.perspectives.len().saturating_sub(dissent).max(1)
    }
}

/// Which names a directory issues for.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NamePolicy {
    /// A name must be one of these or below one of these; empty: any name.
    #[serde(default)]
    pub allowed_suffixes: Vec<DnsName>,
    /// A name must not be one of these nor below one of these.
    #[serde(default)]
    pub denied_suffixes: Vec<DnsName>,
    /// Whether wildcard names are issued. Default true.
    #[serde(default = "yes")]
    pub wildcard: bool,
    /// Whether IP addresses are issued. Default false.
    #[serde(default)]
    pub ip: bool,
}

impl Default for NamePolicy {
    fn default() -> Self {
        Self { allowed_suffixes: Vec::new(), denied_suffixes: Vec::new(), wildcard: true, ip: false }
    }
}

/// Why a directory does not issue for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NamePolicyRefusal {
    /// Wildcards are not issued here.
    #[error("this directory does not issue wildcard certificates")]
    Wildcard,
    /// Addresses are not issued here.
    #[error("this directory does not issue certificates for IP addresses")]
    Ip,
    /// Not under an allowed suffix, or under a denied one.
    #[error("this directory does not issue for this name")]
    Suffix,
}

impl DirectoryPolicy {
    /// How old a validation may be when another order uses it again, as of now.
    #[must_use]
    pub fn validation_reuse_at(&self, now: Timestamp) -> Period {
        if self.public_trust { self.validation_reuse.min(public_reuse(now)) } else { self.validation_reuse }
    }
}

impl NamePolicy {
    /// Whether the directory issues for `name`.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self, name: &Name) -> Result<(), NamePolicyRefusal> {
        if matches!(name, Name::Wildcard(_)) && !self.wildcard {
            return Err(NamePolicyRefusal::Wildcard);
        }
        let Some(base) = name.base() else {
            return if self.ip { Ok(()) } else { Err(NamePolicyRefusal::Ip) };
        };
        let under = |suffixes: &[DnsName]| suffixes.iter().any(|suffix| base.is_within(suffix));
        if under(&self.denied_suffixes)
            || !(self.allowed_suffixes.is_empty() || under(&self.allowed_suffixes))
        {
            return Err(NamePolicyRefusal::Suffix);
        }
        Ok(())
    }
}

impl DirectoryPolicy {
    /// The limits of an account, with what its registration sets in the place of what the directory does.
    #[must_use]
    pub fn limits_of(&self, registration: &LimitSettings) -> Limits {
        let shipped = if self.public_trust { Limits::PUBLIC } else { Limits::default() };
        shipped.with(&self.limits).with(registration)
    }
}

impl Policy {
    /// Where fronts get their own certificates: as declared, or the only possible answer.
    #[must_use]
    pub fn server_certificates(&self) -> Option<ServerCertificatePolicy> {
        if self.server_certificates.is_some() {
            return self.server_certificates.clone();
        }
        let mut profiles = self.profile.iter().filter(|profile| profile.kind() == ProfileKind::Internal);
        let pools: BTreeSet<&String> = self.issuer.iter().map(|issuer| &issuer.pool).collect();
        match (profiles.next(), profiles.next(), pools.first(), pools.len()) {
            (Some(profile), None, Some(pool), 1) => {
                Some(ServerCertificatePolicy { profile: profile.name().to_owned(), pool: (*pool).clone() })
            }
            _ => None,
        }
    }
}

/// BR 4.2.1: how old, in public trust, a validation may be at issuance.
pub(crate) fn public_reuse(now: Timestamp) -> Period {
    const FROM_2027_03_15: u64 = 1_805_068_800;
    const FROM_2029_03_15: u64 = 1_868_227_200;
    match now.unix() {
        ..FROM_2027_03_15 => Period::from_days(200),
        FROM_2027_03_15..FROM_2029_03_15 => Period::from_days(100),
        _ => Period::from_days(10),
    }
}

fn generated() -> Origin {
    Origin::Generated
}

fn default_shards() -> u32 {
    1
}

fn default_crl_lifetime() -> Period {
    Period::from_days(4)
}

fn default_crl_interval() -> Period {
    Period::from_days(1)
}

fn default_delta_crl_lifetime() -> Period {
    Period::from_days(1)
}

fn default_delta_crl_entries() -> u64 {
    1000
}

fn default_delta_crl_percent() -> u64 {
    10
}

fn default_ocsp_validity() -> Period {
    Period::from_days(2)
}

fn default_responder_lifetime() -> Period {
    Period::from_days(7)
}

fn default_methods() -> Vec<Method> {
    vec![Method::Http01]
}

fn default_maximum_names() -> u32 {
    100
}

fn default_order_lifetime() -> Period {
    Period::from_days(7)
}

fn default_reuse() -> Period {
    Period::from_seconds(0)
}

fn default_revocation_reasons() -> Vec<Reason> {
    Reason::ALL.into_iter().filter(|reason| reason.is_for_subscribers()).collect()
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Midnight UTC of a 15th of March.
    fn march(year: i32) -> Timestamp {
        let date = time::Date::from_calendar_date(year, time::Month::March, 15).unwrap();
        date.midnight().assume_utc().into()
    }

    #[test]
    fn g9_validations_of_public_trust_live_shorter_from_one_day_on() {
        for (year, before, from) in [(2027, 200, 100), (2029, 100, 10)] {
            let day = march(year);
            assert_eq!(public_reuse(day.minus(Period::from_seconds(1))), Period::from_days(before), "{year}");
            assert_eq!(public_reuse(day), Period::from_days(from), "{year}");
        }
    }
}
