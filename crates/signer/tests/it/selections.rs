//! Operators revoke what they select, page by page.

use std::collections::BTreeSet;

use ca_store::{AuditEvent, CaStore as _, JournalKey};
use pki::{Certificate, Serial};
use rpc::proto::admin::v1 as admin;
use rpc::proto::admin::v1::admin_server::Admin as _;
use signer::AdminService;
use signer::config::Limits;
use signer::issue::Issued;
use testkit::store::{StoreFault, forged};
use tonic::Status;

use crate::support::operator::{by_alice, detail};
use crate::support::{Client, OPEN, OTHER, World};

/// CRLReason codes.
const SUPERSEDED: u32 = 4;
const KEY_COMPROMISE: u32 = 1;

struct Office {
    world: World,
    admin: AdminService,
}

/// What a whole run, or its rehearsal, came to.
#[derive(Debug, Default)]
struct Done {
    revoked: Vec<admin::SelectedCertificate>,
    already: BTreeSet<String>,
    expired: BTreeSet<String>,
    unknown: Vec<String>,
    tampered: Vec<String>,
    blocked: u64,
    pages: usize,
    run: String,
}

impl Done {
    fn add(&mut self, page: admin::SelectionPage) {
        self.revoked.extend(page.certificates);
        self.already.extend(page.already_revoked);
        self.expired.extend(page.expired);
        self.unknown.extend(page.unknown);
        self.tampered.extend(page.tampered);
        self.blocked += page.keys_blocked;
        self.run = page.run;
        self.pages += 1;
    }

    fn serials(&self) -> BTreeSet<String> {
        self.revoked.iter().map(|it| it.certificate.as_ref().unwrap().serial.clone()).collect()
    }
}

impl Office {
    async fn open() -> Self {
        let world = World::with_limits(Limits { revocation_page: 2, ..Limits::default() }).await;
        let admin = AdminService::new(world.ca.clone(), None);
        Self { world, admin }
    }

    async fn issue_for(&self, client: &Client, key: &Client, names: &[&str], profile: &str) -> Issued {
        let new_order = client.new_order_with(names, serde_json::json!({ "profile": profile }));
        let mut ready = self.world.ready_with(client, new_order).await;
        ready.csr = key.csr_with_account_key(names);
        self.world.issue(ready.finalized_by(client)).await.unwrap()
    }

    /// A certificate with a key of its own.
    async fn issue(&self, client: &Client, names: &[&str]) -> String {
        self.issue_for(client, &Client::new(OPEN), names, "tls").await.serial.to_string()
    }

    async fn page(
        &self,
        selector: &admin::CertificateSelector,
        reason: u32,
        page_token: &str,
    ) -> Result<admin::SelectionPage, Status> {
        let request = admin::SelectCertificatesRequest {
            selector: Some(selector.clone()),
            reason,
            page_token: page_token.to_owned(),
            page_size: 0,
        };
        Ok(self.admin.select_certificates(by_alice(request)).await?.into_inner())
    }

    async fn select(&self, selector: &admin::CertificateSelector, reason: u32) -> Done {
        let (mut done, mut token) = (Done::default(), String::new());
        loop {
            let page = self.page(selector, reason, &token).await.unwrap();
            token.clone_from(&page.next_page_token);
            done.add(page);
            if token.is_empty() {
                return done;
            }
        }
    }

    async fn revoke_page(
        &self,
        selector: &admin::CertificateSelector,
        reason: u32,
        done: &Done,
        page_token: &str,
    ) -> Result<admin::SelectionPage, Status> {
        let request = admin::RevokeSelectedRequest {
            selector: Some(selector.clone()),
            reason,
            page_token: page_token.to_owned(),
            page_size: 0,
            run: done.run.clone(),
            expected: 7,
        };
        Ok(self.admin.revoke_selected(by_alice(request)).await?.into_inner())
    }

    /// A whole run; every page is asked for twice, as if each first answer was lost.
    async fn revoke(&self, selector: &admin::CertificateSelector, reason: u32) -> Done {
        let (mut done, mut token) = (Done::default(), String::new());
        loop {
            let page = self.revoke_page(selector, reason, &done, &token).await.unwrap();
            done.run.clone_from(&page.run);
            let again = self.revoke_page(selector, reason, &done, &token).await.unwrap();
            let serials = |page: &admin::SelectionPage| -> BTreeSet<String> {
                let revoked = page.certificates.iter().filter(|it| !it.upgraded);
                revoked.map(|it| it.certificate.as_ref().unwrap().serial.clone()).collect()
            };
            assert_eq!(serials(&again), serials(&page), "a page that is asked for again answers the same");
            assert_eq!((&again.next_page_token, again.keys_blocked), (&page.next_page_token, 0));
            token.clone_from(&page.next_page_token);
            done.add(page);
            if token.is_empty() {
                return done;
            }
        }
    }

    async fn audit(&self, kind: &str) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for head in self.world.store.audit_heads().await.unwrap() {
            let records = self.world.store.audit(head.number, 0, 10_000).await.unwrap();
            events.extend(records.into_iter().map(|record| record.event).filter(|event| event.kind == kind));
        }
        events
    }

    async fn reason_of(&self, serial: &str) -> Option<u8> {
        let key = JournalKey::Serial(serial.parse().unwrap());
        let entry = self.world.store.journal(&key).await.unwrap().remove(0);
        entry.revocation.map(|row| row.current_reason().code())
    }
}

fn set<'a>(serials: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    serials.into_iter().cloned().collect()
}

#[tokio::test]
async fn every_condition_selects_what_it_says_and_all_of_them_together() {
    let office = Office::open().await;
    let (one, two) = (office.world.client().await, office.world.client_of(OTHER).await);
    let shared = Client::new(OPEN);
    let a = office.issue(&one, &["a.example", "www.a.example"]).await;
    let b = office.issue(&one, &["deep.www.a.example"]).await;
    let neighbour = office.issue(&one, &["aa.example"]).await;
    let short = office.issue_for(&one, &shared, &["short.example"], "short").await.serial.to_string();
    office.world.clock.advance(std::time::Duration::from_secs(100));
    let later = office.world.now();
    let of_two = office.issue_for(&two, &shared, &["two.example"], "tls").await;
    let key = Certificate::from_der(&of_two.certificate).unwrap().public_key().sha256().to_vec();
    let of_two = of_two.serial.to_string();
    let account = |client: &Client| client.account.unwrap().to_string();

    let any = admin::CertificateSelector::default;
    let select =
        async |selector: admin::CertificateSelector| office.select(&selector, SUPERSEDED).await.serials();
    let name = |name: &str| admin::CertificateSelector { name: name.to_owned(), ..any() };
    assert_eq!(select(name("a.example")).await, set([&a]));
    assert_eq!(select(name("WWW.a.Example")).await, set([&a]));
    assert_eq!(select(name("nobody.example")).await, set([]));
    let under = |name: &str| admin::CertificateSelector { under: name.to_owned(), ..any() };
    assert_eq!(select(under("a.example")).await, set([&a, &b]));
    assert_eq!(select(under("www.a.example")).await, set([&a, &b]));
    assert_eq!(select(under("example")).await, set([&a, &b, &neighbour, &short, &of_two]));
    let of = |client| admin::CertificateSelector { account_id: account(client), ..any() };
    assert_eq!(select(of(&one)).await, set([&a, &b, &neighbour, &short]));
    assert_eq!(select(of(&two)).await, set([&of_two]));
    let with_key = admin::CertificateSelector { key_sha256: key.into(), ..any() };
    assert_eq!(select(with_key.clone()).await, set([&short, &of_two]));
    let profile = |profile: &str| admin::CertificateSelector { profile: profile.to_owned(), ..any() };
    assert_eq!(select(profile("short")).await, set([&short]));
    assert_eq!(select(profile("tls")).await, set([&a, &b, &neighbour, &of_two]));
    assert_eq!(select(profile("none")).await, set([]));
    let issuer = |issuer: &str| admin::CertificateSelector { issuer_id: issuer.to_owned(), ..any() };
    assert_eq!(select(issuer("tls-1")).await, set([&a, &b, &neighbour, &short, &of_two]));
    assert_eq!(select(issuer("tls-2")).await, set([]));
    let (from, before) = (rpc::seconds(later), rpc::seconds(later));
    let after = admin::CertificateSelector { issued_after: from, ..any() };
    assert_eq!(select(after.clone()).await, set([&of_two]), "from this second on");
    let earlier = admin::CertificateSelector { issued_before: before, ..any() };
    assert_eq!(select(earlier.clone()).await, set([&a, &b, &neighbour, &short]), "not at this second");
    let serials = admin::CertificateSelector { serials: vec![a.clone(), short.clone(), b.clone()], ..any() };
    assert_eq!(select(serials.clone()).await, set([&a, &short, &b]));

    // Together: each pair, whichever of the two has the index.
    let both = admin::CertificateSelector { profile: "tls".to_owned(), ..with_key.clone() };
    assert_eq!(select(both).await, set([&of_two]));
    let both = admin::CertificateSelector { account_id: account(&one), ..with_key };
    assert_eq!(select(both).await, set([&short]));
    let both = admin::CertificateSelector { under: "a.example".to_owned(), ..name("deep.www.a.example") };
    assert_eq!(select(both).await, set([&b]));
    let both = admin::CertificateSelector { under: "b.example".to_owned(), ..name("deep.www.a.example") };
    assert_eq!(select(both).await, set([]));
    let both = admin::CertificateSelector { profile: "short".to_owned(), issued_before: before, ..of(&one) };
    assert_eq!(select(both).await, set([&short]));
    let both = admin::CertificateSelector { issued_after: from, ..of(&one) };
    assert_eq!(select(both).await, set([]));
    let both = admin::CertificateSelector { issuer_id: "tls-1".to_owned(), ..after };
    assert_eq!(select(both).await, set([&of_two]));
    let both = admin::CertificateSelector { issuer_id: "tls-2".to_owned(), ..earlier };
    assert_eq!(select(both).await, set([]));
    let both = admin::CertificateSelector { under: "a.example".to_owned(), ..serials };
    assert_eq!(select(both).await, set([&a, &b]));
    assert!(office.audit("revocation.begun").await.is_empty(), "nothing was begun");
    assert_eq!(office.audit("certificate.revoked").await.len(), 0);
}

#[tokio::test]
async fn a_run_revokes_in_pages_each_once_and_is_audited() {
    let office = Office::open().await;
    let client = office.world.client().await;
    let mut serials = Vec::new();
    for n in 0..5 {
        serials
            .push(office.issue(&client, &[&format!("n{n}.run.example"), &format!("m{n}.run.example")]).await);
    }
    let bystander = office.issue(&client, &["bystander.example"]).await;
    let expires_first = office.issue_for(&client, &Client::new(OPEN), &["e.run.example"], "short").await;
    office.world.clock.advance(std::time::Duration::from_secs(7 * 86_400));
    let before = rpc::seconds(office.world.now());
    let one = admin::RevokeCertificateRequest { serial: serials[0].clone(), reason: 0 };
    office.admin.revoke_certificate(by_alice(one)).await.unwrap();

    let selector = admin::CertificateSelector { under: "run.example".to_owned(), ..Default::default() };
    let told = office.select(&selector, SUPERSEDED).await;
    assert_eq!(told.serials(), set(&serials[1..]));
    assert!(told.revoked.iter().all(|it| it.revoked_at == 0 && !it.upgraded && !it.shares_key));
    assert!(told.pages > 3, "{} pages", told.pages);
    let mut changes = office.world.ca.events().subscribe();
    let done = office.revoke(&selector, SUPERSEDED).await;
    assert_eq!(done.serials(), set(&serials[1..]));
    assert_eq!(done.already, told.already);
    assert_eq!((done.already.len(), done.already.contains(&serials[0])), (1, true));
    assert_eq!(done.expired, set([&expires_first.serial.to_string()]));
    assert!(done.revoked.iter().all(|it| it.revoked_at == before));
    assert!(matches!(changes.try_recv(), Ok(signer::Change::Shard { .. })), "CRLs are due");
    for serial in &serials[1..] {
        assert_eq!(office.reason_of(serial).await, Some(4));
    }
    assert_eq!(office.reason_of(&bystander).await, None);

    // One row for the beginning, one a certificate, under the operator's name.
    let begun = office.audit("revocation.begun").await;
    assert_eq!(begun.len(), 1);
    assert_eq!((begun[0].actor.as_str(), begun[0].subject.as_str()), ("operator/alice", done.run.as_str()));
    let detail: serde_json::Value = serde_json::from_str(&begun[0].detail).unwrap();
    assert_eq!(detail["selector"], serde_json::json!({ "under": "run.example" }));
    assert_eq!((&detail["reason"], &detail["expected"]), (&"superseded".into(), &7.into()));
    let revoked = office.audit("certificate.revoked").await;
    let of_run = format!("operator alice run {}", done.run);
    let rows: Vec<_> =
        revoked.iter().filter(|event| event.actor == of_run).map(|event| &event.subject).collect();
    assert_eq!(rows.len(), 4, "each once");
    assert_eq!(set(rows), set(&serials[1..]));

    // Again, with the same words: nothing is left to do.
    let again = office.revoke(&selector, SUPERSEDED).await;
    assert!(again.revoked.is_empty());
    assert_eq!(again.already, set(&serials));
    assert_eq!(office.audit("certificate.revoked").await.len(), 5);
}

#[tokio::test]
async fn a_page_that_fails_is_asked_for_again() {
    let office = Office::open().await;
    let client = office.world.client().await;
    let mut serials = Vec::new();
    for n in 0..3 {
        serials.push(office.issue(&client, &[&format!("n{n}.example")]).await);
    }
    let account_id = client.account.unwrap().to_string();
    let selector = admin::CertificateSelector { account_id, ..Default::default() };
    for fault in [StoreFault::Failed, StoreFault::FailedButPersisted] {
        office.world.store.fail_next("revoke", fault);
        let failed = office.revoke_page(&selector, SUPERSEDED, &Done::default(), "").await.unwrap_err();
        assert_eq!(rpc::status_class(&failed), pki::ErrorClass::Transient, "{failed:?}");
    }
    // The second one was done, by a run whose id nobody heard: another run goes on.
    let done = office.revoke(&selector, SUPERSEDED).await;
    assert_eq!(done.already.union(&done.serials()).cloned().collect::<BTreeSet<_>>(), set(&serials));
    assert_eq!(office.audit("certificate.revoked").await.len(), 3);
}

#[tokio::test]
async fn a_compromised_key_takes_all_its_certificates_along() {
    let office = Office::open().await;
    let (one, two) = (office.world.client().await, office.world.client_of(OTHER).await);
    let shared = Client::new(OPEN);
    let first = office.issue_for(&one, &shared, &["first.example"], "tls").await;
    let key = Certificate::from_der(&first.certificate).unwrap().public_key().sha256();
    let first = first.serial.to_string();
    // More of them than a page has, of another account and directory too, one revoked for another reason.
    let mut others = Vec::new();
    for n in 0..5 {
        let names = format!("other{n}.example");
        let client = if n % 2 == 0 { &one } else { &two };
        others.push(office.issue_for(client, &shared, &[&names], "tls").await.serial.to_string());
    }
    let expired = office.issue_for(&one, &shared, &["expired.example"], "short").await.serial.to_string();
    let revoked = admin::RevokeCertificateRequest { serial: others[0].clone(), reason: 4 };
    office.admin.revoke_certificate(by_alice(revoked)).await.unwrap();
    let bystander = office.issue(&one, &["bystander.example"]).await;
    office.world.clock.advance(std::time::Duration::from_secs(7 * 86_400));

    let selector = admin::CertificateSelector { name: "first.example".to_owned(), ..Default::default() };
    assert_eq!(office.select(&selector, SUPERSEDED).await.serials(), set([&first]));
    let told = office.select(&selector, KEY_COMPROMISE).await;
    let all: BTreeSet<String> = others.iter().chain([&first]).cloned().collect();
    assert_eq!(told.serials(), all);
    assert!(office.world.store.blocked_keys(&[key]).await.unwrap().is_empty(), "nothing was done");

    let done = office.revoke(&selector, KEY_COMPROMISE).await;
    assert_eq!(done.serials(), all);
    assert_eq!((done.blocked, done.expired.clone()), (1, set([&expired])));
    for it in &done.revoked {
        let serial = &it.certificate.as_ref().unwrap().serial;
        assert_eq!(it.shares_key, *serial != first, "{serial}");
        assert_eq!(it.upgraded, *serial == others[0], "{serial}");
        assert_eq!(office.reason_of(serial).await, Some(1));
    }
    assert_eq!(office.reason_of(&bystander).await, None);
    assert_eq!(office.reason_of(&expired).await, None);
    assert_eq!(office.world.store.blocked_keys(&[key]).await.unwrap().len(), 1);
    assert_eq!(office.audit("key.blocked").await.len(), 1);
    assert_eq!(office.audit("certificate.revoked").await.len(), 7);

    // A run that was cut off after the first page finds the others all the same.
    let again = office.revoke(&selector, KEY_COMPROMISE).await;
    assert!(again.revoked.is_empty());
    assert_eq!(again.already, all);
}

#[tokio::test]
async fn a_key_without_a_certificate_is_blocked() {
    let office = Office::open().await;
    let client = office.world.client().await;
    let leaked = Client::new(OPEN);
    let key = {
        // What an operator computes from a key that somebody found.
        let csr = pki::Csr::from_der(&leaked.csr_with_account_key(&["leaked.example"])).unwrap();
        csr.public_key().sha256()
    };
    let selector = admin::CertificateSelector { key_sha256: key.to_vec().into(), ..Default::default() };
    assert_eq!(office.revoke(&selector, SUPERSEDED).await.blocked, 0);
    let done = office.revoke(&selector, KEY_COMPROMISE).await;
    assert_eq!((done.blocked, done.revoked.len()), (1, 0));
    let mut ready = office.world.ready_one(&client, "leaked.example").await;
    ready.csr = leaked.csr_with_account_key(&["leaked.example"]);
    assert_eq!(office.world.refusal(ready.finalized_by(&client)).await, signer::Reason::CsrKeyBlocked);
}

#[tokio::test]
async fn certificates_are_named_by_their_own_bytes() {
    let office = Office::open().await;
    let client = office.world.client().await;
    let held = office.issue_for(&client, &Client::new(OPEN), &["a.example"], "tls").await;
    let stranger = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let row = office.world.store.journal(&JournalKey::Serial(held.serial)).await.unwrap().remove(0).row;
    let tbs = pki::Tbs::from_der(&row.unverified().tbs).unwrap();
    let twin = pki::assemble(&tbs, &office.world.issuer_key.sign_message(tbs.as_bytes()));
    let named = |der: &[u8]| admin::CertificateSelector {
        certificates: vec![der.to_vec().into()],
        ..Default::default()
    };
    for der in [stranger.cert.der().as_ref(), &twin] {
        let told = office.select(&named(der), SUPERSEDED).await;
        assert_eq!((told.revoked.len(), told.unknown.len()), (0, 1));
    }
    let done = office.revoke(&named(&held.certificate), SUPERSEDED).await;
    assert_eq!(done.serials(), set([&held.serial.to_string()]));

    let unknown = Serial::from_random([9; 16]).to_string();
    let serials = vec![unknown.clone(), held.serial.to_string(), unknown.clone()];
    let told = office.select(&admin::CertificateSelector { serials, ..Default::default() }, SUPERSEDED).await;
    assert_eq!(
        (told.unknown, told.already),
        (vec![unknown.clone(), unknown], set([&held.serial.to_string()]))
    );
}

#[tokio::test]
async fn what_is_no_selection_is_refused() {
    let office = Office::open().await;
    let any = admin::CertificateSelector::default;
    let serial = Serial::from_random([1; 16]).to_string();
    let cases = [
        (any(), 0, "at least one"),
        (admin::CertificateSelector { serials: vec!["zz".to_owned()], ..any() }, 0, "serial"),
        (admin::CertificateSelector { serials: vec![serial.clone(); 1001], ..any() }, 0, "1000"),
        (admin::CertificateSelector { certificates: vec![vec![1, 2].into()], ..any() }, 0, "certificate"),
        (admin::CertificateSelector { key_sha256: vec![1; 31].into(), ..any() }, 0, "32 octets"),
        (admin::CertificateSelector { name: "no name".to_owned(), ..any() }, 0, "DNS name"),
        (admin::CertificateSelector { under: "*.example".to_owned(), ..any() }, 0, "domain"),
        (admin::CertificateSelector { issued_after: 5, issued_before: 5, ..any() }, 0, "earlier"),
        (admin::CertificateSelector { issued_after: -5, ..any() }, 0, "1970"),
        (admin::CertificateSelector { serials: vec![serial.clone()], ..any() }, 2, "reasons"),
        (admin::CertificateSelector { serials: vec![serial.clone()], ..any() }, 6, "CRLReason"),
        (admin::CertificateSelector { serials: vec![serial.clone()], ..any() }, 8, "CRLReason"),
        (admin::CertificateSelector { serials: vec![serial.clone()], ..any() }, 10, "reasons"),
    ];
    for (selector, reason, said) in cases {
        let refused = detail(office.page(&selector, reason, "").await);
        assert!(refused.contains(said), "{said}: {refused}");
        let refused = detail(office.revoke_page(&selector, reason, &Done::default(), "").await);
        assert!(refused.contains(said), "{said}: {refused}");
    }
    let selector = admin::CertificateSelector { serials: vec![serial], ..any() };
    assert!(detail(office.page(&selector, 0, "garbage").await).contains("page token"));
    let done = Done { run: "garbage".to_owned(), ..Done::default() };
    assert!(detail(office.revoke_page(&selector, 0, &done, "").await).contains("run"));
    assert!(office.audit("revocation.begun").await.is_empty());
}

#[tokio::test]
async fn a_row_that_was_tampered_with_stops_nobody_else() {
    let office = Office::open().await;
    let client = office.world.client().await;
    let forged_one = office.issue(&client, &["a.example"]).await;
    let good = office.issue(&client, &["b.example"]).await;
    let target = forged_one.clone();
    office.world.store.alter_journal(move |mut entries| {
        for entry in &mut entries {
            if entry.row.unverified().serial.to_string() == target {
                entry.row = forged(&entry.row, |row| row.profile = "other".to_owned());
            }
        }
        entries
    });
    let serials = vec![forged_one.clone(), good.clone()];
    let selector = admin::CertificateSelector { serials, ..Default::default() };
    let done = office.revoke(&selector, SUPERSEDED).await;
    assert_eq!((done.serials(), done.tampered), (set([&good]), vec![forged_one]));
    assert!(done.unknown.is_empty());
}
