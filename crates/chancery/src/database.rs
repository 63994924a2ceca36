//! `chancery database`: the schemas of a PostgreSQL server, made and brought up to date by their owner.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use crate::roles;

#[derive(Debug, Subcommand)]
pub(crate) enum DatabaseCommand {
    /// Make the schemas, or bring them up to date, with the roles `chancery_signer` and `chancery_front` and what they may
    /// do. Safe to repeat, and while signers and fronts run: the programs before this one tolerate one migration more.
    Migrate(MigrateArgs),
}

/// What a migration needs.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The server, in the role that owns the schemas (or shall): `postgres://OWNER@HOST/DATABASE?sslrootcert=FILE`.
    #[arg(long, value_name = "URL")]
    url: String,
    /// A file with the owner's password, one line, mode 0600.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Which schemas: `ca` for signers, `acme` for fronts, or both, where they share a database.
    #[arg(long, value_enum, default_value_t = Schemas::Both)]
    schemas: Schemas,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Schemas {
    /// The signers' `ca`.
    Ca,
    /// The fronts' `acme`.
    Acme,
    /// Both.
    Both,
}

/// Applies what is missing, and says what that was.
///
/// # Errors
///
/// When the server cannot be reached or refuses.
pub(crate) async fn migrate(args: MigrateArgs) -> anyhow::Result<()> {
    let options = roles::server(&args.url, args.password_file.as_deref())
        .map_err(|failure| anyhow::anyhow!("{failure}"))?;
    if args.schemas != Schemas::Acme {
        say("ca", postgres::Ca::migrate(&options).await.context("schema ca")?);
    }
    if args.schemas != Schemas::Ca {
        say("acme", postgres::Acme::migrate(&options).await.context("schema acme")?);
    }
    Ok(())
}

fn say(schema: &str, applied: postgres::Applied) {
    match (applied.before, applied.now) {
        (0, now) => println!("Schema {schema}: made, at migration {now}."),
        (before, now) if before == now => println!("Schema {schema}: up to date, at migration {now}."),
        (before, now) => println!("Schema {schema}: from migration {before} to {now}."),
    }
}
