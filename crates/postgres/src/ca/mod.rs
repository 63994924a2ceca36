//! The signers' database.

mod account;
mod audit;
mod authority;
mod certificates;
mod changes;
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

use ca_store::{
    AuditChain, AuditEvent, Incarnation, IntentOutcome, NewIntent, RecordOutcome, SignedRow, StoreChange,
};
use sqlx::{PgConnection, migrate::Migrator, postgres::PgConnectOptions};

use crate::{
    Options, durability,
    failure::Failure,
    lock::Locks,
    options::connect,
    reader::Readers,
    schema::{self, Applied},
    writer::{Change, Database, Job, Operation, Writer},
};

/// The database `ca` on a server, for any number of signers.
pub struct Ca {
    writer: Writer<Write>,
    readers: Readers,
    /// For sessions that listen.
    listening: PgConnectOptions,
    /// The store's number of this incarnation.
    number: i64,
}

const SCHEMA: &str = "ca";

fn migrations() -> Migrator {
    sqlx::migrate!("migrations/ca")
}

impl Ca {
    /// Opens the database, beside whoever has it open.
    ///
    /// # Errors
    /// [`NotDurable`](ca_store::StoreError::NotDurable) when the server may lose what it has acknowledged and
    /// [`Options::accept_lost_commits`] is not set; [`Schema`](ca_store::StoreError::Schema) when the schema is missing,
    /// old or too new; otherwise when the server cannot be reached or refuses the role.
    pub async fn open(options: Options, incarnation: Incarnation) -> Result<Self, ca_store::StoreError> {
        Ok(Self::start(&options, incarnation).await?)
    }

    /// Makes the schema, or brings it up to date: an operator's work, done in the role that owns it.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or holds another schema.
    pub async fn migrate(options: &Options) -> Result<Applied, ca_store::StoreError> {
        Ok(schema::migrate(migrations(), SCHEMA, options).await?)
    }

    async fn start(options: &Options, incarnation: Incarnation) -> Result<Self, Failure> {
        let writing = options.writing(SCHEMA);
        let mut connection = connect(&writing).await?;
        schema::check(&migrations(), SCHEMA, &mut connection).await?;
        match durability::check(&mut connection).await {
            Err(Failure::NotDurable { setting }) if options.accept_lost_commits => {
                tracing::warn!(setting, "the database may lose commits: accepted by the configuration");
            }
            checked => checked?,
        }
        let number = meta::begin_incarnation(&mut connection, &incarnation).await?;
        let chain = AuditChain::start(&incarnation);
        let ledger = Ledger { incarnation, number, next: chain.clone(), chain };
        let writer = Writer::start(ledger, writing, connection);
        let readers = Readers::new(options.reading(SCHEMA), options.readers);
        Ok(Self { writer, readers, listening: options.listening(SCHEMA), number })
    }

    async fn change<T: Change<Context>>(&self, change: T) -> Result<T::Outcome, ca_store::StoreError> {
        Ok(self.writer.write(change, |job| Write::Other(Box::new(job))).await?)
    }
}

/// What waits for the writer.
pub(crate) enum Write {
    Intents(Job<Vec<NewIntent>, Vec<IntentOutcome>>),
    Records(Job<Vec<SignedRow>, Vec<RecordOutcome>>),
    Other(Box<dyn Operation<Context>>),
}

impl Write {
    fn locks(&self) -> Locks {
        match self {
            Self::Intents(_) | Self::Records(_) => Locks::NONE,
            Self::Other(operation) => operation.locks(),
        }
    }
}

/// What a change needs beside the connection.
pub(crate) struct Context {
    /// The number of this incarnation.
    owner: i64,
    /// What the batch reports, in order.
    audit: Vec<AuditEvent>,
    /// What other signers are to be told.
    changes: Vec<StoreChange>,
}

/// The writer's view of the database.
struct Ledger {
    incarnation: Incarnation,
    number: i64,
    /// The audit chain as it is durable.
    chain: AuditChain,
    /// The audit chain as it will be once the open transaction is.
    next: AuditChain,
}

impl Database for Ledger {
    type Write = Write;

    const LABEL: &'static str = "ca";

    fn begin(writes: &[Write]) -> &'static str {
        writes.iter().fold(Locks::NONE, |locks, write| locks.and(write.locks())).begin()
    }

    async fn run(&mut self, connection: &mut PgConnection, writes: &mut [Write]) -> Result<(), Failure> {
        let mut context = Context { owner: self.number, audit: Vec::new(), changes: Vec::new() };
        intent::commit(connection, &mut context, &mut intents(writes)).await?;
        record::record(connection, &mut context, &mut records(writes)).await?;
        for write in &mut *writes {
            if let Write::Other(operation) = write {
                operation.apply(connection, &mut context).await?;
            }
        }
        changes::tell(connection, self.number, &context.changes).await?;
        self.next = self.chain.clone();
        audit::append(connection, self.number, &mut self.next, context.audit).await
    }

    fn committed(&mut self) {
        self.chain = self.next.clone();
    }

    async fn reopened(&mut self, connection: &mut PgConnection) -> Result<(), Failure> {
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
