//! What ACME says, as types: RFC 8555 objects, strict JWS, states, problem documents, receipts and ids.
//!
//! Bytes in, values out. This crate never opens a file or a socket, never reads a clock and draws no randomness: time
//! and random bytes are arguments. Fronts, signers and validators share it, so that all of them read a request, a URL
//! and an id in the same way; what a front says of a request is worth nothing to a signer, which reads it again.
//!
//! No payload of a [`jws::Jws`] is to be had before its signature is verified, and whoever has a [`jwk::Jwk`], an
//! [`id::OrderId`] or a [`resource::Located`] need not look whether it is well formed.
//!
//! Specifications: RFC 8555 (ACME), RFC 7515, 7517, 7518, 7638, 8037, 9864 (JOSE), RFC 8738 (IP identifiers),
//! RFC 9773 §5 (`replaces`), draft-ietf-acme-profiles.

pub mod account;
pub mod account_url;
pub mod authorization;
pub mod base64url;
pub mod challenge;
pub mod directory;
pub mod eab;
mod hex_digest;
pub mod id;
pub mod identifier;
mod json;
pub mod jwk;
pub mod jws;
pub mod key_change;
pub mod nonce;
pub mod order;
pub mod problem;
pub mod profile;
pub mod receipt;
pub mod renewal;
pub mod resource;
pub mod revocation;
mod rfc3339;
mod secret;
#[cfg(test)]
mod testing;

pub use account_url::AccountUrl;
pub use directory::DirectoryName;
pub use id::{AccountId, AuthorizationId, OrderId, TierSecret, TierSecrets};
pub use json::JsonError;
pub use jwk::{Jwk, Thumbprint};
pub use jws::{Jws, JwsError};
pub use problem::{ErrorType, Problem};
pub use profile::ProfileName;
