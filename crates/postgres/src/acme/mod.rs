//! The fronts' database.

mod authorization;
mod create;
mod limit;
mod order;
mod purge;
mod save;
mod store;
#[cfg(test)]
mod tests;

use acme_store::{CreateOutcome, Hit, HitCount, NewOrder, SaveOutcome, Unit, ValidationEnd};
use sqlx::{PgConnection, migrate::Migrator};

use crate::{
    Options,
    failure::Failure,
    options::connect,
    reader::Readers,
    schema::{self, Applied},
    writer::{Change, Database, Job, Operation, Writer},
};

/// The database `acme` on a server, for any number of fronts.
pub struct Acme {
    writer: Writer<Write>,
    readers: Readers,
}

const SCHEMA: &str = "acme";

fn migrations() -> Migrator {
    sqlx::migrate!("migrations/acme")
}

impl Acme {
    /// Opens the database, beside whoever has it open. Whether the server is durable is not asked: it is disposable.
    ///
    /// # Errors
    /// [`Schema`](acme_store::StoreError::Schema) when the schema is missing, old or too new; otherwise when the server
    /// cannot be reached or refuses the role.
    pub async fn open(options: Options) -> Result<Self, acme_store::StoreError> {
        Ok(Self::start(&options).await?)
    }

    /// Makes the schema, or brings it up to date: an operator's work, done in the role that owns it.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or holds another schema.
    pub async fn migrate(options: &Options) -> Result<Applied, acme_store::StoreError> {
        Ok(schema::migrate(migrations(), SCHEMA, options).await?)
    }

    async fn start(options: &Options) -> Result<Self, Failure> {
        let writing = options.writing(SCHEMA);
        let mut connection = connect(&writing).await?;
        schema::check(&migrations(), SCHEMA, &mut connection).await?;
        let writer = Writer::start(Fronts, writing, connection);
        let readers = Readers::new(options.reading(SCHEMA), options.readers);
        Ok(Self { writer, readers })
    }

    async fn change<T: Change<()>>(&self, change: T) -> Result<T::Outcome, acme_store::StoreError> {
        Ok(self.writer.write(change, |job| Write::Other(Box::new(job))).await?)
    }
}

/// What waits for the writer.
pub(crate) enum Write {
    Create(Job<Vec<NewOrder>, Vec<CreateOutcome>>),
    Save(Job<Vec<Unit>, Vec<SaveOutcome>>),
    Count(Job<Vec<Hit>, Vec<HitCount>>),
    EndValidations(Job<Vec<ValidationEnd>, ()>),
    Other(Box<dyn Operation<()>>),
}

/// The writer's view of the database: it believes nothing between two transactions.
struct Fronts;

impl Database for Fronts {
    type Write = Write;

    const LABEL: &'static str = "acme";

    /// Rows are locked one by one: nothing here depends on what is not there.
    fn begin(_: &[Write]) -> &'static str {
        "BEGIN"
    }

    async fn run(&mut self, connection: &mut PgConnection, writes: &mut [Write]) -> Result<(), Failure> {
        create::create(connection, &mut creations(writes)).await?;
        save::save(connection, &mut saves(writes)).await?;
        limit::count(connection, &mut counts(writes)).await?;
        limit::end_validations(connection, &mut ends(writes)).await?;
        for write in writes {
            if let Write::Other(operation) = write {
                operation.apply(connection, &mut ()).await?;
            }
        }
        Ok(())
    }

    fn committed(&mut self) {}

    async fn reopened(&mut self, _: &mut PgConnection) -> Result<(), Failure> {
        Ok(())
    }

    fn answer(write: Write, result: Result<(), Failure>) {
        match write {
            Write::Create(job) => job.answer(result),
            Write::Save(job) => job.answer(result),
            Write::Count(job) => job.answer(result),
            Write::EndValidations(job) => job.answer(result),
            Write::Other(operation) => operation.answer(result),
        }
    }
}

fn creations(writes: &mut [Write]) -> Vec<&mut Job<Vec<NewOrder>, Vec<CreateOutcome>>> {
    writes
        .iter_mut()
        .filter_map(|write| if let Write::Create(job) = write { Some(job) } else { None })
        .collect()
}

fn saves(writes: &mut [Write]) -> Vec<&mut Job<Vec<Unit>, Vec<SaveOutcome>>> {
    writes
        .iter_mut()
        .filter_map(|write| if let Write::Save(job) = write { Some(job) } else { None })
        .collect()
}

fn counts(writes: &mut [Write]) -> Vec<&mut Job<Vec<Hit>, Vec<HitCount>>> {
    writes
        .iter_mut()
        .filter_map(|write| if let Write::Count(job) = write { Some(job) } else { None })
        .collect()
}

fn ends(writes: &mut [Write]) -> Vec<&mut Job<Vec<ValidationEnd>, ()>> {
    writes
        .iter_mut()
        .filter_map(|write| if let Write::EndValidations(job) = write { Some(job) } else { None })
        .collect()
}
