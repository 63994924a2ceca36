//! The validator role alone: an image with this program holds neither a PKCS#11 library's loader nor any other role.

use std::process::ExitCode;

use clap::Parser;
use runtime::{Failure, Lifecycle, RoleArgs, run_role};

/// Looks at the outside world for a Chancery CA, and signs what it saw.
#[derive(Parser)]
#[command(name = "chancery-validator", version)]
struct Arguments {
    #[command(flatten)]
    role: RoleArgs,
}

fn main() -> ExitCode {
    runtime::arm_failpoints();
    run_role("validator", &Arguments::parse().role, run)
}

async fn run(config: validator::Config, lifecycle: Lifecycle) -> Result<(), Failure> {
    validator::run(config, lifecycle).await?;
    Ok(())
}
