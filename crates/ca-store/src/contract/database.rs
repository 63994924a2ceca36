use std::time::Duration;

use futures::future::join_all;
use pki::Timestamp;

use super::{Fixture, open, sample::*};
use crate::{BeginCrl, CrlShard, Epoch, IntentOutcome, JournalKey, LeaseOutcome, RecordOutcome, StoreError};

pub async fn an_incarnation_has_a_number(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let (first, second) = (one.info().await.unwrap(), two.info().await.unwrap());
    assert!(first.incarnation > 0 && first.incarnation < second.incarnation);
    assert_eq!(first.epoch, second.epoch);
    assert_eq!(first.epoch.number, 1);
    assert!(first.schema > 0);
    let heads = one.audit_heads().await.unwrap();
    assert_eq!(
        heads.iter().map(|head| head.number).collect::<Vec<_>>(),
        [first.incarnation, second.incarnation]
    );
    assert_eq!(heads[1].incarnation.node, "two");
}

pub async fn time_has_a_high_water_mark(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let first = store.advance_clock(at(100)).await.unwrap();
    assert_eq!(first.high_water, Timestamp::from_unix(0));
    assert!(first.database_ms > 1_600_000_000_000, "milliseconds since the epoch");
    assert_eq!(store.advance_clock(at(90)).await.unwrap().high_water, at(100));
    let other = open(fixture, "two").await;
    assert_eq!(other.advance_clock(at(110)).await.unwrap().high_water, at(100));
    assert_eq!(store.advance_clock(at(120)).await.unwrap().high_water, at(110));
}

pub async fn an_epoch_begins_once(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let shard = CrlShard { issuer: "issuer".to_owned(), shard: 0 };
    let before = store.begin_crl(BeginCrl { shard: shard.clone() }).await.unwrap();
    let second = Epoch { number: 2, random: [8; 16] };
    for _ in 0..2 {
        assert_eq!(store.begin_epoch([8; 16], event("epoch.begun")).await.unwrap(), second);
    }
    assert_eq!(store.info().await.unwrap().epoch, second);
    assert_eq!(store.audit(store.info().await.unwrap().incarnation, 0, 10).await.unwrap().len(), 1);
    let after = store.begin_crl(BeginCrl { shard }).await.unwrap();
    assert!(after.number > before.number + 1_000_000 && after.revision > before.revision + 1_000_000);
    let third = store.begin_epoch([9; 16], vec![]).await.unwrap();
    assert_eq!(third, Epoch { number: 3, random: [9; 16] });
}

pub async fn a_lease_has_one_owner(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let owner = one.info().await.unwrap().incarnation;
    let LeaseOutcome::Held { until_ms } = one.claim_lease("crl", HOUR).await.unwrap() else {
        panic!("the lease was free")
    };
    assert_eq!(two.claim_lease("crl", HOUR).await.unwrap(), LeaseOutcome::Taken { owner, until_ms });
    assert!(matches!(two.claim_lease("sweep", HOUR).await.unwrap(), LeaseOutcome::Held { .. }));
    assert!(matches!(one.claim_lease("crl", Duration::ZERO).await.unwrap(), LeaseOutcome::Held { .. }));
    assert!(matches!(two.claim_lease("crl", HOUR).await.unwrap(), LeaseOutcome::Held { .. }));
    assert!(matches!(one.claim_lease("crl", HOUR).await.unwrap(), LeaseOutcome::Taken { .. }));
    // Of many who want it one gets it.
    let claims =
        join_all((0..8).map(|n| if n % 2 == 0 { &one } else { &two }).map(|it| it.claim_lease("x", HOUR)));
    let held = claims.await.into_iter().filter(|it| matches!(it, Ok(LeaseOutcome::Held { .. }))).count();
    assert_eq!(held, 4, "all claims of one of the two");
}

pub async fn what_was_written_before_closing_is_there(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let pending = store.commit_intents(vec![intent(1)]);
    let (outcome, ()) = futures::join!(pending, store.close());
    let refused = matches!(outcome, Err(StoreError::Closed));
    assert!(refused || matches!(outcome.as_deref(), Ok([IntentOutcome::Committed])), "{outcome:?}");
    let again = store.commit_intents(vec![intent(2)]).await;
    assert!(matches!(again, Err(StoreError::Closed)), "{again:?}");
    assert!(matches!(store.info().await, Err(StoreError::Closed)));
    let reopened = open(fixture, "two").await;
    let found = reopened.journal(&JournalKey::Serial(serial(1))).await.unwrap();
    assert_eq!(found.is_empty(), refused);
    assert_eq!(reopened.journal(&JournalKey::Serial(serial(2))).await.unwrap(), []);
}

/// Whole lives of certificates, many at once, over two handles.
pub async fn many_at_once(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    join_all((0..200).map(|tag| {
        let store = if tag % 2 == 0 { &one } else { &two };
        async move {
            assert_eq!(commit(store.as_ref(), intent(tag)).await, IntentOutcome::Committed);
            let row = signed(&journal_row(tag), format!("signature {tag}").as_bytes());
            assert_eq!(record(store.as_ref(), row).await, RecordOutcome::Recorded);
        }
    }))
    .await;
    for tag in 0..200 {
        let entries = one.journal(&JournalKey::Order(format!("order-{tag}"))).await.unwrap();
        let row = keys().verify(&entries[0].row).unwrap();
        assert_eq!(row.signature.as_deref(), Some(format!("signature {tag}").as_bytes()));
        assert_eq!(row.tbs, journal_row(tag).tbs);
        assert_eq!(entries[0].lease, None);
    }
}
