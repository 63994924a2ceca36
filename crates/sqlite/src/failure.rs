//! What can go wrong in SQLite, sorted by what a caller can do about it.

use std::{fmt, io, sync::Arc};

use sqlx::error::DatabaseError;

/// Becomes the `StoreError` of the store that it happened in.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Unavailable(Cause),
    OutcomeUnknown(Cause),
    Closed,
    Corrupt { table: &'static str, column: &'static str },
    Refused(Cause),
    InUse { path: String },
    Schema(Cause),
    Open { path: String, source: Arc<io::Error> },
}

/// The same error for every write of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl Cause {
    pub(crate) fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Failure {
    /// Of a commit: it may be durable.
    pub(crate) fn of_commit(error: sqlx::Error) -> Self {
        Self::OutcomeUnknown(Cause::new(error))
    }

    /// Of migrations.
    pub(crate) fn of_migration(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            other => Self::Schema(Cause::new(other)),
        }
    }

    /// Whether the connection may be left in a state that nobody knows.
    pub(crate) const fn breaks_connection(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::OutcomeUnknown(_))
    }
}

impl From<sqlx::Error> for Failure {
    /// Of anything before a commit: nothing was written.
    fn from(error: sqlx::Error) -> Self {
        let refused = match &error {
            sqlx::Error::Database(refusal) => is_refusal(refusal.as_ref()),
            sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::PoolTimedOut => false,
            _ => true,
        };
        if refused { Self::Refused(Cause::new(error)) } else { Self::Unavailable(Cause::new(error)) }
    }
}

/// Whether the same statement would be refused again.
fn is_refusal(error: &dyn DatabaseError) -> bool {
    // The primary result code is the low octet of the extended one, which sqlx gives as text.
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    !matches!(code, Some(BUSY | LOCKED | NOMEM | INTERRUPT | IOERR | FULL | CANTOPEN))
}

// https://sqlite.org/rescode.html
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const NOMEM: u32 = 7;
const INTERRUPT: u32 = 9;
const IOERR: u32 = 10;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;

impl From<Failure> for ca_store::StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) => Self::Unavailable(cause.into()),
            Failure::OutcomeUnknown(cause) => Self::OutcomeUnknown(cause.into()),
            Failure::Closed => Self::Closed,
            Failure::Corrupt { table, column } => Self::Corrupt { table, column },
            Failure::Refused(cause) => Self::Refused(cause.into()),
            Failure::InUse { path } => Self::InUse { path },
            Failure::Schema(cause) => Self::Schema(cause.into()),
            Failure::Open { path, source } => {
                Self::Open { path, source: io::Error::new(source.kind(), Cause::new(source)) }
            }
        }
    }
}

impl From<Failure> for acme_store::StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) => Self::Unavailable(cause.into()),
            Failure::OutcomeUnknown(cause) => Self::OutcomeUnknown(cause.into()),
            Failure::Closed => Self::Closed,
            Failure::Corrupt { table, column } => Self::Corrupt { table, column },
            Failure::Refused(cause) => Self::Refused(cause.into()),
            Failure::Schema(cause) => Self::Schema(cause.into()),
            Failure::Open { path, source } => {
                Self::Open { path, source: io::Error::new(source.kind(), Cause::new(source)) }
            }
            // Only `ca` is locked.
            Failure::InUse { path } => Self::Open { path, source: io::ErrorKind::ResourceBusy.into() },
        }
    }
}
