//! The only user of PKCS#11: keys that live in a token, and signatures made with them.
//!
//! The module of the token's vendor is loaded in a *worker process* of its own and nowhere else: a hung `C_Sign` blocks
//! even `C_Finalize`, a crash of the module must not take the CA with it, and the PIN is known only there. This side, the
//! supervisor, starts the worker, feeds it from queues by key and [`Lane`], starts it again when it dies or hangs, repeats
//! what it had in hand, and verifies each signature with the public key before anybody sees it.
//!
//! ```text
//! Key::sign ─▶ queues (key × lane, fair) ─▶ link ══socketpair══▶ worker: N threads, a logged-in session each ─▶ token
//!     ▲                                       │
//!     └────────── verified signature ◀────────┘
//! ```
//!
//! What this crate must never do: return a signature that it has not verified, try a PIN again that was refused, send a
//! PIN or a private key over the socket, or sign with a key whose attributes do not fit its declared [`Origin`].
//!
//! Specifications: PKCS #11 v2.40 (OASIS), RFC 3279 §2.2.3 (`ECDSA-Sig-Value`), RFC 8017 §9.2 (`DigestInfo`), RFC 8032.
//!
//! Metrics are registered when a [`Token`] starts: install the recorder before.

mod config;
mod error;
mod fault;
mod frame;
mod job;
mod key;
mod latch;
mod link;
mod process;
mod queue;
mod supervisor;
mod telemetry;
mod token;
mod verify;
pub mod worker;

pub use config::{TokenConfig, WorkerCommand};
pub use error::HsmError;
pub use fault::{Fault, RvClass};
pub use job::{Deadline, Job, Lane};
pub use key::{
    Attributes, FoundKey, GeneratedKey, Key, KeyHealth, KeyQuery, KeyRef, KeySpec, Origin, Signing,
};
pub use token::{Health, Token, TokenState};
