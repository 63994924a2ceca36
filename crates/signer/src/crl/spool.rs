//! The folder of finished CRLs, and the files that they are made in. All of it can be made again from the journal, so
//! nothing is flushed to the disk: a file that a crash tore is found by its digest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use ca_store::{CrlKey, CrlRow};
use pki::crl::{Crl, CrlEdits, CrlError, CrlTbs, CrlTotals, Entry, EntryWriter};
use pki::{Certificate, SignatureAlgorithm, Timestamp};

use super::write::unmakeable;
use crate::journal::CrlDigester;
use crate::refusal::{Failure, Outcome};
use crate::registry::IssuerEntry;

/// Files are read in pieces of this many octets.
const PIECE: usize = 256 * 1024;

/// The folder.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
}

/// Encoded entries, in a file that has no name any more: it goes with the process.
pub(super) struct Listing {
    writer: EntryWriter<File>,
    /// What was there after each piece.
    ends: Vec<CrlTotals>,
}

/// All of a CRL's entries.
pub(super) struct Listed {
    pub(super) file: File,
    pub(super) totals: CrlTotals,
    /// A time stands in it that a later CRL has otherwise.
    pub(super) clamped: bool,
    ends: Vec<CrlTotals>,
}

/// To-be-signed bytes in a file, with room for what comes before them, and what was seen going by.
pub(super) struct Written {
    pub(super) draft: Draft,
    pub(super) tbs: CrlTbs,
    pub(super) digester: CrlDigester,
    pub(super) listed: Listed,
}

/// A file that becomes a CRL; if it does not, it goes with the value.
pub(super) struct Draft {
    file: File,
    path: PathBuf,
    /// Octets that are left free before the TBSCertList.
    reserved: u64,
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

    /// Where the entries of a CRL go.
    pub(super) async fn listing(&self, key: &CrlKey, this_update: Timestamp) -> Outcome<Listing> {
        let path = self.file_of(key).with_extension("entries");
        blocking(move || {
            let file = create(&path).map_err(|error| unwritable(&path, &error))?;
            std::fs::remove_file(&path).map_err(|error| unwritable(&path, &error))?;
            Ok(Listing { writer: EntryWriter::new(this_update, file), ends: Vec::new() })
        })
        .await
    }

    /// Where a CRL goes whose TBSCertList begins after so many octets.
    pub(super) fn draft(&self, key: &CrlKey, reserved: u64) -> Outcome<Draft> {
        let path = self.file_of(key).with_extension("new");
        let begin = || {
            let mut file = create(&path)?;
            file.seek(SeekFrom::Start(reserved))?;
            Ok(file)
        };
        let file = begin().map_err(|error: io::Error| unwritable(&path, &error))?;
        Ok(Draft { file, path, reserved })
    }

    /// The finished CRL, once its signature is verified with the issuer's certificate.
    pub(super) async fn finish(
        &self,
        entry: &Arc<IssuerEntry>,
        key: &CrlKey,
        (draft, tbs): (Draft, &CrlTbs),
        signature: &[u8],
    ) -> Outcome<Finished> {
        let file = self.file_of(key);
        let (entry, tbs, signature) = (Arc::clone(entry), tbs.clone(), signature.to_vec());
        blocking(move || {
            let mut draft = draft;
            draft.verify(entry.issuer.certificate(), &tbs, &signature)?;
            let finished = draft.finish(&tbs, &signature, &file);
            let (size, sha256) = finished.map_err(|error| unwritable(&file, &error))?;
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

impl Listing {
    pub(super) fn add(&mut self, piece: &[Entry]) -> Outcome<()> {
        piece.iter().try_for_each(|one| self.writer.entry(one)).map_err(unmakeable)?;
        self.ends.push(self.writer.written());
        Ok(())
    }

    /// Entries of another CRL, edited: see [`EntryWriter::copy`].
    pub(super) fn copy(&mut self, encoded: &[u8], edits: &mut CrlEdits) -> Result<usize, CrlError> {
        let copied = self.writer.copy(encoded, edits)?;
        self.ends.push(self.writer.written());
        Ok(copied)
    }

    pub(super) fn close(self, clamped: bool) -> Outcome<Listed> {
        let (mut file, totals) = self.writer.finish().map_err(unmakeable)?;
        file.rewind().map_err(|error| unwritable(Path::new("crl"), &error))?;
        Ok(Listed { file, totals, clamped, ends: self.ends })
    }
}

impl Listed {
    /// The octets of the first, the middle and the last piece, and how many entries they have.
    pub(super) fn sample(&mut self) -> Outcome<(Vec<u8>, CrlTotals)> {
        let last = self.ends.len().saturating_sub(1);
        let (mut octets, mut entries) = (Vec::new(), 0);
        for at in BTreeSet::from([0, last / 2, last]) {
            let before = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
            let (before, end) = (before.unwrap_or_default(), self.ends.get(at).copied().unwrap_or_default());
            let length = end.octets().saturating_sub(before.octets());
            let read = self
                .file
                .seek(SeekFrom::Start(before.octets()))
                .and_then(|_| (&mut self.file).take(length).read_to_end(&mut octets));
            read.map_err(|error| unwritable(Path::new("crl"), &error))?;
            entries += end.entries().saturating_sub(before.entries());
        }
        let totals = CrlTotals::of(entries, octets.len() as u64);
        Ok((octets, totals))
    }
}

impl Draft {
    /// The TBSCertList, of which there is no more than fits into memory.
    pub(super) fn read(&mut self, tbs: &CrlTbs) -> Outcome<Vec<u8>> {
        let mut read = || {
            let mut octets = Vec::with_capacity(usize::try_from(tbs.len).unwrap_or_default());
            self.file.seek(SeekFrom::Start(self.reserved))?;
            (&mut self.file).take(tbs.len).read_to_end(&mut octets)?;
            Ok(octets)
        };
        read().map_err(|error: io::Error| unwritable(&self.path, &error))
    }

    fn verify(&mut self, issuer: &Certificate, tbs: &CrlTbs, signature: &[u8]) -> Outcome<()> {
        let key = issuer.public_key();
        let verified = match &tbs.digest {
            Some(digest) => key.verify_digest(tbs.algorithm, digest, signature),
            // At most what a token takes.
            None => key.verify(tbs.algorithm, &self.read(tbs)?, signature),
        };
        verified.map_err(|error| Failure::Unmakeable {
            detail: format!("the signature of {} is not the issuer's: {error}", self.path.display()),
        })
    }

    /// Puts header and signature around the TBSCertList, and the file in its place.
    fn finish(&mut self, tbs: &CrlTbs, signature: &[u8], place: &Path) -> io::Result<(u64, [u8; 32])> {
        let (prefix, suffix) = pki::crl::envelope(tbs.len, tbs.algorithm, signature);
        if prefix.len() as u64 != self.reserved {
            self.move_to(prefix.len() as u64, tbs.len)?;
        }
        self.file.rewind()?;
        self.file.write_all(&prefix)?;
        self.file.seek(SeekFrom::Start(self.reserved + tbs.len))?;
        self.file.write_all(&suffix)?;
        self.file.rewind()?;
        let (mut context, mut size) = (digest::Context::new(&digest::SHA256), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let read = self.file.read(&mut piece)?;
            let Some(octets) = piece.get(..read).filter(|octets| !octets.is_empty()) else { break };
            context.update(octets);
            size += octets.len() as u64;
        }
        if size != prefix.len() as u64 + tbs.len + suffix.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        std::fs::rename(&self.path, place)?;
        Ok((size, array(context.finish())))
    }

    /// The signature is of another length than most, and the list just long enough for that to show in the header.
    fn move_to(&mut self, reserved: u64, len: u64) -> io::Result<()> {
        let path = self.path.with_extension("moved");
        let mut file = create(&path)?;
        file.seek(SeekFrom::Start(reserved))?;
        self.file.seek(SeekFrom::Start(self.reserved))?;
        io::copy(&mut (&mut self.file).take(len), &mut file)?;
        std::fs::rename(&path, &self.path)?;
        (self.file, self.reserved) = (file, reserved);
        Ok(())
    }
}

impl Write for Draft {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.file.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // When it was finished it is not there any more; if it stays, the next start sweeps it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Both written and read.
fn create(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).open(path)
}

/// Octets that a CRL's header will take, if its signature is as long as most are.
pub(super) fn expected_prefix(tbs_len: u64, algorithm: SignatureAlgorithm) -> u64 {
    /// ECDSA over P-256. One that is much longer shows in the header's length when the list has just some length of few:
    /// then the file is copied once more.
    const SIGNATURE: [u8; 71] = [0; 71];
    pki::crl::envelope(tbs_len, algorithm, &SIGNATURE).0.len() as u64
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
