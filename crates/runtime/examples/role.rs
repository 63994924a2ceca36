//! The smallest role: what a program looks like, and what `tests/process.rs` sends signals to.

use std::process::ExitCode;

use clap::Parser;
use runtime::{
    Failure, HealthSection, Lifecycle, Listen, LogSection, RoleArgs, RoleConfig, Version, run_role,
};
use serde::Deserialize;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    role: RoleArgs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(rename = "version")]
    _version: Version,
    #[serde(default)]
    log: LogSection,
    health: Option<HealthSection>,
    /// Where it answers nothing.
    listen: Listen,
    /// How it behaves.
    #[serde(default)]
    manner: Manner,
    #[serde(default = "a_minute")]
    drain_seconds: u64,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Manner {
    #[default]
    Good,
    Stubborn,
    Panicking,
    Refused,
}

fn a_minute() -> u64 {
    60
}

impl RoleConfig for Config {
    fn log(&self) -> &LogSection {
        &self.log
    }

    fn health(&self) -> Option<&HealthSection> {
        self.health.as_ref()
    }

    fn drain(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.drain_seconds)
    }

    fn check(&self) -> Result<(), runtime::Invalid> {
        if self.drain_seconds == 0 {
            return Err(runtime::Invalid::new("drain_seconds", "must not be 0"));
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    run_role("example", &Args::parse().role, run)
}

async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), Failure> {
    let listener = lifecycle.listen(&config.listen).await?;
    lifecycle.on_reload("example", || -> Result<(), Failure> { Ok(()) });
    match config.manner {
        Manner::Refused => return Err(Failure::refused("the token's PIN was refused")),
        Manner::Panicking => lifecycle.spawn("crooked", async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<(), Failure>(())
        }),
        Manner::Good | Manner::Stubborn => {}
    }
    lifecycle.readiness().dependency("listener").up();
    tracing::info!(address = %listener.local_addr()?, "ready");
    lifecycle.draining().await;
    if config.manner == Manner::Stubborn {
        std::future::pending::<()>().await;
    }
    Ok(())
}
