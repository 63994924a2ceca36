use futures::future::join_all;

use super::{Fixture, sample::*};
use crate::{AuthorizationRow, Hit, HitCount, OrderRow, OrderStatus, Purged};

pub async fn what_is_dead_is_purged(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for n in 0..5 {
        create(store.as_ref(), OrderRow { expires_at: at(n), ..order(&n.to_string()) }).await;
        let row = AuthorizationRow { expires_at: at(n), ..authorization(&n.to_string()) };
        store.create_authorizations(vec![row]).await.unwrap();
        store.count(vec![Hit { expires_at: at(n), ..hit(&n.to_string(), 1) }]).await.unwrap();
    }
    let stuck = OrderRow { status: OrderStatus::Processing, expires_at: at(0), ..order("stuck") };
    create(store.as_ref(), stuck).await;
    // Four of each expired before this time; two at a time.
    let two = Purged { orders: 2, authorizations: 2, counters: 2 };
    assert_eq!(store.purge(at(4), 2).await.unwrap(), two);
    assert_eq!(store.purge(at(4), 2).await.unwrap(), two);
    let rest = store.purge(at(4), 2).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    for n in 0..5 {
        assert_eq!(store.order(&n.to_string()).await.unwrap().is_some(), n == 4);
        assert_eq!(store.authorizations(&[n.to_string()]).await.unwrap().len(), usize::from(n == 4));
        let asked = store.count(vec![hit(&n.to_string(), 0)]).await.unwrap();
        assert_eq!(asked, [HitCount(u64::from(n == 4))]);
    }
    assert!(store.order("stuck").await.unwrap().is_some(), "it may have a certificate");
}

fn hit(key: &str, count: u32) -> Hit {
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
