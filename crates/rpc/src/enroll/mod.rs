//! Becoming a node, and staying one: the client's side of `Enrollment` and `Membership`.

mod join;
mod request;
mod token;

pub use join::{JoinError, RenewError, join, renew};
pub use request::{KeyPair, RequestError, requested_key};
pub use token::{Fingerprint, JoinToken, TokenError};
