//! The signer in process: real SQLite, keys in memory, a clock that stands still.

mod issue;
mod support;
