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

    /// How long CRLs of public trust may live, and how often they come (BR §4.9.7).
    fn check_public_crls(&self, directory: &DirectoryPolicy) -> Result<(), PolicyError> {
        for issuer in self.issuer.iter().filter(|issuer| issuer.pool == directory.pool) {
            if issuer.crl_lifetime > Period::from_days(10) {
                return Err(directory.forbids("its issuers' crl_lifetime must be 10 days at most (BR 4.9.7)"));
            }
            let (longest, rule) = match &issuer.ocsp {
                Some(_) => (7, "its issuers' crl_interval must be 7 days at most (BR 4.9.7)"),
                None => (4, "crl_interval of issuers without OCSP must be 4 days at most (BR 4.9.7)"),
            };
            if issuer.crl_interval > Period::from_days(longest) {
                return Err(directory.forbids(rule));
            }
        }
        Ok(())
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

    /// What the Baseline Requirements leave to no directory.
    fn validate_public(&self) -> Result<(), PolicyError> {
        if !self.public_trust {
            return Ok(());
        }
        if self.caa_identities.is_empty() {
            return Err(self.forbids("caa_identities must not be empty (BR 3.2.2.8)"));
        }
        if self.quorum.perspectives.is_empty() {
            return Err(self.forbids("quorum.perspectives must not be empty: grants do not count"));
        }
        if self.validation_reuse > Period::from_days(200) {
            return Err(self.forbids("validation_reuse must be 200 days at most (BR 4.2.1)"));
        }
        if self.methods.contains(&Method::DnsPersist01) && self.validation_reuse > Period::from_days(10) {
            return Err(
                self.forbids("validation_reuse must be 10 days at most with dns-persist-01 (BR 3.2.2.4.22)")
            );
        }
        if self.authorization_lifetime.max(self.order_lifetime) > Period::from_days(30) {
            return Err(self
                .forbids("order_lifetime and authorization_lifetime must be 30 days at most (BR 3.2.2.4)"));
        }
        Ok(())
    }

    fn forbids(&self, rule: &'static str) -> PolicyError {
        PolicyError::PublicTrust { directory: self.name.to_string(), rule }
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
mod tests {
    use super::*;

    const POLICY: &str = r#"
version = 1
[[tenant]]
name = "tenant"
[[issuer]]
name = "tls-1"
certificate = "issuer.pem"
token = "main"
key_id = "11"
pool = "tls"
shards = 2
crl_lifetime = "4d"
crl_url_base = "http://status.test/crl"
[issuer.ocsp]
url = "http://status.test/ocsp"
token = "main"
key_id = "1f"
validity = "2d"
certificate_lifetime = "7d"
[[profile]]
name = "tls"
[[profile]]
name = "front"
kind = "internal"
[[directory]]
name = "open"
tenant = "tenant"
base_urls = ["https://ca.test"]
pool = "tls"
profiles = ["tls"]
maximum_names = 10
quorum = { perspectives = ["v1", "v2"], maximum_dissent = 1 }
"#;

    fn parse(text: &str) -> Result<Policy, String> {
        runtime::config::parse::<Policy>(text, std::path::Path::new("/policy.toml"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_policy_is_good() {
        let policy = parse(POLICY).unwrap();
        policy.validate().unwrap();
        let servers = policy.server_certificates().unwrap();
        assert_eq!((servers.profile.as_str(), servers.pool.as_str()), ("front", "tls"));
    }

    #[test]
    fn every_mistake_is_named() {
        let cases = [
            ("name = \"tenant\"\n[[issuer]]", "name = \"Tenant!\"\n[[issuer]]", "tenant name"),
            ("tenant = \"tenant\"", "tenant = \"other\"", "refers to tenant"),
            ("pool = \"tls\"\nprofiles", "pool = \"none\"\nprofiles", "refers to pool"),
            ("profiles = [\"tls\"]", "profiles = [\"tls\", \"none\"]", "refers to profile"),
            ("profiles = [\"tls\"]", "profiles = [\"front\"]", "which is internal"),
            ("profiles = [\"tls\"]", "profiles = []", "in profiles"),
            ("base_urls = [\"https://ca.test\"]", "base_urls = []", "in base_urls"),
            ("maximum_dissent = 1", "maximum_dissent = 2", "leaves no perspective"),
            ("maximum_names = 10", "maximum_names = 0", "maximum_names"),
            ("maximum_names = 10", "methods = []", "in methods"),
            ("maximum_names = 10", "methods = [\"dns-persist-01\"]", "in caa_identities"),
            (
                "maximum_names = 10",
                concat!(
                    "caa_identities = [\"a.b\", \"a.b\", \"a.b\", \"a.b\", \"a.b\", \"a.b\", \"a.b\", ",
                    "\"a.b\", \"a.b\", \"a.b\", \"a.b\"]"
                ),
                "caa_identities must be at most 10",
            ),
            ("maximum_names = 10", "revocation_reasons = []", "in revocation_reasons"),
            ("maximum_names = 10", "terms_change = \"ask\"", "terms_change must be"),
            ("maximum_names = 10", "subdomain_auth = true", "subdomain_auth must be"),
            (
                "maximum_names = 10",
                "revocation_reasons = [\"privilegeWithdrawn\"]",
                "revocation_reasons must be",
            ),
            ("maximum_names = 10", "renewal = { renewal_at_percent = 99 }", "renewal_at_percent must be"),
            (
                "maximum_names = 10",
                "renewal = { renewal_window_percent = 35 }",
                "renewal_window_percent must be",
            ),
            ("maximum_names = 10", "renewal = { retry_after = \"8d\" }", "renewal.retry_after must be"),
            ("key_id = \"11\"", "key_id = \"1\"", "not hexadecimal"),
            ("shards = 2", "shards = 0", "shards"),
            ("crl_lifetime = \"4d\"", "crl_lifetime = \"1d\"", "crl_interval"),
            ("shards = 2", "delta_crl_lifetime = \"59s\"", "delta_crl_lifetime"),
            ("shards = 2", "last_crl = true", "last_crl is for"),
            ("shards = 2", "state = \"retired\"", "every issuer of pool \"tls\" is retired"),
            (
                concat!(
                    "[issuer.ocsp]\nurl = \"http://status.test/ocsp\"\ntoken = \"main\"\nkey_id = \"1f\"\n",
                    "validity = \"2d\"\ncertificate_lifetime = \"7d\"\n[[profile]]\nname = \"tls\"",
                ),
                "delta_crls = true\n[[profile]]\nname = \"tls\"\nkind = \"public-dv\"",
                "is public",
            ),
            ("http://status.test/crl", "https://status.test/crl", "crl_url_base"),
            ("http://status.test/ocsp", "https://status.test/ocsp", "ocsp.url"),
            ("http://status.test/ocsp", "http://status.test/ocsp?a", "ocsp.url"),
            ("http://status.test/ocsp", "http://status.test/", "must end with \"/ocsp\""),
            ("key_id = \"1f\"", "key_id = \"1\"", "not hexadecimal"),
            ("key_id = \"1f\"", "key_id = \"11\"", "the key of issuer \"tls-1\""),
            ("key_id = \"11\"", "key_id = \"1F\"", "the key of issuer \"tls-1\""),
            ("validity = \"2d\"", "validity = \"7h\"", "ocsp.validity"),
            ("validity = \"2d\"", "validity = \"11d\"", "ocsp.validity"),
            ("certificate_lifetime = \"7d\"", "certificate_lifetime = \"2d\"", "ocsp.certificate_lifetime"),
            ("certificate_lifetime = \"7d\"", "certificate_lifetime = \"91d\"", "ocsp.certificate_lifetime"),
            ("http://status.test/crl", "http://status.test/crls", "must end with \"/crl\""),
            (
                "[issuer.ocsp]",
                "ca_issuers_url = \"http://status.test/tls-1.cer\"\n[issuer.ocsp]",
                "must end with \"/issuer/tls-1.cer\"",
            ),
            (
                "[[profile]]",
                "[[root]]\nname = \"tls-1\"\ncertificate = \"root.pem\"\n[[profile]]",
                "issuer or root \"tls-1\" is declared twice",
            ),
            ("[[profile]]\nname = \"front\"", "[[profile]]\nname = \"tls\"", "declared twice"),
            (
                "[[directory]]",
                "[server_certificates]\nprofile = \"tls\"\npool = \"tls\"\n[[directory]]",
                "not of kind \"internal\"",
            ),
        ];
        for (from, to, expected) in cases {
            let text = POLICY.replacen(from, to, 1);
            assert_ne!(text, POLICY, "{from}");
            let error = parse(&text).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn g9_public_trust_is_held_to_its_rules() {
        let public = POLICY
            .replacen("name = \"tls\"\n[[profile]]", "name = \"tls\"\nkind = \"public-dv\"\n[[profile]]", 1)
            .replacen(
                "maximum_names = 10",
                "public_trust = true\ncaa_identities = [\"ca.test\"]\nvalidation_reuse = \"200d\"",
                1,
            );
        parse(&public).unwrap().validate().unwrap();
        for (from, to, expected) in [
            ("kind = \"public-dv\"\n", "", "of kind \"public-dv\""),
            ("caa_identities = [\"ca.test\"]", "caa_identities = []", "caa_identities must not be empty"),
            ("\"200d\"", "\"201d\"", "200 days at most"),
            ("\"200d\"", "\"11d\"\nmethods = [\"dns-persist-01\"]", "10 days at most"),
            ("\"200d\"", "\"9d\"\norder_lifetime = \"31d\"", "30 days at most"),
            ("\"200d\"", "\"9d\"\nauthorization_lifetime = \"31d\"", "30 days at most"),
            // K2: CRLs.
            ("\"4d\"", "\"11d\"", "crl_lifetime must be 10 days at most"),
            ("\"4d\"", "\"10d\"\ncrl_interval = \"8d\"", "crl_interval must be 7 days at most"),
            (
                "perspectives = [\"v1\", \"v2\"], maximum_dissent = 1",
                "perspectives = []",
                "grants do not count",
            ),
        ] {
            let text = public.replacen(from, to, 1);
            assert_ne!(text, public, "{from}");
            let error = parse(&text).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn k2_crls_of_public_trust_come_sooner_where_nobody_answers_ocsp() {
        let (before, rest) = POLICY.split_once("[issuer.ocsp]").unwrap();
        let (_, after) = rest.split_once("[[profile]]").unwrap();
        let policy = |interval: &str, ocsp: bool| {
            let text = if ocsp { POLICY.to_owned() } else { format!("{before}[[profile]]{after}") };
            let public = "public_trust = true\ncaa_identities = [\"ca.test\"]\nvalidation_reuse = \"9d\"";
            let text = text.replacen("maximum_names = 10", public, 1);
            let text = text.replacen(
                "name = \"tls\"\n[[profile]]",
                "name = \"tls\"\nkind = \"public-dv\"\n[[profile]]",
                1,
            );
            let crls = format!("crl_lifetime = \"10d\"\ncrl_interval = \"{interval}\"");
            parse(&text.replacen("crl_lifetime = \"4d\"", &crls, 1)).unwrap().validate()
        };
        for (interval, with_ocsp, without) in [("4d", true, true), ("5d", true, false), ("8d", false, false)]
        {
            assert_eq!(policy(interval, true).is_ok(), with_ocsp, "{interval}");
            assert_eq!(policy(interval, false).is_ok(), without, "{interval}");
        }
    }

    #[test]
    fn what_cannot_be_written_cannot_be_read() {
        for (from, to) in [
            ("https://ca.test", "http://ca.test"),
            ("https://ca.test", "https://ca.test/"),
            ("name = \"open\"", "name = \"Open\""),
            ("maximum_names", "maximum_name"),
            ("maximum_names = 10", "revocation_reasons = [\"certificateHold\"]"),
            ("version = 1", "version = 2"),
        ] {
            assert!(parse(&POLICY.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
