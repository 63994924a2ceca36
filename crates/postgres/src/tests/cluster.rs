//! Several signers, a server that goes away, and what is decided while others write.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ca_store::{
    AuthorityRow, CaStore, CitedTable, GrantRow, IntentOutcome, JournalKey, Limit, LimitScope, NewIntent,
    RevokeOutcome, State, StoreError,
    contract::sample::{
        at, change, cite, deactivation, found, grant, intent, journal_row, keys, new, revocation, seal,
        serial, signed,
    },
    verify_chain,
};
use futures::future::join_all;
use sqlx::{ConnectOptions, PgConnection};
use testkit::ClusterSettings;

use super::{Server, incarnation};
use crate::{Ca, Options, lock::Locks};

/// Another signer in the middle of a transaction.
async fn other(server: &Server) -> PgConnection {
    let owner = Options::from_url(&server.cluster.owner_url()).unwrap();
    let mut other = owner.writing("ca").connect().await.unwrap();
    sqlx::raw_sql(Locks::AUTHORITY.begin()).execute(&mut other).await.unwrap();
    other
}

async fn somebody_waits(other: &mut PgConnection) {
    for _ in 0..2000 {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted")
            .fetch_one(&mut *other)
            .await
            .unwrap();
        if waiting > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody waits");
}

/// Another signer that is about to commit an entry of a domain.
async fn counting_other(server: &Server) -> PgConnection {
    let owner = Options::from_url(&server.cluster.owner_url()).unwrap();
    let mut other = owner.writing("ca").connect().await.unwrap();
    for statement in [
        Locks::NONE.begin(),
        "SELECT pg_advisory_xact_lock(hashtextextended('domain org.example', 0))",
        "INSERT INTO journal (not_before, not_after, created_at, shard, mac_version, name_count, serial, kind, issuer,
                              profile, spki_sha256, tbs, mac, counted, directory)
         VALUES (0, 9, 1900000000, 0, 1, 1, 'x', 'final', 'i', 'p', '', '', '', true, 'main')",
        "INSERT INTO journal_domains SELECT 'org.example', created_at, id FROM journal",
    ] {
        sqlx::raw_sql(statement).execute(&mut other).await.unwrap();
    }
    other
}

/// What another signer is about to commit counts.
#[tokio::test]
async fn a_limit_counts_what_is_being_committed_elsewhere() {
    let server = Server::start().await;
    let ca = Ca::open(server.signer(), incarnation(1)).await.unwrap();
    let mut other = counting_other(&server).await;
    let scope = LimitScope::Domain("example.org".to_owned());
    let limits = vec![Limit { directory: "main".to_owned(), scope, since: at(0), most: 1 }];
    let limited = ca.commit_intents(vec![NewIntent { limits, ..intent(1) }]);
    let commit = async {
        somebody_waits(&mut other).await;
        sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    };
    let (limited, ()) = futures::join!(limited, commit);
    assert_eq!(limited.unwrap(), [IntentOutcome::LimitReached(0)]);
}

/// A revocation that another signer is about to commit is not made a second time.
#[tokio::test]
async fn a_revocation_waits_for_another() {
    let server = Server::start().await;
    let ca = Ca::open(server.signer(), incarnation(1)).await.unwrap();
    ca.commit_intents(vec![intent(1), intent(2)]).await.unwrap();
    let owner = Options::from_url(&server.cluster.owner_url()).unwrap();
    let mut other = owner.writing("ca").connect().await.unwrap();
    sqlx::raw_sql(Locks::REVOCATION.begin()).execute(&mut other).await.unwrap();
    sqlx::raw_sql("INSERT INTO crl_shards (issuer, shard, revision, number) VALUES ('issuer', 3, 1, 0)")
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::query("INSERT INTO revocations VALUES ('issuer', 3, $1, 1, 1800000000, 4, 1900000000)")
        .bind(serial(1).as_bytes())
        .execute(&mut other)
        .await
        .unwrap();
    let revoke = ca.revoke(vec![revocation(1), revocation(2)]);
    let commit = async {
        somebody_waits(&mut other).await;
        sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    };
    let (outcomes, ()) = futures::join!(revoke, commit);
    let outcomes = outcomes.unwrap();
    assert!(matches!(&outcomes[0], RevokeOutcome::Already(row) if row.revision == 1), "{outcomes:?}");
    assert!(matches!(&outcomes[1], RevokeOutcome::Revoked(row) if row.revision == 2), "{outcomes:?}");
}

/// A decision does not rest on what another signer is about to take away.
#[tokio::test]
async fn a_decision_waits_for_a_change_of_authority() {
    let server = Server::start().await;
    let ca = Ca::open(server.signer(), incarnation(1)).await.unwrap();
    found(&ca).await;
    ca.put_authority(new(vec![AuthorityRow::Grant(seal(grant("g")))])).await.unwrap();
    let mut other = other(&server).await;
    sqlx::query("UPDATE grants SET mac = $1 WHERE id = 'g'")
        .bind(vec![0u8; 32])
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::query("INSERT INTO deactivations VALUES ('a', 'account', '', 0, 1, '')")
        .execute(&mut other)
        .await
        .unwrap();
    let cites = vec![cite(CitedTable::Grant, "g", &seal(grant("g")))];
    let citing = ca.commit_intents(vec![NewIntent { cites, ..intent(1) }]);
    let resting = ca.commit_intents(vec![NewIntent { authorizations: vec!["a".to_owned()], ..intent(2) }]);
    let commit = async {
        somebody_waits(&mut other).await;
        sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    };
    let (citing, resting, ()) = futures::join!(citing, resting, commit);
    assert_eq!(citing.unwrap(), [IntentOutcome::AuthorityChanged(0)]);
    assert_eq!(resting.unwrap(), [IntentOutcome::AuthorizationDeactivated(0)]);
}

/// The other way round: what was decided was decided before the change.
#[tokio::test]
async fn a_change_of_authority_waits_for_decisions() {
    let server = Server::start().await;
    let ca = Ca::open(server.signer(), incarnation(1)).await.unwrap();
    found(&ca).await;
    let mut other = other(&server).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    sqlx::raw_sql(Locks::NONE.begin()).execute(&mut other).await.unwrap();
    let disabled = GrantRow { state: State::Disabled, ..grant("g") };
    let put = ca.put_authority(new(vec![
        AuthorityRow::Grant(seal(disabled)),
        AuthorityRow::Deactivation(seal(deactivation("a"))),
    ]));
    let decide = async {
        somebody_waits(&mut other).await;
        let seen: i64 =
            sqlx::query_scalar("SELECT (SELECT count(*) FROM grants) + (SELECT count(*) FROM deactivations)")
                .fetch_one(&mut other)
                .await
                .unwrap();
        assert_eq!(seen, 0);
        sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    };
    let (put, ()) = futures::join!(put, decide);
    assert_eq!(put.unwrap(), ca_store::PutOutcome::Applied);
    // Two that decide do not wait for each other.
    sqlx::raw_sql(Locks::NONE.begin()).execute(&mut other).await.unwrap();
    assert_eq!(ca.commit_intents(vec![intent(1)]).await.unwrap(), [IntentOutcome::Committed]);
    // A change that was decided on an old version is refused.
    let stale = change(AuthorityRow::Grant(seal(grant("g"))), 7);
    sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(ca.put_authority(stale).await.unwrap(), ca_store::PutOutcome::Conflict(0));
}

/// A server that is restarted is found again by readers, the writer and whoever listens.
#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let mut server = Server::start().await;
    let ca = Ca::open(server.signer(), incarnation(1)).await.unwrap();
    ca.commit_intents(vec![intent(1)]).await.unwrap();
    let reads = || join_all((0..6).map(|_| ca.info()));
    assert!(reads().await.iter().all(Result::is_ok));
    let mut changes = ca.watch().await.unwrap();
    server.cluster.restart();
    let missed = changes.next().await;
    assert!(matches!(missed, Err(StoreError::Unavailable(_))), "{missed:?}");
    assert!(reads().await.iter().all(Result::is_ok), "sessions that died are replaced");
    assert_eq!(ca.commit_intents(vec![intent(2)]).await.unwrap(), [IntentOutcome::Committed]);
    ca.watch().await.unwrap();
    server.cluster.stop();
    let away = ca.info().await;
    assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
    let away = ca.commit_intents(vec![intent(3)]).await;
    assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
    server.cluster.restart();
    assert_eq!(ca.commit_intents(vec![intent(3)]).await.unwrap(), [IntentOutcome::Committed]);
    assert_eq!(ca.journal(&JournalKey::Serial(serial(3))).await.unwrap().len(), 1);
}

/// The server dies under load: what was answered is there, what was said not to be written is not, and the audit chains
/// hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing() {
    let mut server =
        Server::start_with(&ClusterSettings { durable: true, ..ClusterSettings::default() }).await;
    let signers = [
        Ca::open(server.signer(), incarnation(1)).await.unwrap(),
        Ca::open(server.signer(), incarnation(2)).await.unwrap(),
    ];
    for round in 0..3u64 {
        let answered = AtomicU64::new(0);
        let clients = join_all((0..24u64).map(|client| {
            let (ca, answered) = (&signers[usize::from(client % 2 == 1)], &answered);
            async move {
                let mut mine = Vec::new();
                for tag in (round * 1_000_000 + client..).step_by(24) {
                    let committed = ca.commit_intents(vec![intent(tag)]).await;
                    let recorded = match &committed {
                        Ok(_) => Some(ca.record_certificates(vec![signed(&journal_row(tag), b"sig")]).await),
                        Err(_) => None,
                    };
                    answered.fetch_add(1, Ordering::Relaxed);
                    let end = !matches!(recorded, Some(Ok(_)));
                    mine.push((tag, committed, recorded));
                    if end {
                        return mine;
                    }
                }
                mine
            }
        }));
        let kill = async {
            while answered.load(Ordering::Relaxed) < 200 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            server.cluster.stop();
        };
        let (all, ()) = futures::join!(clients, kill);
        server.cluster.restart();
        let mut kinds = BTreeMap::new();
        for (tag, committed, recorded) in all.into_iter().flatten() {
            let entries = signers[0].journal(&JournalKey::Serial(serial(tag))).await.unwrap();
            match committed {
                Ok(outcome) => {
                    assert_eq!(outcome, [IntentOutcome::Committed]);
                    assert_eq!(entries.len(), 1, "{tag} was committed");
                }
                Err(StoreError::OutcomeUnknown(_)) => *kinds.entry("unknown").or_insert(0) += 1,
                Err(StoreError::Unavailable(_)) => {
                    *kinds.entry("unavailable").or_insert(0) += 1;
                    assert_eq!(entries.len(), 0, "{tag} was said not to be written");
                }
                Err(other) => panic!("{other:?}"),
            }
            if let (Some(recorded), Some(entry)) = (recorded, entries.first()) {
                let row = keys().verify(&entry.row).unwrap();
                assert_eq!(row.tbs, journal_row(tag).tbs);
                match recorded {
                    Ok(_) => assert!(row.signature.is_some(), "{tag} was recorded"),
                    Err(StoreError::Unavailable(_)) => {
                        assert!(row.signature.is_none(), "{tag} was not recorded")
                    }
                    Err(StoreError::OutcomeUnknown(_)) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
        for head in signers[0].audit_heads().await.unwrap() {
            let records = signers[0].audit(head.number, 0, u32::MAX >> 1).await.unwrap();
            assert_eq!(verify_chain(&head, &records), Ok(()));
        }
    }
}
