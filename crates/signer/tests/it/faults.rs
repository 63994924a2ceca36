//! What fails, and what is found of it afterwards: the table {journal, HSM, record} × {failed, failed but persisted},
//! takeover, and rows that were tampered with.

use std::time::Duration;

use ca_store::{AccountStatus, CaStore as _, JournalEntry, RowMac, Sealed, State};
use pki::Certificate;
use signer::config::Limits;
use signer::issue::Issuance;
use signer::{Failure, Reason, Takeover};
use testkit::signing::KeyFault;
use testkit::store::{StoreFault, forged};

use crate::support::{Client, MANAGED, Peek as _, Ready, World, csr, reason};

async fn scene() -> (World, Client, Ready) {
    let world = World::with_limits(Limits { lease_seconds: 1, ..Limits::default() }).await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    (world, client, ready)
}

/// One certificate came of it, delivered and in the journal.
async fn one_good_certificate(world: &World, client: &Client, ready: &Ready) {
    let issued = world.issue(ready.finalized_by(client)).await.unwrap();
    let certificate = Certificate::from_der(&issued.certificate).unwrap();
    certificate.verify_signed_by(world.authorities.issuer.public_key()).unwrap();
    let rows = world.journal().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].serial, issued.serial);
    assert_eq!(rows[0].signature.as_deref(), Some(certificate.signature()));
    // Whatever was signed for this order was the one serial.
    let digests: std::collections::BTreeSet<_> =
        world.issuer_key.signed().iter().map(|job| format!("{job:?}")).collect();
    assert_eq!(digests.len(), 1);
    // It is delivered, the same bytes to whoever asks how often, and nothing is left for anybody to take over.
    let download = world.ca.download(&client.directory.parse().unwrap(), issued.serial).await.unwrap();
    assert_eq!(download.chain.first(), Some(&issued.certificate));
    assert_eq!(world.issue(ready.finalized_by(client)).await.unwrap(), issued);
    assert_eq!(world.ca.take_over().await.unwrap(), Takeover::default());
    // Another CSR for the order is a conflict, now and for ever.
    let finalize = client.finalize(&ready.order.id.to_string(), &csr(&["example.org"]));
    assert_eq!(world.refusal(ready.with_finalize(finalize)).await, Reason::OrderTaken);
}

/// Each step of the table, failed and failed but persisted: whatever the key has touched is in the journal at once and can be
/// revoked at once (DESIGN §2.1, §2.4), and whatever the key has not touched may be made anew.
#[tokio::test]
async fn whatever_may_have_been_signed_can_be_revoked() {
    type Plan = (&'static str, fn(&World), usize, usize);
    let plans: [Plan; 6] = [
        ("journal failed", |world| world.store.fail_next("commit_intents", StoreFault::Failed), 0, 0),
        (
            "journal persisted",
            |world| {
                world.store.fail_next("commit_intents", StoreFault::FailedButPersisted);
                world.store.fail_next("journal", StoreFault::Failed);
            },
            1,
            0,
        ),
        ("hsm failed", |world| world.issuer_key.fail_next(KeyFault::Failed), 1, 0),
        ("hsm signed", |world| world.issuer_key.fail_next(KeyFault::FailedAfterSigning), 1, 1),
        ("record failed", |world| fail_records(world, StoreFault::Failed), 1, 1),
        ("record persisted", |world| fail_records(world, StoreFault::FailedButPersisted), 1, 1),
    ];
    for (what, plan, journaled, signed) in plans {
        let (world, client, ready) = scene().await;
        plan(&world);
        let mut outcome = world.ca.issue(ready.finalized_by(&client)).await;
        while matches!(outcome, Ok(Issuance::Processing)) {
            outcome = world.ca.issue(ready.finalized_by(&client)).await;
        }
        let rows = world.journal().await;
        assert_eq!((rows.len(), world.issuer_key.signed().len()), (journaled, signed), "{what}: {outcome:?}");
        for row in rows {
            world.ca.revoke_by_operator("op", row.serial, pki::Reason::Superseded).await.unwrap();
        }
    }
}

/// As often as a record is tried.
fn fail_records(world: &World, fault: StoreFault) {
    for _ in 0..4 {
        world.store.fail_next("record_certificates", fault);
    }
}

#[tokio::test]
async fn m3_the_journal_fails() {
    let (world, client, ready) = scene().await;
    world.store.fail_next("commit_intents", StoreFault::Failed);
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Store(_))), "{outcome:?}");
    // Not journaled, so not signed.
    assert!(world.issuer_key.signed().is_empty());
    assert!(world.journal().await.is_empty());
    one_good_certificate(&world, &client, &ready).await;
}

#[tokio::test]
async fn the_journal_fails_but_persisted() {
    let (world, client, ready) = scene().await;
    world.store.fail_next("commit_intents", StoreFault::FailedButPersisted);
    // It looks before it signs, finds its row, and goes on.
    one_good_certificate(&world, &client, &ready).await;
    assert_eq!(world.issuer_key.signed().len(), 1);
}

#[tokio::test]
async fn the_journal_fails_but_persisted_and_cannot_be_looked_at() {
    let (world, client, ready) = scene().await;
    world.store.fail_next("commit_intents", StoreFault::FailedButPersisted);
    world.store.fail_next("journal", StoreFault::Failed);
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Store(_))), "{outcome:?}");
    assert!(world.issuer_key.signed().is_empty());
    assert_eq!(world.journal().await.len(), 1);
    one_good_certificate(&world, &client, &ready).await;
}

#[tokio::test]
async fn the_hsm_fails() {
    for (fault, signatures) in [(KeyFault::Failed, 1), (KeyFault::FailedAfterSigning, 2)] {
        let (world, client, ready) = scene().await;
        world.issuer_key.fail_next(fault);
        let outcome = world.ca.issue(ready.finalized_by(&client)).await;
        assert!(matches!(outcome, Err(Failure::Door(_))), "{outcome:?}");
        assert_eq!(world.journal().await[0].signature, None);
        one_good_certificate(&world, &client, &ready).await;
        assert_eq!(world.issuer_key.signed().len(), signatures, "{fault:?}");
    }
}

#[tokio::test]
async fn the_record_fails_once() {
    for fault in [StoreFault::Failed, StoreFault::FailedButPersisted] {
        let (world, client, ready) = scene().await;
        world.store.fail_next("record_certificates", fault);
        one_good_certificate(&world, &client, &ready).await;
        assert_eq!(world.issuer_key.signed().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn the_record_fails_for_good() {
    for fault in [StoreFault::Failed, StoreFault::FailedButPersisted] {
        let (world, client, ready) = scene().await;
        fail_records(&world, fault);
        let mut outcome = world.ca.issue(ready.finalized_by(&client)).await;
        while matches!(outcome, Ok(Issuance::Processing)) {
            outcome = world.ca.issue(ready.finalized_by(&client)).await;
        }
        match fault {
            StoreFault::Failed => assert!(matches!(outcome, Err(Failure::Store(_))), "{outcome:?}"),
            // Somebody who waits finds it in the journal.
            StoreFault::FailedButPersisted => {}
        }
        one_good_certificate(&world, &client, &ready).await;
    }
}

#[tokio::test]
async fn a_dead_signers_intent_is_taken_over() {
    let (world, client, ready) = scene().await;
    world.issuer_key.fail_next(KeyFault::FailedAfterSigning);
    world.ca.issue(ready.finalized_by(&client)).await.unwrap_err();
    // The lock says that the other process is dead: its leases are free at once.
    let world = world.restart().await;
    assert_eq!(world.ca.take_over().await.unwrap(), Takeover { signed: 1, ..Takeover::default() });
    one_good_certificate(&world, &client, &ready).await;
    assert!(world.audit_kinds().await.contains(&"certificate.taken_over".to_owned()));
    assert_eq!(world.ca.take_over().await.unwrap(), Takeover::default());
}

#[tokio::test]
async fn while_its_lease_lives_an_intent_is_left_alone() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.issuer_key.fail_next(KeyFault::FailedAfterSigning);
    world.ca.issue(ready.finalized_by(&client)).await.unwrap_err();
    assert_eq!(world.ca.take_over().await.unwrap(), Takeover::default());
    // The same entry in another signer's hands: that one may still work on it.
    world.store.alter_journal(|mut entries| {
        entries.iter_mut().filter_map(|entry| entry.lease.as_mut()).for_each(|lease| lease.owner += 1);
        entries
    });
    assert_eq!(world.ca.issue(ready.finalized_by(&client)).await.unwrap(), Issuance::Processing);
    assert_eq!(world.issuer_key.signed().len(), 1);
}

#[tokio::test]
async fn an_intent_of_yesterday_is_given_up_and_its_order_free() {
    let (world, client, ready) = scene().await;
    world.issuer_key.fail_next(KeyFault::Failed);
    world.ca.issue(ready.finalized_by(&client)).await.unwrap_err();
    world.clock.advance(Duration::from_secs(25 * 3600));
    let world = world.restart().await;
    world.ca.reload_nodes().await.unwrap();
    assert_eq!(world.ca.take_over().await.unwrap(), Takeover { abandoned: 1, ..Takeover::default() });
    let old = world.journal().await.remove(0);
    assert!(old.abandoned_at.is_some() && old.signature.is_none());
    // A new intent, with a new serial; the old one stays in the journal.
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    assert_ne!(issued.serial, old.serial);
    assert_eq!(world.journal().await.len(), 2);
}

/// Every change that a database administrator could make of an intent.
fn tampered(entry: &JournalEntry, how: usize) -> JournalEntry {
    let row = forged(&entry.row, |row| match how {
        0 => row.tbs[40] ^= 1,
        1 => row.issuer = "tls-2".to_owned(),
        2 => row.kind = ca_store::JournalKind::Node,
        3 => row.not_after = row.not_after.plus(pki::Period::from_days(1)),
        4 => row.account = Some("somebody".to_owned()),
        5 => row.abandoned_at = Some(row.created_at),
        _ => row.order = None,
    });
    JournalEntry { row, ..entry.clone() }
}

#[tokio::test]
async fn a_tampered_intent_is_never_signed() {
    let (world, client, ready) = scene().await;
    world.issuer_key.fail_next(KeyFault::Failed);
    world.ca.issue(ready.finalized_by(&client)).await.unwrap_err();
    // In this very process, whose own lease it is. An entry that only says that it is of another kind, or given up, does
    // not free its order.
    for how in 0..7 {
        world.store.alter_journal(move |entries| entries.iter().map(|entry| tampered(entry, how)).collect());
        let outcome = world.ca.issue(ready.finalized_by(&client)).await;
        assert!(matches!(outcome, Err(Failure::Tampered(_))), "{how}: {outcome:?}");
    }
    world.store.leave_alone();
    let world = world.restart().await;
    for how in 0..6 {
        tokio::time::sleep(Duration::from_millis(1050)).await;
        world.store.alter_journal(move |entries| entries.iter().map(|entry| tampered(entry, how)).collect());
        assert_eq!(world.ca.take_over().await.unwrap(), Takeover { tampered: 1, ..Takeover::default() });
    }
    assert!(world.issuer_key.signed().is_empty() && world.node_key.signed().is_empty());
    // Reported once, not in every round.
    let kinds = world.audit_kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "row.tampered").count(), 1);
}

#[tokio::test]
async fn an_invented_intent_is_never_signed() {
    let (world, client, ready) = scene().await;
    world.issue(ready.finalized_by(&client)).await.unwrap();
    let model = world.store.entry_of_order(&ready.order.id.to_string()).await;
    // The row of a real certificate with a MAC of somebody else's making, as if it were an orphan.
    world.store.alter_journal(move |_| {
        let row = forged(&model.row, |row| {
            row.signature = None;
            row.signed_at = None;
        });
        let mac = RowMac { key_version: 1, mac: [7; 32] };
        let row = Sealed::from_stored(row.unverified().clone(), mac);
        vec![JournalEntry { row, ..model.clone() }]
    });
    assert_eq!(world.ca.take_over().await.unwrap(), Takeover { tampered: 1, ..Takeover::default() });
    assert_eq!(world.issuer_key.signed().len(), 1);
}

#[tokio::test]
async fn a_tampered_certificate_is_not_delivered() {
    let (world, client, ready) = scene().await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    world.store.alter_journal(|entries| {
        let change = |entry: &JournalEntry| JournalEntry {
            row: forged(&entry.row, |row| row.signature = Some(vec![1, 2, 3])),
            ..entry.clone()
        };
        entries.iter().map(change).collect()
    });
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Tampered(_))), "{outcome:?}");
    let directory = client.directory.parse().unwrap();
    let outcome = world.ca.download(&directory, issued.serial).await;
    assert!(matches!(outcome, Err(Failure::Tampered(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_tampered_account_counts_for_nothing() {
    let world = World::with_limits(Limits { cached_accounts: 0, ..Limits::default() }).await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let thief = Client::new(&client.directory).of_account(client.account.unwrap());
    let thief_key = *thief.thumbprint().as_bytes();
    let thief_jwk = acme::Jwk::from_json(&thief.jwk().to_string()).unwrap().to_json();
    world.store.alter_account(move |record| {
        record.map(|mut record| {
            record.account = forged(&record.account, |row| {
                row.key = thief_key;
                row.status = AccountStatus::Valid;
            });
            record.keys[0] = forged(&record.keys[0], |row| {
                row.thumbprint = thief_key;
                row.jwk.clone_from(&thief_jwk);
            });
            record
        })
    });
    for order in [ready.finalized_by(&thief), ready.finalized_by(&client)] {
        let outcome = world.ca.issue(order).await;
        assert!(matches!(outcome, Err(Failure::Tampered(_))), "{outcome:?}");
    }
    // A genuine key row of another account is filed under this one.
    world.store.leave_alone();
    let other = world.client().await;
    let genuine = world.store.record_of(&other.account.unwrap().to_string()).await;
    world.store.alter_account(move |record| {
        record.map(|mut record| {
            record.keys.push(genuine.keys[0].clone());
            record
        })
    });
    let outcome = world.ca.issue(ready.finalized_by(&client)).await;
    assert!(matches!(outcome, Err(Failure::Unreadable { .. })), "{outcome:?}");
    assert!(world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn tampered_authority_counts_for_nothing() {
    let world = World::start().await;
    let (kid, key) = world.registration("one", Some(1)).await;
    let client = Client::new(MANAGED);
    let account =
        world.ca.register_account(&client.new_account_with_eab(&kid, &key)).await.unwrap().account.id;
    let client = client.of_account(account);
    world.grant("g1", "one", ca_store::NameScope::Exact, "one.test").await;
    world.store.alter_authority(|authority| {
        authority.map(|mut authority| {
            authority.grants[0] = forged(&authority.grants[0], |row| row.name = "bank.test".to_owned());
            authority
        })
    });
    let outcome = world.ca.authorize_order(&client.new_order(&["bank.test"])).await;
    assert!(matches!(outcome, Err(Failure::Tampered(_))), "{outcome:?}");
    world.store.alter_authority(|authority| {
        authority.map(|mut authority| {
            authority.registration = forged(&authority.registration, |row| row.state = State::Active);
            authority.registration = forged(&authority.registration, |row| row.settings = "{}".to_owned());
            authority.eab_keys[0] = forged(&authority.eab_keys[0], |row| row.uses = 0);
            authority
        })
    });
    let again = Client::new(MANAGED).new_account_with_eab(&kid, &key);
    let outcome = world.ca.register_account(&again).await;
    assert!(matches!(outcome, Err(Failure::Tampered(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_tampered_validator_has_no_receipts() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.store.alter_nodes(|nodes| {
        nodes.iter().map(|node| forged(node, |row| row.settings = "{\"x\":1}".to_owned())).collect()
    });
    world.ca.reload_nodes().await.unwrap();
    assert_eq!(reason(world.ca.issue(ready.finalized_by(&client)).await), Reason::ReceiptUnregistered);
}

#[tokio::test]
async fn the_first_signature_that_is_recorded_is_the_certificates() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.issuer_key.hold(true);
    let caller = tokio::spawn({
        let (ca, order) = (world.ca.clone(), ready.finalized_by(&client));
        async move { ca.issue(order).await }
    });
    while world.journal().await.is_empty() {
        tokio::task::yield_now().await;
    }
    // Another signer took the intent over and was faster; ECDSA signatures of the same bytes differ.
    let intent = world.journal().await.remove(0);
    let winner = world.issuer_key.sign_message(&intent.tbs);
    let row =
        ca_store::JournalRow { signature: Some(winner.clone()), signed_at: Some(world.now()), ..intent };
    let record = ca_store::SignedRow { row: world.secrets.rows.seal(row), audit: Vec::new() };
    let outcome = world.store.record_certificates(vec![record]).await.unwrap();
    assert_eq!(outcome, [ca_store::RecordOutcome::Recorded]);
    world.issuer_key.hold(false);
    let Ok(Issuance::Issued(issued)) = caller.await.unwrap() else { panic!("not issued") };
    let certificate = Certificate::from_der(&issued.certificate).unwrap();
    assert_eq!(certificate.signature(), winner);
    assert_eq!(world.issue(ready.finalized_by(&client)).await.unwrap(), issued);
}

#[tokio::test]
async fn each_row_of_an_account_counts_by_its_own_mac() {
    let world = World::with_limits(Limits { cached_accounts: 0, ..Limits::default() }).await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let changes: [fn(&mut ca_store::AccountRecord); 3] = [
        |record| record.account = forged(&record.account, |row| row.status = AccountStatus::Deactivated),
        |record| record.account = forged(&record.account, |row| row.registration = Some("one".to_owned())),
        |record| {
            let later = pki::Period::from_days(1);
            record.keys[0] =
                forged(&record.keys[0], |row| row.valid_until = Some(row.valid_from.plus(later)));
        },
    ];
    for (place, change) in changes.into_iter().enumerate() {
        world.store.alter_account(move |record| {
            record.map(|mut record| {
                change(&mut record);
                record
            })
        });
        let outcome = world.ca.issue(ready.finalized_by(&client)).await;
        assert!(matches!(outcome, Err(Failure::Tampered(_))), "{place}: {outcome:?}");
    }
    world.store.leave_alone();
    world.issue(ready.finalized_by(&client)).await.unwrap();
}

#[tokio::test]
async fn each_row_behind_an_eab_key_counts_by_its_own_mac() {
    let world = World::start().await;
    let (kid, key) = world.registration("one", Some(1)).await;
    let changes: [fn(&mut ca_store::Authority); 2] = [
        |authority| authority.registration = forged(&authority.registration, |row| row.title.push('x')),
        |authority| authority.eab_keys[0] = forged(&authority.eab_keys[0], |row| row.max_uses = None),
    ];
    for (place, change) in changes.into_iter().enumerate() {
        world.store.alter_authority(move |authority| {
            authority.map(|mut authority| {
                change(&mut authority);
                authority
            })
        });
        let request = Client::new(MANAGED).new_account_with_eab(&kid, &key);
        let outcome = world.ca.register_account(&request).await;
        assert!(matches!(outcome, Err(Failure::Tampered(_))), "{place}: {outcome:?}");
    }
    world.store.leave_alone();
    world.ca.register_account(&Client::new(MANAGED).new_account_with_eab(&kid, &key)).await.unwrap();
}
