//! What the databases hold.

use std::path::Path;

use sqlx::Connection as _;

/// Bytes in the databases.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stored {
    /// Without evidence.
    pub bytes: f64,
    /// Evidence: both JWSs, receipts, lints.
    pub evidence: f64,
}

impl Stored {
    /// What each of so many certificates has added.
    #[must_use]
    pub fn since(self, before: Self, certificates: f64) -> Self {
        let count = certificates.max(1.0);
        Self {
            bytes: (self.bytes - before.bytes) / count,
            evidence: (self.evidence - before.evidence) / count,
        }
    }
}

/// The two files of a demo's state folder, by the pages of their tables.
///
/// # Errors
///
/// When a database cannot be read.
pub async fn sqlite(state: &Path) -> anyhow::Result<Stored> {
    let mut stored = Stored::default();
    for file in ["signer/ca.db", "front/acme.db"] {
        let url = format!("sqlite://{}?mode=ro", state.join(file).display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await?;
        let pages: i64 = sqlx::query_scalar(
            "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        )
        .fetch_one(&mut connection)
        .await?;
        stored.bytes += pages as f64;
        if file.ends_with("ca.db") {
            let evidence: Option<i64> =
                sqlx::query_scalar("SELECT sum(pgsize) FROM dbstat WHERE name = 'evidence'")
                    .fetch_one(&mut connection)
                    .await?;
            stored.evidence = evidence.unwrap_or(0) as f64;
        }
        connection.close().await?;
    }
    stored.bytes -= stored.evidence;
    Ok(stored)
}

/// The schemas of a server, indexes and TOAST included; evidence with its own.
///
/// # Errors
///
/// When the server does not answer.
pub async fn postgres(url: &str) -> anyhow::Result<Stored> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let (all, evidence): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint,
                coalesce(sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname = 'evidence'), 0)::bigint
         FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('ca', 'acme') AND c.relkind = 'r'",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    Ok(Stored { bytes: (all - evidence) as f64, evidence: evidence as f64 })
}
