//! End-to-end tests: real programs, real clients, SoftHSM tokens of their own. This crate's library is what the tests
//! share; the tests are in `tests/tests`.

pub mod chaos;
pub mod client;
pub mod cluster;
pub mod conformance;
pub mod demo;
pub mod library;
pub mod matrix;
pub mod oracle;
pub mod program;

pub use demo::Demo;
