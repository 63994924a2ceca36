//! The signers' database.

mod account;
mod audit;
mod authority;
mod certificates;
mod crl;
mod entry;
mod imported;
mod incident;
mod intent;
mod limit;
mod meta;
mod node;
mod orphan;
mod put;
mod put_rows;
mod record;
mod registry;
mod revocation;
mod store;
#[cfg(test)]
mod tests;

use std::fs::File;

use ca_store::{AuditChain, AuditEvent, Incarnation, IntentOutcome, NewIntent, RecordOutcome, SignedRow};
use sqlx::{ConnectOptions, SqliteConnection, migrate::Migrator};

use crate::{
    Options,
    failure::{Cause, Failure},
    reader::Readers,
    writer::{Change, Database, Job, Operation, Writer},
};

/// The database `ca` in a SQLite file, for one signer.
pub struct Ca {
    writer: Writer<Write>,
    readers: Readers,
    options: Options,
    /// The store's number of this incarnation.
    number: i64,
}

impl Ca {
    /// Opens the database, creates it if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// [`InUse`](ca_store::StoreError::InUse) when another process has it; otherwise when it cannot
    /// be opened, or a newer program has changed its schema.
    pub async fn open(options: Options, incarnation: Incarnation) -> Result<Self, ca_store::StoreError> {
        options.create()?;
        let lock = options.lock()?;
        Ok(Self::start(options, incarnation, Some(lock)).await?)
    }

    /// As [`Ca::open`], without the lock: for tests of what two incarnations do to each other.
    #[cfg(test)]
    pub(crate) async fn open_shared(
        options: Options,
        incarnation: Incarnation,
    ) -> Result<Self, ca_store::StoreError> {
        options.create()?;
        Ok(Self::start(options, incarnation, None).await?)
    }

    async fn start(options: Options, incarnation: Incarnation, lock: Option<File>) -> Result<Self, Failure> {
        let mut connection = options.writing().connect().await?;
        migrate(sqlx::migrate!("migrations/ca"), &mut connection).await?;
        if lock.is_some() {
            orphan::free_leases(&mut connection).await?;
        }
        let number = meta::begin_incarnation(&mut connection, &incarnation).await?;
        let chain = AuditChain::start(&incarnation);
        let ledger = Ledger { incarnation, number, next: chain.clone(), chain, _lock: lock };
        let writer = Writer::start(ledger, options.writing(), connection);
        let readers = Readers::new(options.reading(), options.readers);
        Ok(Self { writer, readers, options, number })
    }

    async fn change<T: Change<Context>>(&self, change: T) -> Result<T::Outcome, ca_store::StoreError> {
        Ok(self.writer.write(change, |job| Write::Other(Box::new(job))).await?)
    }
}

/// Applies what is missing. A program tolerates a schema that is one migration ahead of it, which is
/// what migrations are written for; not more (DESIGN §5).
pub(crate) async fn migrate(
    mut migrations: Migrator,
    connection: &mut SqliteConnection,
) -> Result<(), Failure> {
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    // Not `run`: its future is not `Send` for all lifetimes, so that no program could spawn what opens a database.
    let migrations = migrations.set_ignore_missing(true);
    migrations.run_direct(None, &mut *connection, false).await.map_err(Failure::of_migration)?;
    let applied: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await?;
    if applied > known + 1 {
        return Err(Failure::Schema(Cause::new(TooNew { applied, known })));
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("the database has migration {applied}, this program knows up to {known}")]
struct TooNew {
    applied: i64,
    known: i64,
}

/// What waits for the writer.
pub(crate) enum Write {
    Intents(Job<Vec<NewIntent>, Vec<IntentOutcome>>),
    Records(Job<Vec<SignedRow>, Vec<RecordOutcome>>),
    Other(Box<dyn Operation<Context>>),
}

/// What a change needs beside the connection.
pub(crate) struct Context {
    /// The number of this incarnation.
    owner: i64,
    /// What the batch reports, in order.
    audit: Vec<AuditEvent>,
}

/// The writer's view of the database.
struct Ledger {
    incarnation: Incarnation,
    number: i64,
    /// The audit chain as it is durable.
    chain: AuditChain,
    /// The audit chain as it will be once the open transaction is.
    next: AuditChain,
    /// Held until the last write is done.
    _lock: Option<File>,
}

impl Database for Ledger {
    type Write = Write;

    const LABEL: &'static str = "ca";

    async fn run(&mut self, connection: &mut SqliteConnection, writes: &mut [Write]) -> Result<(), Failure> {
        let mut context = Context { owner: self.number, audit: Vec::new() };
        intent::commit(connection, &mut context, &mut intents(writes)).await?;
        record::record(connection, &mut context, &mut records(writes)).await?;
        for write in &mut *writes {
            if let Write::Other(operation) = write {
                operation.apply(connection, &mut context).await?;
            }
        }
        self.next = self.chain.clone();
        audit::append(connection, self.number, &mut self.next, context.audit).await
    }

    fn committed(&mut self) {
        self.chain = self.next.clone();
    }

    async fn reopened(&mut self, connection: &mut SqliteConnection) -> Result<(), Failure> {
        self.chain = audit::resume(connection, self.number, &self.incarnation).await?;
        Ok(())
    }

    fn answer(write: Write, result: Result<(), Failure>) {
        match write {
            Write::Intents(job) => job.answer(result),
            Write::Records(job) => job.answer(result),
            Write::Other(operation) => operation.answer(result),
        }
    }
}

fn intents(writes: &mut [Write]) -> Vec<&mut Job<Vec<NewIntent>, Vec<IntentOutcome>>> {
    writes
        .iter_mut()
        .filter_map(|write| if let Write::Intents(job) = write { Some(job) } else { None })
        .collect()
}

fn records(writes: &mut [Write]) -> Vec<&mut Job<Vec<SignedRow>, Vec<RecordOutcome>>> {
    writes
        .iter_mut()
        .filter_map(|write| if let Write::Records(job) = write { Some(job) } else { None })
        .collect()
}
