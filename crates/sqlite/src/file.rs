//! The files of a database: where they are, who may read them, who holds them.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::failure::Failure;

/// How to open a database.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file; it is created if it is missing, its folder is not.
    pub path: PathBuf,
    /// At most how many reads run at once; each is a connection with a thread of its own.
    pub readers: usize,
    /// How long a commit waits for another process's.
    busy: Duration,
}

impl Options {
    /// With as many readers as two cores can use.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), readers: 4, busy: BUSY }
    }

    #[cfg(test)]
    pub(crate) const fn busy_for(mut self, busy: Duration) -> Self {
        self.busy = busy;
        self
    }

    /// Creates the database file, empty and for its owner alone, if there is none. Its name is
    /// durable afterwards: a commit into a file that a crash takes away would be none.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        let open = || -> io::Result<()> {
            // SQLite gives its WAL the mode of the database.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                Err(error) => return Err(error),
            }
            File::open(parent(&self.path))?.sync_all()
        };
        open().map_err(|source| self.failure(&self.path, source))
    }

    /// Takes the lock that makes this process the database's only signer, until the file is dropped.
    pub(crate) fn lock(&self) -> Result<File, Failure> {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| self.failure(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Failure::InUse { path: path.display().to_string() }),
            Err(TryLockError::Error(source)) => Err(self.failure(&path, source)),
        }
    }

    /// For the one connection that writes.
    pub(crate) fn writing(&self) -> SqliteConnectOptions {
        self.connection()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // 32 MiB: the upper levels of every index stay in memory.
            .pragma("cache_size", "-32768")
            // 16 MiB of WAL: a page that many commits touch is written to the database once, and
            // the two flushes of a checkpoint are shared by hundreds of commits.
            .pragma("wal_autocheckpoint", "4096")
            .pragma("journal_size_limit", "67108864")
            .pragma("temp_store", "memory")
    }

    /// For connections that read.
    pub(crate) fn reading(&self) -> SqliteConnectOptions {
        self.connection().read_only(true).pragma("cache_size", "-4096")
    }

    fn connection(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(self.busy)
            .statement_cache_capacity(256)
            .disable_statement_logging()
    }

    fn failure(&self, path: &Path, source: io::Error) -> Failure {
        Failure::Open { path: path.display().to_string(), source: Arc::new(source) }
    }
}

/// Several fronts may write `acme`, and each waits for the other's commit; so long only behind a disk
/// that is in trouble.
const BUSY: Duration = Duration::from_secs(5);

/// The folder of a file; the current one for a bare name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
