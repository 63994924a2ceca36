use futures::future::join_all;

use super::{Fixture, sample::*};
use crate::{
    AuthorizationRow, FailureNote, FailureRow, Hit, HitCount, Identifier, OrderRow, OrderStatus, Purged,
    ValidationEnd,
};

pub async fn what_is_dead_is_purged(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for n in 0..5 {
        create(store.as_ref(), OrderRow { expires_at: at(n), ..order(&n.to_string()) }).await;
        let row = AuthorizationRow { expires_at: at(n), ..authorization(&n.to_string()) };
        store.create_authorizations(vec![row]).await.unwrap();
        store.count(vec![Hit { expires_at: at(n), ..hit(&n.to_string(), 1) }]).await.unwrap();
        store.end_validations(vec![failure("a", &n.to_string(), 1, n)]).await.unwrap();
    }
    let stuck = OrderRow { status: OrderStatus::Processing, expires_at: at(0), ..order("stuck") };
    create(store.as_ref(), stuck).await;
    // What only limits ask for goes when its time is over, and not when that of orders is.
    let limits = Purged { counters: 1, failures: 1, ..Purged::default() };
    assert_eq!(store.purge(at(0), at(1), 2).await.unwrap(), limits);
    // Four of each expired before this time; two at a time.
    let two = Purged { orders: 2, authorizations: 2, counters: 2, failures: 2 };
    assert_eq!(store.purge(at(4), at(4), 2).await.unwrap(), two);
    let two = Purged { counters: 1, failures: 1, ..two };
    assert_eq!(store.purge(at(4), at(4), 2).await.unwrap(), two);
    let rest = store.purge(at(4), at(4), 2).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    for n in 0..5 {
        assert_eq!(store.order(&n.to_string()).await.unwrap().is_some(), n == 4);
        assert_eq!(store.authorizations(&[n.to_string()]).await.unwrap().len(), usize::from(n == 4));
        let asked = store.count(vec![hit(&n.to_string(), 0)]).await.unwrap();
        assert_eq!(asked, [HitCount(u64::from(n == 4))]);
        let failures = store.failures("a", &[identifier(&n.to_string())], 10).await.unwrap();
        assert_eq!(failures.len(), usize::from(n == 4));
    }
    assert!(store.order("stuck").await.unwrap().is_some(), "it may have a certificate");
}

fn hit(key: &str, count: i32) -> Hit {
    Hit { key: key.to_owned(), window: at(0), expires_at: at(1000), count }
}

pub async fn hits_are_counted(fixture: &dyn Fixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    let counts =
        one.count(vec![hit("a", 0), hit("a", 2), hit("b", 1), hit("a", 3), hit("a", 0)]).await.unwrap();
    assert_eq!(counts, [0, 2, 1, 5, 5].map(HitCount));
    join_all(
        (0..20).map(|n| if n % 2 == 0 { &one } else { &two }).map(|store| store.count(vec![hit("a", 1)])),
    )
    .await;
    assert_eq!(two.count(vec![hit("a", 0)]).await.unwrap(), [HitCount(25)]);
    let next = Hit { window: at(60), ..hit("a", 1) };
    assert_eq!(one.count(vec![next]).await.unwrap(), [HitCount(1)], "another window");
}

pub async fn hits_are_taken_back(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let counts = store.count(vec![hit("a", 2), hit("a", -1), hit("a", 0)]).await.unwrap();
    assert_eq!(counts, [2, 1, 1].map(HitCount));
    assert_eq!(store.count(vec![hit("a", -1)]).await.unwrap(), [HitCount(0)]);
    assert_eq!(store.count(vec![hit("a", -1)]).await.unwrap(), [HitCount(0)], "never below 0");
    assert_eq!(store.count(vec![hit("b", -1)]).await.unwrap(), [HitCount(0)], "nor from nothing");
    // Nothing is left of what came to nothing.
    let counted = Hit { expires_at: at(0), ..hit("c", 1) };
    let back = Hit { count: -1, ..counted.clone() };
    assert_eq!(store.count(vec![counted.clone()]).await.unwrap(), [HitCount(1)]);
    assert_eq!(store.count(vec![back.clone()]).await.unwrap(), [HitCount(0)]);
    assert_eq!(store.count(vec![counted, back]).await.unwrap(), [1, 0].map(HitCount));
    assert!(store.purge(at(2000), at(2000), 10).await.unwrap().is_empty());
    assert_eq!(store.count(vec![hit("a", 1), hit("b", 1)]).await.unwrap(), [1, 1].map(HitCount));
    assert_eq!(store.count(vec![hit("a", -1), hit("a", 2)]).await.unwrap(), [0, 2].map(HitCount));
}

fn identifier(value: &str) -> Identifier {
    Identifier { value: value.to_owned(), wildcard: false }
}

fn failure(account: &str, value: &str, time: u64, expires: u64) -> ValidationEnd {
    let note = FailureNote { at: at(time), expires_at: at(expires) };
    ValidationEnd { account: account.to_owned(), identifier: identifier(value), failure: Some(note) }
}

pub async fn failures_are_counted_until_a_success(fixture: &dyn Fixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    one.end_validations(vec![failure("a", "x", 1, 90), failure("a", "y", 2, 90)]).await.unwrap();
    // Twice in one second is twice.
    two.end_validations(vec![failure("a", "x", 3, 90), failure("a", "x", 3, 90), failure("b", "x", 4, 90)])
        .await
        .unwrap();
    let times = |rows: Vec<FailureRow>| {
        rows.into_iter().map(|row| (row.identifier.value, row.at)).collect::<Vec<_>>()
    };
    let row = |value: &str, time| (value.to_owned(), at(time));
    let both = [identifier("x"), identifier("y"), identifier("z")];
    assert_eq!(
        times(one.failures("a", &both, 10).await.unwrap()),
        [row("x", 3), row("x", 3), row("y", 2), row("x", 1)]
    );
    assert_eq!(times(one.failures("a", &both, 2).await.unwrap()), [row("x", 3), row("x", 3)]);
    let wildcard = Identifier { wildcard: true, ..identifier("x") };
    assert!(one.failures("a", std::slice::from_ref(&wildcard), 10).await.unwrap().is_empty());
    let succeeded = |identifier| ValidationEnd { account: "a".to_owned(), identifier, failure: None };
    one.end_validations(vec![succeeded(wildcard)]).await.unwrap();
    assert_eq!(one.failures("a", &both, 10).await.unwrap().len(), 4, "another identifier's success");
    one.end_validations(vec![succeeded(identifier("x")), failure("a", "x", 5, 90)]).await.unwrap();
    assert_eq!(times(two.failures("a", &both, 10).await.unwrap()), [row("x", 5), row("y", 2)]);
    assert_eq!(times(two.failures("b", &both, 10).await.unwrap()), [row("x", 4)]);
    // One after another within a batch, and in batches at once.
    let mixed = vec![
        failure("c", "x", 1, 90),
        failure("c", "y", 2, 90),
        ValidationEnd { account: "c".to_owned(), ..succeeded(identifier("x")) },
        failure("c", "x", 3, 90),
        failure("c", "x", 3, 90),
    ];
    let others = (4..10).map(|time| one.end_validations(vec![failure("d", "x", time, 90)]));
    let (mixed, others) = futures::join!(one.end_validations(mixed), futures::future::join_all(others));
    mixed.unwrap();
    others.into_iter().for_each(Result::unwrap);
    assert_eq!(times(two.failures("c", &both, 10).await.unwrap()), [row("x", 3), row("x", 3), row("y", 2)]);
    assert_eq!(two.failures("d", &both, 10).await.unwrap().len(), 6);
    one.end_validations(vec![]).await.unwrap();
}
