use futures::future::join_all;

use super::{Fixture, open, sample::*};
use crate::{
    AccountFilter, AccountKeyRow, AccountRow, AccountSelector, AccountStatus, AccountUpdate, AuthorityChange,
    AuthorityRow, CaStore, CitedTable, EabKeyRow, KeyChange, NewAccount, Page, RegisterOutcome,
    RegistrationRow, State, UpdateOutcome,
};

fn by_key(tag: &str) -> AccountSelector {
    AccountSelector::Key { directory: "main".to_owned(), thumbprint: digest(tag) }
}

fn by_id(id: &str) -> AccountSelector {
    AccountSelector::Id(id.to_owned())
}

pub async fn an_account_is_registered_once(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let outcomes = join_all((0..5).map(|_| store.register_account(new_account("a")))).await;
    let created = outcomes.iter().filter(|it| matches!(it, Ok(RegisterOutcome::Created))).count();
    assert_eq!(created, 1);
    let record = store.account(&by_id("a")).await.unwrap().unwrap();
    for outcome in outcomes {
        match outcome.unwrap() {
            RegisterOutcome::Created => {}
            RegisterOutcome::Exists(there) => assert_eq!(*there, record),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(keys().verify(&record.account).unwrap(), &account("a"));
    assert_eq!(keys().verify(&record.keys[0]).unwrap(), &account_key("a"));
    assert_eq!(store.account(&by_key("a")).await.unwrap(), Some(record));
    assert_eq!(store.account(&by_key("b")).await.unwrap(), None);
    assert_eq!(store.account(&by_id("b")).await.unwrap(), None);
    // The same key in another directory is another account.
    let key = AccountKeyRow { directory: "other".to_owned(), account: "b".to_owned(), ..account_key("a") };
    let elsewhere = AccountRow { id: "b".to_owned(), directory: "other".to_owned(), ..account("a") };
    let other = NewAccount { account: seal(elsewhere), key: seal(key), ..new_account("a") };
    assert_eq!(store.register_account(other).await.unwrap(), RegisterOutcome::Created);
    let incarnation = store.info().await.unwrap().incarnation;
    assert_eq!(store.audit(incarnation, 0, 10).await.unwrap().len(), 2);
}

fn with_eab(id: &str) -> NewAccount {
    let used = EabKeyRow { uses: 1, version: 2, ..eab_key("kid") };
    let row = AccountRow {
        registration: Some("client".to_owned()),
        eab_kid: Some("kid".to_owned()),
        terms_agreed_at: None,
        terms_agreed: None,
        ..account(id)
    };
    NewAccount {
        account: seal(row),
        eab: Some(AuthorityChange { row: AuthorityRow::EabKey(seal(used)), expected: Some(1) }),
        ..new_account(id)
    }
}

pub async fn an_eab_key_is_used_once(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    found(store.as_ref()).await;
    store.put_authority(new(vec![AuthorityRow::EabKey(seal(eab_key("kid")))])).await.unwrap();
    let outcomes = join_all(["a", "b", "c"].map(|id| store.register_account(with_eab(id)))).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|it| **it == RegisterOutcome::Created).count(), 1);
    assert_eq!(outcomes.iter().filter(|it| **it == RegisterOutcome::EabUnavailable).count(), 2);
    let page =
        store.accounts(&AccountFilter::Registration("client".to_owned()), &Page::first(9)).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let id = &keys().verify(&page.items[0]).unwrap().id;
    // Its answer lost, the same registration finds itself.
    let again = store.register_account(with_eab(id)).await.unwrap();
    assert!(matches!(again, RegisterOutcome::Exists(_)), "{again:?}");
}

pub async fn a_registration_is_cited(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    found(store.as_ref()).await;
    let row = seal(registration("client"));
    let cites = vec![cite(CitedTable::Registration, "client", &row)];
    let first = NewAccount { cites: cites.clone(), ..new_account("a") };
    assert_eq!(store.register_account(first).await.unwrap(), RegisterOutcome::Created);
    let disabled = RegistrationRow { state: State::Disabled, version: 2, ..registration("client") };
    store.put_authority(change(AuthorityRow::Registration(seal(disabled)), 1)).await.unwrap();
    let second = NewAccount { cites, ..new_account("b") };
    assert_eq!(store.register_account(second).await.unwrap(), RegisterOutcome::AuthorityChanged(0));
    assert_eq!(store.account(&by_id("b")).await.unwrap(), None);
}

fn update(row: AccountRow, expected: u64, request: &str) -> AccountUpdate {
    AccountUpdate {
        account: seal(row),
        expected,
        request: Some(digest(request)),
        key: None,
        audit: event("account.updated"),
    }
}

async fn account_now(store: &dyn CaStore, id: &str) -> AccountRow {
    keys().verify(&store.account(&by_id(id)).await.unwrap().unwrap().account).unwrap().clone()
}

pub async fn an_update_is_accepted_once(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    store.register_account(new_account("a")).await.unwrap();
    let second = AccountRow { contacts: vec![], version: 2, ..account("a") };
    let third = AccountRow { status: AccountStatus::Deactivated, version: 3, ..second.clone() };

    let first = update(second.clone(), 1, "first");
    assert_eq!(store.update_account(first.clone()).await.unwrap(), UpdateOutcome::Updated);
    assert_eq!(account_now(store.as_ref(), "a").await, second);
    // The same request again, even dressed as a change of the version that is there now.
    let again = store.update_account(first).await.unwrap();
    assert!(matches!(again, UpdateOutcome::Replayed(_)), "{again:?}");
    let dressed = store.update_account(update(third.clone(), 2, "first")).await.unwrap();
    assert!(matches!(dressed, UpdateOutcome::Replayed(_)), "{dressed:?}");
    // Another request by an old version: a conflict, and not remembered.
    let stale = store.update_account(update(third.clone(), 1, "second")).await.unwrap();
    assert!(matches!(stale, UpdateOutcome::Conflict(_)), "{stale:?}");
    assert_eq!(account_now(store.as_ref(), "a").await, second);
    assert_eq!(
        store.update_account(update(third.clone(), 2, "second")).await.unwrap(),
        UpdateOutcome::Updated
    );
    assert_eq!(account_now(store.as_ref(), "a").await, third);
    // Of two at once by the same version one is made.
    let fourth = AccountRow { version: 4, ..third };
    let both =
        join_all(["x", "y"].map(|request| store.update_account(update(fourth.clone(), 3, request)))).await;
    assert_eq!(both.iter().filter(|it| matches!(it, Ok(UpdateOutcome::Updated))).count(), 1);
    assert_eq!(store.update_account(update(account("b"), 1, "z")).await.unwrap(), UpdateOutcome::Unknown);
    let incarnation = store.info().await.unwrap().incarnation;
    assert_eq!(store.audit(incarnation, 0, 10).await.unwrap().len(), 4);
}

/// The update that gives account `id`, with version `version` and key `old`, the key `new`.
fn key_change(id: &str, version: u64, old: &str, new: &str) -> AccountUpdate {
    let retired = AccountKeyRow { thumbprint: digest(old), valid_until: Some(at(30)), ..account_key(id) };
    let key = AccountKeyRow { thumbprint: digest(new), valid_from: at(30), ..account_key(id) };
    let row = AccountRow { key: digest(new), version: version + 1, ..account(id) };
    let request = format!("{id} {version} {new}");
    AccountUpdate {
        key: Some(KeyChange { retired: seal(retired), key: seal(key) }),
        ..update(row, version, &request)
    }
}

pub async fn a_former_key_never_returns(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    store.register_account(new_account("a")).await.unwrap();
    store.register_account(new_account("b")).await.unwrap();
    // Another's key is not to be had, and nothing of the change remains.
    let taken = store.update_account(key_change("a", 1, "a", "b")).await.unwrap();
    assert_eq!(taken, UpdateOutcome::KeyInUse("b".to_owned()));
    assert_eq!(account_now(store.as_ref(), "a").await, account("a"));

    let change = key_change("a", 1, "a", "new");
    assert_eq!(store.update_account(change.clone()).await.unwrap(), UpdateOutcome::Updated);
    let replayed = store.update_account(change).await.unwrap();
    assert!(matches!(replayed, UpdateOutcome::Replayed(_)), "{replayed:?}");
    let record = store.account(&by_key("new")).await.unwrap().unwrap();
    assert_eq!(store.account(&by_key("a")).await.unwrap().as_ref(), Some(&record), "found by its former key");
    let former = keys().verify(&record.keys[0]).unwrap();
    assert_eq!((former.thumbprint, former.valid_until), (digest("a"), Some(at(30))));
    let current = keys().verify(&record.keys[1]).unwrap();
    assert_eq!((current.thumbprint, current.valid_until), (digest("new"), None));
    assert_eq!(keys().verify(&record.account).unwrap().key, digest("new"));

    // Not by registration, not by another account, not by its own account.
    assert_eq!(store.register_account(new_account("a")).await.unwrap(), RegisterOutcome::KeyRetired);
    for (change, owner) in [(key_change("b", 1, "b", "a"), "a"), (key_change("a", 2, "new", "a"), "a")] {
        assert_eq!(store.update_account(change).await.unwrap(), UpdateOutcome::KeyInUse(owner.to_owned()));
    }
}

pub async fn accounts_are_paged(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    for n in 0..5 {
        store.register_account(new_account(&format!("a{n}"))).await.unwrap();
    }
    let filter = AccountFilter::Directory("main".to_owned());
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.accounts(&filter, &Page { after, limit: 2 }).await.unwrap();
        seen.extend(page.items.iter().map(|row| keys().verify(row).unwrap().id.clone()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a0", "a1", "a2", "a3", "a4"]);
    let none = AccountFilter::Directory("other".to_owned());
    assert_eq!(store.accounts(&none, &Page::first(5)).await.unwrap().items, []);
}
