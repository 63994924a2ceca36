//! Two signers on one PostgreSQL server: takeover and its fence, changes that the other hears of, CRLs that rise.

use std::sync::Arc;
use std::time::Duration;

use ca_store::{CaStore as _, JournalKey, RecordOutcome, SignedRow};
use serde_json::json;
use signer::config::Limits;
use signer::crl::CrlMaker;
use signer::issue::Issuance;
use signer::publication::Objects;
use signer::{Change, Failure, Reason, Takeover};
use testkit::Cluster;
use testkit::signing::KeyFault;
use testkit::store::StoreFault;
use tokio::sync::broadcast::Receiver;
use tokio_util::sync::CancellationToken;

use crate::support::{World, reason};

/// Two signers that hear each other.
struct Two {
    one: World,
    two: World,
    draining: CancellationToken,
    cluster: Cluster,
}

impl Drop for Two {
    fn drop(&mut self) {
        self.draining.cancel();
    }
}

async fn start() -> Two {
    let cluster = Cluster::start();
    let limits = Limits { lease_seconds: 1, ..Limits::default() };
    let one = World::on_server(&cluster, limits).await;
    let two = one.beside(&cluster, 2).await;
    let draining = CancellationToken::new();
    for world in [&one, &two] {
        let (ca, draining) = (Arc::clone(&world.ca), draining.clone());
        tokio::spawn(async move { ca.follow_others(draining).await });
    }
    Two { one, two, draining, cluster }
}

async fn heard(changes: &mut Receiver<Change>) -> Change {
    tokio::time::timeout(Duration::from_secs(20), changes.recv()).await.unwrap().unwrap()
}

/// The other's rounds of takeover, until one finds something.
async fn taken_over(world: &World) -> Takeover {
    loop {
        let round = world.ca.take_over().await.unwrap();
        if round != Takeover::default() {
            return round;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The signer dies between intent and record. The other waits for its lease, and finishes; what the first would have
/// recorded is refused when it comes to life again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_is_taken_over_and_fenced() {
    let Two { one, two, .. } = &start().await;
    let client = one.client().await;
    let ready = one.ready_one(&client, "example.org").await;
    one.store.fail_next("record_certificates", StoreFault::Failed);
    // The one never gets to its record; what it was to be is kept.
    one.issuer_key.fail_next(KeyFault::FailedAfterSigning);
    let outcome = one.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Door(_))), "{outcome:?}");
    let intent = one.journal().await.remove(0);
    assert_eq!(intent.signature, None);
    // While the lease lasts the intent is nobody else's: a retry at the other signer is not answered with a second one.
    if let Ok(early) = two.ca.issue(ready.finalized_by(&client)).await {
        assert!(matches!(early, Issuance::Processing), "{early:?}");
    }
    let round = taken_over(two).await;
    assert_eq!((round.signed, round.abandoned), (1, 0), "{round:?}");
    let issued = two.issue(ready.finalized_by(&client)).await.unwrap();
    assert_eq!(issued.serial, intent.serial);
    // The first wakes up with a signature of its own.
    let mut late = intent.clone();
    late.signature = Some(vec![1, 2, 3]);
    late.signed_at = Some(one.now());
    let row = SignedRow { row: one.secrets.rows.seal(late), audit: Vec::new() };
    let recorded = one.store.record_certificates(vec![row.clone()]).await;
    assert!(recorded.is_err(), "the fault that was planned");
    let recorded = one.store.record_certificates(vec![row]).await.unwrap();
    assert!(matches!(recorded[0], RecordOutcome::Lost(_)), "{recorded:?}");
    // Both answer with the same bytes, and there is one certificate.
    let again = one.issue(ready.finalized_by(&client)).await.unwrap();
    assert_eq!(again.certificate, issued.certificate);
    assert_eq!(two.journal().await.len(), 1);
}

/// The same order, finalized at both signers at the same time, again and again: one certificate each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_at_two_signers_is_one_certificate() {
    let Two { one, two, .. } = &start().await;
    let client = one.client().await;
    for n in 0..8 {
        let ready = one.ready_one(&client, &format!("n{n}.example.org")).await;
        let order = ready.finalized_by(&client);
        let (first, second) = futures::join!(one.issue_patiently(order.clone()), two.issue_patiently(order));
        assert_eq!(first.certificate, second.certificate);
        let entries = two.store.journal(&JournalKey::Order(ready.order.id.to_string())).await.unwrap();
        assert_eq!(entries.len(), 1);
    }
}

/// What a client changes at one signer the other does not go on believing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_changes_at_one_signer_is_forgotten_at_the_other() {
    let Two { one, two, .. } = &start().await;
    let mut changes = two.ca.events().subscribe();
    // Known at both, so that it is in both memories.
    let client = one.client().await;
    let id: Arc<str> = client.account.unwrap().to_string().into();
    two.ready_one(&client, "a.example.org").await;
    // A key change at the first: the former key is worth nothing at the second.
    let successor = crate::support::Client::new(crate::support::OPEN).of_account(client.account.unwrap());
    one.ca.change_key(&client.key_change(&successor)).await.unwrap();
    assert_eq!(heard(&mut changes).await, Change::Account { id: Arc::clone(&id) });
    let refused = two.ca.authorize_order(&client.new_order(&["b.example.org"])).await;
    assert_eq!(reason(refused), Reason::KeyFormer);
    two.ready_one(&successor, "c.example.org").await;
    // A deactivation at the first: the account is worth nothing at the second.
    let request = successor.update(&json!({ "status": "deactivated" }));
    one.ca.update_account(&request).await.unwrap();
    assert_eq!(heard(&mut changes).await, Change::Account { id });
    let refused = two.ca.authorize_order(&successor.new_order(&["d.example.org"])).await;
    assert_eq!(reason(refused), Reason::AccountInactive);
}

/// A signer that has not heard yet of a key change goes by the store where no later transaction looks at the account again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_a_former_key_revokes_and_gives_up_nothing_where_the_change_was_not_heard_of() {
    let cluster = Cluster::start();
    let one = World::on_server(&cluster, Limits::default()).await;
    let deaf = one.beside(&cluster, 2).await;
    let client = one.client().await;
    let ready = deaf.ready_one(&client, "a.example.org").await;
    let issued = deaf.issue(ready.finalized_by(&client)).await.unwrap();
    let successor = crate::support::Client::new(crate::support::OPEN).of_account(client.account.unwrap());
    one.ca.change_key(&client.key_change(&successor)).await.unwrap();
    let order = client.new_order(&["b.example.org"]);
    deaf.ca.authorize_order(&order).await.expect("it is deaf, or this test shows nothing");
    let evidence = &ready.evidence[0];
    let request = client.deactivation(&evidence.authorization);
    assert_eq!(reason(deaf.ca.deactivate_authorization(&request, evidence).await), Reason::KeyFormer);
    let two = one.beside(&cluster, 3).await;
    // In its memory before a second change.
    two.ready_one(&successor, "c.example.org").await;
    let last = crate::support::Client::new(crate::support::OPEN).of_account(client.account.unwrap());
    one.ca.change_key(&successor.key_change(&last)).await.unwrap();
    let certificate = acme::base64url::encode(&issued.certificate);
    let request = successor.request("revoke-cert", &json!({ "certificate": certificate }));
    assert_eq!(reason(two.ca.revoke(&request, Vec::new()).await), Reason::KeyFormer);
    let request = last.request("revoke-cert", &json!({ "certificate": certificate }));
    two.ca.revoke(&request, Vec::new()).await.unwrap();
}

/// A signer that cannot hear the others says so, and forgets what it knew, before anybody relies on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_may_have_missed_something_says_so() {
    let mut signers = start().await;
    let mut changes = signers.two.ca.events().subscribe();
    signers.cluster.restart();
    assert_eq!(heard(&mut changes).await, Change::Missed, "the session is gone");
    assert_eq!(heard(&mut changes).await, Change::Missed, "and there again");
    let client = signers.one.client().await;
    let request = client.update(&json!({ "contact": [] }));
    signers.one.ca.update_account(&request).await.unwrap();
    loop {
        // The other session may have been there later than the update: then the account is forgotten with everything.
        match heard(&mut changes).await {
            Change::Missed => {}
            other => break assert!(matches!(other, Change::Account { .. }), "{other:?}"),
        }
    }
}

/// Both keep the CRLs: numbers rise whoever makes them, and what the one published the other has at hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k1_crls_of_two_signers_rise() {
    let Two { one, two, draining, .. } = &start().await;
    let mut published = Vec::new();
    for world in [one, two] {
        let objects = Objects::of(world.ca.registry());
        let folder = world.folder.path().join("crl");
        let maker = CrlMaker::new(Arc::clone(&world.ca), objects, folder).unwrap();
        tokio::spawn(maker.keep_current(draining.clone()));
    }
    let client = one.client().await;
    for n in 0..6 {
        let ready = one.ready_one(&client, &format!("n{n}.example.org")).await;
        let issued = one.issue(ready.finalized_by(&client)).await.unwrap();
        let world = if n % 2 == 0 { one } else { two };
        world.ca.revoke_by_operator("alice", issued.serial, pki::Reason::Superseded).await.unwrap();
        // thisUpdate has whole seconds: without time there is no further CRL.
        world.clock.advance(Duration::from_secs(2));
        loop {
            let shards = two.store.crl_shards(None).await.unwrap();
            let behind = |row: &&ca_store::CrlShardRow| {
                row.published.as_ref().is_none_or(|crl| crl.revision < row.revision)
            };
            if !shards.iter().any(|row| behind(&row)) && !shards.is_empty() {
                published.push(shards);
                break;
            }
            world.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for pair in published.windows(2) {
        for earlier in &pair[0] {
            let later = pair[1].iter().find(|row| row.shard == earlier.shard).unwrap();
            let (earlier, later) = (earlier.published.as_ref().unwrap(), later.published.as_ref().unwrap());
            assert!(earlier.key.number <= later.key.number && earlier.revision <= later.revision);
            assert!(earlier == later || earlier.this_update < later.this_update);
        }
    }
}
