//! The file of `ca`, read and written behind the signer's back.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

/// Tables whose rows carry a MAC, each with its key's columns.
pub(crate) const PROTECTED: &[(&str, &[&str])] = &[
    ("tenants", &["id"]),
    ("directories", &["name"]),
    ("profiles", &["name"]),
    ("issuers", &["id"]),
    ("registrations", &["id"]),
    ("eab_keys", &["kid"]),
    ("permits", &["id"]),
    ("grants", &["id"]),
    ("deactivations", &["authorization_id"]),
    ("nodes", &["role", "name"]),
    ("join_tokens", &["digest"]),
    ("accounts", &["id"]),
    ("account_keys", &["directory", "thumbprint"]),
    ("incidents", &["id"]),
    ("journal", &["serial", "kind"]),
];

/// Tables without one that say what was registered, signed or revoked.
const OTHERS: &[&str] = &["account_requests", "blocked_keys", "revocations", "revocation_requests"];

/// What changes without anybody asking for anything.
const BOOKKEEPING: &[&str] = &["owner", "lease_until_ms"];

pub(crate) struct Database {
    pool: SqlitePool,
}

impl Database {
    pub(crate) async fn open(path: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options.foreign_keys(false));
        Self { pool: pool.await.expect("the database's file") }
    }

    pub(crate) async fn close(self) {
        self.pool.close().await;
    }

    /// Rows that a statement changes.
    pub(crate) async fn run(&self, sql: String) -> u64 {
        let done = sqlx::query(AssertSqlSafe(sql.clone())).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
    }

    /// One number.
    pub(crate) async fn number(&self, sql: String) -> i64 {
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&self.pool).await;
        row.expect("one row").get(0)
    }

    /// One text a row.
    pub(crate) async fn texts(&self, sql: String) -> Vec<String> {
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&self.pool).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn columns(&self, table: &str) -> Vec<String> {
        self.texts(format!("SELECT name FROM pragma_table_info('{table}')")).await
    }

    /// Every row of every table that says what was granted, registered, signed or revoked.
    pub(crate) async fn everything(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for table in PROTECTED.iter().map(|(table, _)| table).chain(OTHERS) {
            let columns = self.columns(table).await;
            let columns = columns.iter().filter(|column| !BOOKKEEPING.contains(&column.as_str()));
            let quoted: Vec<_> = columns.map(|column| format!("quote({column})")).collect();
            let sql = format!("SELECT '{table} ' || {} FROM {table}", quoted.join(" || ' ' || "));
            rows.extend(self.texts(sql).await);
        }
        rows.sort();
        rows
    }

    /// Refusals of the audit trail: reason and count.
    pub(crate) async fn refusals(&self) -> BTreeMap<String, u64> {
        let rows =
            sqlx::query("SELECT reason, sum(count) FROM refusals GROUP BY reason").fetch_all(&self.pool);
        let rows = rows.await.expect("the refusals");
        rows.iter().map(|row| (row.get(0), row.get::<i64, _>(1).unsigned_abs())).collect()
    }

    /// Rows of the audit trail of this kind, by what they are about.
    pub(crate) async fn audited(&self, kind: &str) -> Vec<String> {
        self.texts(format!("SELECT subject || ' ' || detail FROM audit WHERE kind = '{kind}'")).await
    }
}
