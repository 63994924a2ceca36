//! What is revoked at the deadline: all that is left, once, whoever dies or changes his mind meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use ca_store::CaStore as _;
use pki::Period;
use signer::IncidentRound;
use signer::config::Limits;
use signer::issue::Issued;
use testkit::Cluster;
use testkit::store::{StoreFault, forged};

use super::{KEY_COMPROMISE, Office, SUPERSEDED, under};
use crate::renewal::id_of;
use crate::support::{Client, OPEN, Ready, World};

/// With keyCompromise the keys are blocked at the deadline and not before, and what shares them is selected as well.
#[tokio::test]
async fn m6_keys_are_blocked_at_the_deadline() {
    let world = World::start().await;
    let office = Office::of(&world);
    let (client, key) = (world.client().await, Client::new(OPEN));
    let mut issued = Vec::new();
    for name in ["example.org", "example.com"] {
        let mut ready = world.ready(&client, &[name]).await;
        ready.csr = key.csr_with_account_key(&[name]);
        issued.push(world.issue(ready.finalized_by(&client)).await.unwrap());
    }
    let id = office.incident(Office::plan(&world, 1, 1, KEY_COMPROMISE), &under("example.org")).await;
    office.report(&id).await.is(&[("left", 2)]);
    let spki = pki::Certificate::from_der(&issued[0].certificate).unwrap().public_key().sha256();
    assert!(world.store.blocked_keys(&[spki]).await.unwrap().is_empty());
    world.run_out(1).await;
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound { revoked: 2, done: 1 });
    assert_eq!(world.store.blocked_keys(&[spki]).await.unwrap().len(), 1);
    for issued in &issued {
        assert_eq!(world.reason_of(issued).await, Some(1));
    }
}

/// A compromised key's certificates are revoked at the deadline whatever has become of them, and every key is blocked.
#[tokio::test]
async fn m6_nothing_replaces_a_certificate_whose_key_is_compromised() {
    let world = World::with_limits(Limits { revocation_page: 2, ..Limits::default() }).await;
    let office = Office::of(&world);
    let client = world.client().await;
    let keys: Vec<_> = (0..6).map(|_| Client::new(OPEN)).collect();
    let with = async |mut ready: Ready, key: usize, name: &str| {
        ready.csr = keys[key].csr_with_account_key(&[name]);
        world.issue(ready.finalized_by(&client)).await.unwrap()
    };
    let names: Vec<_> = (0..5).map(|n| format!("n{n}.example.org")).collect();
    let mut issued = Vec::new();
    for (n, name) in names.iter().enumerate() {
        issued.push(with(world.ready(&client, &[name]).await, n, name).await);
        if n == 0 {
            // The first will be over.
            world.run_out(100).await;
        }
    }
    world.ca.revoke_by_operator("bob", issued[1].serial, pki::Reason::Superseded).await.unwrap();
    let id = office.incident(Office::plan(&world, 1, 1, KEY_COMPROMISE), &under("example.org")).await;
    // With the same key; with another one, said and not said; the last is left.
    let mut later = Vec::new();
    for (n, key) in [(2, 2), (3, 5)] {
        let ready = world.replacing(&client, &[&names[n]], &id_of(&issued[n])).await;
        later.push(with(ready, key, &names[n]).await);
    }
    let before = [("expired", 1), ("revoked-otherwise", 1), ("replaced", 2), ("left", 1)];
    office.report(&id).await.is(&before);

    world.run_out(1).await;
    let round = world.ca.run_incidents().await.unwrap();
    assert_eq!(round, IncidentRound { revoked: 5, done: 1 });
    office.report(&id).await.is(&[("expired", 1), ("revoked-otherwise", 1), ("revoked", 3)]);
    let mut reasons = Vec::new();
    for issued in issued.iter().chain(&later) {
        reasons.push(world.reason_of(issued).await);
    }
    let compromised = Some(1);
    let expected = [None, compromised, compromised, compromised, compromised, compromised, None];
    assert_eq!(reasons, expected);
    let spki =
        |issued: &Issued| pki::Certificate::from_der(&issued.certificate).unwrap().public_key().sha256();
    let blocked: Vec<_> = issued.iter().map(spki).collect();
    assert_eq!(world.store.blocked_keys(&blocked).await.unwrap().len(), 5, "that of the past as well");
    assert!(world.store.blocked_keys(&[spki(&later[1])]).await.unwrap().is_empty());
}

/// Two signers at the deadline, and every call of the store that can fail, failed and failed but persisted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_nothing_is_revoked_twice_and_nothing_forgotten() {
    let cluster = Cluster::start();
    let limits = Limits { revocation_page: 3, ..Limits::default() };
    let one = World::on_server(&cluster, limits).await;
    let two = one.beside(&cluster, 2).await;
    let office = Office::of(&one);
    let client = one.client().await;
    let mut serials = BTreeSet::new();
    for n in 0..20 {
        let issued = one.issue_for(&client, &[&format!("n{n}.example.org")]).await;
        serials.insert(issued.serial.to_string());
    }
    let id = office.incident(Office::plan(&one, 1, 4, SUPERSEDED), &under("example.org")).await;
    one.run_out(1).await;
    two.ca.check_clock().await.unwrap();
    let methods =
        ["claim_lease", "incident", "members", "follow_members", "ledger", "revoke", "put_authority"];
    for method in methods {
        for fault in [StoreFault::Failed, StoreFault::FailedButPersisted] {
            one.store.fail_next(method, fault);
            // Whoever has the lease works. The lease of a round that failed is its signer's still.
            let (_, second) = tokio::join!(one.ca.run_incidents(), two.ca.run_incidents());
            second.unwrap();
        }
    }
    // Faults that were not met wait in the first one's store.
    let office = Office::of(&two);
    while office.show(&id).await.state != "done" {
        one.ca.run_incidents().await.ok();
        two.ca.run_incidents().await.unwrap();
    }
    office.report(&id).await.is(&[("revoked", 20)]);
    let mut revoked = BTreeSet::new();
    for head in one.store.audit_heads().await.unwrap() {
        let records = one.store.audit(head.number, 0, 10_000).await.unwrap();
        for event in records.into_iter().map(|record| record.event) {
            if event.kind == "certificate.revoked" {
                assert!(revoked.insert(event.subject.clone()), "{} twice", event.subject);
            }
        }
    }
    assert_eq!(revoked, serials);
}

/// An operator who closes an incident, or gives it more time, in the middle of the deadline's work is heeded at once.
#[tokio::test(flavor = "multi_thread")]
async fn m6_an_incident_that_is_closed_or_extended_stops() {
    const COUNT: u64 = 40;
    for state in ["closed", "open"] {
        let world = World::with_limits(Limits { revocation_page: 1, ..Limits::default() }).await;
        let office = Office::of(&world);
        let client = world.client().await;
        for n in 0..COUNT {
            world.issue_for(&client, &[&format!("n{n}.example.org")]).await;
        }
        let id = office.incident(Office::plan(&world, 1, 1, SUPERSEDED), &under("example.org")).await;
        world.run_out(1).await;
        let ca = Arc::clone(&world.ca);
        let round = tokio::spawn(async move { ca.run_incidents().await });
        while world.store.member_counts(&id).await.unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        match state {
            "closed" => office.close(&id).await.unwrap(),
            _ => office.extend(&id, world.now().plus(Period::from_days(9))).await.unwrap(),
        };
        let round = round.await.unwrap().unwrap();
        assert!((1..COUNT).contains(&round.revoked), "{round:?}");
        assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound::default());
        assert_eq!(office.show(&id).await.state, state);
        office.report(&id).await.is(&[("left", COUNT - round.revoked), ("revoked", round.revoked)]);
    }
}

/// An incident is not over while a certificate of it cannot be read; of a compromised key not even one that was renewed.
#[tokio::test]
async fn m6_what_cannot_be_read_keeps_an_incident_open() {
    for (reason, names, doomed) in [(SUPERSEDED, "b.example.org", 1), (KEY_COMPROMISE, "a.example.org", 2)] {
        let world = World::start().await;
        let office = Office::of(&world);
        let client = world.client().await;
        let unread = world.issue_for(&client, &["a.example.org"]).await.serial;
        world.issue_for(&client, &["b.example.org"]).await;
        let id = office.incident(Office::plan(&world, 1, 1, reason), &under("example.org")).await;
        world.issue_for(&client, &[names]).await;
        office.report(&id).await.is(&[("left", 1), ("renewed", 1)]);
        world.run_out(1).await;
        world.store.alter_ledger(move |mut entries| {
            for found in &mut entries {
                if found.entry.row.unverified().serial == unread {
                    found.entry.row = forged(&found.entry.row, |row| row.shard += 1);
                }
            }
            entries
        });
        let round = world.ca.run_incidents().await.unwrap();
        assert_eq!(round, IncidentRound { revoked: doomed - 1, done: 0 });
        assert_eq!(office.show(&id).await.state, "open");
        world.store.leave_alone();
        let round = world.ca.run_incidents().await.unwrap();
        assert_eq!(round, IncidentRound { revoked: 1, done: 1 });
    }
}

/// A signer that dies while it collects, or in the middle of the deadline's work, and is started again.
#[tokio::test]
async fn m6_a_signer_that_is_started_again_goes_on() {
    let mut world = World::with_limits(Limits { revocation_page: 2, ..Limits::default() }).await;
    let client = world.client().await;
    let mut certificates = Vec::new();
    for n in 0..9 {
        certificates.push(world.issue_for(&client, &[&format!("n{n}.example.org")]).await);
    }
    let office = Office::of(&world);
    let id = office.open(Office::plan(&world, 1, 2, SUPERSEDED)).await.unwrap().id;
    let mut added = office.page(&id, &under("example.org"), "").await.unwrap().added;
    drop(office);
    world = world.restart().await;
    let office = Office::of(&world);
    let mut token = String::new();
    loop {
        let page = office.page(&id, &under("example.org"), &token).await.unwrap();
        added += page.added;
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(added, 9);
    office.start(&id).await.unwrap();
    drop(office);
    world.run_out(1).await;
    let faults = [
        ("revoke", StoreFault::FailedButPersisted),
        ("follow_members", StoreFault::FailedButPersisted),
        ("revoke", StoreFault::Failed),
    ];
    for (method, fault) in faults {
        world.store.fail_after(method, 1, fault);
        world.ca.run_incidents().await.unwrap_err();
        world = world.restart().await;
    }
    let round = world.ca.run_incidents().await.unwrap();
    assert!(round.done == 1 && round.revoked < 9, "{round:?}");
    Office::of(&world).report(&id).await.is(&[("revoked", 9)]);
    let kinds = world.audit_kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "certificate.revoked").count(), 9);
    for issued in &certificates {
        assert_eq!(world.reason_of(issued).await, Some(4));
    }
}
