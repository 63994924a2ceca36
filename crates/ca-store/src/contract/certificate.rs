use std::collections::BTreeSet;

use pki::Serial;

use super::{Fixture, open, sample::*};
use crate::{CaStore, CertificateFilter, CertificateQuery, IntentOutcome, JournalRow, TimeRange};

/// All that a query finds, two at a time.
async fn find(store: &dyn CaStore, mut query: CertificateQuery) -> Vec<Serial> {
    query.page.limit = 2;
    let mut found = Vec::new();
    loop {
        let page = store.certificates(&query).await.unwrap();
        assert!(page.items.len() <= 2);
        found.extend(page.items.iter().map(|entry| keys().verify(&entry.row).unwrap().serial));
        match page.next {
            Some(cursor) => query = query.after(cursor),
            None => return found,
        }
    }
}

fn all(filter: CertificateFilter) -> CertificateQuery {
    CertificateQuery::first(filter, 2)
}

fn serials(tags: impl IntoIterator<Item = u64>) -> Vec<Serial> {
    tags.into_iter().map(serial).collect()
}

pub async fn certificates_are_found(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    for tag in 1..=7 {
        let row = JournalRow {
            account: (tag != 7).then(|| if tag % 2 == 0 { "even" } else { "odd" }.to_owned()),
            issuer: if tag <= 3 { "first" } else { "second" }.to_owned(),
            profile: if tag == 2 { "special" } else { "default" }.to_owned(),
            spki_sha256: digest(if tag >= 5 { "shared" } else { "own" }),
            not_after: at(1000 * (8 - tag)),
            ..journal_row(tag)
        };
        issue(store, row, &[&format!("n{tag}.example.org"), "*.example.net", "192.0.2.1", "2001:db8::1"])
            .await;
    }
    assert_eq!(commit(store, intent(8)).await, IntentOutcome::Committed);

    let of = |filter| find(store, all(filter));
    assert_eq!(of(CertificateFilter::All).await, serials(1..=8));
    assert_eq!(of(CertificateFilter::Account("even".to_owned())).await, serials([2, 4, 6]));
    assert_eq!(of(CertificateFilter::Account("odd".to_owned())).await, serials([1, 3, 5]));
    assert_eq!(of(CertificateFilter::Account("none".to_owned())).await, []);
    assert_eq!(of(CertificateFilter::Key(digest("shared"))).await, serials(5..=7));
    assert_eq!(of(CertificateFilter::Issuer("first".to_owned())).await, serials([3, 2, 1]), "by expiry");
    assert_eq!(of(CertificateFilter::Name("n4.example.org".to_owned())).await, serials([4]));
    assert_eq!(of(CertificateFilter::Name("*.example.net".to_owned())).await, serials(1..=7));
    assert_eq!(of(CertificateFilter::Name("192.0.2.1".to_owned())).await, serials(1..=7));
    assert_eq!(of(CertificateFilter::Name("2001:db8::1".to_owned())).await, serials(1..=7));
    assert_eq!(of(CertificateFilter::Name("example.net".to_owned())).await, []);

    let profile = Some("special".to_owned());
    for filter in [CertificateFilter::All, CertificateFilter::Account("even".to_owned())] {
        assert_eq!(
            find(store, CertificateQuery { profile: profile.clone(), ..all(filter) }).await,
            serials([2])
        );
    }
    let created = Some(TimeRange { from: at(23), before: at(25) });
    for filter in [CertificateFilter::All, CertificateFilter::Name("*.example.net".to_owned())] {
        assert_eq!(find(store, CertificateQuery { created, ..all(filter) }).await, serials([3, 4]));
    }
    // By profile, then in time: entry 2 is the only one of its profile.
    let created = |from| Some(TimeRange { from: at(from), before: at(27) });
    let query = CertificateQuery { created: created(22), ..all(CertificateFilter::All) };
    assert_eq!(find(store, query).await, serials([3, 4, 5, 6, 2]));
    let query = |profile: &str| CertificateQuery {
        created: created(23),
        profile: Some(profile.to_owned()),
        ..all(CertificateFilter::All)
    };
    assert_eq!(find(store, query("default")).await, serials(3..=6));
    assert_eq!(find(store, query("special")).await, []);
    assert_eq!(find(store, query("none")).await, []);
    let even = CertificateFilter::Account("even".to_owned());
    let query = CertificateQuery { created: created(23), ..all(even) };
    assert_eq!(find(store, query).await, serials([4, 6]));
    // From 2000 up to, not including, 6000: entries 6 to 3.
    let expires = Some(TimeRange { from: at(2000), before: at(6000) });
    let query = |filter| CertificateQuery { expires, ..all(filter) };
    assert_eq!(find(store, query(CertificateFilter::All)).await, serials([3, 6, 5, 4]), "by issuer");
    let second = query(CertificateFilter::Issuer("second".to_owned()));
    assert_eq!(find(store, second).await, serials([6, 5, 4]));
    assert_eq!(find(store, query(CertificateFilter::Account("odd".to_owned()))).await, serials([3, 5]));
}

pub async fn certificates_are_paged(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    // All alike in what they are ordered by.
    for tag in 0..7 {
        let row = JournalRow {
            not_after: at(9000),
            created_at: at(10),
            spki_sha256: digest("k"),
            ..journal_row(tag)
        };
        issue(store, row, &["a.example.org"]).await;
    }
    for filter in [
        CertificateFilter::All,
        CertificateFilter::Account("account".to_owned()),
        CertificateFilter::Issuer("issuer".to_owned()),
        CertificateFilter::Key(digest("k")),
        CertificateFilter::Name("a.example.org".to_owned()),
        CertificateFilter::Domain("example.org".to_owned()),
    ] {
        assert_eq!(find(store, all(filter.clone())).await, serials(0..7), "{filter:?}");
        let expires = Some(TimeRange { from: at(0), before: at(10_000) });
        let query = CertificateQuery { expires, ..all(filter.clone()) };
        assert_eq!(find(store, query).await, serials(0..7), "{filter:?}");
        let created = Some(TimeRange { from: at(10), before: at(11) });
        let query = CertificateQuery { created, ..all(filter.clone()) };
        assert_eq!(find(store, query).await, serials(0..7), "{filter:?}");
        let query = CertificateQuery { profile: Some("default".to_owned()), created, ..all(filter.clone()) };
        assert_eq!(find(store, query).await, serials(0..7), "{filter:?}");
        let created = Some(TimeRange { from: at(11), before: at(20) });
        assert_eq!(find(store, CertificateQuery { created, ..all(filter.clone()) }).await, [], "{filter:?}");
    }
}

pub async fn a_domain_is_not_its_neighbour(fixture: &dyn Fixture) {
    let store = open(fixture, "one").await;
    let store = store.as_ref();
    let names = [
        "example.org",
        "www.example.org",
        "*.example.org",
        "a.b.example.org",
        "anexample.org",
        "www.example-org.org",
        "example.organic",
        "example.com",
    ];
    for (tag, name) in (1..).zip(names) {
        issue(store, journal_row(tag), &[name]).await;
    }
    issue(store, journal_row(9), &["x.example.org", "y.example.org", "z.example.org"]).await;
    let under: BTreeSet<_> =
        find(store, all(CertificateFilter::Domain("example.org".to_owned()))).await.into_iter().collect();
    assert_eq!(under, serials([1, 2, 3, 4, 9]).into_iter().collect());
    let under: BTreeSet<_> =
        find(store, all(CertificateFilter::Domain("b.example.org".to_owned()))).await.into_iter().collect();
    assert_eq!(under, serials([4]).into_iter().collect());
}
