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

use acme_store::{CreateOutcome, NewOrder, SaveOutcome, Unit, ValidationEnd};
use sqlx::{ConnectOptions, SqliteConnection};

use crate::{
    Options,
    ca::migrate,
    failure::Failure,
    reader::Readers,
    writer::{Change, Database, Job, Operation, Writer},
};

/// The database `acme` in a SQLite file, for the fronts of a host.
pub struct Acme {
    writer: Writer<Write>,
    readers: Readers,
    options: Options,
}

impl Acme {
    /// Opens the database, creates it if there is none, and brings its schema up to date. Several
    /// fronts may have it open: their commits wait for each other.
    ///
    /// # Errors
    /// When it cannot be opened, or a newer program has changed its schema.
    pub async fn open(options: Options) -> Result<Self, acme_store::StoreError> {
        options.create()?;
        Ok(Self::start(options).await?)
    }

    async fn start(options: Options) -> Result<Self, Failure> {
        let mut connection = options.writing().connect().await?;
        migrate(sqlx::migrate!("migrations/acme"), &mut connection).await?;
        let writer = Writer::start(Fronts, options.writing(), connection);
        let readers = Readers::new(options.reading(), options.readers);
        Ok(Self { writer, readers, options })
    }

    async fn change<T: Change<()>>(&self, change: T) -> Result<T::Outcome, acme_store::StoreError> {
        Ok(self.writer.write(change, |job| Write::Other(Box::new(job))).await?)
    }
}

/// What waits for the writer.
pub(crate) enum Write {
    Create(Job<Vec<NewOrder>, Vec<CreateOutcome>>),
    Save(Job<Vec<Unit>, Vec<SaveOutcome>>),
    EndValidations(Job<Vec<ValidationEnd>, ()>),
    Other(Box<dyn Operation<()>>),
}

/// The writer's view of the database: it believes nothing between two transactions.
struct Fronts;

impl Database for Fronts {
    type Write = Write;

    const LABEL: &'static str = "acme";

    async fn run(&mut self, connection: &mut SqliteConnection, writes: &mut [Write]) -> Result<(), Failure> {
        create::create(connection, &mut creations(writes)).await?;
        save::save(connection, &mut saves(writes)).await?;
        limit::end_validations(connection, &mut ends(writes)).await?;
        for write in writes {
            if let Write::Other(operation) = write {
                operation.apply(connection, &mut ()).await?;
            }
        }
        Ok(())
    }

    fn committed(&mut self) {}

    async fn reopened(&mut self, _: &mut SqliteConnection) -> Result<(), Failure> {
        Ok(())
    }

    fn answer(write: Write, result: Result<(), Failure>) {
        match write {
            Write::Create(job) => job.answer(result),
            Write::Save(job) => job.answer(result),
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

fn ends(writes: &mut [Write]) -> Vec<&mut Job<Vec<ValidationEnd>, ()>> {
    writes
        .iter_mut()
        .filter_map(|write| if let Write::EndValidations(job) = write { Some(job) } else { None })
        .collect()
}
