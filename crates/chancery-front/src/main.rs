//! The front role alone: an image with this program holds neither a PKCS#11 library's loader nor any other role.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use runtime::{Failure, Lifecycle, RoleArgs, run_role};

/// The ACME service of a Chancery CA. It is not trusted with issuance.
#[derive(Parser)]
#[command(name = "chancery-front", version)]
struct Arguments {
    #[command(flatten)]
    role: RoleArgs,
}

fn main() -> ExitCode {
    run_role("front", &Arguments::parse().role, run)
}

async fn run(config: front::Config, lifecycle: Lifecycle) -> Result<(), Failure> {
    let store = sqlite::Acme::open(sqlite::Options::new(&*config.database.sqlite)).await?;
    front::run(config, lifecycle, Arc::new(store)).await?;
    Ok(())
}
