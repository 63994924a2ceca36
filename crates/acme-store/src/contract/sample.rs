//! Rows to test with. A tag makes them differ.

use std::time::Duration;

use pki::Timestamp;

use crate::{
    AcmeStore, AuthorizationChange, AuthorizationRow, AuthorizationStatus, CreateOutcome, Identifier,
    NewOrder, OrderChange, OrderRow, OrderStatus, SaveOutcome, Unit,
};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(1_800_000_000 + seconds)
}

pub(super) fn identifier(value: &str, wildcard: bool) -> Identifier {
    Identifier { value: value.to_owned(), wildcard }
}

pub(super) fn order(id: &str) -> OrderRow {
    OrderRow {
        id: id.to_owned(),
        directory: "main".to_owned(),
        account: "account".to_owned(),
        status: OrderStatus::Pending,
        authorizations: vec![format!("{id}-a"), format!("{id}-\"b\"")],
        replaces: None,
        state: "{\"text\":\"ü \\\" \\\\ \\u0000 ' $1 ?\"}".to_owned(),
        created_at: at(0),
        expires_at: at(1000),
        lease_until_ms: None,
        version: 1,
    }
}

pub(super) fn authorization(id: &str) -> AuthorizationRow {
    AuthorizationRow {
        id: id.to_owned(),
        directory: "main".to_owned(),
        account: "account".to_owned(),
        identifier: identifier("example.org", false),
        status: AuthorizationStatus::Pending,
        state: "{}".to_owned(),
        created_at: at(0),
        expires_at: at(1000),
        version: 1,
    }
}

pub(super) async fn create(store: &dyn AcmeStore, order: OrderRow) {
    let new = NewOrder { order, authorizations: vec![], bound: None };
    let outcomes = store.create_orders(vec![new]).await.unwrap();
    assert_eq!(outcomes, [CreateOutcome::Created]);
}

pub(super) fn change(id: &str, expected: u64, status: OrderStatus) -> OrderChange {
    OrderChange {
        id: id.to_owned(),
        expected,
        status,
        state: format!("{{\"now\":\"{status}\"}}"),
        expires_at: at(2000),
        lease: None,
    }
}

pub(super) fn authorization_change(
    id: &str,
    expected: u64,
    status: AuthorizationStatus,
) -> AuthorizationChange {
    AuthorizationChange {
        id: id.to_owned(),
        expected,
        status,
        state: format!("{{\"now\":\"{status}\"}}"),
        expires_at: at(2000),
    }
}

pub(super) fn of_order(change: OrderChange) -> Unit {
    Unit { orders: vec![change], authorizations: vec![] }
}

pub(super) async fn save(store: &dyn AcmeStore, unit: Unit) -> SaveOutcome {
    let outcomes = store.save(vec![unit]).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes[0]
}
