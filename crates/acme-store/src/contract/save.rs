use futures::future::join_all;

use super::{Fixture, sample::*};
use crate::{AuthorizationRow, AuthorizationStatus, OrderRow, OrderStatus, SaveOutcome, Unit};

pub async fn a_change_needs_its_version(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    create(store.as_ref(), order("1")).await;
    store.create_authorizations(vec![authorization("a")]).await.unwrap();
    for (expected, outcome) in [
        (0, SaveOutcome::Conflict),
        (2, SaveOutcome::Conflict),
        (1, SaveOutcome::Saved),
        (1, SaveOutcome::Conflict),
    ] {
        assert_eq!(save(store.as_ref(), of_order(change("1", expected, OrderStatus::Ready))).await, outcome);
    }
    let expected = OrderRow {
        status: OrderStatus::Ready,
        state: "{\"now\":\"ready\"}".to_owned(),
        expires_at: at(2000),
        version: 2,
        ..order("1")
    };
    assert_eq!(store.order("1").await.unwrap(), Some(expected));
    let unknown = of_order(change("none", 1, OrderStatus::Ready));
    assert_eq!(save(store.as_ref(), unknown).await, SaveOutcome::Conflict);

    let of_authorization = |expected| Unit {
        orders: vec![],
        authorizations: vec![authorization_change("a", expected, AuthorizationStatus::Valid)],
    };
    assert_eq!(save(store.as_ref(), of_authorization(2)).await, SaveOutcome::Conflict);
    assert_eq!(save(store.as_ref(), of_authorization(1)).await, SaveOutcome::Saved);
    let expected = AuthorizationRow {
        status: AuthorizationStatus::Valid,
        state: "{\"now\":\"valid\"}".to_owned(),
        expires_at: at(2000),
        version: 2,
        ..authorization("a")
    };
    assert_eq!(store.authorizations(&["a".to_owned()]).await.unwrap(), [expected]);
    assert_eq!(save(store.as_ref(), Unit::default()).await, SaveOutcome::Saved);
    assert_eq!(store.save(vec![]).await.unwrap(), []);
}

pub async fn a_unit_is_saved_whole(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    create(store.as_ref(), order("1")).await;
    store.create_authorizations(vec![authorization("a"), authorization("b")]).await.unwrap();
    let unit = |expected| Unit {
        orders: vec![change("1", 1, OrderStatus::Ready)],
        authorizations: vec![
            authorization_change("a", 1, AuthorizationStatus::Valid),
            authorization_change("b", expected, AuthorizationStatus::Valid),
        ],
    };
    assert_eq!(save(store.as_ref(), unit(9)).await, SaveOutcome::Conflict);
    let ids = ["a", "b"].map(str::to_owned);
    assert_eq!(store.order("1").await.unwrap(), Some(order("1")));
    assert_eq!(store.authorizations(&ids).await.unwrap(), [authorization("a"), authorization("b")]);
    assert_eq!(save(store.as_ref(), unit(1)).await, SaveOutcome::Saved);
    assert_eq!(store.order("1").await.unwrap().unwrap().version, 2);
    assert!(store.authorizations(&ids).await.unwrap().iter().all(|row| row.version == 2));
}

pub async fn units_do_not_affect_each_other(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for id in ["1", "2"] {
        create(store.as_ref(), order(id)).await;
    }
    let both = |first, second| Unit {
        orders: vec![change("1", first, OrderStatus::Ready), change("2", second, OrderStatus::Ready)],
        authorizations: vec![],
    };
    let outcomes = store
        .save(vec![
            of_order(change("1", 1, OrderStatus::Invalid)),
            // Its second change fits, its first does not any more.
            both(1, 1),
            of_order(change("2", 1, OrderStatus::Processing)),
            // By the versions that the others leave behind.
            both(2, 2),
        ])
        .await
        .unwrap();
    use SaveOutcome::{Conflict, Saved};
    assert_eq!(outcomes, [Saved, Conflict, Saved, Saved]);
    for id in ["1", "2"] {
        let order = store.order(id).await.unwrap().unwrap();
        assert_eq!((order.version, order.status), (3, OrderStatus::Ready));
    }
}

pub async fn one_of_many_savers_wins(fixture: &dyn Fixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    create(one.as_ref(), order("1")).await;
    let outcomes = join_all((0..12).map(|n| {
        let store = if n % 3 == 0 { &one } else { &two };
        let mut change = change("1", 1, OrderStatus::Processing);
        change.state = n.to_string();
        async move { save(store.as_ref(), of_order(change)).await }
    }))
    .await;
    assert_eq!(outcomes.iter().filter(|it| **it == SaveOutcome::Saved).count(), 1);
    let winner = outcomes.iter().position(|it| *it == SaveOutcome::Saved).unwrap();
    assert_eq!(two.order("1").await.unwrap().unwrap().state, winner.to_string());
}

/// Requests make a state long for a while; backends may keep it elsewhere then.
pub async fn a_long_state_reads_back(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let long = |word: &str| word.repeat(5000);
    create(store.as_ref(), OrderRow { state: long("ü"), ..order("1") }).await;
    create(store.as_ref(), OrderRow { state: long("x"), ..order("2") }).await;
    assert_eq!(store.order("1").await.unwrap().unwrap().state, long("ü"));
    for (version, state) in (1..).zip([long("a"), "short".to_owned(), long("b"), long("c"), String::new()]) {
        let mut change = change("1", version, OrderStatus::Processing);
        (change.state, change.lease) = (state.clone(), Some(std::time::Duration::ZERO));
        assert_eq!(save(store.as_ref(), of_order(change)).await, SaveOutcome::Saved);
        assert_eq!(store.order("1").await.unwrap().unwrap().state, state);
        assert_eq!(store.order("2").await.unwrap().unwrap().state, long("x"));
    }
    let again = crate::NewOrder { order: order("2"), authorizations: vec![], bound: None };
    store.create_orders(vec![again]).await.unwrap();
    let orders = store.orders_of_account("account", at(0), &crate::Page::first(9)).await.unwrap().items;
    assert_eq!(orders.iter().map(|order| order.state.len()).collect::<Vec<_>>(), [0, 5000]);
    let claimed = store.claim_processing(&crate::ProcessingClaim::Any(9), HOUR).await.unwrap();
    assert_eq!(claimed[0].state, "");
    assert_eq!(store.purge(at(9000), at(9000), 9).await.unwrap().orders, 1);
    assert_eq!(store.order("2").await.unwrap(), None);
}
