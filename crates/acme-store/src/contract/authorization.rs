use super::{Fixture, sample::*};
use crate::{AuthorizationRow, AuthorizationStatus, Unit};

pub async fn authorizations_read_back(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let wildcard = AuthorizationRow { identifier: identifier("example.org", true), ..authorization("\"w\"") };
    store
        .create_authorizations(vec![authorization("a"), wildcard.clone(), authorization("b")])
        .await
        .unwrap();
    // One that is there already is left as it is.
    let later = AuthorizationRow { state: "later".to_owned(), ..authorization("a") };
    store.create_authorizations(vec![later, authorization("c")]).await.unwrap();
    let asked = ["c", "none", "\"w\"", "a"].map(str::to_owned);
    let expected = [authorization("c"), wildcard, authorization("a")];
    assert_eq!(store.authorizations(&asked).await.unwrap(), expected, "in the order asked for");
    assert_eq!(store.authorizations(&[]).await.unwrap(), []);
    store.create_authorizations(vec![]).await.unwrap();
}

pub async fn an_authorization_is_reused(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let valid = |id: &str, value: &str, wildcard, expires| AuthorizationRow {
        identifier: identifier(value, wildcard),
        status: AuthorizationStatus::Valid,
        expires_at: at(expires),
        ..authorization(id)
    };
    let long = valid("long", "example.org", false, 900);
    let wildcard = valid("wildcard", "example.org", true, 300);
    store
        .create_authorizations(vec![
            valid("short", "example.org", false, 100),
            long.clone(),
            valid("middle", "example.org", false, 500),
            wildcard.clone(),
            valid("elsewhere", "example.com", false, 900),
            AuthorizationRow { account: "other".to_owned(), ..valid("other", "a.example", false, 900) },
            AuthorizationRow {
                status: AuthorizationStatus::Pending,
                ..valid("pending", "a.example", false, 900)
            },
            AuthorizationRow {
                status: AuthorizationStatus::Revoked,
                ..valid("revoked", "a.example", false, 900)
            },
        ])
        .await
        .unwrap();
    let wanted = [
        identifier("a.example", false),
        identifier("example.org", true),
        identifier("example.org", false),
        identifier("example.com", true),
    ];
    let reusable = store.reusable_authorizations("account", &wanted, at(10)).await.unwrap();
    assert_eq!(reusable, [wildcard, long.clone()]);
    assert_eq!(
        store.reusable_authorizations("account", &wanted, at(300)).await.unwrap(),
        std::slice::from_ref(&long)
    );
    assert_eq!(store.reusable_authorizations("account", &wanted, at(900)).await.unwrap(), []);
    assert_eq!(store.reusable_authorizations("none", &wanted, at(10)).await.unwrap(), []);
    // One that was deactivated is not reused; one that became valid is.
    let unit = Unit {
        orders: vec![],
        authorizations: vec![
            authorization_change("long", 1, AuthorizationStatus::Deactivated),
            authorization_change("pending", 1, AuthorizationStatus::Valid),
        ],
    };
    save(store.as_ref(), unit).await;
    let reusable = store.reusable_authorizations("account", &wanted, at(400)).await.unwrap();
    assert_eq!(reusable.into_iter().map(|row| row.id).collect::<Vec<_>>(), ["pending", "middle"]);
}
