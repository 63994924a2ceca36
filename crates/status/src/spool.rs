//! The folder that outlives signers and restarts: one file an object, named by its digest, and a manifest.
//!
//! An object's file is durable before the manifest names it, and the manifest before the object is served. Nothing that
//! is read back is believed: every object is verified again at start, against certificates that were verified before.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::object::{Revision, Sha256};
use crate::shelf::Shelf;
use crate::verify::{Batch, Refusal, Verifier};

/// The folder, locked for this process.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Reading or writing failed.
    #[error("spool {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another status node uses it.
    #[error("spool {0} is in use by another process")]
    Locked(PathBuf),
}

/// What was found at start and is not served.
#[derive(Debug)]
pub struct Refused {
    /// The object's path, or the manifest's file.
    pub path: String,
    /// Why.
    pub refusal: Refusal,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    objects: Vec<Revision>,
}

const MANIFEST_VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
const OBJECTS: &str = "objects";
/// Public objects: everybody may read them here as well.
const FILE_MODE: u32 = 0o644;

impl Spool {
    /// Makes the folder where it is missing, and locks it.
    ///
    /// # Errors
    /// When that fails, or another process holds it.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Io { path: folder.to_owned(), source };
        fs::create_dir_all(folder.join(OBJECTS)).map_err(failed)?;
        let lock = File::create(folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(SpoolError::Locked(folder.to_owned())),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Puts what is here, and verifies, on the shelf. Answers with what was refused; that is fetched again.
    ///
    /// # Errors
    /// When the folder cannot be read. A file that is missing or wrong is refused, not an error.
    pub fn load(&self, verifier: &Verifier, shelf: &Shelf) -> Result<Vec<Refused>, SpoolError> {
        let mut refused = Vec::new();
        let entries = match self.manifest() {
            Ok(entries) => entries,
            Err(refusal) => {
                refused.push(Refused { path: MANIFEST.to_owned(), refusal });
                Vec::new()
            }
        };
        let mut batch = Vec::new();
        for revision in entries {
            match self.read(&revision) {
                Ok(bytes) => batch.push((revision, bytes)),
                Err(refusal) => refused.push(Refused { path: revision.path.into(), refusal }),
            }
        }
        let Batch { verified, refused: wrong } = verifier.verify_all(batch, shelf);
        for object in verified {
            shelf.put(object);
        }
        refused.extend(wrong.into_iter().map(|(path, refusal)| Refused { path: path.into(), refusal }));
        self.sweep(shelf)?;
        Ok(refused)
    }

    /// Keeps an object's bytes. Durable when it returns; [`commit`](Self::commit) makes it count.
    ///
    /// # Errors
    /// As the operating system says.
    pub(crate) fn keep(&self, sha256: &Sha256, bytes: &[u8]) -> Result<(), SpoolError> {
        let path = self.object(sha256);
        rpc::files::write_atomically(&path, bytes, FILE_MODE)
            .map_err(|source| SpoolError::Io { path, source })
    }

    /// Whether an object's bytes are kept.
    pub(crate) fn has(&self, sha256: &Sha256) -> bool {
        self.object(sha256).exists()
    }

    /// Writes the manifest of these objects, and removes the files of all others.
    ///
    /// # Errors
    /// As the operating system says; the old manifest is then in force.
    pub(crate) fn commit(&self, objects: Vec<Revision>) -> Result<(), SpoolError> {
        let path = self.folder.join(MANIFEST);
        let failed = |source| SpoolError::Io { path: path.clone(), source };
        let kept: HashSet<String> = objects.iter().map(|revision| revision.sha256.to_string()).collect();
        let manifest = Manifest { version: MANIFEST_VERSION, objects };
        let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        rpc::files::write_atomically(&path, &text, FILE_MODE).map_err(failed)?;
        self.remove_others(&kept)
    }

    fn manifest(&self) -> Result<Vec<Revision>, Refusal> {
        let text = match fs::read(self.folder.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Refusal::Unreadable(error.kind())),
        };
        match serde_json::from_slice::<Manifest>(&text) {
            Ok(Manifest { version: MANIFEST_VERSION, objects }) => Ok(objects),
            Ok(_) | Err(_) => Err(Refusal::Manifest),
        }
    }

    fn read(&self, revision: &Revision) -> Result<Bytes, Refusal> {
        let unreadable = |error: io::Error| Refusal::Unreadable(error.kind());
        let file = File::open(self.object(&revision.sha256)).map_err(unreadable)?;
        let mut bytes = Vec::new();
        // One byte more than it may have: enough to see that it is too long.
        file.take(revision.size.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes.into())
    }

    fn object(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(OBJECTS).join(sha256.to_string())
    }

    /// After a load: leftovers of crashes, and what was refused.
    fn sweep(&self, shelf: &Shelf) -> Result<(), SpoolError> {
        let kept = shelf.revisions().iter().map(|revision| revision.sha256.to_string()).collect();
        self.remove_others(&kept)
    }

    fn remove_others(&self, kept: &HashSet<String>) -> Result<(), SpoolError> {
        let folder = self.folder.join(OBJECTS);
        let failed = |source| SpoolError::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}
