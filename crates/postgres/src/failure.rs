//! What can go wrong in PostgreSQL, sorted by what a caller can do about it.

use std::{fmt, sync::Arc};

use sqlx::error::DatabaseError;

/// Becomes the `StoreError` of the store that it happened in.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Unavailable(Cause),
    /// Two transactions wanted the same in an order that could not be: the server undid ours, and it can be run again.
    Entangled(Cause),
    OutcomeUnknown(Cause),
    Closed,
    Corrupt {
        table: &'static str,
        column: &'static str,
    },
    Refused(Cause),
    Schema(Cause),
    NotDurable {
        setting: String,
    },
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
    /// Of a commit: it may be durable, unless the server says that it undid the transaction.
    pub(crate) fn of_commit(error: sqlx::Error) -> Self {
        match Self::from(error) {
            Self::Unavailable(cause) => Self::OutcomeUnknown(cause),
            undone => undone,
        }
    }

    /// Of migrations.
    pub(crate) fn of_migration(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            other => Self::Schema(Cause::new(other)),
        }
    }

    /// Whether the session may be left in a state that nobody knows, or is gone.
    pub(crate) const fn breaks_connection(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::OutcomeUnknown(_))
    }
}

impl From<sqlx::Error> for Failure {
    /// Of anything before a commit: nothing was written.
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Database(refusal) => kind(refusal.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::PoolTimedOut => Self::Unavailable,
            _ => Self::Refused,
        };
        kind(Cause::new(error))
    }
}

/// What an error of the server means, by its SQLSTATE.
fn kind(error: &dyn DatabaseError) -> fn(Cause) -> Failure {
    match error.code().as_deref() {
        Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED) => Failure::Entangled,
        Some(READ_ONLY | LOCK_NOT_AVAILABLE | IDLE_IN_TRANSACTION) => Failure::Unavailable,
        Some(code) if AWAY.iter().any(|class| code.starts_with(class)) => Failure::Unavailable,
        _ => Failure::Refused,
    }
}

// https://www.postgresql.org/docs/15/errcodes-appendix.html
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
/// The server is, or has become, a standby.
const READ_ONLY: &str = "25006";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const IDLE_IN_TRANSACTION: &str = "25P03";
/// Classes: connection, resources, operator intervention (shutdown, start-up, time limits), system error.
const AWAY: &[&str] = &["08", "53", "57", "58"];

impl From<Failure> for ca_store::StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) | Failure::Entangled(cause) => Self::Unavailable(cause.into()),
            Failure::OutcomeUnknown(cause) => Self::OutcomeUnknown(cause.into()),
            Failure::Closed => Self::Closed,
            Failure::Corrupt { table, column } => Self::Corrupt { table, column },
            Failure::Refused(cause) => Self::Refused(cause.into()),
            Failure::Schema(cause) => Self::Schema(cause.into()),
            Failure::NotDurable { setting } => Self::NotDurable { setting },
        }
    }
}

impl From<Failure> for acme_store::StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) | Failure::Entangled(cause) => Self::Unavailable(cause.into()),
            Failure::OutcomeUnknown(cause) => Self::OutcomeUnknown(cause.into()),
            Failure::Closed => Self::Closed,
            Failure::Corrupt { table, column } => Self::Corrupt { table, column },
            Failure::Refused(cause) => Self::Refused(cause.into()),
            Failure::Schema(cause) => Self::Schema(cause.into()),
            // Only `ca` is asked for it.
            Failure::NotDurable { setting } => Self::Refused(Cause::new(NotDurable(setting)).into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not durable: {0}")]
struct NotDurable(String);
