use std::time::Duration;

use futures::future::join_all;

use super::{Fixture, sample::*};
use crate::{AcmeStore, OrderChange, OrderStatus, ProcessingClaim, SaveOutcome};

/// An order in `processing` whose lease ends after this time.
async fn process(store: &dyn AcmeStore, id: &str, lease: Duration) {
    create(store, order(id)).await;
    let change = OrderChange { lease: Some(lease), ..change(id, 1, OrderStatus::Processing) };
    assert_eq!(save(store, of_order(change)).await, SaveOutcome::Saved);
}

pub async fn a_stuck_order_is_taken_over(fixture: &dyn Fixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    for id in ["1", "2", "3", "4"] {
        process(one.as_ref(), id, Duration::ZERO).await;
    }
    process(one.as_ref(), "busy", HOUR).await;
    create(one.as_ref(), order("pending")).await;

    for id in ["busy", "pending", "none"] {
        let claim = ProcessingClaim::Order(id.to_owned());
        assert_eq!(two.claim_processing(&claim, HOUR).await.unwrap(), []);
    }
    let third = two.claim_processing(&ProcessingClaim::Order("3".to_owned()), HOUR).await.unwrap();
    assert_eq!(third.len(), 1);
    assert_eq!((third[0].version, third[0].status), (3, OrderStatus::Processing));
    assert_eq!(two.order("3").await.unwrap().as_ref(), Some(&third[0]));
    // Two sweepers get each order once, and no more than they ask for.
    let claims =
        join_all([&one, &two].map(|store| store.claim_processing(&ProcessingClaim::Any(2), HOUR))).await;
    let claims: Vec<_> = claims.into_iter().map(Result::unwrap).collect();
    assert!(claims.iter().all(|claimed| claimed.len() <= 2));
    let rest = one.claim_processing(&ProcessingClaim::Any(9), HOUR).await.unwrap();
    let mut ids: Vec<_> = claims.into_iter().flatten().chain(rest).map(|order| order.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["1", "2", "4"]);
    // Who had it before finds that it was taken over.
    let late = of_order(change("3", 2, OrderStatus::Valid));
    assert_eq!(save(one.as_ref(), late).await, SaveOutcome::Conflict);
}

pub async fn a_lease_ends_with_processing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    process(store.as_ref(), "1", Duration::ZERO).await;
    assert!(store.order("1").await.unwrap().unwrap().lease_until_ms.is_some());
    save(store.as_ref(), of_order(change("1", 2, OrderStatus::Valid))).await;
    assert_eq!(store.order("1").await.unwrap().unwrap().lease_until_ms, None);
    assert_eq!(store.claim_processing(&ProcessingClaim::Any(9), HOUR).await.unwrap(), []);
}
