use futures::future::join_all;
use pki::Reason;

use super::{Fixture, open, sample::*};
use crate::{
    AuthorityRow, BeginCrl, BlockedKeyRow, CaStore, CrlShard, EPOCH_JUMP, IntentOutcome, JournalKey,
    JournalKind, JournalRow, NewIntent, NewRevocation, RevocationRow, RevokeOutcome, Revoked, RevokedAfter,
    Upgrade,
};

fn row(tag: u64, revision: u64) -> RevocationRow {
    RevocationRow {
        serial: serial(tag),
        issuer: "issuer".to_owned(),
        shard: 3,
        revision,
        revoked_at: at(70),
        reason: Reason::Superseded,
        source: "account:a".to_owned(),
        not_after: at(20_000 + tag),
        upgrade: None,
    }
}

pub async fn what_may_have_been_signed_is_revoked(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    issue(store.as_ref(), journal_row(1), &[]).await;
    // Intended only; of our own servers.
    assert_eq!(commit(store.as_ref(), intent(2)).await, IntentOutcome::Committed);
    let server = JournalRow { kind: JournalKind::Server, order: None, shard: 4, ..journal_row(3) };
    issue(store.as_ref(), server, &[]).await;
    let outcomes = store.revoke((1..=4).map(revocation).collect()).await.unwrap();
    let server = RevocationRow { shard: 4, ..row(3, 1) };
    assert_eq!(
        outcomes,
        [
            RevokeOutcome::Revoked(row(1, 1)),
            RevokeOutcome::Revoked(row(2, 2)),
            RevokeOutcome::Revoked(server),
            RevokeOutcome::Unknown
        ]
    );
    let entries = store.journal(&JournalKey::Serial(serial(1))).await.unwrap();
    assert_eq!(entries[0].revocation, Some(row(1, 1)));
    assert!(keys().verify(&entries[0].row).is_ok());
    let shards = store.crl_shards(Some("issuer")).await.unwrap();
    assert_eq!(shards.iter().map(|it| (it.shard.shard, it.revision)).collect::<Vec<_>>(), [(3, 2), (4, 1)]);
    assert_eq!(store.crl_shards(Some("other")).await.unwrap(), []);
    assert_eq!(store.crl_shards(None).await.unwrap(), shards);
}

pub async fn a_revocation_is_made_once(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    for tag in 1..=2 {
        issue(one.as_ref(), journal_row(tag), &[]).await;
    }
    let calls = join_all((0..6).map(|n| if n % 2 == 0 { &one } else { &two }).map(|store| async move {
        store.revoke(vec![revocation(1), revocation(1), revocation(2)]).await.unwrap()
    }))
    .await;
    let outcomes: Vec<_> = calls.into_iter().flatten().collect();
    let made = outcomes.iter().filter(|it| matches!(it, RevokeOutcome::Revoked(_))).count();
    assert_eq!(made, 2);
    for outcome in outcomes {
        let (RevokeOutcome::Revoked(found) | RevokeOutcome::Already(found)) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(found == row(1, 1) || found == row(2, 2), "{found:?}");
    }
    assert_eq!(one.crl_shards(None).await.unwrap()[0].revision, 2);
}

pub async fn a_revocation_is_upgraded_once(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    issue(store.as_ref(), journal_row(1), &[]).await;
    let block = BlockedKeyRow { source: "second".to_owned(), ..blocked_key("key") };
    let compromised = |upgrade| NewRevocation {
        at: at(80),
        reason: Reason::KeyCompromise,
        upgrade,
        source: "key".to_owned(),
        block: Some(block.clone()),
        ..revocation(1)
    };
    store.put_authority(new(vec![AuthorityRow::BlockedKey(blocked_key("key"))])).await.unwrap();
    let upgraded = RevocationRow { upgrade: Some(Upgrade { revision: 2, at: at(80) }), ..row(1, 1) };
    let expected = [
        (revocation(1), RevokeOutcome::Revoked(row(1, 1))),
        (compromised(false), RevokeOutcome::Already(row(1, 1))),
        (compromised(true), RevokeOutcome::Upgraded(upgraded.clone())),
        (compromised(true), RevokeOutcome::Already(upgraded.clone())),
        (NewRevocation { upgrade: true, ..revocation(1) }, RevokeOutcome::Already(upgraded.clone())),
    ];
    for (revocation, outcome) in expected {
        assert_eq!(store.revoke(vec![revocation]).await.unwrap(), [outcome]);
    }
    assert_eq!(upgraded.current_reason(), Reason::KeyCompromise);
    let entries = store.journal(&JournalKey::Serial(serial(1))).await.unwrap();
    assert_eq!(entries[0].revocation, Some(upgraded));
    assert_eq!(store.blocked_keys(&[digest("key")]).await.unwrap(), [blocked_key("key")], "the first stays");
    // Revoked for that at once, it is not upgraded.
    issue(store.as_ref(), journal_row(2), &[]).await;
    let first = NewRevocation { serial: serial(2), block: Some(blocked_key("other")), ..compromised(true) };
    let made = store.revoke(vec![first.clone()]).await.unwrap();
    assert!(matches!(made[0], RevokeOutcome::Revoked(_)));
    assert!(matches!(store.revoke(vec![first]).await.unwrap()[0], RevokeOutcome::Already(_)));
    assert_eq!(store.blocked_keys(&[digest("other")]).await.unwrap().len(), 1);
}

pub async fn a_ledger_entry_comes_with_its_shards_revision(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    for tag in 1..=3 {
        issue(store.as_ref(), journal_row(tag), &[]).await;
    }
    let there = store.journal(&JournalKey::Serial(serial(1))).await.unwrap();
    let pre = JournalRow { kind: JournalKind::Precertificate, ..journal_row(1) };
    let pre = NewIntent { past: vec![there[0].row.mac().mac], ..intent_of(pre) };
    assert_eq!(commit(store.as_ref(), pre).await, IntentOutcome::Committed);
    let elsewhere = JournalRow { shard: 4, ..journal_row(5) };
    assert_eq!(commit(store.as_ref(), intent_of(elsewhere)).await, IntentOutcome::Committed);
    let before = store.ledger(&[serial(1)]).await.unwrap();
    assert_eq!(before.iter().map(|it| it.revision).collect::<Vec<_>>(), [0, 0]);
    store.revoke(vec![revocation(1), revocation(2)]).await.unwrap();
    let asked: Vec<_> = [5, 1, 9, 3, 1, 2].map(serial).to_vec();
    let found = store.ledger(&asked).await.unwrap();
    let mut said: Vec<_> = found
        .iter()
        .map(|it| {
            let row = keys().verify(&it.entry.row).unwrap();
            (row.serial, row.kind, it.revision, it.entry.revocation.is_some())
        })
        .collect();
    said.sort_by_key(|it| (it.0, it.1.as_str()));
    let (whole, pre) = (JournalKind::Final, JournalKind::Precertificate);
    assert_eq!(
        said,
        [
            (serial(1), whole, 2, true),
            (serial(1), pre, 2, true),
            (serial(2), whole, 2, true),
            (serial(3), whole, 2, false),
            (serial(5), whole, 0, false),
        ]
    );
    for it in found {
        let key = JournalKey::Serial(it.entry.row.unverified().serial);
        assert!(store.journal(&key).await.unwrap().contains(&it.entry));
    }
    assert_eq!(store.ledger(&[]).await.unwrap(), []);
    // As many as a signer gathers.
    let many: Vec<_> = (0..2000).map(serial).collect();
    assert_eq!(store.ledger(&many).await.unwrap().len(), 5);
}

async fn changed(store: &dyn CaStore, revision: u64, limit: u32) -> Vec<(u64, u64)> {
    let shard = CrlShard { issuer: "issuer".to_owned(), shard: 3 };
    let found = store.revoked_after(&RevokedAfter { shard, revision, limit }).await.unwrap();
    let tag = |serial| (0..100).find(|tag| super::sample::serial(*tag) == serial).unwrap();
    found.into_iter().map(|Revoked { revision, serial }| (revision, tag(serial))).collect()
}

pub async fn what_was_revoked_after_a_revision_is_told_in_order(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    // Descending, so that the order of serials is not that of revisions.
    for tag in (1..=5).rev() {
        issue(store, journal_row(tag), &[]).await;
        store.revoke(vec![revocation(tag)]).await.unwrap();
    }
    let elsewhere = JournalRow { shard: 4, ..journal_row(6) };
    issue(store, elsewhere, &[]).await;
    let compromised = NewRevocation { reason: Reason::KeyCompromise, upgrade: true, ..revocation(4) };
    store.revoke(vec![revocation(6), compromised]).await.unwrap();
    assert_eq!(changed(store, 0, 10).await, [(1, 5), (2, 4), (3, 3), (4, 2), (5, 1), (6, 4)]);
    assert_eq!(changed(store, 0, 2).await, [(1, 5), (2, 4)]);
    assert_eq!(changed(store, 4, 10).await, [(5, 1), (6, 4)]);
    assert_eq!(changed(store, 5, 1).await, [(6, 4)]);
    assert_eq!(changed(store, 6, 10).await, []);
}

pub async fn a_shard_begins_where_its_epoch_does(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    issue(store.as_ref(), journal_row(1), &[]).await;
    let fourth = JournalRow { shard: 4, ..journal_row(2) };
    issue(store.as_ref(), fourth, &[]).await;
    store.begin_epoch([8; 16], vec![]).await.unwrap();
    store.begin_epoch([9; 16], vec![]).await.unwrap();
    // The backup may be older than the shard's first CRL and first revocation: neither may come a second time.
    let begin = 2 * EPOCH_JUMP;
    assert_eq!(store.ledger(&[serial(1)]).await.unwrap()[0].revision, begin);
    store.revoke(vec![revocation(1)]).await.unwrap();
    assert_eq!(store.ledger(&[serial(1)]).await.unwrap()[0].revision, begin + 1);
    let shard = CrlShard { issuer: "issuer".to_owned(), shard: 4 };
    let draft = store.begin_crl(BeginCrl { shard }).await.unwrap();
    assert_eq!((draft.number, draft.revision), (begin + 1, begin));
    let shard = CrlShard { issuer: "issuer".to_owned(), shard: 3 };
    let draft = store.begin_crl(BeginCrl { shard }).await.unwrap();
    assert_eq!((draft.number, draft.revision), (begin + 1, begin + 1));
}
