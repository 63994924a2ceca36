//! `chancery demo`: the whole CA on one host, every role a process of its own, on SoftHSM and SQLite.

mod clients;
mod dns;
mod fetch;
mod kit;
mod layout;
mod report;
mod show;
mod stack;
mod supervisor;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use stack::Stack;

/// What `chancery demo` can be told.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep running in the foreground until Ctrl-C, for your own clients; without it, two clients get a certificate each and
    /// everything is removed again.
    #[arg(long)]
    serve: bool,
    /// Address of the ACME service; port 0 takes a free one (with --state the one of the last start). Default: 127.0.0.1:0;
    /// with --pebble 127.0.0.1:14000.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The DNS server that the validator asks. Default: a name server of the demo's own, which says 127.0.0.1 to every name.
    #[arg(long, value_name = "ADDRESS")]
    resolver: Option<SocketAddr>,
    /// The port at which the validator looks for http-01 answers.
    #[arg(long, value_name = "PORT", default_value_t = 5002)]
    http_01_port: u16,
    /// The port at which the validator looks for tls-alpn-01 answers.
    #[arg(long, value_name = "PORT", default_value_t = 5001)]
    tls_alpn_01_port: u16,
    /// Every challenge succeeds, and nobody looks: for tests of clients that answer none. What Pebble does with
    /// PEBBLE_VA_ALWAYS_VALID=1. Only for CAs marked as test CAs, as the demo's is.
    #[arg(long)]
    always_valid: bool,
    /// Keep the signer's database on this PostgreSQL server instead of a SQLite file, as a login in the role
    /// `chancery_signer`; `chancery database migrate` makes schemas and roles first (docs/operations.md).
    #[arg(long, value_name = "URL", requires = "front_database")]
    signer_database: Option<String>,
    /// As --signer-database, for the front's database and the role `chancery_front`.
    #[arg(long, value_name = "URL", requires = "signer_database")]
    front_database: Option<String>,
    /// For measurements: the status node sets those who ask from this host no limits.
    #[arg(long, hide = true)]
    unlimited_status: bool,
    /// For measurements: the front holds each address to its default limits, which a host that asks for everything would reach.
    #[arg(long, hide = true)]
    front_limits: bool,
    /// For measurements: the kind of the OCSP responder's key, as a ceremony names it.
    #[arg(long, hide = true, value_name = "ALGORITHM", default_value = "ecdsa-p256")]
    responder_algorithm: String,
    /// Keep keys, databases and logs in this folder, and go on with those that are there. Default: a temporary folder.
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    #[command(flatten)]
    kit: kit::KitArgs,
}

/// Runs the demo.
///
/// # Errors
///
/// When something is not installed, a role does not come up, or a client does not get its certificate.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let clock = kit::enter_movable_time(&args.kit, args.state.as_deref())?;
    let (temporary, folder) = match &args.state {
        Some(folder) => (None, folder.clone()),
        None => {
            let made =
                tempfile::Builder::new().prefix("chancery-demo-").tempdir().context("no temporary folder")?;
            let folder = made.path().to_path_buf();
            (Some(made), folder)
        }
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(stopped);
    let steps = show::Steps::new();
    // A stack that is dropped half-way takes its processes along.
    let stack = tokio::select! {
        started = Stack::start(&args, &folder, clock, &steps) => started?,
        () = &mut stopped => anyhow::bail!("interrupted"),
    };
    let outcome = tokio::select! {
        outcome = report::run(&args, &stack, &steps) => outcome,
        () = &mut stopped => Ok(()),
    };
    stack.stop().await;
    if let Some(temporary) = temporary {
        temporary.close().context("cannot remove the temporary folder")?;
    }
    outcome
}
