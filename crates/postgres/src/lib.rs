//! The PostgreSQL backend of both stores, for a cluster: any number of signers ([`Ca`]) and fronts ([`Acme`]), all alike.
//!
//! - **One writer a process.** A task owns the only writing session. It takes whatever writes arrived while the last
//!   commit ran, runs them in one transaction and answers after the commit (`writer.rs`). The frequent writes of a batch
//!   are a handful of statements over sets, because a round trip costs more than a row.
//! - **Others write at the same time.** Whatever a decision rests on is held by locks until the commit (`ca/lock.rs`),
//!   uniqueness by indexes, takeover by `SKIP LOCKED`. Leases are measured by the database's clock.
//! - **Readers** are sessions that only read (`reader.rs`).
//! - **Durable.** [`Ca::open`] refuses a server that may lose a commit (`durability.rs`).
//! - **Least privilege.** `ca` and `acme` are schemas. Migrations are applied by their owner; signers run in the role
//!   `chancery_signer`, fronts in `chancery_front`, and neither can read the other's schema (`schema.rs`, `migrations/`).
//!
//! All SQL is checked at compile time against `migrations/`, from the descriptions in `.sqlx`; the script `prepare`
//! remakes them. Never here: keys, MACs, policy.

mod acme;
mod ca;
mod durability;
mod failure;
mod lock;
mod options;
mod page;
mod reader;
mod schema;
mod stored;
#[cfg(test)]
mod tests;
mod writer;

pub use acme::Acme;
pub use ca::Ca;
pub use options::{AddressError, Options};
pub use schema::Applied;
