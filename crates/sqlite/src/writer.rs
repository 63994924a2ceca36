//! Group commit: one task owns the writing connection, and what arrived while it committed is its
//! next batch.

use std::{future::Future, mem, time::Instant};

use async_trait::async_trait;
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinHandle,
};

use crate::failure::{Cause, Failure};

/// What a database's writes are, and how a batch of them is run.
pub(crate) trait Database: Send + 'static {
    /// A write that waits for its answer. It can be run again until it is answered.
    type Write: Send + 'static;

    /// The value of the label `database` of this writer's metrics.
    const LABEL: &'static str;

    /// Runs writes, one after another or merged, in the open transaction, and keeps their outcomes.
    /// An error undoes all of them.
    fn run(
        &mut self,
        connection: &mut SqliteConnection,
        writes: &mut [Self::Write],
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The transaction of the last `run` is durable.
    fn committed(&mut self);

    /// The connection was opened anew: reads again what the database was believed to hold.
    fn reopened(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Answers a write: with its outcome, or the failure of its transaction.
    fn answer(write: Self::Write, result: Result<(), Failure>);
}

/// A write with its input, its outcome once it has run, and who waits for it.
pub(crate) struct Job<I, O> {
    pub(crate) input: I,
    pub(crate) outcome: Option<O>,
    reply: oneshot::Sender<Result<O, Failure>>,
}

impl<I, O> Job<I, O> {
    pub(crate) fn new(input: I) -> (Self, oneshot::Receiver<Result<O, Failure>>) {
        let (reply, answer) = oneshot::channel();
        (Self { input, outcome: None, reply }, answer)
    }

    pub(crate) fn answer(self, result: Result<(), Failure>) {
        let answer = result.and_then(|()| self.outcome.ok_or(Failure::Closed));
        // Who no longer listens finds out by reading.
        _ = self.reply.send(answer);
    }
}

/// The way to the writing task.
pub(crate) struct Writer<W> {
    queue: Mutex<Option<mpsc::Sender<W>>>,
    sender: mpsc::WeakSender<W>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<W: Send + 'static> Writer<W> {
    pub(crate) fn start<D: Database<Write = W>>(
        database: D,
        options: SqliteConnectOptions,
        connection: SqliteConnection,
    ) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let weak = sender.downgrade();
        let run = Run { database, options, connection: Some(connection), queue };
        Self {
            queue: Mutex::new(Some(sender)),
            sender: weak,
            task: Mutex::new(Some(tokio::spawn(run.run()))),
        }
    }

    /// Queues a write and waits for its answer.
    pub(crate) async fn write<I, O>(
        &self,
        input: I,
        wrap: impl FnOnce(Job<I, O>) -> W,
    ) -> Result<O, Failure> {
        let (job, answer) = Job::new(input);
        let sender = self.sender.upgrade().ok_or(Failure::Closed)?;
        sender.send(wrap(job)).await.map_err(|_| Failure::Closed)?;
        // Not for as long as the answer takes: the task ends when the last sender is gone.
        drop(sender);
        answer.await.unwrap_or_else(|gone| Err(Failure::OutcomeUnknown(Cause::new(gone))))
    }

    /// Refuses further writes and waits for those that were queued.
    pub(crate) async fn close(&self) {
        drop(self.queue.lock().await.take());
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the writing task ended badly");
        }
    }
}

/// How many writes wait for the writer before their callers wait for the queue.
const QUEUE: usize = 1024;

/// How many writes a transaction has at most: beyond this a batch costs latency and saves little.
const BATCH: usize = 256;

/// The writing task.
struct Run<D: Database> {
    database: D,
    options: SqliteConnectOptions,
    /// Absent after a failure that may have left it in a state that nobody knows.
    connection: Option<SqliteConnection>,
    queue: mpsc::Receiver<D::Write>,
}

impl<D: Database> Run<D> {
    /// Lets those run first whom the last commit has woken, as long as they bring more: no timer, and nothing to wait for
    /// when nobody is ready.
    async fn gather(&mut self, batch: &mut Vec<D::Write>) {
        loop {
            let before = batch.len();
            tokio::task::yield_now().await;
            while batch.len() < BATCH
                && let Ok(write) = self.queue.try_recv()
            {
                batch.push(write);
            }
            if batch.len() == before || batch.len() >= BATCH {
                return;
            }
        }
    }

    async fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            self.gather(&mut batch).await;
            self.batch(mem::take(&mut batch)).await;
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, database = D::LABEL, "the writing connection did not close well");
        }
    }

    async fn batch(&mut self, mut writes: Vec<D::Write>) {
        metrics::histogram!("chancery_store_batch_writes", "database" => D::LABEL)
            .record(u32::try_from(writes.len()).unwrap_or(u32::MAX));
        match self.transaction(&mut writes).await {
            // One of them is at fault, and it is not known which: each for itself. Rare, so that
            // the others need not pay for savepoints.
            Err(Failure::Refused(_) | Failure::Corrupt { .. }) if writes.len() > 1 => {
                for write in writes {
                    let mut alone = [write];
                    let result = self.transaction(&mut alone).await;
                    alone.into_iter().for_each(|write| D::answer(write, result.clone()));
                }
            }
            result => writes.into_iter().for_each(|write| D::answer(write, result.clone())),
        }
    }

    /// Runs writes in a transaction of their own: durable, or without effect, or of unknown outcome.
    async fn transaction(&mut self, writes: &mut [D::Write]) -> Result<(), Failure> {
        let mut connection = self.connect().await?;
        let begun = Instant::now();
        let result = self.in_transaction(&mut connection, writes).await;
        let result = match result {
            Err(failure) if !matches!(failure, Failure::OutcomeUnknown(_)) => {
                match sqlx::query("ROLLBACK").execute(&mut connection).await {
                    Ok(_) if !failure.breaks_connection() => {
                        self.connection = Some(connection);
                        Err(failure)
                    }
                    // SQLite has rolled back already after some errors, and says so.
                    _ => Err(failure),
                }
            }
            Err(unknown) => Err(unknown),
            Ok(()) => {
                self.connection = Some(connection);
                self.database.committed();
                Ok(())
            }
        };
        let outcome = match &result {
            Ok(()) => "committed",
            Err(Failure::OutcomeUnknown(_)) => "unknown",
            Err(_) => "failed",
        };
        metrics::histogram!("chancery_store_transaction_seconds", "database" => D::LABEL, "outcome" => outcome)
            .record(begun.elapsed());
        if let Err(failure) = &result {
            tracing::warn!(?failure, database = D::LABEL, "a batch of writes was not committed");
        }
        result
    }

    async fn in_transaction(
        &mut self,
        connection: &mut SqliteConnection,
        writes: &mut [D::Write],
    ) -> Result<(), Failure> {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        self.database.run(connection, writes).await?;
        fail::fail_point!(&format!("store.{}.before-commit", D::LABEL));
        let begun = Instant::now();
        sqlx::query("COMMIT").execute(&mut *connection).await.map_err(Failure::of_commit)?;
        fail::fail_point!(&format!("store.{}.after-commit", D::LABEL));
        metrics::histogram!("chancery_store_commit_seconds", "database" => D::LABEL).record(begun.elapsed());
        Ok(())
    }

    async fn connect(&mut self) -> Result<SqliteConnection, Failure> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.options.connect().await?;
        self.database.reopened(&mut connection).await?;
        Ok(connection)
    }
}

/// A change of the database that has a batch's transaction among others, but shares no statement
/// with them. It may be applied more than once, each time to a transaction in which it has not been.
pub(crate) trait Change<C>: Send + Sync + 'static {
    /// What is answered.
    type Outcome: Send + 'static;

    /// Makes the change.
    fn apply(
        &self,
        connection: &mut SqliteConnection,
        context: &mut C,
    ) -> impl Future<Output = Result<Self::Outcome, Failure>> + Send;
}

/// A [`Change`] of whatever kind, with who waits for it.
#[async_trait]
pub(crate) trait Operation<C>: Send {
    async fn apply(&mut self, connection: &mut SqliteConnection, context: &mut C) -> Result<(), Failure>;

    fn answer(self: Box<Self>, result: Result<(), Failure>);
}

#[async_trait]
impl<C: Send, T: Change<C>> Operation<C> for Job<T, T::Outcome> {
    async fn apply(&mut self, connection: &mut SqliteConnection, context: &mut C) -> Result<(), Failure> {
        self.outcome = Some(self.input.apply(connection, context).await?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), Failure>) {
        Job::answer(*self, result);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::future::join_all;
    use tempfile::TempDir;

    use super::*;
    use crate::Options;

    /// A database of numbers.
    #[derive(Clone, Default)]
    struct Numbers {
        commits: Arc<AtomicUsize>,
        reopened: Arc<AtomicUsize>,
    }

    #[derive(Clone, Copy)]
    enum Input {
        /// Is added; the answer is the number.
        Add(i64),
        /// Is added, and refused after that.
        AddAndFail(i64),
        /// Is added, and fails the commit.
        AddAndBreak(i64),
    }

    impl Database for Numbers {
        type Write = Job<Input, i64>;

        const LABEL: &'static str = "numbers";

        async fn run(
            &mut self,
            connection: &mut SqliteConnection,
            writes: &mut [Job<Input, i64>],
        ) -> Result<(), Failure> {
            for write in writes {
                let (Input::Add(number) | Input::AddAndFail(number) | Input::AddAndBreak(number)) =
                    write.input;
                let insert = sqlx::query("INSERT INTO numbers (number) VALUES (?)").bind(number);
                insert.execute(&mut *connection).await?;
                match write.input {
                    Input::Add(_) => {}
                    Input::AddAndFail(_) => {
                        sqlx::query("INSERT INTO numbers (number) VALUES (NULL)")
                            .execute(&mut *connection)
                            .await?;
                    }
                    // A reference that is checked at the commit only.
                    Input::AddAndBreak(_) => {
                        sqlx::query("INSERT INTO late (number) VALUES (-1)")
                            .execute(&mut *connection)
                            .await?;
                    }
                }
                write.outcome = Some(number);
            }
            Ok(())
        }

        fn committed(&mut self) {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }

        async fn reopened(&mut self, _: &mut SqliteConnection) -> Result<(), Failure> {
            self.reopened.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        fn answer(write: Job<Input, i64>, result: Result<(), Failure>) {
            write.answer(result);
        }
    }

    async fn start(folder: &TempDir) -> (Numbers, Writer<Job<Input, i64>>) {
        let options = Options::new(folder.path().join("numbers.db"));
        options.create().unwrap();
        let mut connection = options.writing().connect().await.unwrap();
        sqlx::raw_sql(
            "CREATE TABLE numbers (number INTEGER NOT NULL UNIQUE) STRICT;
             CREATE TABLE late (
                number INTEGER REFERENCES numbers (number) DEFERRABLE INITIALLY DEFERRED) STRICT;",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        let numbers = Numbers::default();
        (numbers.clone(), Writer::start(numbers, options.writing(), connection))
    }

    async fn stored(folder: &TempDir) -> Vec<i64> {
        let options = Options::new(folder.path().join("numbers.db"));
        let mut reading = options.reading().connect().await.unwrap();
        sqlx::query_scalar("SELECT number FROM numbers ORDER BY number")
            .fetch_all(&mut reading)
            .await
            .unwrap()
    }

    /// One that is refused undoes what it did, and nothing else.
    #[tokio::test]
    async fn a_refused_write_does_not_fail_its_neighbours() {
        let folder = TempDir::new().unwrap();
        let (numbers, writer) = start(&folder).await;
        let answers = join_all((0..9).map(|n| {
            let input = if n == 4 { Input::AddAndFail(n) } else { Input::Add(n) };
            writer.write(input, |job| job)
        }))
        .await;
        for (n, answer) in (0..).zip(&answers) {
            match answer {
                Ok(number) => assert_eq!(*number, n),
                Err(failure) => assert!(n == 4 && matches!(failure, Failure::Refused(_)), "{failure:?}"),
            }
        }
        assert_eq!(stored(&folder).await, [0, 1, 2, 3, 5, 6, 7, 8]);
        assert_eq!(numbers.reopened.load(Ordering::Relaxed), 0);
    }

    /// When a commit fails, nobody knows: each is told so, and the writer looks at the database again.
    #[tokio::test]
    async fn a_lost_commit_is_an_unknown_outcome() {
        let folder = TempDir::new().unwrap();
        let (numbers, writer) = start(&folder).await;
        writer.write(Input::Add(1), |job| job).await.unwrap();
        let inputs = [Input::Add(2), Input::AddAndBreak(3), Input::Add(4)];
        let answers = join_all(inputs.map(|input| writer.write(input, |job| job))).await;
        for answer in answers {
            assert!(matches!(answer, Err(Failure::OutcomeUnknown(_))), "{answer:?}");
        }
        assert_eq!(numbers.commits.load(Ordering::Relaxed), 1);
        assert_eq!(writer.write(Input::Add(5), |job| job).await.unwrap(), 5);
        assert_eq!(numbers.reopened.load(Ordering::Relaxed), 1);
        assert_eq!(stored(&folder).await, [1, 5]);
    }

    /// What waits while a batch commits is the next batch.
    #[tokio::test]
    async fn writes_share_commits() {
        let folder = TempDir::new().unwrap();
        let (numbers, writer) = start(&folder).await;
        let answers = join_all((0..200).map(|n| writer.write(Input::Add(n), |job| job))).await;
        assert!(answers.iter().all(Result::is_ok));
        let commits = numbers.commits.load(Ordering::Relaxed);
        assert!(commits <= 3, "{commits} commits for 200 writes that were there at once");
        writer.close().await;
        let closed = writer.write(Input::Add(300), |job| job).await;
        assert!(matches!(closed, Err(Failure::Closed)), "{closed:?}");
        assert_eq!(stored(&folder).await.len(), 200);
    }
}
