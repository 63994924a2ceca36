//! Incidents: windows in waves, what becomes of the certificates, and what is revoked at the deadline.

mod deadline;
mod drill;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use acme::renewal::CertificateId;
use ca_store::{AuthorityRow, CaStore as _, JournalKey, RowMac, Sealed};
use pki::{Period, Timestamp};
use rpc::proto::admin::v1 as admin;
use rpc::proto::admin::v1::admin_server::Admin as _;
use serde_json::json;
use signer::config::Limits;
use signer::issue::Issued;
use signer::{AdminService, IncidentRound, Reason};
use testkit::store::StoreFault;
use tonic::Status;

use crate::renewal::id_of;
use crate::support::operator::{by_alice, detail};
use crate::support::{World, reason};

const SUPERSEDED: u32 = 4;
const KEY_COMPROMISE: u32 = 1;
const URL: &str = "https://ca.test/incidents/1";
const DAY: u64 = 86_400;

/// The operator's hand on incidents.
struct Office {
    admin: AdminService,
}

impl Office {
    fn of(world: &World) -> Self {
        Self { admin: AdminService::new(Arc::clone(&world.ca), None) }
    }

    fn plan(world: &World, days: u64, waves: u32, reason: u32) -> admin::OpenIncidentRequest {
        admin::OpenIncidentRequest {
            title: "a wrong field".to_owned(),
            url: URL.to_owned(),
            reason,
            deadline: rpc::seconds(world.now().plus(Period::from_seconds(days * DAY))),
            begins_at: 0,
            waves,
            wave_seconds: 0,
        }
    }

    async fn open(&self, plan: admin::OpenIncidentRequest) -> Result<admin::Incident, Status> {
        Ok(self.admin.open_incident(by_alice(plan)).await?.into_inner())
    }

    async fn page(
        &self,
        id: &str,
        selector: &admin::CertificateSelector,
        page_token: &str,
    ) -> Result<admin::CollectIncidentResponse, Status> {
        let request = admin::CollectIncidentRequest {
            incident: id.to_owned(),
            selector: Some(selector.clone()),
            page_token: page_token.to_owned(),
            page_size: 0,
        };
        Ok(self.admin.collect_incident(by_alice(request)).await?.into_inner())
    }

    /// All of a selection, each page twice, as if its first answer was lost; how many are to be replaced.
    async fn collect(&self, id: &str, selector: &admin::CertificateSelector) -> u64 {
        let (mut left, mut token) = (0, String::new());
        loop {
            let page = self.page(id, selector, &token).await.unwrap();
            let again = self.page(id, selector, &token).await.unwrap();
            assert_eq!((again.added, again.left), (0, page.left));
            left += page.left;
            token = page.next_page_token;
            if token.is_empty() {
                return left;
            }
        }
    }

    async fn start(&self, id: &str) -> Result<admin::Incident, Status> {
        let request = admin::IncidentRequest { incident: id.to_owned() };
        Ok(self.admin.start_incident(by_alice(request)).await?.into_inner())
    }

    async fn close(&self, id: &str) -> Result<admin::Incident, Status> {
        let request = admin::IncidentRequest { incident: id.to_owned() };
        Ok(self.admin.close_incident(by_alice(request)).await?.into_inner())
    }

    async fn extend(&self, id: &str, deadline: Timestamp) -> Result<admin::Incident, Status> {
        let deadline = rpc::seconds(deadline);
        let request = admin::ExtendIncidentRequest { incident: id.to_owned(), deadline };
        Ok(self.admin.extend_incident(by_alice(request)).await?.into_inner())
    }

    /// An open incident of what a selector means.
    async fn incident(
        &self,
        plan: admin::OpenIncidentRequest,
        selector: &admin::CertificateSelector,
    ) -> String {
        let id = self.open(plan).await.unwrap().id;
        self.collect(&id, selector).await;
        assert_eq!(self.start(&id).await.unwrap().state, "open");
        // The answer of the first time was lost.
        assert_eq!(self.start(&id).await.unwrap().state, "open");
        id
    }

    async fn show(&self, id: &str) -> admin::Incident {
        let request = admin::IncidentRequest { incident: id.to_owned() };
        self.admin.show_incident(by_alice(request)).await.unwrap().into_inner()
    }

    /// As `chancery incident report`: everything that is left is looked at.
    async fn report(&self, id: &str) -> Report {
        let mut page_token = String::new();
        loop {
            let request = admin::ReviewIncidentRequest { incident: id.to_owned(), page_token };
            let page = self.admin.review_incident(by_alice(request)).await.unwrap().into_inner();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let incident = self.show(id).await;
        let mut report = Report { state: incident.state, ..Report::default() };
        for count in incident.counts {
            *report.total.entry(count.state).or_default() += count.count;
            *report.waves.entry(count.wave).or_default() += count.count;
        }
        let (mut page_token, mut of_accounts) = (String::new(), BTreeMap::new());
        loop {
            let request =
                admin::ListIncidentAccountsRequest { incident: id.to_owned(), page_token, page_size: 3 };
            let page = self.admin.list_incident_accounts(by_alice(request)).await.unwrap().into_inner();
            for account in page.accounts {
                for count in account.counts {
                    *report.accounts.entry(account.account_id.clone()).or_default() += count.count;
                    *of_accounts.entry(count.state).or_default() += count.count;
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(report.total, of_accounts, "by wave and by account it is the same");
        report
    }
}

#[derive(Debug, Default)]
struct Report {
    state: String,
    total: BTreeMap<String, u64>,
    waves: BTreeMap<u32, u64>,
    accounts: BTreeMap<String, u64>,
}

impl Report {
    #[track_caller]
    fn is(&self, expected: &[(&str, u64)]) {
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect();
        assert_eq!(self.total, expected);
    }
}

fn under(domain: &str) -> admin::CertificateSelector {
    admin::CertificateSelector { under: domain.to_owned(), ..admin::CertificateSelector::default() }
}

impl World {
    async fn run_out(&self, days: u64) {
        self.clock.advance(Duration::from_secs(days * DAY));
        self.ca.check_clock().await.unwrap();
    }

    async fn reason_of(&self, issued: &Issued) -> Option<u8> {
        let entries = self.store.journal(&JournalKey::Serial(issued.serial)).await.unwrap();
        entries[0].revocation.as_ref().map(|row| row.current_reason().code())
    }
}

/// What the CA itself wants replaced is exempt from limits as soon as its wave has begun, and not before.
#[tokio::test]
async fn a18_what_an_incident_wants_replaced_is_exempt() {
    let limit = "maximum_names = 5\nlimits = { certificates_per_domain = \"8 in 30d\" }";
    let world = World::start().await.with_policy("maximum_names = 5", limit).await;
    let office = Office::of(&world);
    let client = world.client().await;
    let mut certificates = Vec::new();
    for n in 0..8 {
        let name = format!("n{n}.example.org");
        let id = id_of(&world.issue_for(&client, &[&name]).await);
        certificates.push((name, id));
    }
    let order = async |(name, id): &(String, CertificateId)| {
        let request = client.new_order_with(&[name], json!({ "replaces": id.to_string() }));
        world.ca.authorize_order(&request).await
    };
    assert_eq!(reason(order(&certificates[0]).await), Reason::RateLimited);
    office.incident(Office::plan(&world, 5, 3, SUPERSEDED), &under("example.org")).await;
    for certificate in &certificates {
        if world.info(&certificate.1).await.window.start() <= world.now() {
            assert!(order(certificate).await.unwrap().limits_exempt);
            let ready = world.replacing(&client, &[&certificate.0], &certificate.1).await;
            world.issue(ready.finalized_by(&client)).await.unwrap();
        } else {
            assert_eq!(reason(order(certificate).await), Reason::RateLimited);
        }
    }
    world.run_out(4).await;
    for certificate in &certificates {
        match order(certificate).await {
            Ok(order) => assert!(order.limits_exempt),
            replaced => assert_eq!(reason(replaced), Reason::AlreadyReplaced),
        }
    }
}

#[tokio::test]
async fn m6_an_incident_moves_windows_and_revokes_what_is_left() {
    let world = World::start().await;
    let office = Office::of(&world);
    let client = world.client().await;
    let mut certificates = Vec::new();
    for n in 0..8 {
        certificates.push(world.issue_for(&client, &[&format!("n{n}.example.org")]).await);
    }
    let neighbour = world.issue_for(&client, &["example.com"]).await;
    let usual = world.info(&id_of(&certificates[0])).await;
    // One is revoked already.
    world.ca.revoke_by_operator("bob", certificates[7].serial, pki::Reason::Superseded).await.unwrap();

    let opened = office.open(Office::plan(&world, 5, 3, SUPERSEDED)).await.unwrap();
    assert_eq!((opened.state.as_str(), opened.wave_seconds), ("collecting", 5 * DAY / 4));
    assert_eq!(detail(office.start(&opened.id).await), "the incident has no certificates");
    let begins = world.now();
    assert_eq!(office.collect(&opened.id, &under("example.org")).await, 7);
    // Nothing follows before it starts.
    assert_eq!(world.info(&id_of(&certificates[0])).await, usual);
    office.start(&opened.id).await.unwrap();
    let late = office.page(&opened.id, &under("example.com"), "").await;
    assert!(detail(late).contains("takes no more certificates"));
    for issued in &certificates[..7] {
        let info = world.info(&id_of(issued)).await;
        assert_eq!((info.explanation_url.as_deref(), info.retry_after.seconds()), (Some(URL), 3600));
        let wave = info.window.start().since(begins).seconds() * 4 / (5 * DAY);
        assert!(wave < 3);
        assert_eq!(info.window.start(), begins.plus(Period::from_seconds(wave * 5 * DAY / 4)));
        assert_eq!(info.window.end().since(info.window.start()).seconds(), 5 * DAY / 4);
        // Fixed for ever.
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(world.info(&id_of(issued)).await, info);
    }
    assert_eq!(world.info(&id_of(&neighbour)).await.explanation_url, None);
    assert!(world.info(&id_of(&certificates[7])).await.window.end() < world.now(), "revoked");

    // One is replaced, one is renewed by a client that knows no `replaces`; another account's certificate is no renewal.
    let ready = world.replacing(&client, &["n0.example.org"], &id_of(&certificates[0])).await;
    world.issue(ready.finalized_by(&client)).await.unwrap();
    world.issue_for(&client, &["n1.example.org", "more.example.org"]).await;
    let stranger = world.client().await;
    world.issue_for(&stranger, &["n2.example.org"]).await;
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound::default());
    let noted = [("left", 5), ("replaced", 1), ("renewed", 1), ("revoked-otherwise", 1)];
    let counts = office.show(&opened.id).await.counts;
    let left: u64 = counts.iter().filter(|count| count.state == "left").map(|count| count.count).sum();
    assert_eq!(left, 5, "signers note it by themselves");
    office.report(&opened.id).await.is(&noted);
    // What has been replaced is as before.
    assert_eq!(world.info(&id_of(&certificates[0])).await, usual);

    world.run_out(5).await;
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound { revoked: 5, done: 1 });
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound::default());
    let report = office.report(&opened.id).await;
    report.is(&[("revoked", 5), ("replaced", 1), ("renewed", 1), ("revoked-otherwise", 1)]);
    assert_eq!((report.state.as_str(), report.accounts.len()), ("done", 1));
    for (n, issued) in certificates.iter().enumerate() {
        assert_eq!(world.reason_of(issued).await, (n >= 2).then_some(4), "{n}");
    }
    assert_eq!(world.reason_of(&neighbour).await, None);
    let kinds = world.audit_kinds().await;
    let expected = [
        ("incident.opened", 1),
        ("incident.collected", 1),
        ("incident.started", 1),
        ("incident.done", 1),
        ("certificate.revoked", 6),
    ];
    for (kind, count) in expected {
        assert_eq!(kinds.iter().filter(|it| *it == kind).count(), count, "{kind}");
    }
}

/// Who selected what is told in the transaction that makes it so, page by page; a page that adds nothing is not.
#[tokio::test]
async fn m6_a_selection_is_in_the_audit_trail() {
    let world = World::with_limits(Limits { revocation_page: 2, ..Limits::default() }).await;
    let office = Office::of(&world);
    let client = world.client().await;
    for n in 0..3 {
        world.issue_for(&client, &[&format!("n{n}.example.org")]).await;
    }
    let id = office.open(Office::plan(&world, 5, 1, SUPERSEDED)).await.unwrap().id;
    let collected = async || {
        let mut events = Vec::new();
        for head in world.store.audit_heads().await.unwrap() {
            let records = world.store.audit(head.number, 0, 10_000).await.unwrap();
            events.extend(records.into_iter().map(|record| record.event));
        }
        events.retain(|event| event.kind == "incident.collected");
        events
    };
    // Nothing was done, and then something whose answer was lost.
    world.store.fail_next("add_members", StoreFault::Failed);
    office.page(&id, &under("example.org"), "").await.unwrap_err();
    assert!(collected().await.is_empty());
    world.store.fail_next("add_members", StoreFault::FailedButPersisted);
    office.page(&id, &under("example.org"), "").await.unwrap_err();
    assert_eq!(office.collect(&id, &under("example.org")).await, 3);
    let events = collected().await;
    assert_eq!(events.len(), 2);
    for (event, left) in events.iter().zip([2, 1]) {
        assert_eq!((event.actor.as_str(), &event.subject), ("operator/alice", &id));
        let detail: serde_json::Value = serde_json::from_str(&event.detail).unwrap();
        assert_eq!((&detail["reason"], &detail["left"]), (&"superseded".into(), &left.into()));
        assert!(detail["selector"].to_string().contains("example.org"), "{detail}");
    }
}

/// A successor is held to what a renewal is held to, whatever it says that it replaces, and must be there at the deadline.
#[tokio::test]
async fn m6_what_names_a_certificate_does_not_save_it_by_that_alone() {
    let world = World::start().await;
    let office = Office::of(&world);
    let client = world.client().await;
    let mut certificates = Vec::new();
    for n in 0..5 {
        let names = [format!("a{n}.example.org"), format!("b{n}.example.org")];
        certificates.push(world.issue_for(&client, &[&names[0], &names[1]]).await);
    }
    let id = office.incident(Office::plan(&world, 5, 1, SUPERSEDED), &under("example.org")).await;
    let replace = async |n: usize, names: &[&str]| {
        let ready = world.replacing(&client, names, &id_of(&certificates[n])).await;
        world.issue(ready.finalized_by(&client)).await.unwrap()
    };
    // One name of two; and both, which then is revoked, once without another one after it.
    replace(0, &["a0.example.org"]).await;
    let gone = replace(1, &["a1.example.org", "b1.example.org"]).await;
    let followed = replace(2, &["a2.example.org", "b2.example.org"]).await;
    replace(3, &["a3.example.org", "b3.example.org", "c3.example.org"]).await;
    let renewal = world.issue_for(&client, &["a4.example.org", "b4.example.org"]).await;
    office.report(&id).await.is(&[("left", 1), ("replaced", 3), ("renewed", 1)]);
    for issued in [&gone, &followed, &renewal] {
        world.ca.revoke_by_operator("bob", issued.serial, pki::Reason::Superseded).await.unwrap();
    }
    world.issue_for(&client, &["a2.example.org", "b2.example.org"]).await;
    // What was noted stays until the deadline.
    office.report(&id).await.is(&[("left", 1), ("replaced", 3), ("renewed", 1)]);
    world.run_out(5).await;
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound { revoked: 3, done: 1 });
    office.report(&id).await.is(&[("revoked", 3), ("replaced", 1), ("renewed", 1)]);
    for (n, issued) in certificates.iter().enumerate() {
        let spared = [2, 3].contains(&n);
        assert_eq!(world.reason_of(issued).await, (!spared).then_some(4), "{n}");
    }
}

/// Where the usual window has begun, the incident's ends it: no client picks a time after the deadline.
#[tokio::test]
async fn i1_a_window_that_has_begun_ends_with_the_incidents() {
    let world = World::start().await;
    let office = Office::of(&world);
    let client = world.client().await;
    let mut certificates = Vec::new();
    for n in 0..6 {
        certificates.push(world.issue_for(&client, &[&format!("n{n}.example.org")]).await);
    }
    // 77 of 100 parts of their life: all windows have begun, and most have not ended.
    world.clock.advance(Duration::from_secs(90 * DAY * 77 / 100 - 3600));
    world.ca.check_clock().await.unwrap();
    let begins = world.now();
    let mut usual = Vec::new();
    for issued in &certificates {
        usual.push(world.info(&id_of(issued)).await.window);
    }
    office.incident(Office::plan(&world, 1, 2, SUPERSEDED), &under("example.org")).await;
    let last = begins.plus(Period::from_seconds(DAY * 2 / 3));
    let mut earlier = 0;
    for (issued, usual) in certificates.iter().zip(usual) {
        let info = world.info(&id_of(issued)).await;
        assert_eq!(info.window.start(), usual.start());
        assert!(info.window.end() <= last && info.window.end() <= usual.end());
        earlier += u32::from(info.window.end() < usual.end());
        assert_eq!(info.explanation_url.as_deref(), Some(URL));
    }
    assert!(earlier > 0);
}

/// A later certificate is a renewal if it has all of the names, is not revoked, and is not itself in the incident.
#[tokio::test]
async fn m6_what_counts_as_renewed() {
    let world = World::start().await;
    let office = Office::of(&world);
    let client = world.client().await;
    // Whatever is older, or selected as well, renews nothing.
    world.issue_for(&client, &["a.example.net", "b.example.net"]).await;
    let both = world.issue_for(&client, &["a.example.net", "a.example.org", "b.example.net"]).await;
    world.issue_for(&client, &["a.example.org", "a.example.net", "b.example.net", "c.example.net"]).await;
    let id = office.incident(Office::plan(&world, 5, 1, SUPERSEDED), &under("example.org")).await;
    office.report(&id).await.is(&[("left", 2)]);
    // A part of its names; all of them, and revoked.
    world.issue_for(&client, &["a.example.net", "a.example.org"]).await;
    let names = ["b.example.net", "a.example.org", "a.example.net"];
    let revoked = world.issue_for(&client, &names).await;
    world.ca.revoke_by_operator("bob", revoked.serial, pki::Reason::Superseded).await.unwrap();
    office.report(&id).await.is(&[("left", 2)]);
    world.issue_for(&client, &names).await;
    office.report(&id).await.is(&[("left", 1), ("renewed", 1)]);
    assert_eq!(world.info(&id_of(&both)).await.explanation_url, None);
}

#[tokio::test]
async fn m6_a_closed_incident_gives_windows_back_and_an_extended_one_waits() {
    let world = World::start().await;
    let office = Office::of(&world);
    let client = world.client().await;
    let issued = world.issue_for(&client, &["example.org"]).await;
    let usual = world.info(&id_of(&issued)).await;
    let id = office.incident(Office::plan(&world, 2, 1, SUPERSEDED), &under("example.org")).await;
    assert_ne!(world.info(&id_of(&issued)).await, usual);
    // Not before the last wave ends.
    let early = office.extend(&id, world.now().plus(Period::from_hours(2))).await;
    assert!(detail(early).contains("the last wave ends at"));
    office.extend(&id, world.now().plus(Period::from_days(4))).await.unwrap();
    world.run_out(3).await;
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound::default());
    assert_eq!(office.close(&id).await.unwrap().state, "closed");
    assert_eq!(world.info(&id_of(&issued)).await, usual);
    world.run_out(3).await;
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound::default());
    assert_eq!(world.reason_of(&issued).await, None);
    let later = world.now().plus(Period::from_days(9));
    for late in [office.close(&id).await, office.extend(&id, later).await] {
        assert!(detail(late).contains("closed already"));
    }
    assert!(detail(office.start(&id).await).contains("takes no more"));
    // Others may have it again; of several the earliest window counts, and the page that goes with it.
    let first = office.incident(Office::plan(&world, 8, 1, SUPERSEDED), &under("example.org")).await;
    let start = world.info(&id_of(&issued)).await.window.start();
    world.run_out(1).await;
    let url = "https://ca.test/incidents/2";
    for _ in 0..3 {
        let plan = Office::plan(&world, 8, 1, SUPERSEDED);
        office
            .incident(admin::OpenIncidentRequest { url: url.to_owned(), ..plan }, &under("example.org"))
            .await;
    }
    let info = world.info(&id_of(&issued)).await;
    assert_eq!((info.window.start(), info.explanation_url.as_deref()), (start, Some(URL)));
    office.close(&first).await.unwrap();
    let info = world.info(&id_of(&issued)).await;
    assert!(info.window.start() > start && info.explanation_url.as_deref() == Some(url));
    let list = async |current, page_size| {
        let request = admin::ListIncidentsRequest { current, page_token: String::new(), page_size };
        let page = office.admin.list_incidents(by_alice(request)).await.unwrap().into_inner();
        (page.incidents.len(), page.next_page_token.is_empty())
    };
    assert_eq!((list(true, 0).await, list(false, 2).await), ((3, true), (2, false)));
}

#[tokio::test]
async fn m6_a_plan_that_cannot_be_is_refused() {
    let world = World::start().await;
    let office = Office::of(&world);
    let plan = || Office::plan(&world, 5, 3, SUPERSEDED);
    let in_an_hour = rpc::seconds(world.now().plus(Period::from_hours(1)));
    let cases = [
        (admin::OpenIncidentRequest { title: " ".to_owned(), ..plan() }, "a title is"),
        (admin::OpenIncidentRequest { url: "ftp://x".to_owned(), ..plan() }, "http or https URL"),
        (admin::OpenIncidentRequest { url: "none".to_owned(), ..plan() }, "http or https URL"),
        (admin::OpenIncidentRequest { reason: 6, ..plan() }, "no CRLReason"),
        (admin::OpenIncidentRequest { waves: 0, ..plan() }, "1 to 366 waves"),
        (admin::OpenIncidentRequest { waves: 367, ..plan() }, "1 to 366 waves"),
        (admin::OpenIncidentRequest { deadline: rpc::seconds(world.now()), ..plan() }, "in the past"),
        (admin::OpenIncidentRequest { wave_seconds: 2 * DAY, ..plan() }, "after the deadline"),
        (admin::OpenIncidentRequest { deadline: in_an_hour, waves: 100, ..plan() }, "a minute at least"),
        (admin::OpenIncidentRequest { begins_at: 1, ..plan() }, "more than a day ago"),
    ];
    for (plan, expected) in cases {
        let said = detail(office.open(plan).await);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(detail(office.start("none").await).contains("there is no incident"));
    let id = office.open(plan()).await.unwrap().id;
    let all = office.page(&id, &admin::CertificateSelector::default(), "").await;
    assert!(detail(all).contains("at least one condition"));
    // Nor can one begin that is empty, or late: nothing is revoked at once.
    assert!(detail(office.start(&id).await).contains("has no certificates"));
    let issued = world.issue_for(&world.client().await, &["example.org"]).await;
    assert_eq!(office.collect(&id, &under("example.org")).await, 1);
    world.run_out(5).await;
    assert!(detail(office.start(&id).await).contains("the deadline has come"));
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound::default());
    assert_eq!(world.reason_of(&issued).await, None);
    office.extend(&id, world.now().plus(Period::from_days(1))).await.unwrap();
    office.start(&id).await.unwrap();
}

/// A row that an administrator of the database wrote has nothing revoked.
#[tokio::test]
async fn m6_a_forged_incident_is_passed_over() {
    let world = World::start().await;
    let office = Office::of(&world);
    let client = world.client().await;
    let issued = world.issue_for(&client, &["example.org"]).await;
    let usual = world.info(&id_of(&issued)).await;
    let id = office.incident(Office::plan(&world, 5, 1, SUPERSEDED), &under("example.org")).await;
    let sealed = world.store.incident(&id).await.unwrap().unwrap();
    let mut row = sealed.unverified().clone();
    let version = row.version;
    (row.deadline, row.version) = (world.now(), version + 1);
    // The store takes it: it never looks at a MAC.
    let forged = Sealed::from_stored(row, RowMac { mac: [1; 32], ..sealed.mac().clone() });
    world.put(AuthorityRow::Incident(forged), Some(version)).await;
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound::default());
    assert_eq!(world.reason_of(&issued).await, None);
    assert_eq!(world.info(&id_of(&issued)).await, usual);
    world.ca.flush_refusals().await.unwrap();
    assert!(world.audit_kinds().await.contains(&"row.tampered".to_owned()));
}

/// A round follows so many pages, and the next one goes on there.
#[tokio::test]
async fn m6_members_are_followed_in_turn() {
    let world = World::with_limits(Limits { revocation_page: 1, ..Limits::default() }).await;
    let office = Office::of(&world);
    let client = world.client().await;
    let mut issued = BTreeMap::new();
    for n in 0..25 {
        let name = format!("n{n:02}.example.org");
        issued.insert(world.issue_for(&client, &[&name]).await.serial, name);
    }
    let id = office.incident(Office::plan(&world, 9, 1, SUPERSEDED), &under("example.org")).await;
    let (_, last) = issued.last_key_value().unwrap();
    world.issue_for(&client, &[last]).await;
    // Counts of the store: a report would look by itself.
    let noted = async || world.store.member_counts(&id).await.unwrap().len();
    world.ca.run_incidents().await.unwrap();
    assert_eq!(noted().await, 1);
    world.ca.run_incidents().await.unwrap();
    assert_eq!(noted().await, 2);
}

/// What has expired when it is selected is nobody's work.
#[tokio::test]
async fn m6_expired_certificates_are_members_without_a_window() {
    let world = World::start().await;
    let office = Office::of(&world);
    let client = world.client().await;
    let old = world.issue_for(&client, &["a.example.org"]).await;
    world.run_out(91).await;
    world.issue_for(&client, &["b.example.org"]).await;
    let id = office.open(Office::plan(&world, 1, 1, SUPERSEDED)).await.unwrap().id;
    assert_eq!(office.collect(&id, &under("example.org")).await, 1);
    office.start(&id).await.unwrap();
    office.report(&id).await.is(&[("left", 1), ("expired", 1)]);
    world.run_out(1).await;
    assert_eq!(world.ca.run_incidents().await.unwrap().revoked, 1);
    assert_eq!(world.reason_of(&old).await, None);
}
