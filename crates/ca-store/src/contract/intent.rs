use futures::future::join_all;

use super::{Fixture, open, sample::*};
use crate::{
    AbandonOutcome, Abandonment, AccountRow, AuthorityRow, BlockedKeyRow, CaStore, Citation, CitedTable,
    EabKeyRow, GrantRow, IntentOutcome, JournalKey, JournalKind, JournalRow, Limit, LimitScope, NewIntent,
    PermitRow, RecordOutcome, RegisterOutcome, RegistrationRow, Sealed, State,
};

pub async fn an_intent_reads_back(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let bare = JournalRow {
        kind: JournalKind::Node,
        order: None,
        new_order: None,
        directory: None,
        account: None,
        csr_sha256: None,
        ..journal_row(2)
    };
    let without = NewIntent { evidence: None, names: vec![], ..intent_of(bare.clone()) };
    let outcomes = store.commit_intents(vec![intent(1), without]).await.unwrap();
    assert_eq!(outcomes, [IntentOutcome::Committed, IntentOutcome::Committed]);

    let owner = store.info().await.unwrap().incarnation;
    for key in [
        JournalKey::Serial(serial(1)),
        JournalKey::Order("order-1".to_owned()),
        JournalKey::NewOrder(digest("new order 1")),
    ] {
        let entries = store.journal(&key).await.unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(keys().verify(&entries[0].row).unwrap(), &journal_row(1));
        let lease = entries[0].lease.unwrap();
        assert_eq!(lease.owner, owner);
        assert!(lease.until_ms > store.advance_clock(at(0)).await.unwrap().database_ms + 3_000_000);
        assert_eq!(entries[0].revocation, None);
    }
    let entries = store.journal(&JournalKey::Serial(serial(2))).await.unwrap();
    assert_eq!(keys().verify(&entries[0].row).unwrap(), &bare);
    let successor = JournalRow { replaces: Some(serial(1)), ..journal_row(3) };
    commit(store.as_ref(), intent_of(successor.clone())).await;
    let entries = store.journal(&JournalKey::Replacing(serial(1))).await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| keys().verify(&entry.row).unwrap()).collect::<Vec<_>>(),
        [&successor]
    );
    assert_eq!(store.journal(&JournalKey::Replacing(serial(2))).await.unwrap(), []);
    assert_eq!(store.evidence(&serial(1)).await.unwrap(), intent(1).evidence);
    assert_eq!(store.evidence(&serial(2)).await.unwrap(), None);
    assert_eq!(store.evidence(&serial(4)).await.unwrap(), None);
    assert_eq!(store.journal(&JournalKey::Order("none".to_owned())).await.unwrap(), []);
    assert_eq!(store.commit_intents(vec![]).await.unwrap(), []);
}

/// Only what was recorded is signed, whatever an intent says.
pub async fn an_intent_has_no_signature(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let row = JournalRow { signature: Some(vec![1]), signed_at: Some(at(1)), ..journal_row(1) };
    assert_eq!(commit(store.as_ref(), intent_of(row)).await, IntentOutcome::Committed);
    let entries = store.journal(&JournalKey::Serial(serial(1))).await.unwrap();
    let row = entries[0].row.unverified();
    assert_eq!((&row.signature, row.signed_at, row.abandoned_at), (&None, None, None));
    assert!(keys().verify(&entries[0].row).is_err());
}

/// The entry that stands in an intent's way.
fn obstacle(outcome: IntentOutcome) -> Sealed<JournalRow> {
    match outcome {
        IntentOutcome::OrderTaken(entry)
        | IntentOutcome::NewOrderTaken(entry)
        | IntentOutcome::SerialTaken(entry) => entry.row,
        other => panic!("{other:?}"),
    }
}

pub async fn one_order_has_one_intent(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let rival = |tag| intent_of(JournalRow { order: Some("the order".to_owned()), ..journal_row(tag) });
    // In one call, in concurrent calls of two incarnations, and afterwards.
    let in_one = one.commit_intents(vec![rival(1), rival(2)]);
    let alone = (3..10).map(|tag| {
        let store = if tag % 2 == 0 { &one } else { &two };
        async move { store.commit_intents(vec![rival(tag)]).await }
    });
    let (first, others) = futures::join!(in_one, join_all(alone));
    let mut outcomes = first.unwrap();
    outcomes.extend(others.into_iter().flat_map(Result::unwrap));
    outcomes.push(commit(two.as_ref(), rival(10)).await);
    assert_eq!(outcomes.iter().filter(|it| **it == IntentOutcome::Committed).count(), 1);
    let entries = one.journal(&JournalKey::Order("the order".to_owned())).await.unwrap();
    assert_eq!(entries.len(), 1);
    for outcome in outcomes.into_iter().filter(|it| *it != IntentOutcome::Committed) {
        assert!(matches!(outcome, IntentOutcome::OrderTaken(_)), "{outcome:?}");
        assert_eq!(obstacle(outcome), entries[0].row);
    }
    // Also when everything else has changed since.
    let cited = NewIntent {
        cites: vec![Citation { table: CitedTable::Account, key: "gone".to_owned(), mac: [0; 32] }],
        ..rival(11)
    };
    assert!(matches!(commit(one.as_ref(), cited).await, IntentOutcome::OrderTaken(_)));
}

/// Of the intents that replace one certificate at most one is not abandoned (RFC 9773 §5).
pub async fn a_certificate_has_one_successor(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    commit(one.as_ref(), intent(1)).await;
    let rival = |tag| intent_of(JournalRow { replaces: Some(serial(1)), ..journal_row(tag) });
    let in_one = one.commit_intents(vec![rival(2), rival(3), intent(9)]);
    let alone = (4..8).map(|tag| {
        let store = if tag % 2 == 0 { &one } else { &two };
        async move { store.commit_intents(vec![rival(tag)]).await }
    });
    let (first, others) = futures::join!(in_one, join_all(alone));
    let mut outcomes = first.unwrap();
    assert_eq!(outcomes.pop(), Some(IntentOutcome::Committed), "a neighbour");
    outcomes.extend(others.into_iter().flat_map(Result::unwrap));
    let winner = outcomes.iter().position(|it| *it == IntentOutcome::Committed).unwrap() as u64 + 2;
    assert_eq!(outcomes.iter().filter(|it| **it == IntentOutcome::AlreadyReplaced).count(), 5);
    // The order of the successor is answered with it, as any; given up, it frees its predecessor.
    let entries = one.journal(&JournalKey::Replacing(serial(1))).await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| entry.row.unverified().serial).collect::<Vec<_>>(),
        [serial(winner)]
    );
    let same_order = JournalRow { serial: serial(20), ..entries[0].row.unverified().clone() };
    let outcome = commit(two.as_ref(), intent_of(same_order)).await;
    assert!(matches!(outcome, IntentOutcome::OrderTaken(_)), "{outcome:?}");
    let given_up = JournalRow { abandoned_at: Some(at(50)), ..entries[0].row.unverified().clone() };
    let owner = if [5, 7].contains(&winner) { &two } else { &one };
    owner.abandon(vec![Abandonment { row: seal(given_up), audit: vec![] }]).await.unwrap();
    assert_eq!(one.journal(&JournalKey::Replacing(serial(1))).await.unwrap(), []);
    assert_eq!(commit(two.as_ref(), rival(30)).await, IntentOutcome::Committed);
    assert_eq!(commit(two.as_ref(), rival(31)).await, IntentOutcome::AlreadyReplaced);
}

pub async fn one_new_order_has_one_intent(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let rival = |tag| intent_of(JournalRow { new_order: Some(digest("jws")), ..journal_row(tag) });
    let outcomes = store.commit_intents(vec![rival(1), rival(2), intent(3)]).await.unwrap();
    assert_eq!(outcomes[0], IntentOutcome::Committed);
    assert_eq!(obstacle(outcomes[1].clone()), intent(1).row_with(|row| row.new_order = Some(digest("jws"))));
    assert!(matches!(outcomes[1], IntentOutcome::NewOrderTaken(_)));
    assert_eq!(outcomes[2], IntentOutcome::Committed);
    assert!(matches!(commit(store.as_ref(), rival(4)).await, IntentOutcome::NewOrderTaken(_)));
    // Intents of our own, without an order, do not stand in each other's way.
    let own = |tag| {
        intent_of(JournalRow { kind: JournalKind::Server, order: None, new_order: None, ..journal_row(tag) })
    };
    let outcomes = store.commit_intents(vec![own(5), own(6)]).await.unwrap();
    assert_eq!(outcomes, [IntentOutcome::Committed, IntentOutcome::Committed]);
}

impl NewIntent {
    fn row_with(&self, change: impl Fn(&mut JournalRow)) -> Sealed<JournalRow> {
        let mut row = self.row.unverified().clone();
        change(&mut row);
        seal(row)
    }
}

pub async fn j1_a_serial_is_taken_once(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let rival = |tag| intent_of(JournalRow { serial: serial(1), ..journal_row(tag) });
    let outcomes = store.commit_intents(vec![rival(2), rival(3)]).await.unwrap();
    assert_eq!(outcomes[0], IntentOutcome::Committed);
    assert!(matches!(outcomes[1], IntentOutcome::SerialTaken(_)));
    let node = JournalRow { kind: JournalKind::Node, order: None, new_order: None, ..journal_row(1) };
    let outcome = commit(store.as_ref(), intent_of(node)).await;
    assert_eq!(obstacle(outcome), rival(2).row);
}

pub async fn a_precertificate_shares_serial_and_order(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let pre = JournalRow { kind: JournalKind::Precertificate, tbs: b"poisoned".to_vec(), ..journal_row(1) };
    assert_eq!(commit(store.as_ref(), intent_of(pre.clone())).await, IntentOutcome::Committed);
    let unseen = commit(store.as_ref(), intent(1)).await;
    assert_eq!(unseen, IntentOutcome::OrderHasPast, "nobody has verified that it is one");
    let outcome = record(store.as_ref(), signed(&pre, b"signature")).await;
    assert_eq!(outcome, RecordOutcome::Recorded);
    // As it is read back, with its signature.
    let entries = store.journal(&JournalKey::Order("order-1".to_owned())).await.unwrap();
    let seen = NewIntent { past: vec![entries[0].row.mac().mac], ..intent(1) };
    assert_eq!(commit(store.as_ref(), seen).await, IntentOutcome::Committed);
    let entries = store.journal(&JournalKey::Serial(serial(1))).await.unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.row.unverified().kind).collect();
    assert_eq!(kinds, [JournalKind::Precertificate, JournalKind::Final]);
    assert_eq!(entries[1].row.unverified().signature, None, "each has its own signature");
}

pub async fn what_an_intent_cites_is_checked(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    found(store.as_ref()).await;
    store.register_account(new_account("a")).await.unwrap();
    let rows = vec![
        AuthorityRow::Profile(seal(profile("p"))),
        AuthorityRow::Issuer(seal(issuer("i"))),
        AuthorityRow::EabKey(seal(eab_key("k"))),
        AuthorityRow::Permit(seal(permit("m"))),
        AuthorityRow::Grant(seal(grant("g"))),
    ];
    store.put_authority(new(rows)).await.unwrap();
    let cites = vec![
        cite(CitedTable::Account, "a", &seal(account("a"))),
        cite(CitedTable::Registration, "client", &seal(registration("client"))),
        cite(CitedTable::EabKey, "k", &seal(eab_key("k"))),
        cite(CitedTable::Permit, "m", &seal(permit("m"))),
        cite(CitedTable::Grant, "g", &seal(grant("g"))),
        cite(CitedTable::Directory, "main", &seal(directory("main"))),
        cite(CitedTable::Profile, "p", &seal(profile("p"))),
        cite(CitedTable::Issuer, "i", &seal(issuer("i"))),
    ];
    let all = NewIntent { cites: cites.clone(), ..intent(1) };
    assert_eq!(commit(store.as_ref(), all).await, IntentOutcome::Committed);
    // Each with a MAC that is another's, and with a key that is another's.
    for place in 0..cites.len() {
        let (mut other_mac, mut other_key) = (cites.clone(), cites.clone());
        other_mac[place].mac[31] ^= 1;
        other_key[place].key.push('x');
        for cites in [other_mac, other_key] {
            let outcome = commit(store.as_ref(), NewIntent { cites, ..intent(2) }).await;
            assert_eq!(outcome, IntentOutcome::AuthorityChanged(place));
        }
    }
    // What changed is no longer what was cited.
    let changes = [
        AuthorityRow::Registration(seal(RegistrationRow {
            state: State::Disabled,
            version: 2,
            ..registration("client")
        })),
        AuthorityRow::EabKey(seal(EabKeyRow { uses: 1, version: 2, ..eab_key("k") })),
        AuthorityRow::Permit(seal(PermitRow { state: State::Disabled, version: 2, ..permit("m") })),
        AuthorityRow::Grant(seal(GrantRow { state: State::Disabled, version: 2, ..grant("g") })),
    ];
    for (place, row) in (1..).zip(changes) {
        store.put_authority(change(row, 1)).await.unwrap();
        let cites = cites[place..].to_vec();
        let outcome = commit(store.as_ref(), NewIntent { cites, ..intent(2) }).await;
        assert_eq!(outcome, IntentOutcome::AuthorityChanged(0));
    }
    assert_eq!(store.journal(&JournalKey::Serial(serial(2))).await.unwrap(), [], "nothing of it was written");
    assert_eq!(store.evidence(&serial(2)).await.unwrap(), None);
}

pub async fn a_deactivated_authorization_does_not_count(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let resting_on = |tag, authorizations: &[&str]| NewIntent {
        authorizations: authorizations.iter().map(|&id| id.to_owned()).collect(),
        ..intent(tag)
    };
    assert_eq!(commit(store.as_ref(), resting_on(1, &["x", "y"])).await, IntentOutcome::Committed);
    store.put_authority(new(vec![AuthorityRow::Deactivation(seal(deactivation("y")))])).await.unwrap();
    let outcome = commit(store.as_ref(), resting_on(2, &["x", "y"])).await;
    assert_eq!(outcome, IntentOutcome::AuthorizationDeactivated(1));
    assert_eq!(commit(store.as_ref(), resting_on(3, &["x"])).await, IntentOutcome::Committed);
    let asked = ["x", "y", "y", "z"].map(str::to_owned);
    assert_eq!(store.deactivated(&asked).await.unwrap(), ["y"]);
    assert_eq!(store.deactivated(&[]).await.unwrap(), [""; 0]);
}

/// A key that is blocked, whatever it is for, and one that an account of any directory has had.
pub async fn a_bad_key_does_not_count(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    found(store.as_ref()).await;
    let account = new_account("of a key");
    let thumbprint = account.key.unverified().thumbprint;
    assert_eq!(store.register_account(account).await.unwrap(), RegisterOutcome::Created);
    let with_key = |tag| NewIntent { account_key: Some(thumbprint), ..intent(tag) };
    assert_eq!(commit(store.as_ref(), with_key(1)).await, IntentOutcome::KeyOfAccount);
    let free = NewIntent { account_key: Some(digest("nobody's")), ..intent(1) };
    assert_eq!(commit(store.as_ref(), free).await, IntentOutcome::Committed);

    let bad = |tag| JournalRow { spki_sha256: digest("bad"), ..journal_row(tag) };
    assert_eq!(commit(store.as_ref(), intent_of(bad(2))).await, IntentOutcome::Committed);
    let block = BlockedKeyRow { spki_sha256: digest("bad"), ..blocked_key("key") };
    store.put_authority(new(vec![AuthorityRow::BlockedKey(block)])).await.unwrap();
    let node = JournalRow { kind: JournalKind::Node, order: None, new_order: None, ..bad(4) };
    let outcomes = store.commit_intents(vec![intent_of(bad(3)), intent(5), intent_of(node)]).await.unwrap();
    assert_eq!(outcomes, [IntentOutcome::KeyBlocked, IntentOutcome::Committed, IntentOutcome::KeyBlocked]);
    assert_eq!(store.journal(&JournalKey::Serial(serial(3))).await.unwrap(), [], "nothing of it was written");
    // An order that has its certificate is answered with it, whatever is known of the key since.
    let again = JournalRow { serial: serial(6), ..bad(2) };
    assert!(matches!(commit(store.as_ref(), intent_of(again)).await, IntentOutcome::OrderTaken(_)));
}

pub async fn a_bad_intent_does_not_fail_its_neighbours(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let stray = Citation { table: CitedTable::Grant, key: "none".to_owned(), mac: [0; 32] };
    let bad = NewIntent { cites: vec![stray], ..intent(2) };
    let outcomes = store.commit_intents(vec![intent(1), bad, intent(1), intent(3)]).await.unwrap();
    assert_eq!(outcomes[0], IntentOutcome::Committed);
    assert_eq!(outcomes[1], IntentOutcome::AuthorityChanged(0));
    assert_eq!(outcomes[2], IntentOutcome::Committed, "the very same intent");
    assert_eq!(outcomes[3], IntentOutcome::Committed);
    for (tag, found) in [(1, 1), (2, 0), (3, 1)] {
        assert_eq!(store.journal(&JournalKey::Serial(serial(tag))).await.unwrap().len(), found);
    }
}

/// A limit of the directory `main`.
fn limit(scope: LimitScope, since: u64, most: u32) -> Limit {
    Limit { directory: "main".to_owned(), scope, since: at(since), most }
}

fn limited(tag: u64, scope: LimitScope, most: u32) -> NewIntent {
    NewIntent { limits: vec![limit(scope, 0, most)], ..intent(tag) }
}

pub async fn limits_hold_within_a_batch(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    found(store.as_ref()).await;
    let scopes = [
        LimitScope::Account("account".to_owned()),
        LimitScope::Domain("example.org".to_owned()),
        LimitScope::Names(vec!["example.org".to_owned(), "www.example.org".to_owned()]),
    ];
    for (n, scope) in (0..).zip(scopes) {
        let most = (n + 1) * 3;
        // In one call, and in calls at once.
        let tags = (n * 100)..(n * 100 + 6);
        let together = store.commit_intents(
            tags.clone()
                .take(3)
                .map(|tag| limited(tag, scope.clone(), u32::try_from(most).unwrap()))
                .collect(),
        );
        let alone = tags.skip(3).map(|tag| {
            let intent = limited(tag, scope.clone(), u32::try_from(most).unwrap());
            store.commit_intents(vec![intent])
        });
        let (together, alone) = futures::join!(together, join_all(alone));
        let mut outcomes = together.unwrap();
        outcomes.extend(alone.into_iter().flat_map(Result::unwrap));
        let committed = outcomes.iter().filter(|it| **it == IntentOutcome::Committed).count();
        let refused = outcomes.iter().filter(|it| **it == IntentOutcome::LimitReached(0)).count();
        assert_eq!((committed, refused), (3, 3), "{scope:?}");
    }
}

/// What is exempt fills no limit: neither from the same batch nor from before.
pub async fn what_is_exempt_is_not_counted(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let scopes = [
        LimitScope::Account("account".to_owned()),
        LimitScope::Domain("example.org".to_owned()),
        LimitScope::Names(vec!["example.org".to_owned(), "www.example.org".to_owned()]),
    ];
    let exempt = |tag| intent_of(JournalRow { counted: false, ..journal_row(tag) });
    let limits = |most| scopes.clone().map(|scope| limit(scope, 0, most)).to_vec();
    let counted = |tag| NewIntent { limits: limits(1), ..intent(tag) };
    let outcomes = store.commit_intents(vec![exempt(1), exempt(2), counted(3), exempt(4)]).await.unwrap();
    assert_eq!(outcomes, vec![IntentOutcome::Committed; 4]);
    assert_eq!(commit(store.as_ref(), exempt(5)).await, IntentOutcome::Committed);
    assert_eq!(store.reached_limits(&limits(2)).await.unwrap(), [None; 3]);
    assert_eq!(store.reached_limits(&limits(1)).await.unwrap(), [Some(at(23)); 3]);
    assert_eq!(commit(store.as_ref(), counted(6)).await, IntentOutcome::LimitReached(0));
    let entries = store.journal(&JournalKey::Serial(serial(5))).await.unwrap();
    assert!(!keys().verify(&entries[0].row).unwrap().counted);
}

/// The oldest of the newest so many has to leave.
pub async fn a_reached_limit_says_what_must_leave(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    found(store).await;
    let mut member = new_account("member");
    member.account = seal(AccountRow { registration: Some("client".to_owned()), ..account("member") });
    store.register_account(member).await.unwrap();
    for tag in [3, 1, 5, 2] {
        let row = JournalRow { account: Some("member".to_owned()), ..journal_row(tag) };
        // More names of the domain than one are one entry.
        issue(store, row, &["a.example.org", "b.example.org"]).await;
    }
    let given_up = JournalRow { account: Some("member".to_owned()), ..journal_row(9) };
    commit(store, intent_of(given_up.clone())).await;
    let given_up = JournalRow { abandoned_at: Some(at(50)), ..given_up };
    store.abandon(vec![Abandonment { row: seal(given_up), audit: vec![] }]).await.unwrap();

    let scopes = [
        LimitScope::Account("member".to_owned()),
        LimitScope::Registration("client".to_owned()),
        LimitScope::Domain("example.org".to_owned()),
        LimitScope::Names(["b.example.org", "a.example.org"].map(str::to_owned).to_vec()),
    ];
    // Entries are of the times 21, 22, 23 and 25.
    let cases = [
        (0, 1, Some(25)),
        (0, 2, Some(23)),
        (0, 4, Some(21)),
        (0, 5, None),
        (22, 3, Some(22)),
        (22, 4, None),
        (25, 1, Some(25)),
        (26, 1, None),
    ];
    for scope in &scopes {
        let limits = cases.map(|(since, most, _)| limit(scope.clone(), since, most)).to_vec();
        let expected: Vec<_> = cases.iter().map(|(.., leaves)| leaves.map(at)).collect();
        assert_eq!(store.reached_limits(&limits).await.unwrap(), expected, "{scope:?}");
    }
    let limits = scopes.map(|scope| limit(scope, 0, 4));
    assert_eq!(store.reached_limits(&limits).await.unwrap(), [Some(at(21)); 4]);
    let elsewhere = limits.map(|limit| Limit { directory: "other".to_owned(), ..limit });
    assert_eq!(store.reached_limits(&elsewhere).await.unwrap(), [None; 4]);
    let of_others = LimitScope::Registration("other".to_owned());
    let none = [limit(of_others, 0, 1)];
    assert_eq!(store.reached_limits(&none).await.unwrap(), [None]);
    assert_eq!(store.reached_limits(&[]).await.unwrap(), []);
}

/// Whether a limit is reached, asked by an intent that is taken back.
async fn reaches(store: &dyn CaStore, probe: u64, scope: LimitScope, since: u64, most: u32) -> bool {
    let limits = vec![limit(scope, since, most)];
    let probe = NewIntent { limits, ..intent(probe) };
    let mut row = probe.row.unverified().clone();
    match commit(store, probe).await {
        IntentOutcome::LimitReached(0) => return true,
        IntentOutcome::Committed => row.abandoned_at = Some(at(1)),
        other => panic!("{other:?}"),
    }
    let abandoned = store.abandon(vec![Abandonment { row: seal(row), audit: vec![] }]).await.unwrap();
    assert_eq!(abandoned, [AbandonOutcome::Abandoned]);
    false
}

pub async fn limits_count_what_they_say(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    found(store).await;
    let mut member = new_account("member");
    let row = AccountRow { registration: Some("client".to_owned()), ..account("member") };
    member.account = seal(row);
    store.register_account(member).await.unwrap();
    let of = |tag, account: &str| JournalRow { account: Some(account.to_owned()), ..journal_row(tag) };
    issue(store, of(1, "member"), &["a.example.org", "b.example.org"]).await;
    issue(store, of(2, "member"), &["b.example.org"]).await;
    issue(store, of(3, "other"), &["a.example.org", "b.example.org", "c.example"]).await;
    let own = JournalRow { kind: JournalKind::Server, ..of(4, "member") };
    issue(store, own, &["b.example.org"]).await;
    issue(store, of(5, "other"), &["www.example-x.org"]).await;
    issue(store, JournalRow { counted: false, ..of(6, "member") }, &["b.example.org"]).await;

    let names = |names: &[&str]| LimitScope::Names(names.iter().map(|&name| name.to_owned()).collect());
    let counts = [
        (LimitScope::Account("member".to_owned()), 2),
        (LimitScope::Registration("client".to_owned()), 2),
        (LimitScope::Domain("example.org".to_owned()), 3),
        // Of domains that they were not said to be of, they are not.
        (LimitScope::Domain("b.example.org".to_owned()), 0),
        (LimitScope::Domain("ample.org".to_owned()), 0),
        (names(&["b.example.org", "a.example.org"]), 1),
        (names(&["b.example.org"]), 1),
        (names(&["a.example.org"]), 0),
    ];
    for (probe, (scope, count)) in (900..).step_by(3).zip(counts) {
        assert!(!reaches(store, probe, scope.clone(), 0, count + 1).await, "{scope:?}");
        if count > 0 {
            assert!(reaches(store, probe + 1, scope.clone(), 0, count).await, "{scope:?}");
            // Not by what was before.
            assert!(!reaches(store, probe + 2, scope.clone(), 24, 1).await, "{scope:?}");
        }
    }
}

pub async fn an_intent_can_be_repeated(fixture: &dyn Fixture) {
    let (one, two) = (open(fixture, "one").await, open(fixture, "two").await);
    let own =
        || intent_of(JournalRow { kind: JournalKind::Node, order: None, new_order: None, ..journal_row(2) });
    for intent in [intent(1), own()] {
        for _ in 0..2 {
            assert_eq!(commit(one.as_ref(), intent.clone()).await, IntentOutcome::Committed);
        }
        // It is not another incarnation's to sign.
        assert_ne!(commit(two.as_ref(), intent.clone()).await, IntentOutcome::Committed);
        // Nor this one's once it was recorded.
        record(two.as_ref(), signed(intent.row.unverified(), b"signature")).await;
        let outcome = commit(one.as_ref(), intent).await;
        assert_eq!(obstacle(outcome).unverified().signature.as_deref(), Some(&b"signature"[..]));
    }
    let incarnation = one.info().await.unwrap().incarnation;
    assert_eq!(one.audit(incarnation, 0, 10).await.unwrap().len(), 2, "reported once each");
}
