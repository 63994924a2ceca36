//! The roles, each with the backends that its configuration names.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use acme_store::AcmeStore;
use ca_store::{CaStore, StoreError};
use runtime::{Database, Failure, Lifecycle, RoleArgs, run_role};

pub(crate) fn signer(args: &RoleArgs) -> ExitCode {
    run_role("signer", args, |config: signer::Config, lifecycle: Lifecycle| async move {
        let store = signer_store(&config).await?;
        let worker = signer::doors::WorkerCommand::this_program([crate::WORKER]);
        signer::run(config, lifecycle, store, worker).await.map_err(signer::RunError::into_failure)
    })
}

async fn signer_store(config: &signer::Config) -> Result<Arc<dyn CaStore>, Failure> {
    let incarnation = signer::incarnation(config).map_err(signer::RunError::into_failure)?;
    let readers = usize::try_from(config.database.readers).unwrap_or(usize::MAX);
    let opened: Result<Arc<dyn CaStore>, StoreError> =
        match config.database.place().map_err(Failure::usage)? {
            Database::Sqlite(path) => {
                let mut options = sqlite::Options::new(&**path);
                options.readers = readers;
                sqlite::Ca::open(options, incarnation).await.map(|store| Arc::new(store) as _)
            }
            Database::Postgres { url, password_file } => {
                let mut options = server(url, password_file.map(|file| &**file))?;
                options.readers = readers;
                options.accept_lost_commits = config.database.accept_lost_commits;
                postgres::Ca::open(options, incarnation).await.map(|store| Arc::new(store) as _)
            }
        };
    opened.map_err(|error| match error {
        // Starting again does not help.
        StoreError::InUse { .. } | StoreError::Schema(_) | StoreError::NotDurable { .. } => {
            Failure::refused(error)
        }
        other => other.into(),
    })
}

pub(crate) fn front(args: &RoleArgs) -> ExitCode {
    run_role("front", args, |config: front::Config, lifecycle: Lifecycle| async move {
        let store = front_store(&config).await?;
        front::run(config, lifecycle, store).await
    })
}

/// The fronts' database; other fronts may have it open too.
pub(crate) async fn front_store(config: &front::Config) -> Result<Arc<dyn AcmeStore>, Failure> {
    Ok(match config.database.place().map_err(Failure::usage)? {
        Database::Sqlite(path) => Arc::new(sqlite::Acme::open(sqlite::Options::new(&**path)).await?),
        Database::Postgres { url, password_file } => {
            Arc::new(postgres::Acme::open(server(url, password_file.map(|file| &**file))?).await?)
        }
    })
}

/// A server, with the password from a file.
pub(crate) fn server(url: &str, password_file: Option<&Path>) -> Result<postgres::Options, Failure> {
    let options = postgres::Options::from_url(url).map_err(Failure::usage)?;
    let Some(file) = password_file else { return Ok(options) };
    let password = runtime::files::read_secret(file).map_err(Failure::usage)?;
    let password = String::from_utf8(password).map_err(Failure::usage)?;
    Ok(options.with_password(password.trim_end_matches(['\r', '\n'])))
}

pub(crate) fn validator(args: &RoleArgs) -> ExitCode {
    run_role("validator", args, |config: validator::Config, lifecycle: Lifecycle| async move {
        Ok::<_, Failure>(validator::run(config, lifecycle).await?)
    })
}

pub(crate) fn status(args: &RoleArgs) -> ExitCode {
    run_role("status", args, |config: status::Config, lifecycle: Lifecycle| async move {
        Ok::<_, Failure>(status::run(config, lifecycle).await?)
    })
}
