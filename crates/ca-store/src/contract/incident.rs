use super::{Fixture, open, sample::*};
use crate::{
    AuthorityChange, AuthorityChanges, AuthorityRow, CaStore, Cursor, FollowMembers, IncidentMember,
    IncidentRow, IncidentState, JournalRow, MemberState, NEWEST_LOOKED_AT, NewIntent, NewMember, Page,
    PutOutcome, Serial,
};

fn incident(id: &str, seconds: u64, state: IncidentState) -> IncidentRow {
    IncidentRow {
        id: id.to_owned(),
        title: "A “title”".to_owned(),
        url: "https://ca.test/incidents".to_owned(),
        settings: "{}".to_owned(),
        reason: 4,
        waves: 3,
        begins_at: at(1),
        wave_seconds: 60,
        deadline: at(500),
        state,
        created_at: at(seconds),
        ended_at: None,
        version: 1,
    }
}

async fn put(store: &dyn CaStore, row: IncidentRow, expected: Option<u64>) -> PutOutcome {
    let row = AuthorityRow::Incident(seal(row));
    let changes = vec![AuthorityChange { row, expected }];
    store.put_authority(AuthorityChanges { changes, audit: event("incident") }).await.unwrap()
}

fn member(tag: u64, account: &str, names: &[&str]) -> NewMember {
    let member = IncidentMember {
        serial: serial(tag),
        account: account.to_owned(),
        wave: (tag % 3) as u32,
        state: MemberState::Left,
    };
    NewMember { member, names: names.iter().map(|&name| name.to_owned()).collect() }
}

/// Members, read a page of two at a time.
async fn members(store: &dyn CaStore, incident: &str, left: bool) -> Vec<IncidentMember> {
    let (mut all, mut page) = (Vec::new(), Page::first(2));
    loop {
        let found = store.members(incident, left, &page).await.unwrap();
        all.extend(found.items);
        match found.next {
            Some(cursor) => page = Page::after(cursor, 2),
            None => return all,
        }
    }
}

pub async fn an_incident_reads_back(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    assert_eq!(store.incident("a").await.unwrap(), None);
    for (id, seconds, state) in [
        ("a", 10, IncidentState::Collecting),
        ("b", 30, IncidentState::Done),
        ("c", 20, IncidentState::Open),
        ("d", 20, IncidentState::Closed),
    ] {
        let row = incident(id, seconds, state);
        assert_eq!(put(store.as_ref(), row.clone(), None).await, PutOutcome::Applied);
        let found = store.incident(id).await.unwrap().unwrap();
        assert_eq!(keys().verify(&found).unwrap(), &row);
    }
    let changed = IncidentRow {
        deadline: at(900),
        state: IncidentState::Open,
        ended_at: Some(at(901)),
        version: 2,
        ..incident("a", 10, IncidentState::Collecting)
    };
    assert_eq!(put(store.as_ref(), changed.clone(), Some(2)).await, PutOutcome::Conflict(0));
    assert_eq!(put(store.as_ref(), changed.clone(), Some(1)).await, PutOutcome::Applied);
    // Again, its answer lost.
    assert_eq!(put(store.as_ref(), changed.clone(), Some(1)).await, PutOutcome::Applied);
    assert_eq!(keys().verify(&store.incident("a").await.unwrap().unwrap()).unwrap(), &changed);
    for (current, expected) in [(false, vec!["b", "d", "c", "a"]), (true, vec!["c", "a"])] {
        let (mut seen, mut after) = (Vec::new(), None::<Cursor>);
        loop {
            let page = store.incidents(current, &Page { after, limit: 1 }).await.unwrap();
            seen.extend(page.items.iter().map(|row| row.unverified().id.clone()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected);
    }
}

pub async fn members_are_added_while_it_collects(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let members_of =
        |tags: std::ops::Range<u64>| tags.map(|tag| member(tag, "account", &["example.org"])).collect();
    let add = async |members| store.add_members("a", members, event("incident.collected")).await.unwrap();
    assert_eq!(add(members_of(0..2)).await, None);
    put(store.as_ref(), incident("a", 1, IncidentState::Collecting), None).await;
    assert_eq!(add(members_of(1..4)).await, Some(3));
    // A page again, with more; a member stays what it was.
    let mut again: Vec<NewMember> = members_of(2..6);
    again[0].member.wave = 9;
    assert_eq!(add(again).await, Some(2));
    assert_eq!(add(members_of(1..6)).await, Some(0));
    let expected: Vec<_> = (1..6).map(|tag| member(tag, "account", &[]).member).collect();
    assert_eq!(members(store.as_ref(), "a", false).await, expected);
    assert_eq!(members(store.as_ref(), "b", false).await, []);
    let open = IncidentRow { version: 2, ..incident("a", 1, IncidentState::Open) };
    put(store.as_ref(), open, Some(1)).await;
    assert_eq!(add(members_of(7..9)).await, None);
    // Told where something was added, and nowhere else.
    let head = store.audit_heads().await.unwrap().remove(0);
    let records = store.audit(head.number, 0, 100).await.unwrap();
    assert_eq!(records.iter().filter(|record| record.event.kind == "incident.collected").count(), 2);
}

/// What becomes of a member, each in its way.
pub async fn members_are_followed(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    let names = ["www.example.org", "example.org"];
    let row =
        |tag| JournalRow { account: Some("account".to_owned()), not_after: at(20_000), ..journal_row(tag) };
    for tag in 1..9 {
        issue(store, row(tag), &names).await;
    }
    issue(store, JournalRow { not_after: at(40), ..row(9) }, &names).await;
    let new: Vec<_> = (1..10)
        .map(|tag| match tag {
            // Of other names, of another account, of our own servers: the renewal below is not theirs.
            6 => member(tag, "account", &["www.example.org", "example.com"]),
            7 => member(tag, "other", &names),
            8 => member(tag, "", &names),
            _ => member(tag, "account", &names),
        })
        .collect();
    started(store, new).await;
    let all: Vec<_> = (1..10).map(serial).collect();
    let follow = async |serials: &[Serial]| look(store, serials, false).await;
    use MemberState::{Expired, Left, Renewed, Replaced, Revoked, RevokedOtherwise};
    let expected: Vec<_> = (1..10).map(|tag| (serial(tag), if tag == 9 { Expired } else { Left })).collect();
    assert_eq!(follow(&all).await, expected);
    // A successor that is not signed yet is none; an abandoned one is none.
    commit(store, intent_of(JournalRow { replaces: Some(serial(1)), ..journal_row(20) })).await;
    assert_eq!(follow(&[serial(1)]).await, [(serial(1), Left)]);
    // One of other names is none, whatever it says.
    issue(store, JournalRow { replaces: Some(serial(2)), ..journal_row(21) }, &["else.example"]).await;
    assert_eq!(follow(&[serial(2)]).await, [(serial(2), Left)]);
    let mut ours = revocation(3);
    ours.source = "incident a".to_owned();
    store.revoke(vec![ours, revocation(4)]).await.unwrap();
    // A later certificate: with more names, and then revoked; and one that is in the incident itself is none (those above).
    let more = ["www.example.org", "example.org", "more.example.org"];
    issue(store, row(30), &more).await;
    store.revoke(vec![revocation(30)]).await.unwrap();
    assert_eq!(follow(&[serial(5)]).await, [(serial(5), Left)]);
    issue(store, JournalRow { replaces: Some(serial(5)), ..row(31) }, &more).await;
    let expected = [
        (serial(1), Renewed),
        (serial(2), Renewed),
        (serial(3), Revoked),
        (serial(4), RevokedOtherwise),
        (serial(5), Replaced),
        (serial(6), Left),
        (serial(7), Left),
        (serial(8), Left),
        (serial(9), Expired),
    ];
    assert_eq!(follow(&all).await, expected);
    // What was noted stays.
    store.revoke(vec![revocation(5)]).await.unwrap();
    assert_eq!(follow(&all).await, expected);
    let left: Vec<_> = members(store, "a", true).await.into_iter().map(|member| member.serial).collect();
    assert_eq!(left, [6, 7, 8].map(serial));
    counted(store).await;
    // The incidents of a certificate: those that are open, and only while it is left.
    let found = store.incidents_of(&serial(6)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(keys().verify(&found[0].0).unwrap().id, "a");
    assert_eq!((found[0].1.wave, found[0].1.account.as_str()), (0, "account"));
    assert_eq!(store.incidents_of(&serial(1)).await.unwrap(), []);
    put(store, IncidentRow { version: 3, ..incident("a", 1, IncidentState::Closed) }, Some(2)).await;
    assert_eq!(store.incidents_of(&serial(6)).await.unwrap(), []);
}

/// An open incident of these members.
async fn started(store: &dyn CaStore, members: Vec<NewMember>) {
    put(store, incident("a", 1, IncidentState::Collecting), None).await;
    store.add_members("a", members, vec![]).await.unwrap();
    put(store, IncidentRow { version: 2, ..incident("a", 1, IncidentState::Open) }, Some(1)).await;
}

async fn look(store: &dyn CaStore, serials: &[Serial], again: bool) -> Vec<(Serial, MemberState)> {
    let follow = FollowMembers {
        incident: "a".to_owned(),
        serials: serials.to_vec(),
        again,
        source: "incident a".to_owned(),
        now: at(100),
    };
    let found = store.follow_members(follow).await.unwrap();
    found.into_iter().map(|member| (member.serial, member.state)).collect()
}

/// Who names a certificate in `replaces` is held to what a renewal is held to; what was noted is looked at again at the
/// deadline.
pub async fn what_is_revoked_or_a_member_is_no_successor(fixture: &dyn Fixture) {
    use MemberState::{Expired, Left, Renewed, Replaced, Revoked};
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    let names = |tag: u64| [format!("a{tag}.example"), format!("b{tag}.example")];
    let issue_for = async |of: u64, names: &[String], row: JournalRow| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let replaces = (of > 0).then(|| serial(of));
        issue(store, JournalRow { replaces, ..row }, &names).await;
    };
    let mut new = Vec::new();
    for tag in 1..11 {
        issue_for(0, &names(tag), journal_row(tag)).await;
        let [a, b] = names(tag);
        new.push(member(tag, "account", &[&a, &b]));
    }
    // The fourth's successor is selected as well.
    issue_for(4, &names(4), journal_row(24)).await;
    let [a, b] = names(4);
    new.push(member(24, "account", &[&a, &b]));
    // Whose names nobody knows has no successor.
    issue(store, journal_row(11), &["unread.example"]).await;
    new.push(member(11, "account", &[]));
    started(store, new).await;

    issue_for(1, &names(1)[..1], journal_row(21)).await;
    let [a, b] = names(2);
    issue_for(2, &[b, "more.example".to_owned(), a], journal_row(22)).await;
    issue_for(3, &names(3), journal_row(23)).await;
    store.revoke(vec![revocation(23)]).await.unwrap();
    issue_for(5, &names(5), JournalRow { not_after: at(99), ..journal_row(25) }).await;
    issue_for(11, &["unread.example".to_owned()], journal_row(41)).await;
    for tag in [6, 8, 9, 10] {
        issue_for(tag, &names(tag), journal_row(20 + tag)).await;
    }
    issue_for(0, &names(7), journal_row(27)).await;
    let states = async |again| {
        let all: Vec<_> = (1..12).chain([24]).map(serial).collect();
        look(store, &all, again).await.into_iter().map(|(_, state)| state).collect::<Vec<_>>()
    };
    let noted =
        vec![Left, Replaced, Left, Left, Left, Replaced, Renewed, Replaced, Replaced, Replaced, Left, Left];
    assert_eq!(states(false).await, noted);

    // The sixth's successor is revoked; the seventh's and eighth's are as well, and there are later ones.
    store.revoke([26, 27, 28].map(revocation).to_vec()).await.unwrap();
    issue_for(0, &names(7), journal_row(37)).await;
    issue_for(0, &names(8), journal_row(38)).await;
    // The ninth is revoked by its client, as some do with what they have replaced; the tenth by the incident.
    let mut ours = revocation(10);
    ours.source = "incident a".to_owned();
    store.revoke(vec![revocation(9), ours]).await.unwrap();
    assert_eq!(states(false).await, noted, "what was noted stays");
    let again = vec![Left, Replaced, Left, Left, Left, Left, Renewed, Renewed, Replaced, Revoked, Left, Left];
    assert_eq!(states(true).await, again);
    assert_eq!(states(false).await, again);
    let left = members(store, "a", true).await.len();
    assert_eq!(left, again.iter().filter(|state| **state == Left).count());
    // What had a successor, and is over, is not left.
    assert_eq!(Replaced.noted(Expired, true), Replaced);
}

/// Two thousand members of one name do not look at each other: only so many of the newest certificates are looked at.
pub async fn the_newest_certificates_of_a_name_are_looked_at(fixture: &dyn Fixture) {
    use MemberState::{Left, Renewed};
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    let issue_all = async |tags: std::ops::Range<u64>, account: &str, names: &[&str]| {
        let row = |tag| JournalRow { account: Some(account.to_owned()), ..journal_row(tag) };
        let intent = |tag| NewIntent {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            evidence: None,
            audit: vec![],
            ..intent_of(row(tag))
        };
        store.commit_intents(tags.clone().map(intent).collect()).await.unwrap();
        store.record_certificates(tags.map(|tag| signed(&row(tag), b"signature")).collect()).await.unwrap();
    };
    let shared = "shared.example";
    issue_all(1..2001, "account", &[shared]).await;
    issue_all(2001..2002, "account", &[shared, "own.example"]).await;
    let mut new: Vec<_> = (1..2001).map(|tag| member(tag, "account", &[shared])).collect();
    new.push(member(2001, "account", &[shared, "own.example"]));
    started(store, new).await;
    let all: Vec<_> = (1..2001).map(serial).collect();
    let states = async |again| {
        let states: std::collections::BTreeSet<_> =
            look(store, &all, again).await.into_iter().map(|(_, state)| state).collect();
        states.into_iter().collect::<Vec<_>>()
    };
    let most = u64::from(NEWEST_LOOKED_AT);
    assert_eq!(states(false).await, [Left]);
    issue_all(3000..3001, "account", &[shared, "own.example"]).await;
    assert_eq!(states(false).await, [Renewed]);
    issue_all(4000..4000 + most - 1, "other", &[shared]).await;
    assert_eq!(states(true).await, [Renewed]);
    issue_all(5000..5001, "other", &[shared]).await;
    assert_eq!(states(true).await, [Left], "what is not seen is left: the safe side");
    // The name that fewer have leads to it.
    assert_eq!(look(store, &[serial(2001)], false).await, [(serial(2001), Renewed)]);
}

async fn counted(store: &dyn CaStore) {
    let counts = store.member_counts("a").await.unwrap();
    assert_eq!(counts.iter().map(|count| count.count).sum::<u64>(), 9);
    let left: Vec<_> =
        counts.iter().filter(|it| it.state == MemberState::Left).map(|it| (it.wave, it.count)).collect();
    assert_eq!(left, [(0, 1), (1, 1), (2, 1)]);
    let (mut accounts, mut page) = (Vec::new(), Page::first(1));
    loop {
        let found = store.account_members("a", &page).await.unwrap();
        accounts.extend(found.items);
        match found.next {
            Some(cursor) => page = Page::after(cursor, 1),
            None => break,
        }
    }
    let sums: Vec<_> = accounts
        .iter()
        .map(|it| (it.account.as_str(), it.counts.iter().map(|(_, count)| count).sum::<u64>()))
        .collect();
    assert_eq!(sums, [("", 1), ("account", 7), ("other", 1)]);
}
