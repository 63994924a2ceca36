//! What a store operation can fail with.

use std::error::Error;

use pki::ErrorClass;

/// Why an operation of a store did not answer. Expected outcomes (a conflict, an unknown serial)
/// are no errors: they are in the operation's result.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, busy or refused the work; nothing was written.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The commit was sent and its answer lost: the write may be durable, or not. Read again what
    /// you wanted to write; every write of the trait can be repeated without harm.
    #[error("the outcome of a commit is unknown")]
    OutcomeUnknown(#[source] Box<dyn Error + Send + Sync>),
    /// The backend is being closed; nothing was written.
    #[error("the store is closed")]
    Closed,
    /// A stored value cannot be what this program wrote.
    #[error("column {column} of table {table} holds a value that no program of this version wrote")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The database refused a statement for a reason that no retry mends: a broken constraint, a
    /// missing table, a full disk's read-only state.
    #[error("the database refused a statement")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The database was written by a newer program, or a migration of it was changed.
    #[error("the schema of the database does not fit this program")]
    Schema(#[source] Box<dyn Error + Send + Sync>),
    /// Files could not be created or opened as they must be.
    #[error("{path} cannot be opened")]
    Open {
        /// The file.
        path: String,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
}

impl StoreError {
    /// How this error is to be treated.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable(_) | Self::OutcomeUnknown(_) | Self::Closed => ErrorClass::Transient,
            Self::Corrupt { .. } | Self::Refused(_) | Self::Schema(_) | Self::Open { .. } => {
                ErrorClass::Fatal
            }
        }
    }

    /// Whether the write may be durable in spite of this error.
    #[must_use]
    pub const fn may_be_durable(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }
}
