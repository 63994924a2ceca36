//! CRL, AIA and OCSP over HTTP; the status role.
mod config;
mod http;
mod object;
mod ocsp;
mod readers;
mod role;
mod server;
mod shelf;
mod spool;
mod stream;
mod sync;
mod verify;

pub use config::{CacheSection, Config, LimitsSection, OcspSection, SyncSection};
pub use object::{Kind, Object, ObjectPath, Revision, Sha256};
pub use role::{RunError, run};
pub use shelf::{Shelf, Stock};
pub use spool::{Refused, Spool, SpoolError};
pub use verify::{Refusal, Verifier};
