use futures::future::join_all;

use super::{Fixture, open, sample::*};
use crate::{AuditError, AuditHead, AuditRecord, CaStore, NewIntent, RefusalCount, verify_chain};

/// A whole chain with its head.
async fn chain(store: &dyn CaStore, number: u64) -> (AuditHead, Vec<AuditRecord>) {
    let head = store.audit_heads().await.unwrap().into_iter().find(|head| head.number == number).unwrap();
    let mut records = Vec::new();
    loop {
        let page =
            store.audit(number, records.last().map_or(0, |it: &AuditRecord| it.sequence), 7).await.unwrap();
        if page.is_empty() {
            return (head, records);
        }
        records.extend(page);
    }
}

pub async fn the_audit_chain_holds(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    join_all((0..30).map(|tag| {
        let store = &store;
        async move {
            issue(store.as_ref(), journal_row(tag), &[]).await;
            store.append_audit(event("operator.login"), vec![]).await.unwrap();
        }
    }))
    .await;
    let number = store.info().await.unwrap().incarnation;
    let (head, records) = chain(store.as_ref(), number).await;
    assert_eq!(records.len(), 90);
    assert_eq!(verify_chain(&head, &records), Ok(()));
    assert_eq!(records[0].event.detail, event("")[0].detail);

    let mut removed = records.clone();
    removed.remove(40);
    assert_eq!(verify_chain(&head, &removed), Err(AuditError::Missing { expected: 41, found: 42 }));
    let mut changed = records.clone();
    changed[40].event.actor.push('x');
    assert_eq!(verify_chain(&head, &changed), Err(AuditError::Changed { sequence: 41 }));
    let truncated = verify_chain(&head, &records[..89]);
    assert_eq!(truncated, Err(AuditError::Truncated { expected: 90, found: 89 }));
}

pub async fn a_change_without_effect_is_not_reported(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let stray = crate::Citation { table: crate::CitedTable::Grant, key: "none".to_owned(), mac: [0; 32] };
    commit(store.as_ref(), NewIntent { cites: vec![stray], ..intent(1) }).await;
    record(store.as_ref(), signed(&journal_row(1), b"signature")).await;
    store.revoke(vec![revocation(1)]).await.unwrap();
    let (head, records) = chain(store.as_ref(), store.info().await.unwrap().incarnation).await;
    assert_eq!((head.sequence, records.len()), (0, 0));
    assert_eq!(verify_chain(&head, &records), Ok(()));
}

pub async fn incarnations_have_chains_of_their_own(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    join_all((0..20).map(|n| {
        let store = if n % 2 == 0 { &one } else { &two };
        store.append_audit([event("first"), event("second")].concat(), vec![])
    }))
    .await;
    for store in [&one, &two] {
        let (head, records) = chain(store.as_ref(), store.info().await.unwrap().incarnation).await;
        assert_eq!(records.len(), 20);
        assert_eq!(verify_chain(&head, &records), Ok(()));
    }
    let (head, _) = chain(one.as_ref(), one.info().await.unwrap().incarnation).await;
    let (_, others) = chain(one.as_ref(), two.info().await.unwrap().incarnation).await;
    assert_eq!(verify_chain(&head, &others), Err(AuditError::Changed { sequence: 1 }));
}

pub async fn refusals_add_up(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let refusal = |seconds, reason: &str, count| RefusalCount {
        hour: at(seconds),
        reason: reason.to_owned(),
        directory: String::new(),
        count,
    };
    let first = vec![refusal(10, "bad-receipt", 2), refusal(20, "bad-receipt", 3), refusal(20, "bad-csr", 1)];
    store.append_audit(vec![], first).await.unwrap();
    store.append_audit(vec![], vec![refusal(3600, "bad-csr", 5)]).await.unwrap();
    let expected = [refusal(0, "bad-csr", 1), refusal(0, "bad-receipt", 5), refusal(3600, "bad-csr", 5)];
    assert_eq!(store.refusals(at(1800)).await.unwrap(), expected);
    assert_eq!(store.refusals(at(3600)).await.unwrap(), expected[2..]);
}
