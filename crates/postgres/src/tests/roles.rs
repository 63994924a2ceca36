//! Each role has what it needs, and nothing of the other's.

use ca_store::{CaStore, StoreError};

use super::{Server, incarnation};
use crate::{Acme, Ca, Options};

fn tables(server: &Server, schema: &str) -> Vec<String> {
    let query = format!("SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'");
    let tables: Vec<String> = server.cluster.sql("postgres", &query).lines().map(str::to_owned).collect();
    assert!(tables.len() > 3, "{tables:?}");
    tables
}

#[tokio::test]
async fn neither_role_reads_the_others_tables() {
    let server = Server::start().await;
    for (role, other) in [("front_1", "ca"), ("signer_1", "acme")] {
        for table in tables(&server, other) {
            for statement in [
                format!("SELECT * FROM {other}.{table}"),
                format!("DELETE FROM {other}.{table}"),
                format!("INSERT INTO {other}.{table} DEFAULT VALUES"),
            ] {
                let error = server.cluster.try_sql("postgres", role, &statement).unwrap_err();
                assert!(error.contains("permission denied for schema"), "{role}: {statement}: {error}");
            }
        }
    }
    let refused = Ca::open(server.front(), incarnation(1)).await.err();
    let Some(StoreError::Schema(cause)) = refused else { panic!("{refused:?}") };
    assert!(cause.to_string().contains("this role may not use it"), "{cause}");
}

/// What grows only is neither changed nor deleted; the schema is not a role's to change.
#[tokio::test]
async fn a_signer_adds_and_does_not_take_away() {
    let server = Server::start().await;
    let refused = |statement: &str| {
        let error = server.cluster.try_sql("postgres", "signer_1", statement).unwrap_err();
        assert!(
            error.contains("permission denied") || error.contains("must be owner"),
            "{statement}: {error}"
        );
    };
    for table in tables(&server, "ca").iter().filter(|table| *table != "pending") {
        refused(&format!("DELETE FROM ca.{table}"));
        refused(&format!("TRUNCATE ca.{table}"));
    }
    for table in [
        "audit",
        "signatures",
        "evidence",
        "journal_names",
        "journal_domains",
        "deactivations",
        "account_requests",
        "blocked_keys",
    ] {
        let column = format!(
            "SELECT column_name FROM information_schema.columns
             WHERE table_schema = 'ca' AND table_name = '{table}' LIMIT 1"
        );
        let column = server.cluster.sql("postgres", &column);
        refused(&format!("UPDATE ca.{table} SET {column} = {column}"));
    }
    for statement in [
        "UPDATE ca.journal SET tbs = ''",
        "UPDATE ca.journal SET serial = ''",
        "UPDATE ca.revocations SET revoked_at = 0",
        "UPDATE ca.crls SET tbs_sha256 = ''",
        "UPDATE ca.account_keys SET jwk = ''",
        "INSERT INTO ca._sqlx_migrations SELECT * FROM ca._sqlx_migrations",
        "CREATE TABLE ca.mine (one int)",
        "ALTER TABLE ca.audit DROP COLUMN hash",
        "DROP TABLE ca.audit",
    ] {
        refused(statement);
    }
}

/// Whoever opens a schema that is missing, old or too new is told what to do; one migration ahead is tolerated.
#[tokio::test]
async fn a_schema_has_to_fit() {
    let cluster = testkit::Cluster::start();
    let mut owner = Options::from_url(&cluster.owner_url()).unwrap();
    owner.accept_lost_commits = true;
    let refusal = async |n| match Ca::open(owner.clone(), incarnation(n)).await.err() {
        Some(StoreError::Schema(cause)) => cause.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refusal(1).await.contains("chancery database migrate"));
    let Err(acme_store::StoreError::Schema(cause)) = Acme::open(owner.clone()).await else { panic!() };
    assert!(cause.to_string().contains("no schema `acme`"), "{cause}");
    let applied = Ca::migrate(&owner).await.unwrap();
    assert_eq!((applied.before, applied.now), (0, 1));
    assert_eq!(Ca::migrate(&owner).await.unwrap().before, 1, "again, without effect");
    Ca::open(owner.clone(), incarnation(2)).await.unwrap().close().await;
    let later = |version: u8| {
        cluster.sql(
            "postgres",
            &format!(
                "INSERT INTO ca._sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES ({version}, 'later', TRUE, '', 0)"
            ),
        );
    };
    later(2);
    Ca::open(owner.clone(), incarnation(3)).await.unwrap().close().await;
    later(3);
    assert!(refusal(4).await.contains("knows up to 1"));
    cluster.sql("postgres", "DELETE FROM ca._sqlx_migrations WHERE version > 1");
    cluster.sql("postgres", "UPDATE ca._sqlx_migrations SET checksum = ''");
    assert!(refusal(5).await.contains("migration 1 of the schema `ca` is not"));
    cluster.sql("postgres", "DELETE FROM ca._sqlx_migrations");
    assert!(refusal(6).await.contains("this program needs 1"));
}
