//! The policy's way into `ca`: rows with MACs, changed by compare-and-swap and never deleted.

use std::collections::BTreeMap;

use ca_store::{
    AuthorityChange, AuthorityChanges, AuthorityRow, CaStore, DirectoryRow, IssuerRow, IssuerState, MacError,
    ProfileRow, PutOutcome, RowMacKeys, Sealable, Sealed, State, StoreError, TenantRow,
};
use pki::Timestamp;
use serde::Serialize;

use super::{IssuerEntry, Registry};
use crate::audit::Event;
use crate::issue::sha256;

/// Why the policy and the database do not go together.
#[derive(Debug, thiserror::Error)]
pub enum SynchronizeError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row of the database was changed by something else than a signer.
    #[error(transparent)]
    Tampered(#[from] MacError),
    /// An issuer's name was used for another certificate: its journal entries would change their issuer.
    #[error("issuer {0:?} has another certificate in the database; a new certificate needs a new name")]
    IssuerReplaced(String),
    /// Fewer shards than before: certificates name shards that would have no CRL.
    #[error("issuer {issuer:?} had {before} shards and cannot have {now}: certificates name them")]
    ShardsRemoved {
        /// Which issuer.
        issuer: String,
        /// In the database.
        before: u32,
        /// In the policy.
        now: u32,
    },
    /// Another signer writes another policy at the same time.
    #[error("another signer changed the registry at the same time, several times in a row")]
    Contended,
}

/// Signers that start at the same moment with the same policy meet here once or twice.
const TRIES: u32 = 5;

impl Registry {
    /// Verifies the registry's rows in `ca`, and writes what the policy says otherwise.
    ///
    /// # Errors
    /// When a row was tampered with, when the policy takes back what certificates rest on, or by the store.
    pub async fn synchronize(
        &self,
        store: &dyn CaStore,
        keys: &RowMacKeys,
        now: Timestamp,
    ) -> Result<(), SynchronizeError> {
        for _ in 0..TRIES {
            let stored = store.registry().await?;
            let mut difference = Difference { keys, now, changes: Vec::new() };
            difference.tenants(self, stored.tenants)?;
            difference.directories(self, stored.directories)?;
            difference.profiles(self, stored.profiles)?;
            difference.issuers(self, stored.issuers)?;
            if difference.changes.is_empty() {
                return Ok(());
            }
            let count = difference.changes.len();
            let audit = vec![Event::PolicySynchronized { rows: count }.at(now)];
            let changes = AuthorityChanges { changes: difference.changes, audit };
            match store.put_authority(changes).await? {
                PutOutcome::Applied => {
                    tracing::info!(rows = count, "registry.synchronized");
                    return Ok(());
                }
                PutOutcome::Conflict(_) => {}
            }
        }
        Err(SynchronizeError::Contended)
    }
}

/// What has to be written.
struct Difference<'a> {
    keys: &'a RowMacKeys,
    now: Timestamp,
    changes: Vec<AuthorityChange>,
}

impl Difference<'_> {
    fn tenants(&mut self, registry: &Registry, stored: Vec<Sealed<TenantRow>>) -> Result<(), MacError> {
        let mut stored = self.verified(stored, |row| row.id.clone())?;
        for declared in &registry.policy.tenant {
            let wanted = |created_at, version| TenantRow {
                id: declared.name.clone(),
                title: declared.name.clone(),
                state: State::Active,
                created_at,
                version,
            };
            self.compare(stored.remove(&declared.name), wanted, AuthorityRow::Tenant);
        }
        for row in stored.into_values().filter(|row| row.state == State::Active) {
            let version = row.version;
            let row = TenantRow { state: State::Disabled, version: version + 1, ..row };
            self.change(AuthorityRow::Tenant(self.keys.seal(row)), Some(version));
        }
        Ok(())
    }

    fn directories(
        &mut self,
        registry: &Registry,
        stored: Vec<Sealed<DirectoryRow>>,
    ) -> Result<(), MacError> {
        let mut stored = self.verified(stored, |row| row.name.clone())?;
        for directory in registry.directories.values() {
            let wanted = |created_at, version| DirectoryRow {
                name: directory.name().to_string(),
                tenant: directory.policy.tenant.clone(),
                policy: json(&directory.policy),
                state: State::Active,
                created_at,
                version,
            };
            self.compare(stored.remove(directory.name().as_str()), wanted, AuthorityRow::Directory);
        }
        for row in stored.into_values().filter(|row| row.state == State::Active) {
            let version = row.version;
            let row = DirectoryRow { state: State::Disabled, version: version + 1, ..row };
            self.change(AuthorityRow::Directory(self.keys.seal(row)), Some(version));
        }
        Ok(())
    }

    fn profiles(&mut self, registry: &Registry, stored: Vec<Sealed<ProfileRow>>) -> Result<(), MacError> {
        let mut stored = self.verified(stored, |row| row.name.clone())?;
        for profile in &registry.policy.profile {
            let wanted = |created_at, version| ProfileRow {
                name: profile.name().to_owned(),
                body: json(profile),
                state: State::Active,
                created_at,
                version,
            };
            self.compare(stored.remove(profile.name()), wanted, AuthorityRow::Profile);
        }
        for row in stored.into_values().filter(|row| row.state == State::Active) {
            let version = row.version;
            let row = ProfileRow { state: State::Disabled, version: version + 1, ..row };
            self.change(AuthorityRow::Profile(self.keys.seal(row)), Some(version));
        }
        Ok(())
    }

    fn issuers(
        &mut self,
        registry: &Registry,
        stored: Vec<Sealed<IssuerRow>>,
    ) -> Result<(), SynchronizeError> {
        let mut stored = self.verified(stored, |row| row.id.clone())?;
        for entry in registry.issuers.values() {
            let stored = stored.remove(&entry.id);
            if let Some(row) = &stored {
                if row.certificate != entry.issuer.certificate().der() {
                    return Err(SynchronizeError::IssuerReplaced(entry.id.clone()));
                }
                if row.shards > entry.shards {
                    let (before, now) = (row.shards, entry.shards);
                    return Err(SynchronizeError::ShardsRemoved { issuer: entry.id.clone(), before, now });
                }
            }
            self.compare(
                stored,
                |created_at, version| issuer_row(entry, created_at, version),
                AuthorityRow::Issuer,
            );
        }
        for row in stored.into_values().filter(|row| row.state != IssuerState::Retired) {
            tracing::warn!(issuer = row.id, "registry.issuer_gone: nobody signs its CRLs any longer");
            let version = row.version;
            let row = IssuerRow { state: IssuerState::Retired, version: version + 1, ..row };
            self.change(AuthorityRow::Issuer(self.keys.seal(row)), Some(version));
        }
        Ok(())
    }

    fn verified<T: Sealable>(
        &self,
        rows: Vec<Sealed<T>>,
        key: impl Fn(&T) -> String,
    ) -> Result<BTreeMap<String, T>, MacError> {
        rows.into_iter().map(|row| self.keys.open(row).map(|row| (key(&row), row))).collect()
    }

    /// Writes the wanted row unless it is there.
    fn compare<T: Sealable + Versioned>(
        &mut self,
        stored: Option<T>,
        wanted: impl Fn(Timestamp, u64) -> T,
        row: impl Fn(Sealed<T>) -> AuthorityRow,
    ) {
        match stored {
            None => self.change(row(self.keys.seal(wanted(self.now, 1))), None),
            Some(stored) => {
                let (created_at, version) = (stored.created_at(), stored.version());
                if wanted(created_at, version) != stored {
                    self.change(row(self.keys.seal(wanted(created_at, version + 1))), Some(version));
                }
            }
        }
    }

    fn change(&mut self, row: AuthorityRow, expected: Option<u64>) {
        self.changes.push(AuthorityChange { row, expected });
    }
}

fn issuer_row(entry: &IssuerEntry, created_at: Timestamp, version: u64) -> IssuerRow {
    #[derive(Serialize)]
    struct Settings<'a> {
        pool: &'a str,
        token: &'a str,
        key_id: String,
        crl_url_base: Option<&'a str>,
        ca_issuers_url: Option<&'a str>,
        crl_lifetime: pki::Period,
        crl_interval: pki::Period,
        delta_crls: bool,
        /// SHA-256 of each certificate of each other chain.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        alternates: Vec<Vec<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ocsp: Option<Ocsp<'a>>,
    }
    #[derive(Serialize)]
    struct Ocsp<'a> {
        url: Option<&'a str>,
        token: &'a str,
        key_id: String,
        validity: pki::Period,
        certificate_lifetime: pki::Period,
        archive_cutoff: Option<pki::Period>,
    }
    let ocsp = entry.ocsp.as_ref().map(|ocsp| Ocsp {
        url: entry.issuer.ocsp_url(),
        token: &ocsp.place.token,
        key_id: hex::encode(&ocsp.place.id),
        validity: ocsp.validity,
        certificate_lifetime: ocsp.certificate_lifetime,
        archive_cutoff: ocsp.archive_cutoff,
    });
    let digest = |one: &pki::Certificate| hex::encode(sha256(one.der()));
    let settings = Settings {
        alternates: entry.alternates.iter().map(|chain| chain.iter().map(digest).collect()).collect(),
        pool: &entry.pool,
        token: &entry.place.token,
        key_id: hex::encode(&entry.place.id),
        crl_url_base: entry.issuer.crl_url_base(),
        ca_issuers_url: entry.issuer.ca_issuers_url(),
        crl_lifetime: entry.crl_lifetime,
        crl_interval: entry.crl_interval,
        delta_crls: entry.deltas.is_some(),
        ocsp,
    };
    IssuerRow {
        id: entry.id.clone(),
        certificate: entry.issuer.certificate().der().to_vec(),
        settings: json(&settings),
        shards: entry.shards,
        state: entry.state,
        created_at,
        version,
    }
}

/// What all registry rows have.
trait Versioned: PartialEq {
    fn created_at(&self) -> Timestamp;
    fn version(&self) -> u64;
}

macro_rules! versioned {
    ($($row:ty),*) => {
        $(impl Versioned for $row {
            fn created_at(&self) -> Timestamp {
                self.created_at
            }

            fn version(&self) -> u64 {
                self.version
            }
        })*
    };
}

versioned!(TenantRow, DirectoryRow, ProfileRow, IssuerRow);

/// JSON of our own plain structs, whose maps have text keys: it does not fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
