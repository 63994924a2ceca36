//! The operator's reviewed record: `policy.toml`.
//!
//! Tenants, issuers, profiles and directories are declared here, in a file that can be reviewed and kept under version
//! control, and are copied into `ca` with row MACs when a signer starts. Nothing else makes a directory or an issuer.

use std::collections::{BTreeMap, BTreeSet};

use acme::challenge::Method;
use acme::directory::DirectoryName;
use acme::resource::BaseUrl;
use hsm::Origin;
use pki::{DnsName, Name, Period, Profile, ProfileKind};
use runtime::config::{FilePath, Version};
use serde::{Deserialize, Serialize};
use url::Url;

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
    /// Validation methods offered to clients. Default `["http-01"]`.
    #[serde(default = "default_methods")]
    pub methods: Vec<Method>,
    /// Whether an account needs an external account binding. Default false.
    #[serde(default)]
    pub external_account_required: bool,
    /// URL of the terms of service; when set, a client must agree to them.
    #[serde(default)]
    pub terms_of_service: Option<Url>,
    /// URL of a page about the CA.
    #[serde(default)]
    pub website: Option<Url>,
    /// Names by which CAA records refer to this CA, lower-case.
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
    /// Which perspectives must agree.
    pub quorum: QuorumPolicy,
    /// Which names are issued for.
    #[serde(default)]
    pub names: NamePolicy,
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

/// What is wrong with a policy. Each names the entry, because the file is long.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// Two entries of one kind have the same name.
    #[error("{kind} {name:?} is declared twice")]
    Duplicate {
        /// `tenant`, `issuer`, `profile` or `directory`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A name that cannot be a path segment and an identity.
    #[error("{kind} name {name:?} must be 1 to 64 of a-z, 0-9, '-' and '_'")]
    Name {
        /// `tenant`, `issuer`, `profile` or `directory`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// An entry refers to something that is not declared.
    #[error("{entry} refers to {kind} {name:?}, which is not declared")]
    Dangling {
        /// Which entry.
        entry: String,
        /// What it refers to.
        kind: &'static str,
        /// By which name.
        name: String,
    },
    /// A list that must not be empty is.
    #[error("{entry} needs at least one entry in {key}")]
    Empty {
        /// Which entry.
        entry: String,
        /// Which key.
        key: &'static str,
    },
    /// A URL for certificates that relying parties could not use.
    #[error("issuer {issuer:?}: {key} {url} must be an http URL without a trailing slash, query or fragment")]
    IssuerUrl {
        /// Which issuer.
        issuer: String,
        /// Which key.
        key: &'static str,
        /// The URL.
        url: String,
    },
    /// A quorum that nothing or anything satisfies.
    #[error(
        "directory {directory:?}: maximum_dissent {maximum_dissent} leaves no perspective that must agree ({count} declared)"
    )]
    Quorum {
        /// Which directory.
        directory: String,
        /// As declared.
        maximum_dissent: u32,
        /// Perspectives declared.
        count: usize,
    },
    /// A number or time out of its range.
    #[error("{entry}: {key} must be {range}")]
    Range {
        /// Which entry.
        entry: String,
        /// Which key.
        key: &'static str,
        /// What it must be.
        range: &'static str,
    },
    /// Not hexadecimal.
    #[error("issuer {issuer:?}: key_id {key_id:?} is not hexadecimal")]
    KeyId {
        /// Which issuer.
        issuer: String,
        /// As declared.
        key_id: String,
    },
    /// Servers' certificates need a profile of their own kind.
    #[error("server_certificates: profile {profile:?} is not of kind \"internal\"")]
    NotInternal {
        /// Which profile.
        profile: String,
    },
    /// A directory must not offer a profile that is the signer's own.
    #[error("directory {directory:?} offers profile {profile:?}, which is internal")]
    InternalProfile {
        /// Which directory.
        directory: String,
        /// Which profile.
        profile: String,
    },
}

impl Policy {
    /// Everything that can be checked without a token and without a database.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let tenants = unique("tenant", self.tenant.iter().map(|tenant| tenant.name.as_str()))?;
        let profiles = unique("profile", self.profile.iter().map(Profile::name))?;
        let internal = |name: &str| {
            self.profile
                .iter()
                .any(|profile| profile.name() == name && profile.kind() == ProfileKind::Internal)
        };
        unique("issuer", self.issuer.iter().map(|issuer| issuer.name.as_str()))?;
        unique("directory", self.directory.iter().map(|directory| directory.name.as_str()))?;
        self.issuer.iter().try_for_each(IssuerPolicy::validate)?;
        let pools: BTreeSet<&str> = self.issuer.iter().map(|issuer| issuer.pool.as_str()).collect();
        for directory in &self.directory {
            directory.validate()?;
            let refers = |kind, known: &BTreeSet<&str>, name: &str| match known.contains(name) {
                true => Ok(()),
                false => Err(PolicyError::Dangling { entry: directory.entry(), kind, name: name.to_owned() }),
            };
            refers("tenant", &tenants, &directory.tenant)?;
            refers("pool", &pools, &directory.pool)?;
            for profile in &directory.profiles {
                refers("profile", &profiles, profile)?;
                if internal(profile) {
                    let directory = directory.name.to_string();
                    return Err(PolicyError::InternalProfile { directory, profile: profile.clone() });
                }
            }
        }
        self.server_certificates.iter().try_for_each(|servers| servers.validate(&profiles, &pools, internal))
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

impl IssuerPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        let entry = || format!("issuer {:?}", self.name);
        valid_name("pool", &self.pool)?;
        if hex::decode(&self.key_id).map_or(true, |id| id.is_empty()) {
            return Err(PolicyError::KeyId { issuer: self.name.clone(), key_id: self.key_id.clone() });
        }
        if !(1..=4096).contains(&self.shards) {
            return Err(PolicyError::Range { entry: entry(), key: "shards", range: "from 1 to 4096" });
        }
        if self.crl_interval.seconds() == 0 || self.crl_interval >= self.crl_lifetime {
            let range = "more than zero and less than crl_lifetime";
            return Err(PolicyError::Range { entry: entry(), key: "crl_interval", range });
        }
        let urls =
            [("crl_url_base", Some(&self.crl_url_base)), ("ca_issuers_url", self.ca_issuers_url.as_ref())];
        for (key, url) in urls.into_iter().filter_map(|(key, url)| Some((key, url?))) {
            let plain = url.query().is_none() && url.fragment().is_none();
            if url.scheme() != "http" || url.host().is_none() || !plain || url.as_str().ends_with("//") {
                return Err(PolicyError::IssuerUrl { issuer: self.name.clone(), key, url: url.to_string() });
            }
        }
        Ok(())
    }
}

impl ServerCertificatePolicy {
    fn validate(
        &self,
        profiles: &BTreeSet<&str>,
        pools: &BTreeSet<&str>,
        internal: impl Fn(&str) -> bool,
    ) -> Result<(), PolicyError> {
        let dangling = |kind, name: &String| PolicyError::Dangling {
            entry: "server_certificates".to_owned(),
            kind,
            name: name.clone(),
        };
        if !profiles.contains(self.profile.as_str()) {
            return Err(dangling("profile", &self.profile));
        }
        if !pools.contains(self.pool.as_str()) {
            return Err(dangling("pool", &self.pool));
        }
        if internal(&self.profile) {
            Ok(())
        } else {
            Err(PolicyError::NotInternal { profile: self.profile.clone() })
        }
    }
}

impl DirectoryPolicy {
    fn entry(&self) -> String {
        format!("directory {:?}", self.name)
    }

    fn validate(&self) -> Result<(), PolicyError> {
        let empty = |key| PolicyError::Empty { entry: self.entry(), key };
        let range = |key, range| PolicyError::Range { entry: self.entry(), key, range };
        if self.base_urls.is_empty() {
            return Err(empty("base_urls"));
        }
        if self.profiles.is_empty() {
            return Err(empty("profiles"));
        }
        if !(1..=1000).contains(&self.maximum_names) {
            return Err(range("maximum_names", "from 1 to 1000"));
        }
        if self.order_lifetime.seconds() < 60 || self.authorization_lifetime.seconds() < 60 {
            return Err(range("order_lifetime and authorization_lifetime", "at least a minute"));
        }
        let count = self.quorum.perspectives.len();
        // With no perspective at all a directory lives from grants alone: nothing but a grant can satisfy it.
        if count > 0 && u32::try_from(count).is_ok_and(|count| self.quorum.maximum_dissent >= count) {
            let maximum_dissent = self.quorum.maximum_dissent;
            return Err(PolicyError::Quorum { directory: self.name.to_string(), maximum_dissent, count });
        }
        Ok(())
    }
}

fn unique<'a>(
    kind: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<BTreeSet<&'a str>, PolicyError> {
    let mut seen = BTreeSet::new();
    for name in names {
        // Directories' and profiles' names have rules of their own and were checked when they were read.
        if !matches!(kind, "directory" | "profile") {
            valid_name(kind, name)?;
        }
        if !seen.insert(name) {
            return Err(PolicyError::Duplicate { kind, name: name.to_owned() });
        }
    }
    Ok(seen)
}

fn valid_name(kind: &'static str, name: &str) -> Result<(), PolicyError> {
    let good =
        |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'-' | b'_');
    if (1..=64).contains(&name.len()) && name.bytes().all(good) {
        Ok(())
    } else {
        Err(PolicyError::Name { kind, name: name.to_owned() })
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

fn yes() -> bool {
    true
}
