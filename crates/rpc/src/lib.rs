//! How nodes talk to each other: generated gRPC, mutual TLS with reload, peer identity, roles, refusals.
//!
//! What holds everywhere (DESIGN §1): one internal node CA is trusted and nothing else; a peer is the role and the name in
//! the one URI of its certificate; every RPC lists the roles that may call it, and what is not listed is refused.
//!
//! What this crate must never do: look at wall-clock time other than through rustls, repeat a call by itself, or let a
//! message's fields decide who the caller is.

mod access;
mod channel;
mod convert;
mod credentials;
pub mod enroll;
pub mod files;
mod identity;
mod limit;
pub mod proto;
mod refusal;
mod revocation;
mod server;
mod tls;

pub use access::{
    ADMIN, AUTHORITY, AccessTable, ENROLLMENT, MEMBERSHIP, NONCES, PERSPECTIVE, PUBLICATION, RESPONDER,
    Refused, Rule, VALIDATE,
};
pub use channel::{AddressError, Channel};
pub use convert::{
    Account, AuthorizedIdentifier, AuthorizedName, AuthorizedOrder, ConvertError, Evidence, Target, digest,
    seconds, timestamp,
};
pub use credentials::{CredentialsError, NodeCredentials, NodeFiles};
pub use identity::{IdentityError, NodeName, Peer, PeerIdentity, Role, uri};
pub use refusal::{Refusal, busy, failure, refusal, refuse, retry_after, status_class, unavailable};
pub use revocation::{Revocations, Revoked};
pub use server::{Limits, ServeError, serve, serve_anonymous};
pub use tls::provider;
