//! Publication beside the status nodes: every CRL and issuer certificate also goes to folders and buckets (`[[publish]]`).
//!
//! Every signer does it for every place, none leads. What is there is read and judged by its content (`examine`), and
//! exchanged only if it is still what was judged (`place`); so an older CRL never replaces a newer one, however slow a
//! signer is. By event within a second; a timer compares everything, and mends what others have changed. Nothing is ever
//! deleted. Each place has a task of its own: one that hangs holds up neither the CRLs nor other places.
//!
//! Reading order: `config`, `keeper` (when), `job` (what), `examine`, `place` and its two kinds.

mod bucket;
mod config;
mod credentials;
mod examine;
mod folder;
mod job;
mod keeper;
mod place;
mod report;

use std::sync::Arc;

use pki::crl::CrlReadError;
use runtime::Lifecycle;

pub(crate) use self::config::check;
pub use self::config::{PublishSection, Publishable, S3Section};
use self::job::Issuers;
use self::keeper::Keeper;
use self::place::PlaceError;
use crate::publication::Objects;
use crate::registry::Registry;

/// Why an object is not where it should be.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("others write the same object all the time")]
    Contended,
    #[error(
        "what is there is newer than number {ours} by its number or its date, but not by both, as after a rollback of \
         the database: it is left alone until somebody removes it"
    )]
    Contradiction { ours: u64 },
    #[error(
        "what is there has {octets} octets, more than read_limit_octets ({limit}): it may be a newer one, so it is left alone. \
         Raise read_limit_octets of this [[publish]], or remove it there if it is none of this CA's"
    )]
    TooLongThere { octets: u64, limit: u64 },
    #[error(
        "what is at hand has {octets} octets, more than read_limit_octets ({limit}): it could not be compared once it is there, \
         so it is not published. Raise read_limit_octets of this [[publish]]"
    )]
    TooLong { octets: u64, limit: u64 },
    #[error(
        "what is there was signed by the issuer's key, and this version cannot read it ({reason}): it may be newer, so it is \
         left alone until this signer is upgraded or somebody removes it"
    )]
    Unreadable { reason: CrlReadError },
    #[error("what is at hand is not what its issuer signed")]
    NotGenuine,
    #[error("the signer is stopping")]
    Stopping,
}

/// Starts the publication to each of the places; it ends when the signer drains. Places need not be there yet.
pub fn start(sections: &[PublishSection], objects: &Objects, registry: &Registry, lifecycle: &Lifecycle) {
    let issuers = Arc::new(Issuers::of(registry));
    for section in sections {
        let keeper = Keeper::new(section.clone(), objects.clone(), Arc::clone(&issuers), lifecycle);
        let draining = lifecycle.drain_token();
        lifecycle.spawn("publish", async move {
            draining.run_until_cancelled(keeper.run()).await;
            Ok::<(), runtime::Failure>(())
        });
    }
}
