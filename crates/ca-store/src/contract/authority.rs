use futures::future::join_all;

use super::{Fixture, open, sample::*};
use crate::{
    AuthorityChange, AuthorityChanges, AuthorityRow, AuthoritySelector, BlockedAfter, BlockedKeyRow, Cursor,
    EabKeyRow, GrantRow, JoinTokenRow, NodeRow, NodeState, Page, PutOutcome, RegistrationRow, State,
    StoreError,
};

pub async fn every_row_of_authority_reads_back(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    found(store.as_ref()).await;
    let unlimited = EabKeyRow { max_uses: None, expires_at: None, ..eab_key("unlimited") };
    let until = GrantRow { expires_at: Some(at(99)), ..grant("until") };
    let used = JoinTokenRow { used_at: Some(at(55)), ..join_token("used") };
    let keyless = NodeRow { receipt_key: None, server_names: vec![], ..node("keyless") };
    let rows = vec![
        AuthorityRow::Profile(seal(profile("default"))),
        AuthorityRow::Issuer(seal(issuer("r1"))),
        AuthorityRow::EabKey(seal(eab_key("kid"))),
        AuthorityRow::EabKey(seal(unlimited.clone())),
        AuthorityRow::Permit(seal(permit("permit"))),
        AuthorityRow::Grant(seal(grant("grant"))),
        AuthorityRow::Grant(seal(until.clone())),
        AuthorityRow::Node(seal(node("eu-1"))),
        AuthorityRow::Node(seal(keyless.clone())),
        AuthorityRow::JoinToken(seal(join_token("token"))),
        AuthorityRow::JoinToken(seal(used.clone())),
    ];
    assert_eq!(store.put_authority(new(rows)).await.unwrap(), PutOutcome::Applied);

    // The rows are what was written, and their MACs hold: no column was lost or bent on the way.
    let keys = keys();
    let registry = store.registry().await.unwrap();
    assert_eq!(keys.verify(&registry.tenants[0]).unwrap(), &tenant("house"));
    assert_eq!(keys.verify(&registry.directories[0]).unwrap(), &directory("main"));
    assert_eq!(keys.verify(&registry.profiles[0]).unwrap(), &profile("default"));
    assert_eq!(keys.verify(&registry.issuers[0]).unwrap(), &issuer("r1"));
    for selector in [
        AuthoritySelector::Registration("client".to_owned()),
        AuthoritySelector::EabKey("unlimited".to_owned()),
    ] {
        let authority = store.authority(&selector).await.unwrap().unwrap();
        assert_eq!(keys.verify(&authority.registration).unwrap(), &registration("client"));
        assert_eq!(keys.verify(&authority.eab_keys[0]).unwrap(), &eab_key("kid"));
        assert_eq!(keys.verify(&authority.eab_keys[1]).unwrap(), &unlimited);
        assert_eq!(keys.verify(&authority.permits[0]).unwrap(), &permit("permit"));
        assert_eq!(keys.verify(&authority.grants[0]).unwrap(), &grant("grant"));
        assert_eq!(keys.verify(&authority.grants[1]).unwrap(), &until);
    }
    assert_eq!(store.authority(&AuthoritySelector::EabKey("none".to_owned())).await.unwrap(), None);
    let nodes = store.nodes().await.unwrap();
    assert_eq!(keys.verify(&nodes[0]).unwrap(), &node("eu-1"));
    assert_eq!(keys.verify(&nodes[1]).unwrap(), &keyless);
    for expected in [join_token("token"), used] {
        let token = store.join_token(&expected.digest).await.unwrap().unwrap();
        assert_eq!(keys.verify(&token).unwrap(), &expected);
    }
    assert_eq!(store.join_token(&digest("none")).await.unwrap(), None);
}

pub async fn changes_of_authority_are_all_or_none(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    found(store.as_ref()).await;
    let by_id = AuthoritySelector::Registration("client".to_owned());

    // A conflict in the second undoes the first.
    let disabled = RegistrationRow { state: State::Disabled, version: 2, ..registration("client") };
    let both = AuthorityChanges {
        changes: vec![
            AuthorityChange { row: AuthorityRow::Grant(seal(grant("grant"))), expected: None },
            AuthorityChange { row: AuthorityRow::Registration(seal(disabled.clone())), expected: Some(7) },
        ],
        audit: vec![],
    };
    assert_eq!(store.put_authority(both).await.unwrap(), PutOutcome::Conflict(1));
    assert_eq!(store.authority(&by_id).await.unwrap().unwrap().grants, []);

    // Rows that refer to nothing are refused, and undo their neighbours too.
    let stray = new(vec![
        AuthorityRow::Grant(seal(grant("grant"))),
        AuthorityRow::Grant(seal(GrantRow { registration: "nobody".to_owned(), ..grant("stray") })),
    ]);
    let refused = store.put_authority(stray).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(store.authority(&by_id).await.unwrap().unwrap().grants, []);

    // By version, and again with the same row after a lost answer; with another row not.
    let change = change(AuthorityRow::Registration(seal(disabled.clone())), 1);
    assert_eq!(store.put_authority(change.clone()).await.unwrap(), PutOutcome::Applied);
    assert_eq!(store.put_authority(change).await.unwrap(), PutOutcome::Applied);
    let authority = store.authority(&by_id).await.unwrap().unwrap();
    assert_eq!(keys().verify(&authority.registration).unwrap(), &disabled);
    let other = RegistrationRow { title: "Other".to_owned(), ..disabled };
    let stale = new(vec![AuthorityRow::Registration(seal(other))]);
    assert_eq!(store.put_authority(stale).await.unwrap(), PutOutcome::Conflict(0));
    let incarnation = store.info().await.unwrap().incarnation;
    assert_eq!(store.audit(incarnation, 0, 10).await.unwrap().len(), 2, "what was applied is reported once");
}

pub async fn a_join_token_is_redeemed_once(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    store.put_authority(new(vec![AuthorityRow::JoinToken(seal(join_token("token")))])).await.unwrap();
    let redemptions = join_all((0..6).map(|n| {
        let used = JoinTokenRow { used_at: Some(at(n)), version: 2, ..join_token("token") };
        store.put_authority(AuthorityChanges {
            changes: vec![
                AuthorityChange { row: AuthorityRow::JoinToken(seal(used)), expected: Some(1) },
                AuthorityChange { row: AuthorityRow::Node(seal(node(&format!("n{n}")))), expected: None },
            ],
            audit: vec![],
        })
    }));
    let redeemed = redemptions.await.into_iter().filter(|it| matches!(it, Ok(PutOutcome::Applied))).count();
    assert_eq!(redeemed, 1);
    let nodes = store.nodes().await.unwrap();
    assert_eq!(nodes.len(), 1);
    // A node is revoked by a new version of its row.
    let row = nodes[0].unverified().clone();
    let revoked = NodeRow { state: NodeState::Revoked, version: 2, ..row };
    let outcome = store.put_authority(change(AuthorityRow::Node(seal(revoked.clone())), 1)).await.unwrap();
    assert_eq!(outcome, PutOutcome::Applied);
    assert_eq!(keys().verify(&store.nodes().await.unwrap()[0]).unwrap(), &revoked);
}

pub async fn first_rows_stay(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let later = BlockedKeyRow { source: "second".to_owned(), ..blocked_key("key") };
    for row in [blocked_key("key"), later] {
        let rows = vec![
            AuthorityRow::BlockedKey(row),
            AuthorityRow::Deactivation(seal(deactivation("authorization"))),
        ];
        assert_eq!(store.put_authority(new(rows)).await.unwrap(), PutOutcome::Applied);
    }
    let asked = [digest("other"), digest("key")];
    assert_eq!(store.blocked_keys(&asked).await.unwrap(), [blocked_key("key")]);
    assert_eq!(store.blocked_keys(&[]).await.unwrap(), []);
}

pub async fn blocked_keys_come_in_the_order_of_time(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let mut rows: Vec<BlockedKeyRow> = [("a", 20), ("b", 30), ("c", 20), ("d", 10)]
        .map(|(tag, time)| BlockedKeyRow { at: at(time), ..blocked_key(tag) })
        .into();
    let changes = rows.iter().cloned().map(AuthorityRow::BlockedKey).collect();
    assert_eq!(store.put_authority(new(changes)).await.unwrap(), PutOutcome::Applied);
    rows.sort_by_key(|row| (row.at, row.spki_sha256));
    let mut found = Vec::new();
    let mut after = BlockedAfter { at: at(0), key: [0; 32], limit: 3 };
    loop {
        let page = store.blocked_after(&after).await.unwrap();
        let Some(last) = page.last() else { break };
        after = BlockedAfter { at: last.at, key: last.spki_sha256, ..after };
        found.extend(page);
    }
    assert_eq!(found, rows);
    let since = BlockedAfter { at: at(21), key: [0; 32], limit: 9 };
    assert_eq!(store.blocked_after(&since).await.unwrap(), rows[3..]);
}

pub async fn registrations_are_paged(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    found(store.as_ref()).await;
    let mut rows = vec![AuthorityRow::Directory(seal(directory("other")))];
    rows.extend((0..5).map(|n| AuthorityRow::Registration(seal(registration(&format!("r{n}"))))));
    let elsewhere = RegistrationRow { directory: "other".to_owned(), ..registration("r9") };
    rows.push(AuthorityRow::Registration(seal(elsewhere)));
    store.put_authority(new(rows)).await.unwrap();
    let mut seen = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = store.registrations(Some("main"), &Page { after, limit: 2 }).await.unwrap();
        seen.extend(page.items.iter().map(|row| keys().verify(row).unwrap().id.clone()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["client", "r0", "r1", "r2", "r3", "r4"]);
    assert_eq!(store.registrations(None, &Page::first(100)).await.unwrap().items.len(), 7);
}
