use futures::future::join_all;

use super::{Fixture, open, sample::*};
use crate::{IntentOutcome, JournalKey, JournalRow, RecordOutcome};

pub async fn a_signature_is_recorded_once(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    for tag in 1..=3 {
        assert_eq!(commit(one.as_ref(), intent(tag)).await, IntentOutcome::Committed);
    }
    // Two in one call, and four in calls at once: of each entry one signature stays.
    let with = |tag, n: u8| signed(&journal_row(tag), &[n]);
    let in_one = one.record_certificates(vec![with(1, 1), with(1, 2), with(2, 3)]);
    let alone = (4..8).map(|n| {
        let store = if n % 2 == 0 { &one } else { &two };
        async move { store.record_certificates(vec![with(1, n), with(3, n)]).await.unwrap() }
    });
    let (first, others) = futures::join!(in_one, join_all(alone));
    let first = first.unwrap();
    assert_eq!(first[2], RecordOutcome::Recorded);
    let stored = async |tag| one.journal(&JournalKey::Serial(serial(tag))).await.unwrap().remove(0);
    let (winner, third) = (stored(1).await, stored(3).await);
    let outcomes = first.iter().take(2).chain(others.iter().map(|outcomes| &outcomes[0]));
    let recorded = outcomes.clone().filter(|it| **it == RecordOutcome::Recorded).count();
    assert_eq!(recorded, 1);
    for outcome in outcomes.filter(|it| **it != RecordOutcome::Recorded) {
        assert_eq!(outcome, &RecordOutcome::Lost(Box::new(winner.clone())));
    }
    assert_eq!(others.iter().filter(|outcomes| outcomes[1] == RecordOutcome::Recorded).count(), 1);
    for entry in [&winner, &third] {
        let row = keys().verify(&entry.row).unwrap();
        assert_eq!(row.signed_at, Some(at(50)));
        assert_eq!(entry.lease, None, "nobody works on it any more");
    }
    // Its answer lost, the record finds itself.
    let signature = winner.row.unverified().signature.clone().unwrap();
    let again = record(one.as_ref(), signed(&journal_row(1), &signature)).await;
    assert_eq!(again, RecordOutcome::Lost(Box::new(winner)));
}

pub async fn a_signature_needs_an_intent(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    assert_eq!(record(store.as_ref(), signed(&journal_row(1), b"signature")).await, RecordOutcome::Unknown);
    assert_eq!(store.journal(&JournalKey::Serial(serial(1))).await.unwrap(), []);
    // A row without a signature records nothing.
    commit(store.as_ref(), intent(2)).await;
    let row = JournalRow { signature: None, ..journal_row(2) };
    let unsigned = crate::SignedRow { row: seal(row), audit: vec![] };
    assert!(matches!(record(store.as_ref(), unsigned).await, RecordOutcome::Lost(_)));
    let entry = store.journal(&JournalKey::Serial(serial(2))).await.unwrap().remove(0);
    assert!(entry.lease.is_some());
    assert_eq!(store.record_certificates(vec![]).await.unwrap(), []);
}
