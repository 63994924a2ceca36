//! The CA: registry, issuance, revocation, CRL, audit; the signer role.
//!
//! This is the core that everything else of Chancery is built around, and the only crate that decides what is signed.
//! Fronts bring clients' requests; what they say about them is not believed ([`authority`]). Nothing is signed that is
//! not durable ([`journal`]), and no key is reached but through a door for its purpose ([`doors`]).
//!
//! What it must never do: sign bytes that a caller brings, take directory, operation or object from anywhere but the URL
//! that the client signed, read time or chance from anywhere but its arguments, or believe a row of the database that
//! carries authority without its MAC.
//!
//! Reading order: [`issue`] (the steps of `docs/issuance.md`), [`authority`], [`journal`], [`doors`], [`account`],
//! [`order`], then the rest.

pub mod account;
mod admin;
pub mod audit;
pub mod authority;
mod ca;
mod clock;
pub mod config;
pub mod crl;
pub mod doors;
pub mod download;
mod events;
pub mod issue;
pub mod journal;
pub mod ledger;
mod limits;
mod membership;
mod membership_service;
pub mod node;
mod node_ca;
pub mod ocsp;
pub mod operator;
pub mod order;
mod others;
pub mod policy;
pub mod pre_authorization;
pub mod publication;
pub mod publish;
mod random;
mod refusal;
mod registrant;
pub mod registry;
pub mod renewal;
mod request;
mod revoke;
mod run;
mod secrets;
mod server_certificate;
mod service;
mod takeover;
mod weak_keys;

pub use admin::AdminService;
pub use ca::{Ca, Parts, StartError};
pub use clock::{ClockError, SigningClock};
pub use config::Config;
pub use events::{Change, ChangeEvents};
pub use membership::{Membership, Nodes};
pub use membership_service::{EnrollmentService, MembershipService};
pub use node_ca::NodeCa;
pub use random::{Randomness, RandomnessError, SystemRandomness};
pub use refusal::{Failure, Outcome, Reason, Refusal};
pub use registrant::covers;
pub use registry::Registry;
pub use request::ClientRequest;
pub use revoke::IncidentRound;
pub use run::{RunError, incarnation, run};
pub use secrets::{Secrets, SecretsError};
pub use service::AuthorityService;
pub use takeover::Takeover;
pub use weak_keys::{WeakKeys, WeakKeysError};
