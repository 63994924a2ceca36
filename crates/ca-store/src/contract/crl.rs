use futures::future::join_all;
use pki::{Reason, Serial};

use super::{Fixture, open, sample::*};
use crate::{
    BeginCrl, CaStore, CrlDraft, CrlEntries, CrlEntry, CrlJournal, CrlKey, CrlRow, CrlShard, CrlSince,
    ImportCrl, ImportOutcome, ImportedCrl, JournalRow, NewRevocation, PublishCrl, PublishOutcome, StoreError,
};

fn shard() -> CrlShard {
    CrlShard { issuer: "issuer".to_owned(), shard: 3 }
}

async fn begin(store: &dyn CaStore) -> CrlDraft {
    store.begin_crl(BeginCrl { shard: shard() }).await.unwrap()
}

fn entries_of(revision: u64) -> CrlEntries {
    CrlEntries { shard: shard(), after_revision: 0, revision, expired_before: at(0), after: 0, span: 2 }
}

/// All entries, of two revisions at a time.
async fn entries(store: &dyn CaStore, mut wanted: CrlEntries) -> Vec<CrlEntry> {
    let mut all = Vec::new();
    loop {
        let piece = store.crl_entries(&wanted).await.unwrap();
        assert!(piece.entries.len() <= 2);
        assert!(!piece.entries.is_empty() || piece.reached == wanted.revision, "no empty piece but the last");
        all.extend_from_slice(&piece.entries);
        if piece.reached >= wanted.revision {
            assert_eq!(piece.reached, wanted.revision);
            return all;
        }
        assert!(piece.reached > wanted.after, "it goes on");
        wanted.after = piece.reached;
    }
}

fn tags(entries: &[CrlEntry]) -> Vec<Serial> {
    entries.iter().map(|entry| entry.serial).collect()
}

fn row_of(draft: &CrlDraft, this_update: u64) -> CrlRow {
    CrlRow {
        key: CrlKey { shard: draft.shard.clone(), number: draft.number },
        revision: draft.revision,
        base: None,
        base_revision: None,
        this_update: at(this_update),
        next_update: at(this_update + 1000),
        expired_before: at(0),
        entries: 2,
        tbs_sha256: digest(&format!("crl {}", draft.number)),
        signature: None,
    }
}

async fn journal(store: &dyn CaStore, row: CrlRow) -> Result<(), StoreError> {
    store.journal_crl(CrlJournal { row, audit: event("crl.intended") }).await
}

async fn publish(store: &dyn CaStore, row: &CrlRow) -> PublishOutcome {
    let publish = PublishCrl { key: row.key.clone(), signature: vec![1, 2], audit: event("crl.published") };
    store.publish_crl(publish).await.unwrap()
}

async fn revoke(store: &dyn CaStore, tag: u64) {
    issue(store, journal_row(tag), &[]).await;
    store.revoke(vec![revocation(tag)]).await.unwrap();
}

pub async fn numbers_and_revisions_of_crls_rise(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let first = begin(one.as_ref()).await;
    assert_eq!((first.number, first.revision, first.published), (1, 0, None));
    // Revocations and drafts at once: no number twice, and a later number has no earlier revision.
    let calls = join_all((1..=12).map(|tag| {
        let store = if tag % 2 == 0 { &one } else { &two };
        async move {
            revoke(store.as_ref(), tag).await;
            begin(store.as_ref()).await
        }
    }))
    .await;
    let mut drafts: Vec<_> = calls.iter().map(|draft| (draft.number, draft.revision)).collect();
    drafts.sort_unstable();
    assert_eq!(drafts.iter().map(|it| it.0).collect::<Vec<_>>(), (2..=13).collect::<Vec<_>>());
    assert!(drafts.is_sorted_by_key(|it| it.1), "{drafts:?}");
    assert_eq!(begin(two.as_ref()).await.revision, 12);
    let shards = one.crl_shards(None).await.unwrap();
    assert_eq!((shards[0].number, shards[0].revision), (14, 12));
}

pub async fn a_crl_is_the_same_at_any_later_time(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    for tag in [5, 1, 3] {
        revoke(store, tag).await;
    }
    let wanted = entries_of(begin(store).await.revision);
    let before = entries(store, wanted.clone()).await;
    let entry = |tag| CrlEntry { serial: serial(tag), revoked_at: at(70), reason: Reason::Superseded };
    assert_eq!(before, [entry(5), entry(1), entry(3)], "by revision");
    // Later revocations and upgrades do not change it.
    revoke(store, 2).await;
    let upgrade = NewRevocation { reason: Reason::KeyCompromise, upgrade: true, at: at(90), ..revocation(3) };
    store.revoke(vec![upgrade]).await.unwrap();
    assert_eq!(entries(store, wanted).await, before);
    let now = entries(store, entries_of(begin(store).await.revision)).await;
    let upgraded = CrlEntry { reason: Reason::KeyCompromise, ..entry(3) };
    assert_eq!(now, [entry(5), entry(1), upgraded, entry(2)], "each where it was");
    let other = CrlShard { shard: 4, ..shard() };
    assert_eq!(entries(store, CrlEntries { shard: other, ..entries_of(9) }).await, []);
}

pub async fn a_delta_has_what_changed(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    for tag in 1..=3 {
        revoke(store, tag).await;
    }
    let upgrade = NewRevocation { reason: Reason::KeyCompromise, upgrade: true, ..revocation(1) };
    store.revoke(vec![upgrade]).await.unwrap();
    revoke(store, 4).await;
    let delta = |after_revision, revision| CrlEntries { after_revision, ..entries_of(revision) };
    let found = entries(store, delta(2, 4)).await;
    assert_eq!(tags(&found), [serial(1), serial(3)]);
    assert_eq!(found[0].reason, Reason::KeyCompromise);
    assert_eq!(tags(&entries(store, delta(2, 3)).await), [serial(3)]);
    assert_eq!(tags(&entries(store, delta(4, 5)).await), [serial(4)]);
    assert_eq!(entries(store, delta(5, 5)).await, []);
    assert_eq!(tags(&entries(store, delta(3, 5)).await), [serial(1), serial(4)], "upgraded, and new");
    // A restored backup leaves a great gap, which is not walked through.
    store.begin_epoch([9; 16], Vec::new()).await.unwrap();
    revoke(store, 5).await;
    let revision = begin(store).await.revision;
    assert!(revision > 1 << 30);
    assert_eq!(tags(&entries(store, entries_of(revision)).await), [1, 2, 3, 4, 5].map(serial));
    assert_eq!(tags(&entries(store, delta(3, revision)).await), [1, 4, 5].map(serial));
    let after = CrlEntries { after: 5, ..entries_of(revision) };
    assert_eq!(store.crl_entries(&after).await.unwrap().reached, revision);
    // In a list without gaps, a reader may ask for the next piece before it has this one.
    assert_eq!(store.crl_entries(&entries_of(revision)).await.unwrap().reached, 2);
}

pub async fn an_entry_leaves_after_its_certificate_ended(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    for tag in 1..=3 {
        issue(store, JournalRow { not_after: at(1000 * tag), ..journal_row(tag) }, &[]).await;
        store.revoke(vec![revocation(tag)]).await.unwrap();
    }
    let since = |expired_before| CrlEntries { expired_before: at(expired_before), ..entries_of(3) };
    assert_eq!(
        tags(&entries(store, since(2000)).await),
        [serial(2), serial(3)],
        "ended at that time: still there"
    );
    assert_eq!(tags(&entries(store, since(2001)).await), [serial(3)]);
}

pub async fn edits_make_a_later_crl_of_an_earlier_one(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    for tag in 1..=4 {
        issue(store, JournalRow { not_after: at(1000 * tag), ..journal_row(tag) }, &[]).await;
        store.revoke(vec![revocation(tag)]).await.unwrap();
    }
    // Of another shard, with the same times.
    let elsewhere = JournalRow { not_after: at(1000), shard: 9, ..journal_row(9) };
    issue(store, elsewhere, &[]).await;
    store.revoke(vec![revocation(9)]).await.unwrap();
    for tag in [1, 3, 4] {
        let upgrade = NewRevocation { reason: Reason::KeyCompromise, upgrade: true, ..revocation(tag) };
        store.revoke(vec![upgrade]).await.unwrap();
    }
    let journaled = row_of(&begin(store).await, 10);
    journal(store, journaled.clone()).await.unwrap();
    // Revisions: 1 to 4, and 5 to 7 for the upgrades.
    let since = |earlier: (u64, u64), later: (u64, u64), limit| CrlSince {
        earlier: journaled.key.clone(),
        earlier_tbs_sha256: journaled.tbs_sha256,
        earlier_revision: earlier.0,
        earlier_expired_before: at(earlier.1),
        revision: later.0,
        expired_before: at(later.1),
        limit,
    };
    let edits = async |since: CrlSince| {
        let edits = store.crl_edits(&since).await.unwrap()?;
        let sorted = |mut serials: Vec<Serial>| {
            serials.sort_unstable();
            serials
        };
        Some((sorted(edits.left), sorted(edits.raised)))
    };
    let of = |left: &[u64], raised: &[u64]| {
        let serials = |tags: &[u64]| tags.iter().copied().map(serial).collect::<Vec<_>>();
        Some((serials(left), serials(raised)))
    };
    assert_eq!(edits(since((4, 0), (4, 0), 9)).await, of(&[], &[]));
    assert_eq!(
        edits(since((4, 0), (7, 1000), 9)).await,
        of(&[], &[1, 3, 4]),
        "ended at that time: still there"
    );
    assert_eq!(edits(since((4, 0), (6, 1001), 9)).await, of(&[1], &[3]), "what left is not raised");
    assert_eq!(edits(since((4, 1001), (7, 3001), 9)).await, of(&[2, 3], &[4]), "what had left is not told");
    assert_eq!(
        edits(since((2, 0), (7, 3001), 9)).await,
        of(&[1, 2], &[]),
        "nor what the earlier one had not"
    );
    assert_eq!(edits(since((6, 0), (7, 0), 9)).await, of(&[], &[4]), "nor what it had raised already");
    assert_eq!(edits(since((4, 0), (7, 2001), 2)).await, of(&[1, 2], &[3, 4]));
    assert_eq!(edits(since((4, 0), (7, 2001), 1)).await, None, "more than the limit");
    assert_eq!(edits(since((4, 0), (7, 0), 2)).await, None);
    assert_eq!(edits(since((4, 0), (4, 3001), 2)).await, None);
    // Of one that the journal does not have, perhaps any longer.
    let good = since((4, 0), (4, 0), 9);
    let number = journaled.key.number + 1;
    let lost = CrlKey { number, ..journaled.key.clone() };
    assert_eq!(edits(CrlSince { earlier: lost, ..good.clone() }).await, None);
    assert_eq!(edits(CrlSince { earlier_tbs_sha256: digest("another"), ..good }).await, None);
}

pub async fn a_crl_is_journaled_before_it_is_published(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    let row = row_of(&begin(store).await, 10);
    assert_eq!(publish(store, &row).await, PublishOutcome::Unknown);
    // Of a number and a revision that were given out.
    for stray in [
        CrlRow { key: CrlKey { number: 2, ..row.key.clone() }, ..row.clone() },
        CrlRow { revision: 1, ..row.clone() },
        CrlRow { key: CrlKey { shard: CrlShard { shard: 9, ..shard() }, number: 1 }, ..row.clone() },
    ] {
        assert!(matches!(journal(store, stray).await, Err(StoreError::Refused(_))));
    }
    journal(store, row.clone()).await.unwrap();
    journal(store, row.clone()).await.unwrap();
    // One number, one CRL.
    let other = CrlRow { tbs_sha256: digest("other"), ..row.clone() };
    assert!(matches!(journal(store, other).await, Err(StoreError::Refused(_))));
    assert_eq!(store.crl_shards(None).await.unwrap()[0].published, None, "journaled is not published");
    assert_eq!(publish(store, &row).await, PublishOutcome::Published);
    let published = CrlRow { signature: Some(vec![1, 2]), ..row.clone() };
    assert_eq!(store.crl_shards(None).await.unwrap()[0].published, Some(published.clone()));
    assert_eq!(begin(store).await.published, Some(published.clone()));
    // Its answer lost, the publication finds itself; so does the journal.
    assert_eq!(publish(store, &row).await, PublishOutcome::Superseded(Box::new(published)));
    journal(store, row).await.unwrap();
    let incarnation = store.info().await.unwrap().incarnation;
    assert_eq!(store.audit(incarnation, 0, 10).await.unwrap().len(), 2);
}

pub async fn a_crl_is_never_replaced_by_an_older_one(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let (one, two) = (one.as_ref(), two.as_ref());
    let early = begin(one).await;
    revoke(two, 1).await;
    let late = begin(two).await;
    // Number and revision of the early draft are lower, whatever its time.
    let rows =
        [row_of(&early, 30), row_of(&late, 20), row_of(&begin(one).await, 20), row_of(&begin(one).await, 21)];
    for row in &rows {
        journal(one, row.clone()).await.unwrap();
    }
    assert_eq!(publish(two, &rows[1]).await, PublishOutcome::Published);
    let second = CrlRow { signature: Some(vec![1, 2]), ..rows[1].clone() };
    for row in [&rows[0], &rows[2]] {
        assert_eq!(publish(one, row).await, PublishOutcome::Superseded(Box::new(second.clone())), "{row:?}");
    }
    assert_eq!(publish(one, &rows[3]).await, PublishOutcome::Published);
    // Each of them must not fall by itself: of two drafts of one revision the first comes last; then a snapshot that is
    // older than its number and time say.
    let (first, second) = (begin(one).await, begin(one).await);
    let last = row_of(&second, 40);
    let early_number = row_of(&first, 50);
    let early_revision = CrlRow { revision: last.revision - 1, ..row_of(&begin(two).await, 60) };
    for row in [&last, &early_number, &early_revision] {
        journal(one, row.clone()).await.unwrap();
    }
    assert_eq!(publish(one, &last).await, PublishOutcome::Published);
    let last = CrlRow { signature: Some(vec![1, 2]), ..last };
    for row in [&early_number, &early_revision] {
        assert_eq!(publish(one, row).await, PublishOutcome::Superseded(Box::new(last.clone())), "{row:?}");
    }
    // A delta has a place of its own, and is of the same sequence: not of the complete one's time, nor that of its.
    let delta_of = |draft: &CrlDraft, time: u64| {
        let (base, base_revision) = (Some(rows[3].key.number), Some(rows[3].revision));
        CrlRow { base, base_revision, ..row_of(draft, time) }
    };
    let draft = begin(one).await;
    assert_eq!(draft.published_delta, None);
    let (same_time, late_complete) = (delta_of(&draft, 40), row_of(&begin(one).await, 41));
    let delta = delta_of(&begin(two).await, 41);
    for row in [&same_time, &late_complete, &delta] {
        journal(one, row.clone()).await.unwrap();
    }
    assert_eq!(publish(one, &same_time).await, PublishOutcome::Superseded(Box::new(last.clone())));
    assert_eq!(publish(one, &delta).await, PublishOutcome::Published);
    let delta = CrlRow { signature: Some(vec![1, 2]), ..delta };
    assert_eq!(publish(one, &late_complete).await, PublishOutcome::Superseded(Box::new(delta.clone())));
    let shards = two.crl_shards(None).await.unwrap();
    assert_eq!(shards[0].published, Some(last));
    assert_eq!(shards[0].published_delta, Some(delta));
}

pub async fn an_imported_crl_is_never_replaced_by_an_older_one(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    let crl = |authority: &str, number: u64, this_update: u64| ImportedCrl {
        authority: authority.to_owned(),
        number,
        this_update: at(this_update),
        next_update: at(this_update + 1000),
        der: vec![0x30, authority.len() as u8],
        imported_at: at(90),
        imported_by: "alice".to_owned(),
    };
    let import = |crl: &ImportedCrl| ImportCrl { crl: crl.clone(), audit: event("crl.imported") };
    let first = crl("root", 5, 50);
    assert_eq!(store.imported_crls().await.unwrap(), []);
    assert_eq!(store.import_crl(import(&first)).await.unwrap(), ImportOutcome::Imported);
    // Neither may fall nor stay; said twice, it finds itself.
    for other in [crl("root", 5, 60), crl("root", 6, 50), crl("root", 4, 60), first.clone()] {
        let outcome = store.import_crl(import(&other)).await.unwrap();
        assert_eq!(outcome, ImportOutcome::Superseded(Box::new(first.clone())), "{other:?}");
    }
    let (second, another) = (crl("root", 6, 51), crl("another", 1, 1));
    assert_eq!(store.import_crl(import(&second)).await.unwrap(), ImportOutcome::Imported);
    assert_eq!(store.import_crl(import(&another)).await.unwrap(), ImportOutcome::Imported);
    assert_eq!(store.imported_crls().await.unwrap(), [another, second]);
    let incarnation = store.info().await.unwrap().incarnation;
    assert_eq!(
        store.audit(incarnation, 0, 10).await.unwrap().len(),
        3,
        "what changed nothing is not reported"
    );
}
