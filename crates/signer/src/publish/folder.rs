//! A folder that a web server serves. Writers take turns by a lock; a file is written beside its place and renamed, so
//! readers, who take no lock, see the old one or the new one, whenever a writer dies.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::place::{Look, PlaceError, Put, Version};
use crate::publication::sha256;

/// The folder. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
    timeout: Duration,
    read_limit: u64,
    /// Threads that may be at work in it: a file system that hangs holds these, and no others.
    threads: Arc<Semaphore>,
}

/// What is at a file's place.
enum There {
    Nothing,
    File(Version, Bytes),
    TooLong { octets: u64 },
}

/// In the root; who holds it may write.
const LOCK: &str = ".chancery.lock";
/// How often a lock that is held is tried.
const LOCK_LOOK: Duration = Duration::from_millis(5);
/// What a file is called while it is written: `.NAME` and this.
const UNFINISHED: &str = ".chancery-new";
/// For a web server of another user.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

impl Folder {
    pub(super) fn new(root: PathBuf, timeout: Duration, read_limit: u64, threads: usize) -> Self {
        Self { root, timeout, read_limit, threads: Arc::new(Semaphore::new(threads)) }
    }

    pub(super) const fn read_limit(&self) -> u64 {
        self.read_limit
    }

    pub(super) async fn look(&self, path: &str, known: Option<&Version>) -> Result<Look, PlaceError> {
        let (file, known) = (self.file(path)?, known.cloned());
        self.work(move |folder| {
            folder.is_there()?;
            match folder.read(&file)? {
                There::Nothing => Ok(Look::Absent),
                There::TooLong { octets } => Ok(Look::TooLong { octets }),
                There::File(version, _) if Some(&version) == known.as_ref() => Ok(Look::Unchanged),
                There::File(version, content) => Ok(Look::There { version, content }),
            }
        })
        .await
    }

    pub(super) async fn put(
        &self,
        path: &str,
        before: Option<&Version>,
        content: Bytes,
    ) -> Result<Put, PlaceError> {
        let (file, before) = (self.file(path)?, before.cloned());
        self.work(move |folder| {
            let _lock = folder.lock()?;
            let is_as_before = match folder.read(&file)? {
                There::Nothing => before.is_none(),
                There::File(version, _) => before.as_ref() == Some(&version),
                There::TooLong { .. } => false,
            };
            if !is_as_before {
                return Ok(Put::Contested);
            }
            folder.replace(&file, &content)?;
            Ok(Put::Done(version_of(&content)))
        })
        .await
    }

    pub(super) async fn sweep(&self) -> Result<(), PlaceError> {
        self.work(|folder| {
            // Whoever holds the lock writes, and it is this one.
            let _lock = folder.lock()?;
            sweep(&folder.root, 0)
        })
        .await
    }

    /// The file of an object. Its path is ours, and is not believed all the same.
    fn file(&self, path: &str) -> Result<PathBuf, PlaceError> {
        let plain = |part: Component<'_>| match part {
            Component::Normal(name) => !name.as_encoded_bytes().starts_with(b"."),
            _ => false,
        };
        let relative = Path::new(path);
        if path.is_empty() || !relative.components().all(plain) {
            return Err(PlaceError::Path { path: path.to_owned() });
        }
        Ok(self.root.join(relative))
    }

    /// On a thread where it holds nobody up.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, PlaceError> + Send + 'static,
    ) -> Result<T, PlaceError> {
        let late = || PlaceError::Timeout { seconds: self.timeout.as_secs() };
        let folder = self.clone();
        let working = async {
            let permit = Arc::clone(&folder.threads).acquire_owned().await.map_err(|_| late())?;
            let task = tokio::task::spawn_blocking(move || {
                // Given back when the work ends, not when somebody stops waiting for it.
                let _permit = permit;
                work(&folder)
            });
            task.await.unwrap_or_else(|_| Err(late()))
        };
        tokio::time::timeout(self.timeout, working).await.unwrap_or_else(|_| Err(late()))
    }

    /// Not made when it is missing: it may be a mount that is yet to come.
    fn is_there(&self) -> Result<(), PlaceError> {
        let metadata = std::fs::metadata(&self.root).map_err(failed(&self.root))?;
        match metadata.is_dir() {
            true => Ok(()),
            false => Err(failed(&self.root)(io::ErrorKind::NotADirectory.into())),
        }
    }

    /// Waits for the lock no longer than for anything else. It ends with its file, so with a process that dies.
    fn lock(&self) -> Result<File, PlaceError> {
        let path = self.root.join(LOCK);
        let mut options = OpenOptions::new();
        // For other signers' users, too: who may write in the folder may write here.
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o666)
            .open(&path)
            .map_err(failed(&path))?;
        let end = Instant::now() + self.timeout;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    return Err(PlaceError::Locked { path });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_LOOK),
            }
        }
    }

    fn read(&self, file: &Path) -> Result<There, PlaceError> {
        let opened = match File::open(file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
            Err(error) => return Err(failed(file)(error)),
        };
        let size = opened.metadata().map_err(failed(file))?.len();
        if size > self.read_limit {
            return Ok(There::TooLong { octets: size });
        }
        let mut content = Vec::new();
        // It may grow meanwhile.
        opened.take(self.read_limit.saturating_add(1)).read_to_end(&mut content).map_err(failed(file))?;
        match content.len() as u64 {
            octets if octets > self.read_limit => Ok(There::TooLong { octets }),
            _ => Ok(There::File(version_of(&content), content.into())),
        }
    }

    fn replace(&self, file: &Path, content: &[u8]) -> Result<(), PlaceError> {
        let unfinished = unfinished(file);
        self.make_folder(file.parent().unwrap_or(&self.root))?;
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&unfinished)(error)),
            _ => {}
        }
        write(&unfinished, content).map_err(failed(&unfinished))?;
        fail::fail_point!("signer.publish.before-rename");
        runtime::files::rename_durably(&unfinished, file).map_err(failed(file))?;
        fail::fail_point!("signer.publish.after-rename");
        Ok(())
    }

    /// Makes a folder below the root, durably.
    fn make_folder(&self, path: &Path) -> Result<(), PlaceError> {
        if path == self.root || path.is_dir() {
            return Ok(());
        }
        let above = path.parent().unwrap_or(&self.root);
        self.make_folder(above)?;
        match DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(path)(error)),
            _ => {}
        }
        std::fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE)).map_err(failed(path))?;
        File::open(above).and_then(|above| above.sync_all()).map_err(failed(above))
    }
}

fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(file)?;
    file.write_all(content)?;
    // The umask may have taken bits away; readers are meant.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.sync_all()
}

fn unfinished(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}{UNFINISHED}"))
}

/// Objects lie two folders deep at most.
const DEPTH: u32 = 3;

fn sweep(folder: &Path, depth: u32) -> Result<(), PlaceError> {
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().map_err(failed(&path))?;
        let name = name.to_string_lossy();
        if kind.is_dir() && depth < DEPTH {
            sweep(&path, depth + 1)?;
        } else if kind.is_file() && name.starts_with('.') && name.ends_with(UNFINISHED) {
            std::fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    Ok(())
}

fn version_of(content: &[u8]) -> Version {
    Version(hex::encode(sha256(content)))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_was_looked_at_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().to_owned(), Duration::from_secs(10), 1 << 20, 2);
        let path = "crl/00/0.crl";
        let put = async |before: Option<&Version>, content: &'static [u8]| {
            folder.put(path, before, Bytes::from_static(content)).await.unwrap()
        };
        assert!(matches!(folder.look(path, None).await.unwrap(), Look::Absent));
        let Put::Done(first) = put(None, b"first").await else { panic!("nothing was there") };
        // Somebody who has seen nothing, and then somebody who has seen the first.
        assert!(matches!(put(None, b"late").await, Put::Contested));
        assert!(matches!(folder.look(path, Some(&first)).await.unwrap(), Look::Unchanged));
        let Put::Done(second) = put(Some(&first), b"second").await else { panic!("it was the first") };
        assert!(matches!(put(Some(&first), b"late").await, Put::Contested));
        assert_eq!(std::fs::read(root.path().join(path)).unwrap(), b"second");
        // What was removed is not what was seen.
        std::fs::remove_file(root.path().join(path)).unwrap();
        assert!(matches!(put(Some(&second), b"late").await, Put::Contested));
        assert!(!root.path().join(path).exists());
    }

    /// Whoever hangs in there holds as many threads as are given to it, and each of his callers no longer than the timeout.
    #[tokio::test]
    async fn a_file_system_that_hangs_keeps_its_threads_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().to_owned(), Duration::from_millis(50), 1 << 20, 2);
        let (release, hanging) = std::sync::mpsc::channel::<()>();
        let hanging = Arc::new(parking_lot::Mutex::new(hanging));
        for _ in 0..2 {
            let hanging = Arc::clone(&hanging);
            let hung = folder.work(move |_| {
                let _ = hanging.lock().recv();
                Ok(())
            });
            assert!(matches!(hung.await, Err(PlaceError::Timeout { .. })));
        }
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let running = Arc::clone(&ran);
        let third = folder.work(move |_| {
            running.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        });
        assert!(matches!(third.await, Err(PlaceError::Timeout { .. })));
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
        drop(release);
        let mut free = Err(PlaceError::Timeout { seconds: 0 });
        for _ in 0..100 {
            free = folder.work(|_| Ok(())).await;
            if free.is_ok() {
                break;
            }
        }
        free.unwrap();
    }

    #[test]
    fn a_path_stays_in_the_folder() {
        let folder = Folder::new("/srv/pki".into(), Duration::from_secs(1), 1, 1);
        assert_eq!(folder.file("crl/00/0.crl").unwrap(), Path::new("/srv/pki/crl/00/0.crl"));
        for path in ["", "/etc/passwd", "../up", "crl/../../up", ".chancery.lock", "crl/.hidden"] {
            assert!(matches!(folder.file(path), Err(PlaceError::Path { .. })), "{path}");
        }
    }
}
