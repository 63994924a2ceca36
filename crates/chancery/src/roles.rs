//! The roles, each with the backends that its configuration names.

use std::process::ExitCode;
use std::sync::Arc;

use runtime::{Failure, Lifecycle, RoleArgs, run_role};

pub(crate) fn signer(args: &RoleArgs) -> ExitCode {
    run_role("signer", args, |config: signer::Config, lifecycle: Lifecycle| async move {
        let incarnation = signer::incarnation(&config).map_err(signer::RunError::into_failure)?;
        let mut options = sqlite::Options::new(&*config.database.sqlite);
        options.readers = usize::try_from(config.database.readers).unwrap_or(usize::MAX);
        let store = sqlite::Ca::open(options, incarnation).await.map_err(|error| match error {
            ca_store::StoreError::InUse { .. } => Failure::refused(error),
            other => other.into(),
        })?;
        let worker = signer::doors::WorkerCommand::this_program([crate::WORKER]);
        signer::run(config, lifecycle, Arc::new(store), worker).await.map_err(signer::RunError::into_failure)
    })
}

pub(crate) fn front(args: &RoleArgs) -> ExitCode {
    run_role("front", args, |config: front::Config, lifecycle: Lifecycle| async move {
        let store = sqlite::Acme::open(sqlite::Options::new(&*config.database.sqlite)).await?;
        front::run(config, lifecycle, Arc::new(store)).await
    })
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
