//! What this CA is made of: directories, profiles, issuers, roots, as the policy file declares them.
//!
//! At start the policy is read and checked, the rows that `ca` has are verified and brought up to date
//! ([`Registry::synchronize`]), and the whole is held in memory: it changes by a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use acme::DirectoryName;
use acme::resource::{BaseUrl, Located, Resource, UnknownUrl};
use ca_store::IssuerState;
use hsm::KeyHealth;
use pki::ocsp::IssuerHashes;
use pki::{Certificate, Issuer, Period, Profile, ProfileKind, Timestamp};
use runtime::config::{FilePath, Invalid};

use crate::doors::{DoorPlan, Doors, IssuerDoor, KeyPlace, ResponderPlan};
use crate::policy::{DirectoryPolicy, Policy};

mod load;
mod synchronize;

pub use load::{AlternateFault, RegistryError};
pub use synchronize::SynchronizeError;

pub(crate) use load::pem_or_der;
use load::{check_marks, load_issuers, load_root};

/// The CA's parts, read-only.
#[derive(Debug)]
pub struct Registry {
    policy: Policy,
    directories: BTreeMap<DirectoryName, Arc<Directory>>,
    issuers: BTreeMap<String, Arc<IssuerEntry>>,
    roots: Vec<Root>,
    bases: Vec<BaseUrl>,
    servers: Option<ServerCertificates>,
}

/// An ACME directory.
#[derive(Debug)]
pub struct Directory {
    /// As declared.
    pub policy: DirectoryPolicy,
    profiles: Vec<Arc<Profile>>,
    pool: IssuerPool,
}

/// The issuers that serve a directory.
#[derive(Debug)]
pub struct IssuerPool {
    name: String,
    issuers: Vec<Arc<IssuerEntry>>,
    next: AtomicUsize,
}

/// An issuer: its certificate, its chain, its shards, and where its key is.
#[derive(Debug)]
pub struct IssuerEntry {
    /// Its identity in `ca`.
    pub id: String,
    /// As [`pki`] needs it.
    pub issuer: Issuer,
    /// Its own certificate and those above it, without the root.
    pub chain: Vec<Certificate>,
    /// Other chains for the same subject and key, in the operator's order (RFC 8555 §7.4.2).
    pub alternates: Vec<Vec<Certificate>>,
    /// Its pool.
    pub pool: String,
    /// Number of CRL shards.
    pub shards: u32,
    /// Whether it issues.
    pub state: IssuerState,
    /// From thisUpdate to nextUpdate.
    pub crl_lifetime: Period,
    /// The longest time between two CRLs.
    pub crl_interval: Period,
    /// Its delta CRLs, if it makes them.
    pub deltas: Option<DeltaCrls>,
    /// Whether its last CRLs are to be made now, as far as the operator says so.
    pub last_crl: bool,
    /// Its OCSP responder, if it has one.
    pub ocsp: Option<OcspSettings>,
    place: KeyPlace,
}

/// The delegated OCSP responder of an issuer.
#[derive(Debug)]
pub struct OcspSettings {
    /// From thisUpdate to nextUpdate.
    pub validity: Period,
    /// How long its certificates are valid.
    pub certificate_lifetime: Period,
    /// What answers say about certificates that have ended.
    pub archive_cutoff: Option<Period>,
    /// By which requests name the issuer.
    pub hashes: IssuerHashes,
    place: KeyPlace,
}

/// How an issuer makes delta CRLs.
#[derive(Debug, Clone, Copy)]
pub struct DeltaCrls {
    /// From thisUpdate to nextUpdate.
    pub lifetime: Period,
    /// A delta may have this many entries,
    pub entries: u64,
    /// or this many hundredths of the complete CRL's.
    pub percent: u64,
}

/// A root for relying parties.
#[derive(Debug)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// Its certificate.
    pub certificate: Certificate,
    /// Its CRL, DER, from its ceremony.
    pub crl: Option<Vec<u8>>,
}

/// What fronts' own certificates are made of.
#[derive(Debug)]
pub struct ServerCertificates {
    /// Of kind `internal`.
    pub profile: Arc<Profile>,
    /// Who issues them.
    pub pool: IssuerPool,
}

/// What `--check` can see of the policy.
pub(crate) fn check_policy(path: &FilePath, tokens: &BTreeSet<&str>) -> Result<(), Invalid> {
    Registry::load(path, tokens).map(drop).map_err(|error| Invalid::new("policy", error.to_string()))
}

impl Registry {
    /// Reads and checks the policy and every file that it names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(path: &FilePath, tokens: &BTreeSet<&str>) -> Result<Self, RegistryError> {
        let policy: Policy = runtime::config::load(path)?;
        Self::from_policy(policy, tokens)
    }

    /// The registry of a policy that is at hand.
    ///
    /// # Errors
    /// As [`Registry::load`].
    pub fn from_policy(policy: Policy, tokens: &BTreeSet<&str>) -> Result<Self, RegistryError> {
        let registry = Self::unmarked(policy, tokens)?;
        registry.directories().try_for_each(|directory| check_marks(directory))?;
        Ok(registry)
    }

    /// The same without a look at the marks of test CAs. No signer starts with it: it is for tests of what issuance refuses all
    /// the same.
    ///
    /// # Errors
    /// As [`Registry::load`].
    pub fn unmarked(policy: Policy, tokens: &BTreeSet<&str>) -> Result<Self, RegistryError> {
        policy.validate()?;
        let issuers = load_issuers(&policy, tokens)?;
        let pool = |name: &str| IssuerPool {
            name: name.to_owned(),
            issuers: issuers.values().filter(|entry| entry.pool == name).cloned().collect(),
            next: AtomicUsize::new(0),
        };
        let profiles: BTreeMap<&str, Arc<Profile>> =
            policy.profile.iter().map(|profile| (profile.name(), Arc::new(profile.clone()))).collect();
        let directories = policy.directory.iter().map(|declared| {
            let chosen = declared.profiles.iter().filter_map(|name| profiles.get(name.as_str()).cloned());
            let directory = Directory {
                policy: declared.clone(),
                profiles: chosen.collect(),
                pool: pool(&declared.pool),
            };
            (declared.name.clone(), Arc::new(directory))
        });
        let directories: BTreeMap<_, _> = directories.collect();
        let bases: BTreeSet<&BaseUrl> =
            policy.directory.iter().flat_map(|directory| &directory.base_urls).collect();
        let servers = policy.server_certificates().and_then(|servers| {
            let profile = profiles.get(servers.profile.as_str())?.clone();
            Some(ServerCertificates { profile, pool: pool(&servers.pool) })
        });
        Ok(Self {
            bases: bases.into_iter().cloned().collect(),
            roots: policy.root.iter().map(load_root).collect::<Result<_, _>>()?,
            directories,
            issuers,
            servers,
            policy,
        })
    }

    /// Takes apart a URL that a client signed. The directory exists and is served under the URL's base.
    ///
    /// # Errors
    /// [`UnknownUrl`] for any other text.
    pub fn locate(&self, url: &str) -> Result<(Arc<Directory>, Located), UnknownUrl> {
        let located = Resource::parse(&self.bases, url)?;
        let directory = self.directories.get(&located.directory).ok_or(UnknownUrl)?;
        if directory.policy.base_urls.contains(&located.base) {
            Ok((Arc::clone(directory), located))
        } else {
            Err(UnknownUrl)
        }
    }

    /// All directories, by name.
    pub fn directories(&self) -> impl Iterator<Item = &Arc<Directory>> {
        self.directories.values()
    }

    /// A directory.
    #[must_use]
    pub fn directory(&self, name: &DirectoryName) -> Option<&Arc<Directory>> {
        self.directories.get(name)
    }

    /// All issuers, by id.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<IssuerEntry>> {
        self.issuers.values()
    }

    /// An issuer.
    #[must_use]
    pub fn issuer(&self, id: &str) -> Option<&Arc<IssuerEntry>> {
        self.issuers.get(id)
    }

    /// Whether a directory offers a publicly trusted profile.
    #[must_use]
    pub fn issues_publicly(&self) -> bool {
        let mut offered = self.directories.values().flat_map(|directory| &directory.profiles);
        offered.any(|profile| profile.kind() == ProfileKind::PublicDv)
    }

    /// The roots.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// What fronts' own certificates are made of, if this CA makes them.
    #[must_use]
    pub const fn servers(&self) -> Option<&ServerCertificates> {
        self.servers.as_ref()
    }

    /// The doors that the issuers need.
    #[must_use]
    pub fn door_plans(&self) -> Vec<DoorPlan> {
        self.issuers.values().map(|entry| entry.door_plan()).collect()
    }

    /// The doors that their OCSP responders need.
    #[must_use]
    pub fn responder_plans(&self) -> Vec<ResponderPlan> {
        let plan = |entry: &Arc<IssuerEntry>| {
            let place = entry.ocsp.as_ref()?.place.clone();
            Some(ResponderPlan { issuer: entry.id.clone(), place })
        };
        self.issuers.values().filter_map(plan).collect()
    }
}

impl Directory {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &DirectoryName {
        &self.policy.name
    }

    /// The profile that an order has: the named one, or the default.
    #[must_use]
    pub fn profile(&self, name: Option<&str>) -> Option<&Arc<Profile>> {
        match name {
            None => self.profiles.first(),
            Some(name) => self.profiles.iter().find(|profile| profile.name() == name),
        }
    }

    /// Its profiles, the default first.
    #[must_use]
    pub fn profiles(&self) -> &[Arc<Profile>] {
        &self.profiles
    }

    /// The names of its profiles, the default first.
    #[must_use]
    pub fn profile_names(&self) -> Vec<&str> {
        self.profiles.iter().map(|profile| profile.name()).collect()
    }

    /// Its issuers.
    #[must_use]
    pub const fn pool(&self) -> &IssuerPool {
        &self.pool
    }
}

impl IssuerPool {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next issuer whose key is not known to be unusable: active ones in turn, standby ones when there is none.
    #[must_use]
    pub fn choose<'a>(&self, doors: &'a Doors) -> Option<(&Arc<IssuerEntry>, &'a IssuerDoor)> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        [IssuerState::Active, IssuerState::Standby].into_iter().find_map(|state| {
            let candidates = self.issuers.iter().filter(|entry| entry.state == state);
            let usable: Vec<_> = candidates
                .filter_map(|entry| Some((entry, doors.issuer(&entry.id).ok()?)))
                // A key that was not looked at yet may be good: the token answers for it.
                .filter(|(_, door)| !matches!(door.health(), KeyHealth::Refused(_)))
                .collect();
            usable.get(turn.checked_rem(usable.len())?).copied()
        })
    }
}

impl Root {
    /// The path under which status nodes serve its certificate.
    #[must_use]
    pub fn certificate_path(&self) -> String {
        certificate_path(&self.name)
    }

    /// The path under which status nodes serve its CRL, as [`pki::crl_url`] writes it into certificates.
    #[must_use]
    pub fn crl_path(&self) -> String {
        crl_path(self.certificate.key_id().unwrap_or_default(), 0)
    }
}

fn certificate_path(name: &str) -> String {
    format!("issuer/{name}.cer")
}

fn crl_path(key_id: &[u8], shard: u32) -> String {
    pki::crl_url("crl", key_id, shard)
}

impl IssuerEntry {
    /// The path under which status nodes serve its certificate.
    #[must_use]
    pub fn certificate_path(&self) -> String {
        certificate_path(&self.id)
    }

    /// The path under which status nodes serve the CRL of a shard.
    #[must_use]
    pub fn crl_path(&self, shard: u32) -> String {
        crl_path(self.issuer.key_id(), shard)
    }

    /// The path under which status nodes serve the delta CRL of a shard.
    #[must_use]
    pub fn delta_crl_path(&self, shard: u32) -> String {
        pki::delta_crl_url("crl", self.issuer.key_id(), shard)
    }

    /// The other chains all of whose certificates are valid at this time.
    pub fn alternates_at(&self, now: Timestamp) -> impl Iterator<Item = &[Certificate]> {
        let in_force = move |chain: &&[Certificate]| chain.iter().all(|one| one.is_valid_at(now));
        self.alternates.iter().map(Vec::as_slice).filter(in_force)
    }

    fn door_plan(&self) -> DoorPlan {
        DoorPlan {
            name: self.id.clone(),
            public_key: self.issuer.certificate().public_key().clone(),
            algorithm: self.issuer.signature(),
            place: self.place.clone(),
        }
    }
}
