//! The front role alone: an image with this program holds neither a PKCS#11 library's loader nor any other role.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use runtime::{Database, Failure, Lifecycle, RoleArgs, run_role};

/// The ACME service of a Chancery CA. It is not trusted with issuance.
#[derive(Parser)]
#[command(name = "chancery-front", version)]
struct Arguments {
    #[command(flatten)]
    role: RoleArgs,
}

fn main() -> ExitCode {
    runtime::arm_failpoints();
    run_role("front", &Arguments::parse().role, run)
}

async fn run(config: front::Config, lifecycle: Lifecycle) -> Result<(), Failure> {
    match config.database.place().map_err(Failure::usage)? {
        Database::Sqlite(path) => {
            let store = sqlite::Acme::open(sqlite::Options::new(&**path)).await?;
            front::run(config, lifecycle, Arc::new(store)).await
        }
        Database::Postgres { url, password_file } => {
            let mut options = postgres::Options::from_url(url).map_err(Failure::usage)?;
            if let Some(file) = password_file {
                let password = runtime::files::read_secret(file).map_err(Failure::usage)?;
                let password = String::from_utf8(password).map_err(Failure::usage)?;
                options = options.with_password(password.trim_end_matches(['\r', '\n']));
            }
            let store = postgres::Acme::open(options).await?;
            front::run(config, lifecycle, Arc::new(store)).await
        }
    }
}
