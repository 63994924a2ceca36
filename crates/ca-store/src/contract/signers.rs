//! Several signers at work at the same time. A backend of one signer is spared these.

use std::time::Duration;

use futures::future::join_all;
use pki::Reason;
use tokio::time::timeout;

use super::{Fixture, open, sample::*};
use crate::{
    AccountRow, AccountUpdate, AuthorityRow, BeginCrl, CaStore, Changes, CrlJournal, CrlKey, CrlRow,
    CrlShard, ImportCrl, ImportedCrl, IntentOutcome, JournalKey, JournalRow, Limit, LimitScope, NewIntent,
    NewRevocation, NodeRow, PublishCrl, PublishOutcome, RecordOutcome, StoreChange, UpdateOutcome,
};

pub async fn limits_hold_between_signers(fixture: &dyn Fixture) {
    if !fixture.several_signers() {
        return;
    }
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let scope = LimitScope::Domain("example.org".to_owned());
    let limits = vec![Limit { directory: "main".to_owned(), scope, since: at(0), most: 7 }];
    // One at a time from each, so that their transactions meet.
    let both = [(&one, 0), (&two, 100)].map(|(store, first)| {
        let limits = &limits;
        async move {
            let mut committed = 0;
            for tag in first..first + 10 {
                let intent = NewIntent { limits: limits.clone(), ..intent(tag) };
                match commit(store.as_ref(), intent).await {
                    IntentOutcome::Committed => committed += 1,
                    IntentOutcome::LimitReached(0) => {}
                    other => panic!("{other:?}"),
                }
            }
            committed
        }
    });
    let committed: i32 = join_all(both).await.into_iter().sum();
    assert_eq!(committed, 7);
}

/// The same order, and the same newOrder JWS under two orders, at both signers at once: one intent each.
pub async fn signers_race_for_an_order(fixture: &dyn Fixture) {
    if !fixture.several_signers() {
        return;
    }
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    for round in 0..20 {
        let mine = |tag: u64, order: u64, new_order: u64| {
            let row = JournalRow {
                order: Some(format!("order-{order}")),
                new_order: Some(digest(&format!("new order {new_order}"))),
                ..journal_row(1000 * round + tag)
            };
            intent_of(row)
        };
        // Crosswise: what the one meets first the other meets last.
        let (a, b) = (1000 * round + 500, 1000 * round + 501);
        let first = vec![mine(1, a, a), mine(2, b, b)];
        let second = vec![mine(3, b, b + 1), mine(4, a + 2, a)];
        let (first, second) = futures::join!(one.commit_intents(first), two.commit_intents(second));
        let (first, second) = (first.unwrap(), second.unwrap());
        let wins = |outcome: &IntentOutcome| usize::from(*outcome == IntentOutcome::Committed);
        assert_eq!(wins(&first[0]) + wins(&second[1]), 1, "{first:?} {second:?}");
        assert_eq!(wins(&first[1]) + wins(&second[0]), 1, "{first:?} {second:?}");
        for (outcome, is_order) in
            [(&first[0], false), (&second[1], false), (&first[1], true), (&second[0], true)]
        {
            let fits = match outcome {
                IntentOutcome::Committed => true,
                IntentOutcome::OrderTaken(_) => is_order,
                IntentOutcome::NewOrderTaken(_) => !is_order,
                _ => false,
            };
            assert!(fits, "{outcome:?}");
        }
    }
}

/// Lives of certificates at both signers, each taking over, recording and abandoning what it gets hold of.
pub async fn signers_race_for_everything(fixture: &dyn Fixture) {
    if !fixture.several_signers() {
        return;
    }
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let intents = (0..60).map(|tag| NewIntent { lease: Duration::ZERO, ..intent(tag) });
    one.commit_intents(intents.collect()).await.unwrap();
    let takers = (0..8).map(|n| {
        let store = if n % 2 == 0 { &one } else { &two };
        async move {
            let mut recorded = 0;
            for _ in 0..6 {
                for entry in store.claim_orphans(Duration::ZERO, 9).await.unwrap() {
                    let row = signed(entry.row.unverified(), format!("by {n}").as_bytes());
                    match record(store.as_ref(), row).await {
                        RecordOutcome::Recorded => recorded += 1,
                        RecordOutcome::Lost(_) => {}
                        RecordOutcome::Unknown => panic!("an entry that was claimed is unknown"),
                    }
                }
                // Each of these by every one of them.
                let revocations = (0..8).map(|tag| revocation((tag + n) % 8)).collect();
                store.revoke(revocations).await.unwrap();
            }
            recorded
        }
    });
    let recorded: i32 = join_all(takers).await.into_iter().sum();
    let mut found = 0;
    for tag in 0..60 {
        let entries = two.journal(&JournalKey::Serial(serial(tag))).await.unwrap();
        found += i32::from(keys().verify(&entries[0].row).unwrap().signature.is_some());
    }
    assert_eq!(recorded, found, "each signature is one signer's");
    assert_eq!(
        two.crl_shards(None).await.unwrap()[0].revision,
        8,
        "each revocation raised the revision once"
    );
}

async fn heard(changes: &mut dyn Changes) -> StoreChange {
    timeout(Duration::from_secs(10), changes.next()).await.unwrap().unwrap()
}

pub async fn changes_of_other_signers_are_heard(fixture: &dyn Fixture) {
    if !fixture.several_signers() {
        return;
    }
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    two.register_account(new_account("a")).await.unwrap();
    let mut changes = one.watch().await.unwrap();
    let mut own = two.watch().await.unwrap();
    let update = |version, expected| AccountUpdate {
        account: seal(AccountRow { version, ..account("a") }),
        expected,
        request: None,
        key: None,
        audit: vec![],
    };
    assert_eq!(two.update_account(update(2, 1)).await.unwrap(), UpdateOutcome::Updated);
    assert_eq!(heard(changes.as_mut()).await, StoreChange::Account("a".to_owned()));
    // What changes nothing is not told.
    assert!(matches!(two.update_account(update(2, 1)).await.unwrap(), UpdateOutcome::Conflict(_)));
    let row = NodeRow { role: "front".to_owned(), ..node("n") };
    two.put_authority(new(vec![AuthorityRow::Tenant(seal(tenant("house"))), AuthorityRow::Node(seal(row))]))
        .await
        .unwrap();
    assert_eq!(heard(changes.as_mut()).await, StoreChange::Nodes);
    let shard = CrlShard { issuer: "an issuer".to_owned(), shard: 3 };
    publish(two.as_ref(), &shard).await;
    assert_eq!(heard(changes.as_mut()).await, StoreChange::Crl(shard));
    let crl = ImportedCrl {
        authority: "root".to_owned(),
        number: 1,
        this_update: at(1),
        next_update: at(2),
        der: vec![0x30],
        imported_at: at(1),
        imported_by: "alice".to_owned(),
    };
    two.import_crl(ImportCrl { crl, audit: vec![] }).await.unwrap();
    assert_eq!(heard(changes.as_mut()).await, StoreChange::ImportedCrl);
    issue(two.as_ref(), journal_row(1), &[]).await;
    two.revoke(vec![revocation(1)]).await.unwrap();
    let shard = CrlShard { issuer: "issuer".to_owned(), shard: 3 };
    assert_eq!(heard(changes.as_mut()).await, StoreChange::Revoked(shard.clone()));
    // Nor is what was revoked before; a change of the reason is.
    two.revoke(vec![revocation(1)]).await.unwrap();
    let compromised = NewRevocation { reason: Reason::KeyCompromise, upgrade: true, ..revocation(1) };
    two.revoke(vec![compromised]).await.unwrap();
    two.update_account(update(3, 2)).await.unwrap();
    assert_eq!(heard(changes.as_mut()).await, StoreChange::Revoked(shard));
    assert_eq!(heard(changes.as_mut()).await, StoreChange::Account("a".to_owned()));
    // One's own changes are not told: the first that is heard here is the other's.
    one.update_account(update(4, 3)).await.unwrap();
    assert_eq!(heard(own.as_mut()).await, StoreChange::Account("a".to_owned()));
}

async fn publish(store: &dyn CaStore, shard: &CrlShard) {
    let draft = store.begin_crl(BeginCrl { shard: shard.clone() }).await.unwrap();
    let key = CrlKey { shard: shard.clone(), number: draft.number };
    let row = CrlRow {
        key: key.clone(),
        revision: draft.revision,
        base: None,
        base_revision: None,
        this_update: at(1),
        next_update: at(2),
        expired_before: at(0),
        entries: 0,
        tbs_sha256: digest("crl"),
        signature: None,
    };
    store.journal_crl(CrlJournal { row, audit: vec![] }).await.unwrap();
    let publish = PublishCrl { key, signature: vec![1], audit: vec![] };
    assert_eq!(store.publish_crl(publish).await.unwrap(), PublishOutcome::Published);
}
