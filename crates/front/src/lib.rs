//! The ACME service (RFC 8555): the role that faces the clients.
//!
//! A front is not trusted with issuance (DESIGN §1). It checks what clients send, so that nonsense costs little, keeps
//! orders and authorizations, asks validators to look and signers to sign; and everything that a certificate, a
//! registration or a revocation follows from is verified again by the signer, from what the client itself has signed.
//!
//! What this crate must never do: sign or register anything, see the secret of an external account binding, believe a
//! payload before its signature is verified, or write a nonce or a payload into a log.
//!
//! `docs/divergences.md` lists what of RFC 8555 does not hold here, and why.

mod account;
mod accounts;
mod authorization;
mod caa;
mod certificate;
mod challenge;
mod config;
mod csr;
mod directory;
mod faults;
mod finalize;
mod https;
mod limits;
mod nonce;
mod order;
mod pre_authorization;
mod recent;
mod refusal;
mod renewal;
mod reply;
mod request;
mod reuse;
mod revocation;
mod router;
mod run;
mod server;
mod service;
mod signer;
mod stored;
mod sweep;
mod under_way;
mod validation;

pub use config::{
    AliasSection, Config, DatabaseSection, HttpsSection, LimitsSection, PeerSection, PeersSection,
    ValidationSection,
};
pub use faults::check as check_faults;
pub use limits::unpause;
pub use run::run;
