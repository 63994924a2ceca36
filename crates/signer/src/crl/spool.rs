//! The folder of finished CRLs, and the files that they are made in. All of it can be made again from the journal.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use ca_store::{CrlKey, CrlRow};
use pki::crl::{Crl, CrlTbs};
use pki::{Certificate, SignatureAlgorithm};

use crate::journal::CrlDigester;
use crate::refusal::{Failure, Outcome};
use crate::registry::IssuerEntry;

/// The folder.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
}

/// To-be-signed bytes in a file, and what was seen going by.
pub(super) struct Written {
    pub(super) file: PathBuf,
    pub(super) tbs: CrlTbs,
    pub(super) digester: CrlDigester,
    pub(super) sha256: [u8; 32],
}

/// A finished CRL in a file.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The file.
    pub(crate) file: PathBuf,
    /// Its octets.
    pub(crate) size: u64,
    /// SHA-256 of them.
    pub(crate) sha256: [u8; 32],
}

impl Spool {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    pub(super) fn file_of(&self, key: &CrlKey) -> PathBuf {
        self.folder.join(format!("{}-{}-{}.crl", key.shard.issuer, key.shard.shard, key.number))
    }

    /// Removes every file that is not one of these.
    pub(super) async fn sweep(&self, current: BTreeSet<PathBuf>) -> Outcome<()> {
        let folder = self.folder.clone();
        blocking(move || {
            let entries = std::fs::read_dir(&folder).map_err(|error| unwritable(&folder, &error))?;
            for entry in entries {
                let path = entry.map_err(|error| unwritable(&folder, &error))?.path();
                if !current.contains(&path) && path.is_file() {
                    std::fs::remove_file(&path).map_err(|error| unwritable(&path, &error))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Where the to-be-signed bytes go: `cap` octets at most.
    pub(super) async fn sink(&self, key: &CrlKey, algorithm: SignatureAlgorithm, cap: u64) -> Outcome<Sink> {
        let path = self.file_of(key).with_extension("tbs");
        blocking(move || {
            let file = File::create(&path).map_err(|error| unwritable(&path, &error))?;
            let digester = CrlDigester::new(algorithm);
            Ok(Sink { file: Hashed::new(file), path, digester, left: cap })
        })
        .await
    }

    /// The finished CRL, once its signature is verified with the issuer's certificate.
    pub(super) async fn finish(
        &self,
        entry: &Arc<IssuerEntry>,
        key: &CrlKey,
        (tbs_file, tbs): (PathBuf, CrlTbs),
        signature: Vec<u8>,
    ) -> Outcome<Finished> {
        let file = self.file_of(key);
        let entry = Arc::clone(entry);
        blocking(move || {
            verify(entry.issuer.certificate(), &tbs_file, &tbs, &signature)?;
            let finished = assemble(&tbs_file, &tbs, &signature, &file);
            let (size, sha256) = finished.map_err(|error| unwritable(&file, &error))?;
            std::fs::remove_file(&tbs_file).map_err(|error| unwritable(&tbs_file, &error))?;
            Ok(Finished { file, size, sha256 })
        })
        .await
    }

    /// The file of a published CRL, if it is there and is what the journal says.
    pub(super) async fn take_up(&self, entry: &Arc<IssuerEntry>, row: &CrlRow) -> Outcome<Option<Finished>> {
        let file = self.file_of(&row.key);
        let (entry, journaled) = (Arc::clone(entry), row.tbs_sha256);
        blocking(move || {
            let der = match std::fs::read(&file) {
                Ok(der) => der,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(unwritable(&file, &error)),
            };
            let Ok(crl) = Crl::from_der(&der) else { return Ok(None) };
            let sound = sha256(crl.tbs_bytes()) == journaled
                && crl.verify_issued_by(entry.issuer.certificate()).is_ok();
            let size = der.len() as u64;
            let sha256 = sha256(&der);
            Ok(sound.then_some(Finished { file, size, sha256 }))
        })
        .await
    }
}

pub(super) fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| unwritable(path, &error))
}

/// Removes a file that nobody needs; if it stays, the next start sweeps it.
pub(super) async fn remove(path: &Path) {
    let _ = tokio::fs::remove_file(path).await;
}

/// Work on the disk, where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Failure::Stopping))
}

/// Writes to the file and to the digests at once.
pub(super) struct Sink {
    file: Hashed,
    path: PathBuf,
    digester: CrlDigester,
    left: u64,
}

impl Sink {
    pub(super) fn close(self, tbs: CrlTbs) -> Outcome<Written> {
        let (_, sha256) = self.file.close().map_err(|error| unwritable(&self.path, &error))?;
        Ok(Written { file: self.path, tbs, digester: self.digester, sha256 })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let detail =
                "the CRL is longer than a key that signs messages takes; give the issuer more shards";
            io::Error::new(io::ErrorKind::FileTooLarge, detail)
        })?;
        self.file.write_all(bytes)?;
        self.digester.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file, and the digest of what goes into it.
struct Hashed {
    file: BufWriter<File>,
    sha256: digest::Context,
    size: u64,
}

impl Hashed {
    fn new(file: File) -> Self {
        Self { file: BufWriter::new(file), sha256: digest::Context::new(&digest::SHA256), size: 0 }
    }

    fn close(self) -> io::Result<(u64, [u8; 32])> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok((self.size, array(self.sha256.finish())))
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn verify(issuer: &Certificate, tbs_file: &Path, tbs: &CrlTbs, signature: &[u8]) -> Outcome<()> {
    let key = issuer.public_key();
    let verified = match &tbs.digest {
        Some(digest) => key.verify_digest(tbs.algorithm, digest, signature),
        // At most what a token takes.
        None => {
            let message = read(tbs_file)?;
            key.verify(tbs.algorithm, &message, signature)
        }
    };
    verified.map_err(|error| Failure::Unmakeable {
        detail: format!("the signature of {} is not the issuer's: {error}", tbs_file.display()),
    })
}

fn assemble(tbs_file: &Path, tbs: &CrlTbs, signature: &[u8], file: &Path) -> io::Result<(u64, [u8; 32])> {
    let (prefix, suffix) = pki::crl::envelope(tbs.len, tbs.algorithm, signature);
    let temporary = file.with_extension("new");
    let mut out = Hashed::new(File::create(&temporary)?);
    out.write_all(&prefix)?;
    let copied = io::copy(&mut File::open(tbs_file)?.take(tbs.len), &mut out)?;
    if copied != tbs.len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    out.write_all(&suffix)?;
    let facts = out.close()?;
    runtime::files::rename_durably(&temporary, file)?;
    Ok(facts)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    array(digest::digest(&digest::SHA256, bytes))
}

fn array(digest: digest::Digest) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Spool { path: path.display().to_string(), detail: error.to_string() }
}
