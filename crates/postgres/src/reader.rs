//! Sessions that read.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{failure::Failure, options::connect};

/// A few sessions that read, opened when they are first needed. (sqlx's own pool asks the server before each loan whether
/// it is still there; here a read that finds its session dead is made again on a new one.)
pub(crate) struct Readers {
    options: PgConnectOptions,
    most: usize,
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

impl Readers {
    pub(crate) fn new(options: PgConnectOptions, most: usize) -> Self {
        let most = most.max(1);
        Self { options, most, permits: Semaphore::new(most), idle: Mutex::new(Vec::new()) }
    }

    /// Waits for a session.
    pub(crate) async fn take(&self) -> Result<Reader<'_>, Failure> {
        let permit = self.permits.acquire().await.map_err(|_| Failure::Closed)?;
        let idle = self.idle().pop();
        let is_new = idle.is_none();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.options).await?,
        };
        Ok(Reader { readers: self, connection: Some(connection), is_new, is_good: false, _permit: permit })
    }

    /// Forgets the sessions that nobody uses: one of their kind was dead.
    pub(crate) fn forget(&self) {
        self.idle().clear();
    }

    /// Refuses further reads, waits for those under way, and closes the sessions.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        if let Ok(permits) = self.permits.acquire_many(all).await {
            permits.forget();
        }
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "a reading session did not close well");
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads with a session, `$connection`; once more with a new one if the session was an old one that proves dead.
macro_rules! read {
    ($readers:expr, |$connection:ident| $read:expr) => {{
        loop {
            let mut reader = $readers.take().await?;
            let $connection: &mut sqlx::PgConnection = &mut reader;
            let result: Result<_, $crate::failure::Failure> = $read.await;
            match result {
                Ok(found) => {
                    reader.keep();
                    break Ok(found);
                }
                Err(failure) if failure.breaks_connection() && !reader.is_new() => {
                    drop(reader);
                    $readers.forget();
                }
                Err(failure) => break Err(failure),
            }
        }
    }};
}

pub(crate) use read;

/// A session on loan.
pub(crate) struct Reader<'a> {
    readers: &'a Readers,
    connection: Option<PgConnection>,
    is_new: bool,
    is_good: bool,
    _permit: SemaphorePermit<'a>,
}

impl Reader<'_> {
    /// Whether the session was opened for this loan.
    pub(crate) const fn is_new(&self) -> bool {
        self.is_new
    }

    /// The read went well: the session is for others to use. One that is not known to be good is closed.
    pub(crate) fn keep(&mut self) {
        self.is_good = true;
    }
}

impl Deref for Reader<'_> {
    type Target = PgConnection;

    #[expect(clippy::expect_used, reason = "only `drop` takes the connection")]
    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("the connection is there until `drop`")
    }
}

impl DerefMut for Reader<'_> {
    #[expect(clippy::expect_used, reason = "only `drop` takes the connection")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("the connection is there until `drop`")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.is_good
        {
            self.readers.idle().push(connection);
        }
    }
}
