//! What every role shares: configuration, reload, tracing, metrics, health, drain, exit codes.
//!
//! A program is [`run_role`] around its role's `run`; a role sees its process through [`Lifecycle`] alone: time, sockets,
//! readiness, supervised tasks, drain and reload.
//!
//! What this crate must never do: know what any role is for.

mod clock;
pub mod config;
mod exit;
mod failpoints;
mod health;
mod lifecycle;
mod listen;
mod peer;
mod proxies;
mod readiness;
mod renewal;
mod role;
mod sockets;
pub mod telemetry;
mod watch;

pub use clock::{Clock, SharedClock, SystemClock};
pub use config::{
    ConfigError, Database, FilePath, HealthSection, Invalid, LogFormat, LogSection, NodeSection, RoleConfig,
    Version,
};
pub use exit::{Causes, ExitCode, Failure};
pub use failpoints::{FAILPOINTS, arm_failpoints};
pub use lifecycle::Lifecycle;
pub use listen::{Listen, ListenError};
pub use peer::{Peer, Peers, Rates, Share, Shares};
pub use proxies::{TrustedProxies, client_network};
pub use readiness::{Dependency, Readiness, Report, State};
pub use role::{RoleArgs, run_role};
/// Files: atomic writes, secrets.
pub use rpc::files;
pub use sockets::Sockets;

/// Small objects that live for one request, by the thousand and on all threads: glibc spends a tenth of a certificate's time on
/// them (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Makes aws-lc-rs the process-wide rustls provider, for libraries that ask for one. Ours is passed explicitly.
pub fn install_crypto_provider() {
    // An error says that there is one already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}
