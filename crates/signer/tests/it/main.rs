//! The signer in process: real SQLite, keys in memory, a clock that stands still.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod accounts;
mod alternates;
mod always_valid;
mod authorizations;
mod cluster;
mod crl_edits;
mod crls;
mod deltas;
mod doors;
mod evidence;
mod faults;
mod grants;
mod imported_crls;
mod incidents;
mod issue;
mod keepers;
mod limits;
mod nodes;
mod ocsp;
mod ocsp_certificates;
mod ocsp_notices;
mod operators;
mod profiles;
mod publishing;
mod race;
mod renewal;
mod retired;
mod revocation;
mod role;
mod selections;
mod servers;
mod service;
mod support;
mod time;
mod token;
mod weak_keys;
