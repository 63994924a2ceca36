//! The keys that the tier secret gives: ids, row MACs, EAB keys.

use std::sync::Arc;

use acme::eab::EabKeyId;
use acme::id::{IdKeys, SecretError, TierSecrets};
use ca_store::{MacError, RowMacKeys};
use runtime::files;
use zeroize::Zeroizing;

use crate::config::TierSecretSection;

/// Derived once at start.
#[derive(Debug, Clone)]
pub struct Secrets {
    secrets: TierSecrets,
    /// MACs of order and authorization ids.
    pub ids: IdKeys,
    /// MACs of rows.
    pub rows: Arc<RowMacKeys>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] files::SecretError),
    /// A file does not hold what it should.
    #[error("{}: {error}", path.display())]
    Secret {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: SecretError,
    },
    /// A file holds another version than the configuration says.
    #[error("{} does not hold version {version} of the tier secret alone", path.display())]
    Version {
        /// The file.
        path: std::path::PathBuf,
        /// As configured.
        version: u32,
    },
    /// The versions do not go together.
    #[error(transparent)]
    Versions(#[from] SecretError),
    /// There is none.
    #[error(transparent)]
    Rows(#[from] MacError),
}

impl Secrets {
    /// Reads the configured files.
    ///
    /// # Errors
    /// When one cannot be read, can be read by others, or does not hold its version.
    pub fn load(sections: &[TierSecretSection]) -> Result<Self, SecretsError> {
        let mut all = Vec::new();
        for section in sections {
            let path = || section.file.to_path_buf();
            let bytes = Zeroizing::new(files::read_secret(&section.file)?);
            let file = TierSecrets::from_file(&bytes)
                .map_err(|error| SecretsError::Secret { path: path(), error })?;
            let mut versions = file.iter();
            match (versions.next(), versions.next()) {
                (Some(secret), None) if secret.version() == section.version => all.push(secret.clone()),
                _ => return Err(SecretsError::Version { path: path(), version: section.version }),
            }
        }
        Ok(Self::new(TierSecrets::new(all)?)?)
    }

    /// Derives the keys.
    ///
    /// # Errors
    /// Never: there is at least one version.
    pub fn new(secrets: TierSecrets) -> Result<Self, MacError> {
        let derived: Vec<_> =
            secrets.iter().map(|secret| (secret.version(), secret.derive("chancery row mac v1"))).collect();
        let rows = RowMacKeys::new(derived.iter().map(|(version, key)| (*version, &**key)))?;
        Ok(Self { ids: IdKeys::new(&secrets), rows: Arc::new(rows), secrets })
    }

    /// The MAC key of an EAB key id; `None` when its version is not in use any more.
    #[must_use]
    pub fn eab_key(&self, id: &EabKeyId) -> Option<Zeroizing<[u8; 32]>> {
        self.secrets.eab_key(id)
    }

    /// The id of a new EAB key of this epoch.
    #[must_use]
    pub fn new_eab_key_id(&self, epoch: u64, random: [u8; 16]) -> EabKeyId {
        EabKeyId::new(self.secrets.newest().version(), epoch, random)
    }
}
