//! Reading the databases by SQL of the harness' own, whichever kind they are.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use testkit::Cluster;

/// Where a stack keeps what it has.
pub enum Database {
    /// Two files.
    Sqlite {
        /// The signers'.
        ca: PathBuf,
        /// The fronts'.
        acme: PathBuf,
    },
    /// A cluster of its own, both schemas in one database.
    Postgres(Box<Cluster>),
}

/// A connection that reads.
pub enum Ledger {
    /// To one file.
    Sqlite(SqliteConnection),
    /// To one schema.
    Postgres(PgConnection),
}

/// PostgreSQL keeps signatures beside the journal, and spells `hex` otherwise.
const VIEWS: &str = "
SET search_path = pg_temp, ca;
CREATE FUNCTION pg_temp.hex(bytea) RETURNS text LANGUAGE sql AS $$ SELECT upper(encode($1, 'hex')) $$;
CREATE TEMP VIEW journal AS
    SELECT j.*, s.signature FROM ca.journal j LEFT JOIN ca.signatures s ON s.entry = j.id;
";

impl Database {
    /// The signers'.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub async fn ca(&self) -> anyhow::Result<Ledger> {
        match self {
            Self::Sqlite { ca, .. } => sqlite(ca).await,
            Self::Postgres(cluster) => postgres(cluster, VIEWS).await,
        }
    }

    /// The fronts'.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub async fn acme(&self) -> anyhow::Result<Ledger> {
        match self {
            Self::Sqlite { acme, .. } => sqlite(acme).await,
            Self::Postgres(cluster) => postgres(cluster, "SET search_path = acme").await,
        }
    }
}

async fn sqlite(path: &Path) -> anyhow::Result<Ledger> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let connection = SqliteConnection::connect_with(&options).await;
    Ok(Ledger::Sqlite(connection.with_context(|| path.display().to_string())?))
}

async fn postgres(cluster: &Cluster, prepare: &'static str) -> anyhow::Result<Ledger> {
    let mut connection = PgConnection::connect(&cluster.owner_url()).await?;
    sqlx::raw_sql(prepare).execute(&mut connection).await?;
    Ok(Ledger::Postgres(connection))
}

impl Ledger {
    /// What a query answers; all of its columns are text.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub async fn rows(&mut self, query: &str) -> anyhow::Result<Vec<Vec<String>>> {
        match self {
            Self::Sqlite(connection) => {
                let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(connection).await?;
                let text = |row: &sqlx::sqlite::SqliteRow, at| row.get::<Option<String>, _>(at);
                Ok(rows
                    .iter()
                    .map(|row| (0..row.len()).map(|at| text(row, at).unwrap_or_default()).collect())
                    .collect())
            }
            Self::Postgres(connection) => {
                let query = query.replace("hex(", "pg_temp.hex(");
                let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(connection).await?;
                let text = |row: &sqlx::postgres::PgRow, at| row.get::<Option<String>, _>(at);
                Ok(rows
                    .iter()
                    .map(|row| (0..row.len()).map(|at| text(row, at).unwrap_or_default()).collect())
                    .collect())
            }
        }
    }

    /// Ends the connection.
    ///
    /// # Errors
    ///
    /// When it does not end well.
    pub async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(connection) => connection.close().await?,
            Self::Postgres(connection) => connection.close().await?,
        }
        Ok(())
    }
}
