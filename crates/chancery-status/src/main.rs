//! The status role alone: an image with this program holds neither a PKCS#11 library's loader nor any other role.

use std::process::ExitCode;

use clap::Parser;
use runtime::{Failure, Lifecycle, RoleArgs, run_role};

/// CRLs and CA certificates of a Chancery CA, over HTTP.
#[derive(Parser)]
#[command(name = "chancery-status", version)]
struct Arguments {
    #[command(flatten)]
    role: RoleArgs,
}

fn main() -> ExitCode {
    run_role("status", &Arguments::parse().role, run)
}

async fn run(config: status::Config, lifecycle: Lifecycle) -> Result<(), Failure> {
    status::run(config, lifecycle).await?;
    Ok(())
}
