//! The file of a perspective's receipt key: 64 hexadecimal digits, the seed of an Ed25519 key, mode 0600. Who holds it can
//! say anything in this perspective's name.

use std::io;
use std::path::{Path, PathBuf};

use acme::receipt::{BadPerspective, Perspective, ReceiptError, ReceiptKey};
use rpc::NodeName;
use runtime::files::{SecretError, read_secret, write_atomically};

/// Why there is no receipt key.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptKeyError {
    /// The file is missing, or others may read it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The file holds something else.
    #[error("{} does not hold a receipt key", .0.display())]
    Content(PathBuf),
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a file already. It is not overwritten: its key may be registered.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The system's random number generator failed.
    #[error("no random numbers")]
    Random,
    /// The node's name cannot name a perspective.
    #[error(transparent)]
    Name(#[from] BadPerspective),
    /// The key does not work.
    #[error(transparent)]
    Key(#[from] ReceiptError),
}

/// Makes a receipt key for a node that joins under this name, and answers with its public part, for the registration.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn create(path: &Path, name: &NodeName) -> Result<[u8; 32], ReceiptKeyError> {
    if path.exists() {
        return Err(ReceiptKeyError::Exists(path.to_owned()));
    }
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| ReceiptKeyError::Random)?;
    let key = ReceiptKey::from_seed(perspective(name)?, &seed)?;
    let line = hex::encode(seed) + "\n";
    write_atomically(path, line.as_bytes(), 0o600)
        .map_err(|source| ReceiptKeyError::Write { path: path.to_owned(), source })?;
    Ok(*key.public_key())
}

/// Reads the receipt key of the node with this name.
///
/// # Errors
/// When the file is missing, readable by others, or holds something else.
pub fn load(path: &Path, name: &NodeName) -> Result<ReceiptKey, ReceiptKeyError> {
    let line = read_secret(path)?;
    let mut seed = [0; 32];
    hex::decode_to_slice(line.trim_ascii_end(), &mut seed)
        .map_err(|_| ReceiptKeyError::Content(path.to_owned()))?;
    Ok(ReceiptKey::from_seed(perspective(name)?, &seed)?)
}

fn perspective(name: &NodeName) -> Result<Perspective, BadPerspective> {
    name.as_str().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipt.key");
        let name: NodeName = "v-1".parse().unwrap();
        let public = create(&path, &name).unwrap();
        assert_eq!(load(&path, &name).unwrap().public_key(), &public);
        assert!(matches!(create(&path, &name), Err(ReceiptKeyError::Exists(_))));
        assert_eq!(load(&path, &name).unwrap().public_key(), &public);
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(load(&path, &name), Err(ReceiptKeyError::Content(_))));
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&path, permissions).unwrap();
        assert!(matches!(load(&path, &name), Err(ReceiptKeyError::Secret(_))));
    }
}
