//! Weak keys (BR §6.1.1.3): what a key's numbers give away, and the lists that an operator has installed.

use pki::{PublicKey, WeakKeyList, WeakKeyListError, Weakness};
use runtime::config::FilePath;

/// The lists of known keys. They are read once, when the signer starts.
#[derive(Debug, Default)]
pub struct WeakKeys(Vec<WeakKeyList>);

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeakKeysError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no such list.
    #[error("{}: {error}", path.display())]
    List {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: WeakKeyListError,
    },
}

impl WeakKeys {
    /// Reads the lists, each wholly into memory.
    ///
    /// # Errors
    /// The first file that cannot be read, or is no list: a signer does not start without what it was told to look at.
    pub fn load(files: &[FilePath]) -> Result<Self, WeakKeysError> {
        let read = |path: &FilePath| {
            let octets = std::fs::read(path)
                .map_err(|source| WeakKeysError::Read { path: path.to_path_buf(), source })?;
            let list = WeakKeyList::read(octets)
                .map_err(|error| WeakKeysError::List { path: path.to_path_buf(), error })?;
            tracing::info!(file = %path.display(), keys = list.len(), "weak_keys.read");
            Ok(list)
        };
        files.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why a key is weak, if it is.
    #[must_use]
    pub fn weakness(&self, key: &PublicKey) -> Option<Weakness> {
        let listed = || self.0.iter().any(|list| list.contains(key)).then_some(Weakness::Listed);
        key.weakness().or_else(listed)
    }
}
