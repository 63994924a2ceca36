//! Development only: clock, token per test, faulty store and HSM, challenge doubles.

pub mod alpn;
pub mod challenge;
mod clock;
pub mod cluster;
pub mod dns;
pub mod front_store;
pub mod nodes;
pub mod signing;
pub mod store;
pub mod token;
pub mod unbound;
pub mod weak_keys;

pub use clock::TestClock;
pub use cluster::{Cluster, ClusterSettings};
