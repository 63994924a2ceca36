//! What a front can do with its own key and the whole `acme` database, and an administrator of `ca` with its rows: each
//! attack against the real signer with its token, each refused with its own reason, each refusal in the audit trail.
//! `docs/trust.md` lists them all.

mod administrator;
mod front;
mod status;
mod support;
