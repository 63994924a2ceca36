//! The SQLite backend of both stores, for one host.
//!
//! [`Ca`] serves one signer, and holds a lock that says so; [`Acme`] may be opened by several fronts
//! of the host. Both work alike:
//!
//! - **One writer.** A task owns the only writing connection. It takes whatever writes arrived while
//!   the last commit ran, runs them in one `BEGIN IMMEDIATE … COMMIT` and answers after the commit
//!   (`writer.rs`). The frequent writes of a batch are merged into a few statements over sets,
//!   because a statement costs ten times as much as a row (`rows.rs`).
//! - **Readers** are read-only connections; each read is one snapshot (`reader.rs`).
//! - **Durable.** WAL with `synchronous=FULL`: an answer is on the disk. Files are created with mode
//!   0600 and their directory is flushed (`file.rs`).
//!
//! All SQL is checked at compile time against `migrations/`, from the descriptions in `.sqlx`; the
//! script `prepare` remakes them. Never here: keys, MACs, policy.

mod acme;
mod ca;
mod failure;
mod file;
mod page;
mod reader;
mod rows;
mod stored;
#[cfg(test)]
mod tests;
mod writer;

pub use acme::Acme;
pub use ca::Ca;
pub use file::Options;
