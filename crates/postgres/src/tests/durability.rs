//! A server that may lose what it has acknowledged is refused, unless the operator accepts that.

use ca_store::{CaStore, StoreError};
use testkit::ClusterSettings;

use super::{Server, incarnation};
use crate::{Ca, Options};

/// A server that keeps its word.
async fn durable() -> Server {
    Server::start_with(&ClusterSettings { durable: true, ..ClusterSettings::default() }).await
}

fn strict(server: &Server) -> Options {
    Options::from_url(&server.cluster.url("postgres", "signer_1")).unwrap()
}

/// What the refusal names; and that the operator's word opens the database.
async fn refused(server: &Server, n: u8) -> String {
    let refused = Ca::open(strict(server), incarnation(n)).await.err();
    let Some(StoreError::NotDurable { setting }) = refused else { panic!("{refused:?}") };
    Ca::open(server.signer(), incarnation(100 + n)).await.unwrap().close().await;
    setting
}

async fn accepted(server: &Server, n: u8) {
    Ca::open(strict(server), incarnation(n)).await.unwrap().close().await;
}

#[tokio::test]
async fn a_server_without_flushes_is_refused() {
    let mut server = durable().await;
    accepted(&server, 1).await;
    server.cluster.restart_with(&["fsync=off"]);
    assert!(refused(&server, 2).await.starts_with("fsync = off"));
    server.cluster.restart_with(&["full_page_writes=off"]);
    assert!(refused(&server, 3).await.starts_with("full_page_writes = off"));
}

#[tokio::test]
async fn a_session_that_does_not_wait_is_refused() {
    let server = durable().await;
    for (n, (level, good)) in (1..).zip([
        ("off", false),
        ("local", false),
        ("remote_write", false),
        ("on", true),
        ("remote_apply", true),
    ]) {
        server.cluster.sql("postgres", &format!("ALTER ROLE signer_1 SET synchronous_commit = {level}"));
        if good {
            accepted(&server, n).await;
        } else {
            let setting = refused(&server, n).await;
            assert!(setting.starts_with(&format!("synchronous_commit = {level}")), "{setting}");
        }
    }
}

#[tokio::test]
async fn a_standby_has_to_be_synchronous() {
    let server = durable().await;
    server.cluster.sql("postgres", "SELECT pg_create_physical_replication_slot('standby')");
    let setting = refused(&server, 1).await;
    assert!(setting.starts_with("0 standbys are attached and 1 expected"), "{setting}");
    server.cluster.sql("postgres", "SELECT pg_drop_replication_slot('standby')");
    accepted(&server, 2).await;
    // A temporary one is a backup's; a logical one is no standby's.
    let standby = server.cluster.follow("standby");
    while server.cluster.sql("postgres", "SELECT count(*) FROM pg_stat_replication") != "1" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let setting = refused(&server, 3).await;
    assert!(setting.starts_with("1 standbys are attached"), "{setting}");
    server.cluster.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'standby'");
    server.cluster.sql("postgres", "SELECT pg_reload_conf()");
    // Commits wait for it from now on, and it answers.
    while server.cluster.sql("postgres", "SHOW synchronous_standby_names") != "standby" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    accepted(&server, 4).await;
    drop(standby);
}
