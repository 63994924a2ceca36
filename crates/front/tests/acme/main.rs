//! The statements of the protocol checklist, one test each, named after its number: real fronts over HTTPS, with doubles
//! of signer and validator behind mutual TLS. (Real clients against the real system are in the crate `e2e`.)

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is missing here is a failed test"
)]

mod accounts;
mod ca;
mod challenges;
mod client;
mod directory;
mod faults;
mod finalize;
mod habits;
mod https;
mod limits;
mod orders;
mod perspectives;
mod pki_double;
mod renewal;
mod reuse;
mod revocation;
mod shares;
mod stage;
mod transport;
mod validator;
