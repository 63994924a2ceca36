//! `chancery database`: the schemas of a PostgreSQL server, made and brought up to date by their owner; and what an operator of
//! fronts does in theirs.

use std::path::PathBuf;

use acme::AccountId;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use pki::Name;

use crate::roles;

#[derive(Debug, Subcommand)]
pub(crate) enum DatabaseCommand {
    /// Make the schemas, or bring them up to date, with the roles `chancery_signer` and `chancery_front` and what they may
    /// do. Safe to repeat, and while signers and fronts run: the programs before this one tolerate one migration more.
    Migrate(MigrateArgs),
    /// Lift the pause of names whose validations failed too often, for one account.
    ///
    /// Works in the fronts' database, beside fronts that run, and forgets the failures that `failed_validations` and
    /// `failures_until_paused` count: the account may order the names again at once. Where its accounts have a registration,
    /// `chancery registration limits` can do that without access to a front.
    ///
    /// Example:
    ///
    ///   chancery database unpause --config front.toml --account https://acme.example.org/acme/main/account/ID www.example.org
    #[command(verbatim_doc_comment)]
    Unpause(UnpauseArgs),
}

/// Whose pause is lifted.
#[derive(Debug, Args)]
pub(crate) struct UnpauseArgs {
    /// A front's configuration: where its database is.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The account: its URL, or the last part of it.
    #[arg(long)]
    account: String,
    /// The names, as they were ordered.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Name>,
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

/// Forgets the failures of an account's names.
///
/// # Errors
///
/// When the configuration or the account cannot be read, or the database does not answer.
pub(crate) async fn unpause(args: UnpauseArgs) -> anyhow::Result<()> {
    let id = args.account.rsplit('/').next().unwrap_or(&args.account);
    let account: AccountId =
        id.parse().with_context(|| format!("{:?} is no account's URL or id", args.account))?;
    let config: front::Config = runtime::config::load(&args.config)?;
    let store = roles::front_store(&config).await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let done = front::unpause(&*store, &account, &args.names).await;
    store.close().await;
    done?;
    let names: Vec<String> = args.names.iter().map(ToString::to_string).collect();
    println!("{} may be ordered again by account {account}.", names.join(", "));
    Ok(())
}

fn say(schema: &str, applied: postgres::Applied) {
    match (applied.before, applied.now) {
        (0, now) => println!("Schema {schema}: made, at migration {now}."),
        (before, now) if before == now => println!("Schema {schema}: up to date, at migration {now}."),
        (before, now) => println!("Schema {schema}: from migration {before} to {now}."),
    }
}

#[cfg(test)]
mod tests {
    use acme_store::{AcmeStore as _, FailureNote, Identifier, ValidationEnd};
    use pki::Timestamp;

    use super::*;

    #[tokio::test]
    async fn a_pause_is_lifted_of_the_names_that_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("front.toml");
        std::fs::write(&config, include_str!("../../../deploy/front.toml")).unwrap();
        let account = AccountId::from_bytes(&[7; 24]).unwrap();
        let identifier = |value: &str, wildcard| Identifier { value: value.to_owned(), wildcard };
        let both = [identifier("a.example.org", false), identifier("a.example.org", true)];
        let at = Timestamp::from_unix(1_800_000_000);
        let failed = |identifier: &Identifier| ValidationEnd {
            account: account.to_string(),
            identifier: identifier.clone(),
            failure: Some(FailureNote { at, expires_at: at }),
        };
        // A front is at work.
        let store = sqlite::Acme::open(sqlite::Options::new(folder.path().join("acme.db"))).await.unwrap();
        store.end_validations(both.iter().map(failed).collect()).await.unwrap();
        let args = |account: String| UnpauseArgs {
            config: config.clone(),
            account,
            names: vec!["*.a.example.org".parse().unwrap()],
        };
        assert!(unpause(args("https://acme.example.org/acme/main/account/x".to_owned())).await.is_err());
        unpause(args(format!("https://acme.example.org/acme/main/account/{account}"))).await.unwrap();
        let left = store.failures(&account.to_string(), &both, 10).await.unwrap();
        assert_eq!(left.into_iter().map(|row| row.identifier).collect::<Vec<_>>(), both[..1]);
        unpause(UnpauseArgs { names: vec!["a.example.org".parse().unwrap()], ..args(account.to_string()) })
            .await
            .unwrap();
        assert!(store.failures(&account.to_string(), &both, 10).await.unwrap().is_empty());
        store.close().await;
    }
}
