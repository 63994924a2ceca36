//! Everything that can be said against a policy without a token and without a database.

use std::collections::BTreeSet;

use acme::challenge::Method;
use pki::{Period, Profile, ProfileKind};
use url::Url;

use super::{
    DirectoryPolicy, IssuerPolicy, IssuerPolicyState, OcspPolicy, Policy, ServerCertificatePolicy,
    TermsChange,
};

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
    /// A URL at which status nodes serve something else, or nothing.
    #[error("issuer {issuer:?}: {key} {url} must end with {ending:?}: there it is served")]
    IssuerPath {
        /// Which issuer.
        issuer: String,
        /// Which key.
        key: &'static str,
        /// The URL.
        url: String,
        /// How it must end.
        ending: String,
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
    /// Delta CRLs are for private directories.
    #[error(
        "directory {directory:?}: its pool has issuer {issuer:?} with delta_crls, and profile {profile:?} is public"
    )]
    PublicDelta {
        /// Which directory.
        directory: String,
        /// Which issuer.
        issuer: String,
        /// Which profile.
        profile: String,
    },
    /// A directory of public trust that its rules forbid.
    #[error("directory {directory:?} has public_trust: {rule}")]
    PublicTrust {
        /// Which directory.
        directory: String,
        /// The rule.
        rule: &'static str,
    },
    /// A pool of retired issuers.
    #[error("{entry}: every issuer of pool {pool:?} is retired")]
    Retired {
        /// Which entry.
        entry: String,
        /// Which pool.
        pool: String,
    },
    /// The last CRL of an issuer that goes on issuing.
    #[error("issuer {0:?}: last_crl is for issuers of state \"retired\"")]
    LastCrl(String),
    /// Not hexadecimal.
    #[error("issuer {issuer:?}: key_id {key_id:?} is not hexadecimal")]
    KeyId {
        /// Which issuer.
        issuer: String,
        /// As declared.
        key_id: String,
    },
    /// A responder that signs with an issuer's key: whoever tricks it into a signature has a certificate.
    #[error(
        "issuer {issuer:?}: ocsp.key_id is the key of issuer {other:?}; a responder needs a key of its own"
    )]
    ResponderKey {
        /// Whose responder.
        issuer: String,
        /// Whose key.
        other: String,
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

/// Each is a link in the answer to every download.
const MOST_ALTERNATES: usize = 8;

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
        let issuers = || self.issuer.iter().map(|issuer| issuer.name.as_str());
        unique("issuer", issuers())?;
        // Both are published as `issuer/{name}.cer`.
        unique("issuer or root", issuers().chain(self.root.iter().map(|root| root.name.as_str())))?;
        unique("directory", self.directory.iter().map(|directory| directory.name.as_str()))?;
        self.issuer.iter().try_for_each(IssuerPolicy::validate)?;
        self.issuer.iter().try_for_each(|issuer| self.check_responder_key(issuer))?;
        let pools: BTreeSet<&str> = self.issuer.iter().map(|issuer| issuer.pool.as_str()).collect();
        for directory in &self.directory {
            directory.validate()?;
            let refers = |kind, known: &BTreeSet<&str>, name: &str| match known.contains(name) {
                true => Ok(()),
                false => Err(PolicyError::Dangling { entry: directory.entry(), kind, name: name.to_owned() }),
            };
            refers("tenant", &tenants, &directory.tenant)?;
            refers("pool", &pools, &directory.pool)?;
            self.issues(directory.entry(), &directory.pool)?;
            self.check_deltas(directory)?;
            let public = |profile: &String| {
                let mut named = self.profile.iter().filter(|known| known.name() == profile);
                named.all(|known| known.kind() == ProfileKind::PublicDv)
            };
            if directory.public_trust {
                if !directory.profiles.iter().all(public) {
                    return Err(directory.forbids("all its profiles must be of kind \"public-dv\""));
                }
                self.check_public_crls(directory)?;
            }
            for profile in &directory.profiles {
                refers("profile", &profiles, profile)?;
                if internal(profile) {
                    let directory = directory.name.to_string();
                    return Err(PolicyError::InternalProfile { directory, profile: profile.clone() });
                }
            }
        }
        if let Some(servers) = &self.server_certificates {
            servers.validate(&profiles, &pools, internal)?;
            self.issues("server_certificates".to_owned(), &servers.pool)?;
        }
        Ok(())
    }

    /// Somebody in the pool issues.
    fn issues(&self, entry: String, pool: &str) -> Result<(), PolicyError> {
        let mut members = self.issuer.iter().filter(|issuer| issuer.pool == pool);
        if members.any(|issuer| issuer.state != IssuerPolicyState::Retired) {
            return Ok(());
        }
        Err(PolicyError::Retired { entry, pool: pool.to_owned() })
    }

    fn check_deltas(&self, directory: &DirectoryPolicy) -> Result<(), PolicyError> {
        let mut issuers = self.issuer.iter().filter(|issuer| issuer.pool == directory.pool);
        let Some(issuer) = issuers.find(|issuer| issuer.delta_crls) else { return Ok(()) };
        let public = self.profile.iter().find(|profile| {
            profile.kind() == ProfileKind::PublicDv
                && directory.profiles.iter().any(|name| name == profile.name())
        });
        match public {
            None => Ok(()),
            Some(profile) => Err(PolicyError::PublicDelta {
                directory: directory.name.to_string(),
                issuer: issuer.name.clone(),
                profile: profile.name().to_owned(),
            }),
        }
    }
}

impl Policy {
    fn check_responder_key(&self, issuer: &IssuerPolicy) -> Result<(), PolicyError> {
        let Some(ocsp) = &issuer.ocsp else { return Ok(()) };
        // In whatever case the digits are written.
        let id = |text: &str| hex::decode(text).unwrap_or_default();
        let same = |other: &&IssuerPolicy| other.token == ocsp.token && id(&other.key_id) == id(&ocsp.key_id);
        match self.issuer.iter().find(same) {
            Some(other) => {
                let (issuer, other) = (issuer.name.clone(), other.name.clone());
                Err(PolicyError::ResponderKey { issuer, other })
            }
            None => Ok(()),
        }
    }
}

impl IssuerPolicy {
    pub(super) fn validate(&self) -> Result<(), PolicyError> {
        let entry = || format!("issuer {:?}", self.name);
        valid_name("pool", &self.pool)?;
        if hex::decode(&self.key_id).map_or(true, |id| id.is_empty()) {
            return Err(PolicyError::KeyId { issuer: self.name.clone(), key_id: self.key_id.clone() });
        }
        if self.alternates.len() > MOST_ALTERNATES {
            return Err(PolicyError::Range { entry: entry(), key: "alternates", range: "at most 8 files" });
        }
        if !(1..=4096).contains(&self.shards) {
            return Err(PolicyError::Range { entry: entry(), key: "shards", range: "from 1 to 4096" });
        }
        if self.crl_interval.seconds() == 0 || self.crl_interval >= self.crl_lifetime {
            let range = "more than zero and less than crl_lifetime";
            return Err(PolicyError::Range { entry: entry(), key: "crl_interval", range });
        }
        if self.delta_crl_lifetime.seconds() < 60 {
            let range = "at least a minute";
            return Err(PolicyError::Range { entry: entry(), key: "delta_crl_lifetime", range });
        }
        if self.last_crl && self.state != IssuerPolicyState::Retired {
            return Err(PolicyError::LastCrl(self.name.clone()));
        }
        self.check_url("crl_url_base", &self.crl_url_base, "/crl")?;
        if let Some(url) = &self.ca_issuers_url {
            self.check_url("ca_issuers_url", url, &format!("/issuer/{}.cer", self.name))?;
        }
        self.ocsp.as_ref().map_or(Ok(()), |ocsp| self.check_ocsp(ocsp))
    }

    fn check_ocsp(&self, ocsp: &OcspPolicy) -> Result<(), PolicyError> {
        self.check_url("ocsp.url", &ocsp.url, "/ocsp")?;
        if hex::decode(&ocsp.key_id).map_or(true, |id| id.is_empty()) {
            return Err(PolicyError::KeyId { issuer: self.name.clone(), key_id: ocsp.key_id.clone() });
        }
        let range =
            |key, range| Err(PolicyError::Range { entry: format!("issuer {:?}", self.name), key, range });
        if !(Period::from_hours(8)..=Period::from_days(10)).contains(&ocsp.validity) {
            return range("ocsp.validity", "from 8 hours to 10 days (BR §4.9.9)");
        }
        if ocsp.certificate_lifetime <= ocsp.validity || ocsp.certificate_lifetime > Period::from_days(90) {
            return range("ocsp.certificate_lifetime", "longer than ocsp.validity, and at most 90 days");
        }
        Ok(())
    }

    /// A URL for relying parties, which status nodes serve under this path.
    fn check_url(&self, key: &'static str, url: &Url, ending: &str) -> Result<(), PolicyError> {
        let issuer = || self.name.clone();
        let plain = url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || url.host().is_none() || !plain || url.as_str().ends_with("//") {
            return Err(PolicyError::IssuerUrl { issuer: issuer(), key, url: url.to_string() });
        }
        if !url.path().ends_with(ending) {
            let ending = ending.to_owned();
            return Err(PolicyError::IssuerPath { issuer: issuer(), key, url: url.to_string(), ending });
        }
        Ok(())
    }
}

impl ServerCertificatePolicy {
    pub(super) fn validate(
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
    pub(super) fn entry(&self) -> String {
        format!("directory {:?}", self.name)
    }

    pub(super) fn validate(&self) -> Result<(), PolicyError> {
        let empty = |key| PolicyError::Empty { entry: self.entry(), key };
        let range = |key, range| PolicyError::Range { entry: self.entry(), key, range };
        if self.base_urls.is_empty() {
            return Err(empty("base_urls"));
        }
        if self.profiles.is_empty() {
            return Err(empty("profiles"));
        }
        if self.methods.is_empty() {
            return Err(empty("methods"));
        }
        if self.methods.contains(&Method::DnsPersist01) && self.caa_identities.is_empty() {
            return Err(empty("caa_identities (dns-persist-01 names one of them)"));
        }
        self.validate_public()?;
        if self.caa_identities.len() > 10 {
            return Err(range("caa_identities", "at most 10"));
        }
        if !(1..=1000).contains(&self.maximum_names) {
            return Err(range("maximum_names", "from 1 to 1000"));
        }
        if let Some((key, allowed)) = self.renewal.fault() {
            return Err(range(key, allowed));
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
        if self.terms_change == TermsChange::Ask && self.terms_of_service.is_none() {
            return Err(range("terms_change", "\"ignore\" where there are no terms_of_service"));
        }
        if self.subdomain_auth && !self.methods.iter().any(|method| method.covers_subdomains()) {
            return Err(range("subdomain_auth", "false where methods has no dns-01"));
        }
        if self.revocation_reasons.is_empty() {
            return Err(empty("revocation_reasons"));
        }
        if !self.revocation_reasons.iter().all(|reason| reason.is_for_subscribers()) {
            let range = "of unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation";
            return Err(PolicyError::Range { entry: self.entry(), key: "revocation_reasons", range });
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

#[cfg(test)]
mod tests;
