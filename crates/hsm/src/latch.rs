//! The latch: a PIN that the token refused is never tried again, whoever restarts whom how often.
//!
//! The file holds a salted, iterated digest of the refused PIN, so that another PIN in the PIN file clears it, and so that
//! the file tells nobody the PIN. It is locked while somebody logs in, which also makes workers log in one at a time:
//! SoftHSM rewrites its token file at each login, and whoever initialises meanwhile may miss the token.
//!
//! A worker that dies *during* a login leaves the mark `trying`. That alone proves nothing (the machine may have lost
//! power), but if the token then says that the last login failed, it was this one, and the PIN counts as refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::{pbkdf2, rand};

use crate::fault::Fault;

/// The latch file, locked against every other process.
#[derive(Debug)]
pub(crate) struct Latch {
    path: PathBuf,
    // Held for the lock; closing it releases.
    _lock: File,
}

/// What the latch knows about a PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing, or another PIN was refused.
    Unknown,
    /// A login with it was begun and its outcome is not known.
    Trying,
    /// The token refused it.
    Refused,
}

impl Latch {
    /// Waits for the lock.
    pub(crate) fn lock(path: &Path) -> Result<Latch, Fault> {
        let fault = |error: io::Error| Fault::Latch { path: path.to_owned(), reason: error.to_string() };
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(fault)?;
        lock.lock().map_err(fault)?;
        Ok(Latch { path: path.to_owned(), _lock: lock })
    }

    /// What is known about `pin`.
    pub(crate) fn verdict(&self, pin: &[u8]) -> Result<Verdict, Fault> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Verdict::Unknown),
            Err(error) => return Err(self.fault(&error)),
        };
        // A file that cannot be understood refuses every PIN: guessing could burn a try.
        let Some(record) = Record::parse(&text) else {
            return Err(Fault::Latch { path: self.path.clone(), reason: "not a latch file".to_owned() });
        };
        if !record.is_of(pin) {
            return Ok(Verdict::Unknown);
        }
        Ok(if record.refused { Verdict::Refused } else { Verdict::Trying })
    }

    /// Notes that a login with `pin` is about to be tried.
    pub(crate) fn trying(&self, pin: &[u8]) -> Result<(), Fault> {
        self.write(pin, false)
    }

    /// Notes that the token refused `pin`; on disk when this returns.
    pub(crate) fn refused(&self, pin: &[u8]) -> Result<(), Fault> {
        self.write(pin, true)
    }

    /// The token took the PIN: nothing is latched.
    pub(crate) fn accepted(&self) -> Result<(), Fault> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.fault(&error)),
            _ => Ok(()),
        }
    }

    fn write(&self, pin: &[u8], refused: bool) -> Result<(), Fault> {
        let record = Record::of(pin, refused).map_err(|error| self.fault(&error))?;
        let write = || -> io::Result<()> {
            let mut temporary = self.path.as_os_str().to_owned();
            temporary.push(".new");
            let mut file =
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
            file.write_all(record.text().as_bytes())?;
            // `trying` need only outlive this process; `refused` must outlive the machine.
            if refused {
                file.sync_all()?;
            }
            fs::rename(&temporary, &self.path)?;
            if let (true, Some(folder)) = (refused, self.path.parent().filter(|p| !p.as_os_str().is_empty()))
            {
                File::open(folder)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &io::Error) -> Fault {
        Fault::Latch { path: self.path.clone(), reason: error.to_string() }
    }
}

struct Record {
    refused: bool,
    salt: [u8; SALT],
    digest: [u8; DIGEST],
}

impl Record {
    fn of(pin: &[u8], refused: bool) -> io::Result<Record> {
        let mut salt = [0; SALT];
        rand::fill(&mut salt).map_err(|_| io::Error::other("no random numbers"))?;
        let mut digest = [0; DIGEST];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, pin, &mut digest);
        Ok(Record { refused, salt, digest })
    }

    fn is_of(&self, pin: &[u8]) -> bool {
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &self.salt, pin, &self.digest).is_ok()
    }

    fn text(&self) -> String {
        let state = if self.refused { REFUSED } else { TRYING };
        format!("{HEADER}\n{state} {} {}\n", hex::encode(self.salt), hex::encode(self.digest))
    }

    fn parse(text: &str) -> Option<Record> {
        let line = text.strip_prefix(HEADER)?.strip_prefix('\n')?.strip_suffix('\n')?;
        let mut parts = line.split(' ');
        let refused = match parts.next()? {
            REFUSED => true,
            TRYING => false,
            _ => return None,
        };
        let mut record = Record { refused, salt: [0; SALT], digest: [0; DIGEST] };
        hex::decode_to_slice(parts.next()?, &mut record.salt).ok()?;
        hex::decode_to_slice(parts.next()?, &mut record.digest).ok()?;
        parts.next().is_none().then_some(record)
    }
}

const HEADER: &str = "chancery PIN latch 1: a new PIN in the PIN file clears it";
const REFUSED: &str = "refused";
const TRYING: &str = "trying";
const SALT: usize = 16;
const DIGEST: usize = 32;

/// A few milliseconds at each login. It cannot make four digits safe; they are wrong ones, and the file is private.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(9_999);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_refused_pin_stays_refused_and_another_is_free() {
        let folder = folder();
        let path = folder.path().join("latch");
        let latch = Latch::lock(&path).unwrap();
        assert_eq!(latch.verdict(b"1111").unwrap(), Verdict::Unknown);
        latch.trying(b"1111").unwrap();
        assert_eq!(latch.verdict(b"1111").unwrap(), Verdict::Trying);
        latch.refused(b"1111").unwrap();
        drop(latch);
        let latch = Latch::lock(&path).unwrap();
        assert_eq!(latch.verdict(b"1111").unwrap(), Verdict::Refused);
        assert_eq!(latch.verdict(b"2222").unwrap(), Verdict::Unknown);
        latch.accepted().unwrap();
        assert_eq!(latch.verdict(b"1111").unwrap(), Verdict::Unknown);
        latch.accepted().unwrap();
    }

    #[test]
    fn the_file_is_private_and_does_not_hold_the_pin() {
        let folder = folder();
        let path = folder.path().join("latch");
        Latch::lock(&path).unwrap().refused(b"8642097531").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("8642097531") && !text.contains(&hex::encode("8642097531")), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = folder.path().join("again");
        Latch::lock(&again).unwrap().refused(b"8642097531").unwrap();
        assert_ne!(text, fs::read_to_string(&again).unwrap(), "salted");
    }

    #[test]
    fn a_damaged_latch_refuses() {
        let folder = folder();
        let path = folder.path().join("latch");
        let latch = Latch::lock(&path).unwrap();
        latch.refused(b"1111").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 5]).unwrap();
        assert!(matches!(latch.verdict(b"1111"), Err(Fault::Latch { .. })));
    }
}
