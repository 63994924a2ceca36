//! Files that survive a crash in whole, and files that are nobody else's.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Writes a file so that a reader, and a crash, sees either the old content or the new: temporary file, fsync, rename,
/// fsync of the folder.
///
/// # Errors
/// As the operating system says; the old content is then still there.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    // A leftover of a crash: not to be trusted with our mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    // The umask may have taken bits away; readers are meant.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    rename_durably(&temporary, path)
}

/// Renames within a folder and makes that durable.
///
/// # Errors
/// As the operating system says.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a secret, unless others than the owner may read it.
///
/// # Errors
/// When it cannot be read, or group or world can.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    // Of the opened file: no gap between look and read.
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    io::Read::read_to_end(&mut file, &mut content).map_err(failed)?;
    Ok(content)
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Why a secret was not read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} holds a secret and has mode {mode:04o}: take it from group and world (chmod 0600)", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}
