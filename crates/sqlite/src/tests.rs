//! What is SQLite's own: files, lock, settings, plans, crashes.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use acme_store::AcmeStore;
use ca_store::{CaStore, Incarnation, LeaseOutcome, StoreError};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use crate::{Acme, Ca, Options};

mod crash;

fn incarnation(n: u8) -> Incarnation {
    Incarnation { id: [n; 16], node: format!("signer-{n}") }
}

fn options(folder: &TempDir, name: &str) -> Options {
    Options::new(folder.path().join(name))
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_second_signer_is_refused() {
    let folder = TempDir::new().unwrap();
    let first = Ca::open(options(&folder, "ca.db"), incarnation(1)).await.unwrap();
    let second = Ca::open(options(&folder, "ca.db"), incarnation(2)).await;
    let Err(StoreError::InUse { path }) = second else { panic!("two signers on one database") };
    assert_eq!(path, folder.path().join("ca.db.lock").display().to_string());
    first.close().await;
    drop(first);
    Ca::open(options(&folder, "ca.db"), incarnation(2)).await.unwrap();
}

/// The lock says that nobody else lives, so nobody's lease has to be waited for.
#[tokio::test]
async fn leases_end_with_their_signer() {
    let folder = TempDir::new().unwrap();
    let first = Ca::open(options(&folder, "ca.db"), incarnation(1)).await.unwrap();
    let hour = std::time::Duration::from_secs(3600);
    first.claim_lease("crl", hour).await.unwrap();
    first.close().await;
    let second = Ca::open(options(&folder, "ca.db"), incarnation(2)).await.unwrap();
    let outcome = second.claim_lease("crl", hour).await.unwrap();
    assert!(matches!(outcome, LeaseOutcome::Held { .. }), "{outcome:?}");
}

#[tokio::test]
async fn files_are_their_owners_alone() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::open(options(&folder, "ca.db"), incarnation(1)).await.unwrap();
    ca.append_audit(vec![], vec![]).await.unwrap();
    let acme = Acme::open(options(&folder, "acme.db")).await.unwrap();
    acme.save(vec![]).await.unwrap();
    for name in ["ca.db", "ca.db-wal", "ca.db-shm", "ca.db.lock", "acme.db", "acme.db-wal"] {
        assert_eq!(mode(&folder.path().join(name)), 0o600, "{name}");
    }
    let missing = Options::new(folder.path().join("none/ca.db"));
    let refused = Ca::open(missing, incarnation(3)).await.err();
    assert!(matches!(refused, Some(StoreError::Open { .. })), "{refused:?}");
}

#[tokio::test]
async fn commits_are_durable_and_references_hold() {
    let folder = TempDir::new().unwrap();
    Acme::open(options(&folder, "acme.db")).await.unwrap().close().await;
    let mut writing = options(&folder, "acme.db").writing().connect().await.unwrap();
    let setting = async |connection: &mut SqliteConnection, query: &'static str| -> String {
        sqlx::query_scalar::<_, String>(query).fetch_one(connection).await.unwrap()
    };
    let journal = setting(&mut writing, "SELECT journal_mode FROM pragma_journal_mode").await;
    assert_eq!(journal, "wal");
    let synchronous = setting(&mut writing, "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous").await;
    assert_eq!(synchronous, "2", "FULL: every commit is flushed");
    let keys = setting(&mut writing, "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys").await;
    assert_eq!(keys, "1");
    let mut reading = options(&folder, "acme.db").reading().connect().await.unwrap();
    assert!(sqlx::query("DELETE FROM orders").execute(&mut reading).await.is_err(), "readers do not write");
}

/// A program tolerates what its successor did to the schema, and no more (DESIGN §5).
#[tokio::test]
async fn a_schema_may_be_one_migration_ahead() {
    let folder = TempDir::new().unwrap();
    Ca::open(options(&folder, "ca.db"), incarnation(1)).await.unwrap().close().await;
    let mut writing = options(&folder, "ca.db").writing().connect().await.unwrap();
    for (version, tolerated) in [(2, true), (3, false)] {
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (?, 'later', TRUE, x'00', 0)",
        )
        .bind(version)
        .execute(&mut writing)
        .await
        .unwrap();
        let opened = Ca::open(options(&folder, "ca.db"), incarnation(u8::try_from(version).unwrap())).await;
        match opened {
            Ok(ca) => {
                assert!(tolerated, "{version}");
                ca.close().await;
            }
            Err(refused) => assert!(!tolerated && matches!(refused, StoreError::Schema(_)), "{refused:?}"),
        }
    }
    // A migration that is not the one that was applied.
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version > 1").execute(&mut writing).await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(&mut writing).await.unwrap();
    let refused = Ca::open(options(&folder, "ca.db"), incarnation(9)).await.err();
    assert!(matches!(refused, Some(StoreError::Schema(_))), "{refused:?}");
}

/// Every statement of this crate, as `.sqlx` has it.
fn statements() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let statements: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let description: serde_json::Value = serde_json::from_str(&text).unwrap();
            description["query"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(statements.len() > 100);
    statements
}

/// No statement reads the whole of a table that grows.
#[tokio::test]
async fn no_statement_scans_what_grows() {
    let folder = TempDir::new().unwrap();
    let mut connection =
        options(&folder, "all.db").writing().create_if_missing(true).connect().await.unwrap();
    for schema in
        [include_str!("../migrations/ca/0001_ca.sql"), include_str!("../migrations/acme/0001_acme.sql")]
    {
        sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
    }
    let mut scans = Vec::new();
    for statement in statements() {
        let lines: Vec<&str> = statement.lines().filter(|line| !line.trim().starts_with("--")).collect();
        let statement = lines.join("\n");
        for part in statement.split(';').filter(|part| !part.trim().is_empty()) {
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {part}")))
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
            for (.., step) in plan {
                let scanned = step.strip_prefix("SCAN ").and_then(|step| step.split(' ').next());
                let argument = step.contains("VIRTUAL TABLE") || step.contains("(subquery");
                let whole = scanned.is_some_and(|table| !SMALL.contains(&table) && !argument);
                if whole || step.contains("AUTOMATIC") {
                    scans.push(format!("{step}: {part}"));
                }
            }
        }
    }
    assert_eq!(scans, Vec::<String>::new());
}

/// What may be read whole, beside arguments and results of inner statements: tables that an operator or a
/// start fills, and aliases of arguments.
const SMALL: &[&str] = &[
    "CONSTANT",
    "ca_meta",
    "crl_shards",
    "directories",
    "i",
    "imported_crls",
    "issuers",
    // The newest certificates of a name, bounded.
    "l",
    "nodes",
    "profiles",
    "s",
    "tenants",
];

#[tokio::test]
async fn a_write_whose_caller_left_is_made() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::open(options(&folder, "ca.db"), incarnation(1)).await.unwrap();
    let now = ca_store::Timestamp::from_unix(7);
    {
        let mut write = std::pin::pin!(ca.advance_clock(now));
        // Queued at the first poll, and given up.
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(write.as_mut().poll(context).is_pending()))
                .await;
        assert!(polled);
    }
    assert_eq!(ca.advance_clock(now).await.unwrap().high_water, now);
}

/// Another process keeps the database locked for longer than is waited for.
#[tokio::test]
async fn a_busy_database_is_unavailable_and_then_goes_on() {
    let folder = TempDir::new().unwrap();
    let options = options(&folder, "ca.db").busy_for(std::time::Duration::from_millis(50));
    let ca = Ca::open(options.clone(), incarnation(1)).await.unwrap();
    let event = ca_store::AuditEvent {
        at: ca_store::Timestamp::from_unix(1),
        kind: "test".to_owned(),
        actor: String::new(),
        subject: String::new(),
        detail: String::new(),
    };
    ca.append_audit(vec![event.clone()], vec![]).await.unwrap();
    let mut other = options.writing().connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let refused = ca.append_audit(vec![event.clone()], vec![]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    // Reads go on meanwhile.
    let number = ca.info().await.unwrap().incarnation;
    assert_eq!(ca.audit(number, 0, 9).await.unwrap().len(), 1);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    ca.append_audit(vec![event], vec![]).await.unwrap();
    let heads = ca.audit_heads().await.unwrap();
    let records = ca.audit(number, 0, 9).await.unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(ca_store::verify_chain(&heads[0], &records), Ok(()));
}
