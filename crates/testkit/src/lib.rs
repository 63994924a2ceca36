//! Development only: clock, token per test, faulty store and HSM, challenge doubles.

pub mod challenge;
pub mod dns;
