//! The `main` of every role: parse, load, run, drain.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    clock::SystemClock,
    config::{self, ConfigError, RoleConfig},
    exit::{ExitCode, Failure},
    health,
    lifecycle::{Lifecycle, panicked},
    sockets::Sockets,
    telemetry,
};

/// The arguments of every role.
#[derive(Clone, Debug, clap::Args)]
pub struct RoleArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only check the configuration: exit code 0 when it is good, 2 when not.
    #[arg(long)]
    pub check: bool,
}

/// Runs a role to its end. To be called from `main`, before there are threads.
///
/// It reads the configuration, starts logs, metrics and the health port, runs `role`, and drains on SIGTERM or SIGINT
/// (a second one ends it at once): `role` must then return. SIGHUP reloads.
pub fn run_role<C, F, Fut>(name: &'static str, args: &RoleArgs, role: F) -> std::process::ExitCode
where
    C: RoleConfig,
    F: FnOnce(C, Lifecycle) -> Fut,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let sockets = Sockets::inherit();
    crate::install_crypto_provider();
    let code = match prepare::<C>(args) {
        Err(failure) => {
            // Not yet, or not any longer, a log: a person is looking.
            say(name, &failure);
            failure.code()
        }
        Ok(_) if args.check => {
            say(name, &"the configuration is good");
            ExitCode::Success
        }
        Ok(config) => match start(name, args, config, sockets, role) {
            Ok(()) => ExitCode::Success,
            Err(failure) => {
                tracing::error!(error = %failure, code = failure.code() as u8, "{name}: ended");
                failure.code()
            }
        },
    };
    code.into()
}

#[expect(clippy::print_stderr, reason = "the user's terminal, before the log exists")]
fn say(name: &str, what: &dyn std::fmt::Display) {
    eprintln!("{name}: {what}");
}

fn prepare<C: RoleConfig>(args: &RoleArgs) -> Result<C, Failure> {
    let config: C = config::load(&args.config).map_err(Failure::usage)?;
    config
        .check()
        .map_err(|invalid| Failure::usage(ConfigError::Invalid { path: args.config.clone(), invalid }))?;
    if args.check {
        tracing_subscriber::EnvFilter::try_new(&config.log().filter).map_err(Failure::usage)?;
    } else {
        telemetry::start(config.log()).map_err(Failure::usage)?;
    }
    Ok(config)
}

fn start<C, F, Fut>(
    name: &'static str,
    args: &RoleArgs,
    config: C,
    sockets: Sockets,
    role: F,
) -> Result<(), Failure>
where
    C: RoleConfig,
    F: FnOnce(C, Lifecycle) -> Fut,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let lifecycle = Lifecycle::with_sockets(Arc::new(SystemClock), sockets);
    let outcome = runtime.block_on(live::<C, F, Fut>(name, args, config, lifecycle, role));
    // Blocking work that hangs must not keep a drained process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn live<C, F, Fut>(
    name: &'static str,
    args: &RoleArgs,
    config: C,
    lifecycle: Lifecycle,
    role: F,
) -> Result<(), Failure>
where
    C: RoleConfig,
    F: FnOnce(C, Lifecycle) -> Fut,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    // Before anything else: a signal during the start is a drain, not a death.
    let mut ends = Ends::install()?;
    if let Some(section) = config.health() {
        let listener = lifecycle.listen(&section.listen).await.map_err(Failure::usage)?;
        tokio::spawn(health::serve(listener, lifecycle.clone()));
    }
    watch_filter::<C>(args, &lifecycle);
    tokio::spawn(housekeeping(lifecycle.clone(), signal(SignalKind::hangup())?));
    let limit = config.drain();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{name}: starting");
    let mut role = tokio::spawn(role(config, lifecycle.clone()));
    let mut ended = None;
    tokio::select! {
        outcome = &mut role => ended = Some(outcome),
        () = lifecycle.draining() => {}
        signal = ends.next() => tracing::info!(signal, limit_seconds = limit.as_secs(), "{name}: draining"),
    }
    lifecycle.drain();
    let finish = async {
        let outcome = match ended {
            Some(outcome) => outcome,
            None => role.await,
        };
        let own = outcome.unwrap_or_else(|_| Err(panicked(name)));
        // What failed first is why the rest ended.
        lifecycle.finished().await.and(own)
    };
    tokio::select! {
        outcome = finish => outcome,
        () = tokio::time::sleep(limit) => Err(Failure::new(ExitCode::Failure, DrainLimit { limit })),
        signal = ends.next() => Err(Failure::new(ExitCode::Failure, format!("{signal} while draining"))),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the drain was not finished within {} s: what was under way is cut off", limit.as_secs())]
struct DrainLimit {
    limit: Duration,
}

/// The log's filter is the one part of a configuration file that is taken over while running.
fn watch_filter<C: RoleConfig>(args: &RoleArgs, lifecycle: &Lifecycle) {
    let path = args.config.clone();
    lifecycle.on_reload("log filter", move || -> Result<(), Failure> {
        let config: C = config::load(&path)?;
        telemetry::set_filter(config.log())?;
        tracing::info!("reload: of the configuration file the log filter alone; the rest takes a restart");
        Ok(())
    });
}

async fn housekeeping(lifecycle: Lifecycle, mut hangup: Signal) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let all = tokio::select! {
            _ = look.tick() => false,
            _ = hangup.recv() => true,
        };
        let lifecycle = lifecycle.clone();
        let look = move || {
            if all {
                lifecycle.reload();
            } else {
                lifecycle.poll_files();
            }
            telemetry::upkeep();
        };
        if tokio::task::spawn_blocking(look).await.is_err() {
            tracing::error!("reload: a callback panicked");
        }
    }
}

// A renewed certificate need not be seen at once; three calls of `stat` cost nothing.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The signals that end a process.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
