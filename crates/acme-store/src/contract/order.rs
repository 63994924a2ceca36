use futures::future::join_all;

use super::{Fixture, sample::*};
use crate::{
    AuthorizationRow, AuthorizationStatus, CreateOutcome, NewOrder, OrderRow, OrderStatus, Page,
    PendingBound, PendingCounts, SaveOutcome, StoreError, Unit,
};

pub async fn an_order_reads_back(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    create(store.as_ref(), order("1")).await;
    assert_eq!(store.order("1").await.unwrap(), Some(order("1")));
    assert_eq!(store.order("2").await.unwrap(), None);
    assert_eq!(store.create_orders(vec![]).await.unwrap(), []);
}

pub async fn an_order_is_created_once(fixture: &dyn Fixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    let new = |state: &str| NewOrder {
        order: OrderRow { state: state.to_owned(), ..order("1") },
        authorizations: vec![authorization("a")],
        bound: None,
    };
    let other = NewOrder { order: order("2"), authorizations: vec![], bound: None };
    let in_one = one.create_orders(vec![new("first"), new("second"), other]);
    let alone = join_all([&one, &two].map(|store| store.create_orders(vec![new("third")])));
    let (first, others) = futures::join!(in_one, alone);
    let first = first.unwrap();
    let there = one.order("1").await.unwrap().unwrap();
    assert_eq!(first[2], CreateOutcome::Created);
    let others: Vec<_> = others.into_iter().flat_map(Result::unwrap).collect();
    let outcomes = first.iter().take(2).chain(&others);
    assert_eq!(outcomes.clone().filter(|it| **it == CreateOutcome::Created).count(), 1);
    for outcome in outcomes.filter(|it| **it != CreateOutcome::Created) {
        assert_eq!(outcome, &CreateOutcome::Exists(Box::new(there.clone())));
    }
    assert_eq!(one.authorizations(&["a".to_owned()]).await.unwrap(), [authorization("a")]);
}

/// Of the orders that name one certificate at most one is not invalid, whoever makes them at once.
pub async fn a_certificate_is_replaced_by_one_order(fixture: &dyn Fixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    let replacing = |id: &str, certificate: &str| NewOrder {
        order: OrderRow { replaces: Some(certificate.to_owned()), ..order(id) },
        authorizations: vec![authorization(&format!("of {id}"))],
        bound: None,
    };
    let in_one = one.create_orders(vec![replacing("1", "a"), replacing("2", "a"), replacing("3", "b")]);
    let alone = join_all((4..8).map(|n: u32| {
        let store = if n.is_multiple_of(2) { &one } else { &two };
        store.create_orders(vec![replacing(&n.to_string(), "a")])
    }));
    let (first, others) = futures::join!(in_one, alone);
    let first = first.unwrap();
    assert_eq!(first[2], CreateOutcome::Created);
    let mut outcomes: Vec<_> = first.into_iter().take(2).collect();
    outcomes.extend(others.into_iter().flat_map(Result::unwrap));
    assert_eq!(outcomes.iter().filter(|it| **it == CreateOutcome::Created).count(), 1);
    let winner = outcomes.iter().position(|it| *it == CreateOutcome::Created).unwrap();
    let id = ["1", "2", "4", "5", "6", "7"][winner];
    let there = two.order(id).await.unwrap().unwrap();
    assert_eq!(there.replaces.as_deref(), Some("a"));
    for outcome in outcomes.iter().filter(|it| **it != CreateOutcome::Created) {
        assert_eq!(outcome, &CreateOutcome::Replaced(Box::new(there.clone())));
    }
    // Nothing is kept of those that were refused.
    for n in ["1", "2", "4", "5", "6", "7"] {
        let kept = one.authorizations(&[format!("of {n}")]).await.unwrap().len();
        assert_eq!(
            (one.order(n).await.unwrap().is_some(), kept),
            if n == id { (true, 1) } else { (false, 0) }
        );
    }
    // The same again is the same; it ends in another way than invalid; it ends invalid.
    let again = one.create_orders(vec![replacing(id, "a")]).await.unwrap();
    assert_eq!(again, [CreateOutcome::Exists(Box::new(there))]);
    save(one.as_ref(), of_order(change(id, 1, OrderStatus::Valid))).await;
    let refused = two.create_orders(vec![replacing("8", "a")]).await.unwrap();
    assert!(matches!(&refused[..], [CreateOutcome::Replaced(row)] if row.status == OrderStatus::Valid));
    save(one.as_ref(), of_order(change(id, 2, OrderStatus::Invalid))).await;
    assert_eq!(two.create_orders(vec![replacing("8", "a")]).await.unwrap(), [CreateOutcome::Created]);
    // An invalid one stands in nobody's way, not even while it is created.
    let invalid = NewOrder {
        order: OrderRow { status: OrderStatus::Invalid, ..replacing("9", "a").order },
        authorizations: vec![],
        bound: None,
    };
    assert_eq!(one.create_orders(vec![invalid]).await.unwrap(), [CreateOutcome::Created]);
    let orders = one.orders_of_account("account", at(0), &Page::first(9)).await.unwrap().items;
    assert_eq!(orders.iter().filter(|row| row.replaces.as_deref() == Some("a")).count(), 3);
}

/// However many are made at once, of one front or of several, an account has no more pending than its bound.
pub async fn what_is_pending_is_bounded(fixture: &dyn Fixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    let bound = |most, now| Some(PendingBound { most, now: at(now) });
    let new = |id: &str, names: u64, account: &str| NewOrder {
        order: OrderRow { account: account.to_owned(), ..order(id) },
        authorizations: (0..names)
            .map(|n| AuthorizationRow {
                account: account.to_owned(),
                expires_at: at(100 + n),
                ..authorization(&format!("{id}-{n}"))
            })
            .collect(),
        bound: bound(5, 0),
    };
    let too_many = one.create_orders(vec![new("all", 6, "account")]).await.unwrap();
    assert_eq!(too_many, [CreateOutcome::Bounded(None)]);
    let in_one = one.create_orders((0..4).map(|n: u32| new(&n.to_string(), 2, "account")).collect());
    let alone = join_all((4..12).map(|n: u32| {
        let store = if n.is_multiple_of(2) { &one } else { &two };
        store.create_orders(vec![new(&n.to_string(), 2, "account")])
    }));
    let (first, others) = futures::join!(in_one, alone);
    let others = others.into_iter().flat_map(Result::unwrap);
    let outcomes: Vec<_> = first.unwrap().into_iter().chain(others).collect();
    assert_eq!(outcomes.iter().filter(|it| **it == CreateOutcome::Created).count(), 2, "{outcomes:?}");
    for outcome in outcomes.iter().filter(|it| **it != CreateOutcome::Created) {
        assert_eq!(outcome, &CreateOutcome::Bounded(Some(at(100))));
    }
    let pending = two.pending("account", at(0)).await.unwrap();
    let two_orders = PendingCounts { orders: 2, authorizations: 4, first_expires_at: Some(at(100)) };
    assert_eq!(pending, two_orders, "nothing is kept of the others");
    // The same again is the same. Others have bounds of their own; what is not pending, or without a bound, has none.
    let made = outcomes.iter().position(|it| *it == CreateOutcome::Created).unwrap().to_string();
    let again = one.create_orders(vec![new(&made, 2, "account")]).await.unwrap();
    assert!(matches!(&again[..], [CreateOutcome::Exists(row)] if row.id == made), "{again:?}");
    let valid = |mut new: NewOrder| {
        new.authorizations.iter_mut().for_each(|row| row.status = AuthorizationStatus::Valid);
        new
    };
    let free = vec![
        new("other", 5, "other"),
        valid(new("valid", 5, "account")),
        NewOrder { bound: None, ..new("unbounded", 5, "account") },
        new("again", 1, "account"),
        new("none", 0, "account"),
    ];
    let outcomes = two.create_orders(free).await.unwrap();
    let (created, bounded) = (CreateOutcome::Created, CreateOutcome::Bounded(Some(at(100))));
    assert_eq!(outcomes, [created.clone(), created.clone(), created.clone(), bounded, created.clone()]);
    // What has expired is not under way.
    let later = NewOrder { bound: bound(1, 200), ..new("later", 1, "account") };
    let later = NewOrder { authorizations: vec![authorization("later")], ..later };
    assert_eq!(one.create_orders(vec![later]).await.unwrap(), [created]);
}

pub async fn orders_of_an_account_are_paged(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for n in 0..5 {
        create(store.as_ref(), order(&n.to_string())).await;
    }
    create(store.as_ref(), OrderRow { account: "other".to_owned(), ..order("other") }).await;
    create(store.as_ref(), OrderRow { expires_at: at(10), ..order("expired") }).await;
    // The order stays the same when statuses change.
    save(store.as_ref(), of_order(change("3", 1, OrderStatus::Invalid))).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.orders_of_account("account", at(10), &Page { after, limit: 2 }).await.unwrap();
        seen.extend(page.items.into_iter().map(|row| row.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4"]);
}

pub async fn what_is_under_way_is_counted(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for (n, status) in (0..).zip(OrderStatus::ALL) {
        create(store.as_ref(), OrderRow { status: *status, ..order(&n.to_string()) }).await;
    }
    create(store.as_ref(), OrderRow { account: "other".to_owned(), ..order("other") }).await;
    create(store.as_ref(), OrderRow { expires_at: at(10), ..order("expired") }).await;
    let mut authorizations: Vec<_> = (0..)
        .zip(AuthorizationStatus::ALL)
        .map(|(n, status)| crate::AuthorizationRow { status: *status, ..authorization(&n.to_string()) })
        .collect();
    authorizations.push(crate::AuthorizationRow { expires_at: at(10), ..authorization("expired") });
    store.create_authorizations(authorizations).await.unwrap();
    let counts = store.pending("account", at(10)).await.unwrap();
    let expected = PendingCounts { orders: 3, authorizations: 1, first_expires_at: Some(at(1000)) };
    assert_eq!(counts, expected);
    assert_eq!(store.pending("none", at(10)).await.unwrap(), PendingCounts::default());
}

pub async fn what_was_written_before_closing_is_there(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let pending =
        store.create_orders(vec![NewOrder { order: order("1"), authorizations: vec![], bound: None }]);
    let (outcome, ()) = futures::join!(pending, store.close());
    let refused = matches!(outcome, Err(StoreError::Closed));
    assert!(refused || matches!(outcome.as_deref(), Ok([CreateOutcome::Created])), "{outcome:?}");
    assert!(matches!(store.save(vec![Unit::default()]).await, Err(StoreError::Closed)));
    assert!(matches!(store.order("1").await, Err(StoreError::Closed)));
    assert_eq!(fixture.open().await.order("1").await.unwrap().is_none(), refused);
}

/// Whole lives of orders, many at once, over two fronts.
pub async fn many_at_once(fixture: &dyn Fixture) {
    let (one, two) = (fixture.open().await, fixture.open().await);
    join_all((0..100).map(|n| {
        let (store, id) = (if n % 2 == 0 { &one } else { &two }, n.to_string());
        async move {
            let authorizations = vec![authorization(&format!("{id}-a"))];
            let new = NewOrder { order: order(&id), authorizations, bound: None };
            assert_eq!(store.create_orders(vec![new]).await.unwrap(), [CreateOutcome::Created]);
            let both = Unit {
                orders: vec![change(&id, 1, OrderStatus::Ready)],
                authorizations: vec![authorization_change(&format!("{id}-a"), 1, AuthorizationStatus::Valid)],
            };
            assert_eq!(save(store.as_ref(), both).await, SaveOutcome::Saved);
            for (version, status) in [(2, OrderStatus::Processing), (3, OrderStatus::Valid)] {
                let unit = of_order(change(&id, version, status));
                assert_eq!(save(store.as_ref(), unit).await, SaveOutcome::Saved);
            }
        }
    }))
    .await;
    for n in 0..100 {
        let order = one.order(&n.to_string()).await.unwrap().unwrap();
        assert_eq!((order.status, order.version), (OrderStatus::Valid, 4));
    }
}
