use std::time::Duration;

use futures::future::join_all;

use super::{Fixture, open, sample::*};
use crate::{
    AbandonOutcome, Abandonment, IntentOutcome, JournalKey, JournalRow, NewIntent, RecordOutcome,
    RevokeOutcome,
};

fn expired(tag: u64) -> NewIntent {
    NewIntent { lease: Duration::ZERO, ..intent(tag) }
}

pub async fn an_orphan_is_taken_over(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let intents = (1..=5).map(expired).chain([intent(6)]).collect();
    one.commit_intents(intents).await.unwrap();
    issue(one.as_ref(), journal_row(7), &[]).await;
    // No more than asked for, the oldest first, none twice, and none that is still worked on.
    let claims = join_all([&one, &two].map(|store| store.claim_orphans(HOUR, 2))).await;
    let rest = two.claim_orphans(HOUR, 100).await.unwrap();
    let claimed: Vec<_> = claims.into_iter().flat_map(Result::unwrap).chain(rest.clone()).collect();
    let mut serials: Vec<_> = claimed.iter().map(|entry| entry.row.unverified().serial).collect();
    serials.sort_unstable();
    assert_eq!(serials, (1..=5).map(serial).collect::<Vec<_>>());
    assert_eq!(two.claim_orphans(HOUR, 100).await.unwrap(), []);
    let owner = two.info().await.unwrap().incarnation;
    assert!(rest.iter().all(|entry| entry.lease.is_some_and(|lease| lease.owner == owner)));
    // What is taken over is what was intended.
    for entry in &claimed {
        let tag = (1..=5).find(|tag| serial(*tag) == entry.row.unverified().serial).unwrap();
        assert_eq!(keys().verify(&entry.row).unwrap(), &journal_row(tag));
    }
    // Who had it before may still be first: the bytes are the same.
    let row = rest[0].row.unverified();
    assert_eq!(record(one.as_ref(), signed(row, b"late")).await, RecordOutcome::Recorded);
    assert!(matches!(record(two.as_ref(), signed(row, b"later")).await, RecordOutcome::Lost(_)));
}

pub async fn a_lease_is_extended_by_its_owner(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    one.commit_intents(vec![expired(1), expired(2), expired(3)]).await.unwrap();
    record(one.as_ref(), signed(&journal_row(3), b"signature")).await;
    let serials = [serial(1), serial(2), serial(3), serial(4)];
    assert_eq!(two.extend_leases(&serials, HOUR).await.unwrap(), 0);
    assert_eq!(one.extend_leases(&serials, HOUR).await.unwrap(), 2);
    assert_eq!(two.claim_orphans(HOUR, 9).await.unwrap(), []);
    assert_eq!(one.extend_leases(&serials, Duration::ZERO).await.unwrap(), 2);
    assert_eq!(two.claim_orphans(HOUR, 9).await.unwrap().len(), 2);
    assert_eq!(one.extend_leases(&serials, HOUR).await.unwrap(), 0);
    assert_eq!(one.extend_leases(&[], HOUR).await.unwrap(), 0);
}

pub async fn an_abandoned_intent_is_fenced(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    one.commit_intents(vec![expired(1), intent(2)]).await.unwrap();
    let given_up = |tag| Abandonment {
        row: seal(JournalRow { abandoned_at: Some(at(60)), ..journal_row(tag) }),
        audit: event("certificate.abandoned"),
    };
    // Another's intent is not to be abandoned before it was taken over.
    let outcome = two.abandon(vec![given_up(1), given_up(3)]).await.unwrap();
    assert!(matches!(outcome[0], AbandonOutcome::Lost(_)), "{outcome:?}");
    assert_eq!(outcome[1], AbandonOutcome::Unknown);
    assert_eq!(two.claim_orphans(HOUR, 9).await.unwrap().len(), 1);
    assert_eq!(two.abandon(vec![given_up(1)]).await.unwrap(), [AbandonOutcome::Abandoned]);
    // Its former owner's signature is lost, now and later.
    let lost = record(one.as_ref(), signed(&journal_row(1), b"late")).await;
    let RecordOutcome::Lost(entry) = lost else { panic!("{lost:?}") };
    let row = keys().verify(&entry.row).unwrap();
    assert_eq!((row.abandoned_at, row.signature.as_ref()), (Some(at(60)), None));
    assert_eq!(entry.lease, None);
    assert!(matches!(two.abandon(vec![given_up(1)]).await.unwrap()[0], AbandonOutcome::Lost(_)));
    // Order and newOrder are free again; the serial is not.
    let next = JournalRow { serial: serial(11), ..journal_row(1) };
    assert!(matches!(commit(two.as_ref(), intent(1)).await, IntentOutcome::SerialTaken(_)));
    // The order only for a decision that has verified what was abandoned: the word alone frees nothing.
    assert_eq!(commit(two.as_ref(), intent_of(next.clone())).await, IntentOutcome::OrderHasPast);
    let mistaken = NewIntent { past: vec![[7; 32]], ..intent_of(next.clone()) };
    assert_eq!(commit(two.as_ref(), mistaken).await, IntentOutcome::OrderHasPast);
    let seen = NewIntent { past: vec![given_up(1).row.mac().mac], ..intent_of(next.clone()) };
    assert_eq!(commit(two.as_ref(), seen).await, IntentOutcome::Committed);
    for key in [JournalKey::Order("order-1".to_owned()), JournalKey::NewOrder(digest("new order 1"))] {
        let entries = two.journal(&key).await.unwrap();
        let serials: Vec<_> = entries.iter().map(|entry| entry.row.unverified().serial).collect();
        assert_eq!(serials, [serial(11), serial(1)], "abandoned ones last");
    }
    // What is signed cannot be abandoned.
    record(two.as_ref(), signed(&next, b"signature")).await;
    let late = Abandonment { row: seal(JournalRow { abandoned_at: Some(at(61)), ..next }), audit: vec![] };
    assert!(matches!(two.abandon(vec![late]).await.unwrap()[0], AbandonOutcome::Lost(_)));
    // It may have been signed: it can be revoked.
    let revoked = two.revoke(vec![revocation(1)]).await.unwrap();
    assert!(matches!(revoked[0], RevokeOutcome::Revoked(_)), "{revoked:?}");
}
