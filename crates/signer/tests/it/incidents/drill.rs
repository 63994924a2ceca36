//! The drill: ten thousand certificates in five waves. A third is replaced, some are renewed, a few were revoked before, and
//! the rest is revoked at the deadline. The CRLs list exactly what was revoked, and the report adds up.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use acme::renewal::CertificateId;
use ca_store::{CaStore as _, JournalKind, JournalRow, NameScope, NewIntent, SignedRow};
use futures::StreamExt as _;
use pki::tbs::{self, LeafRequest};
use pki::{NameSet, Period, Serial};
use serde_json::json;
use signer::IncidentRound;
use signer::config::Limits;
use testkit::signing::SoftKey;
use testkit::store::StoreFault;

use super::{DAY, Office, SUPERSEDED, URL, under};
use crate::crls::{ISSUER, SHARDS, Works};
use crate::support::{Client, MANAGED, Ready, World, csr_of};

const COUNT: usize = 10_000;
const CUSTOMERS: usize = 10;
const WAVES: u32 = 5;
const AT_ONCE: usize = 48;
/// Rows that are written at once.
const BATCH: usize = 500;

/// What is to become of a certificate, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its client says what it replaces.
    Replaced,
    /// Its client does not.
    Renewed,
    RevokedBefore,
    RevokedAtTheDeadline,
}

const fn fate(n: usize) -> Fate {
    match n {
        _ if n.is_multiple_of(3) => Fate::Replaced,
        _ if n % 100 == 1 => Fate::Renewed,
        _ if n % 1000 == 2 => Fate::RevokedBefore,
        _ => Fate::RevokedAtTheDeadline,
    }
}

fn count(of: Fate) -> u64 {
    (0..COUNT).filter(|n| fate(*n) == of).count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_ten_thousand_certificates_go_through_an_incident() {
    let world = World::with_limits(Limits { revocation_page: 1000, ..Limits::default() }).await;
    // As the role does beside its work.
    let ca = Arc::clone(&world.ca);
    let checking = tokio::spawn(async move {
        loop {
            ca.check_clock().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let customers = customers(&world).await;
    let certificates = seed(&world, &customers).await;
    let neighbour = world.issue_for(&world.client().await, &["neighbour.test"]).await;
    for certificate in of(&certificates, Fate::RevokedBefore) {
        world.ca.revoke_by_operator("bob", certificate.serial, pki::Reason::Superseded).await.unwrap();
    }
    let office = Office::of(&world);
    let begins = world.now();
    let id = office.incident(Office::plan(&world, 6, WAVES, SUPERSEDED), &under("example.org")).await;
    let report = office.report(&id).await;
    let before = count(Fate::RevokedBefore);
    report.is(&[("left", COUNT as u64 - before), ("revoked-otherwise", before)]);
    assert_eq!((report.waves.len(), report.accounts.len()), (WAVES as usize, CUSTOMERS));
    assert!(report.waves.values().all(|count| (1700..2300).contains(count)), "{report:?}");

    // Each window is one of the five, and all of them are before the deadline.
    let mut seen = BTreeSet::new();
    for certificate in of(&certificates, Fate::RevokedAtTheDeadline).step_by(50) {
        let info = world.ca.renewal_info(&MANAGED.parse().unwrap(), &certificate.id()).await.unwrap();
        assert_eq!(info.explanation_url.as_deref(), Some(URL));
        let wave = info.window.start().since(begins).seconds() / DAY;
        assert_eq!(info.window.start(), begins.plus(Period::from_seconds(wave * DAY)));
        assert_eq!(info.window.end(), info.window.start().plus(Period::from_seconds(DAY)));
        seen.insert(wave);
    }
    assert_eq!(seen, (0..u64::from(WAVES)).collect());

    renew(&world, &customers, &certificates).await;
    world.run_out(5).await;
    assert_eq!(world.ca.run_incidents().await.unwrap(), IncidentRound::default(), "not before the deadline");
    let (replaced, renewed) = (count(Fate::Replaced), count(Fate::Renewed));
    let left = count(Fate::RevokedAtTheDeadline);
    let rest = [("replaced", replaced), ("renewed", renewed), ("revoked-otherwise", before)];
    office.report(&id).await.is(&[&[("left", left)], &rest[..]].concat());

    // It is cut off in the middle: the answer to a page's revocation is lost.
    world.run_out(1).await;
    world.store.fail_after("revoke", 2, StoreFault::FailedButPersisted);
    world.ca.run_incidents().await.unwrap_err();
    assert_eq!(office.show(&id).await.state, "open");
    let round = world.ca.run_incidents().await.unwrap();
    assert!(round.done == 1 && round.revoked < left, "{round:?}");
    let report = office.report(&id).await;
    report.is(&[&[("revoked", left)], &rest[..]].concat());
    assert_eq!((report.state.as_str(), report.waves.values().sum::<u64>()), ("done", COUNT as u64));

    let listed = listed(&world).await;
    let revoked = [Fate::RevokedAtTheDeadline, Fate::RevokedBefore];
    let expected: BTreeSet<Serial> =
        revoked.into_iter().flat_map(|fate| of(&certificates, fate).map(|it| it.serial)).collect();
    assert_eq!(listed.len(), expected.len());
    assert!(listed == expected, "exactly those that were left, and those that were revoked before");
    assert!(!listed.contains(&neighbour.serial));
    checking.abort();
}

/// Accounts of a customer whose names are granted.
async fn customers(world: &World) -> Vec<Client> {
    let (kid, key) = world.registration("drill", Some(CUSTOMERS as u32)).await;
    world.grant("drill-1", "drill", NameScope::Subtree, "example.org").await;
    let mut customers = Vec::new();
    for _ in 0..CUSTOMERS {
        let mut client = Client::new(MANAGED);
        let request = client.new_account_with_eab(&kid, &key);
        client.account = Some(world.ca.register_account(&request).await.unwrap().account.id);
        customers.push(client);
    }
    customers
}

/// A certificate of the drill.
struct Seeded {
    serial: Serial,
    key_id: Vec<u8>,
    name: String,
}

impl Seeded {
    fn id(&self) -> CertificateId {
        CertificateId { authority_key_id: self.key_id.clone(), serial: self.serial }
    }
}

fn of(certificates: &[Seeded], wanted: Fate) -> impl Iterator<Item = &Seeded> {
    certificates.iter().enumerate().filter(move |(n, _)| fate(*n) == wanted).map(|(_, it)| it)
}

/// What signers have issued before: rows as they write them, over bytes as they make them, signed with the issuer's key. Their
/// orders are not made again: ten thousand of them would be most of the drill's time.
async fn seed(world: &World, customers: &[Client]) -> Vec<Seeded> {
    let directory = world.ca.registry().directory(&MANAGED.parse().unwrap()).unwrap();
    let profile = directory.profile(None).unwrap();
    let entry = world.ca.registry().issuer(ISSUER).unwrap();
    let (key, now) = (SoftKey::generate(), world.now());
    let validity = profile.validity_at(now, &entry.issuer, None, None).unwrap();
    let (mut seeded, mut intents, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..COUNT {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let serial = Serial::from_random(random);
        let low = serial.as_bytes().iter().rev().take(4).fold(0_u32, |sum, it| (sum << 8) | u32::from(*it));
        let (name, shard) = (format!("n{n}.example.org"), low % entry.shards);
        let names = NameSet::new(vec![name.parse().unwrap()]).unwrap();
        let public_key = key.public();
        let request = LeafRequest { serial, names: &names, public_key, validity, shard, must_staple: false };
        let row = JournalRow {
            serial,
            kind: JournalKind::Final,
            order: Some(format!("seeded-{n}")),
            new_order: None,
            directory: Some(MANAGED.to_owned()),
            account: Some(customers[n % CUSTOMERS].account.unwrap().to_string()),
            issuer: ISSUER.to_owned(),
            profile: profile.name().to_owned(),
            shard,
            spki_sha256: public_key.sha256(),
            csr_sha256: None,
            not_before: validity.not_before,
            not_after: validity.not_after,
            tbs: tbs::leaf(profile, &entry.issuer, request).unwrap().as_bytes().to_vec(),
            created_at: now,
            signature: None,
            signed_at: None,
            abandoned_at: None,
            replaces: None,
            counted: true,
        };
        let signature = Some(world.issuer_key.sign_message(&row.tbs));
        let signed = JournalRow { signature, signed_at: Some(now), ..row.clone() };
        records.push(SignedRow { row: world.secrets.rows.seal(signed), audit: Vec::new() });
        intents.push(NewIntent {
            row: world.secrets.rows.seal(row),
            names: vec![name.clone()],
            domains: Vec::new(),
            evidence: None,
            cites: Vec::new(),
            authorizations: Vec::new(),
            account_key: None,
            past: Vec::new(),
            limits: Vec::new(),
            lease: Duration::from_secs(600),
            audit: Vec::new(),
        });
        seeded.push(Seeded { serial, key_id: entry.issuer.key_id().to_vec(), name });
        if intents.len() == BATCH || n + 1 == COUNT {
            world.store.commit_intents(take(&mut intents)).await.unwrap();
            world.store.record_certificates(take(&mut records)).await.unwrap();
        }
    }
    seeded
}

/// Clients renew, one by one and through the whole of issuance: most of them say what is replaced.
async fn renew(world: &World, customers: &[Client], certificates: &[Seeded]) {
    let key = rcgen::KeyPair::generate().unwrap();
    let key = &key;
    let due = certificates.iter().enumerate().filter_map(|(n, certificate)| match fate(n) {
        Fate::Replaced => Some((n, certificate, json!({ "replaces": certificate.id().to_string() }))),
        Fate::Renewed => Some((n, certificate, json!({}))),
        _ => None,
    });
    let issuing = futures::stream::iter(due).map(|(n, certificate, payload)| async move {
        let (client, names) = (&customers[n % CUSTOMERS], [certificate.name.as_str()]);
        let new_order = client.new_order_with(&names, payload);
        let order = Arc::new(world.ca.authorize_order(&new_order).await.unwrap());
        let ready = Ready { new_order, order, evidence: Vec::new(), csr: csr_of(&names, key) };
        world.issue_patiently(ready.finalized_by(client)).await;
    });
    issuing.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// The serials of all shards' CRLs, once these have everything.
async fn listed(world: &World) -> BTreeSet<Serial> {
    let works = Works::start(world);
    let mut listed = BTreeSet::new();
    for shard in 0..SHARDS {
        let number = loop {
            let rows = world.store.crl_shards(Some(ISSUER)).await.unwrap();
            let row = rows.into_iter().find(|row| row.shard.shard == shard).unwrap();
            match row.published {
                Some(crl) if crl.revision == row.revision => break crl.key.number,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let der = works.reaches(world, shard, number).await;
        let crl = pki::crl::Crl::from_der(&der).unwrap();
        listed.extend(crl.entries().map(|entry| entry.unwrap().serial));
    }
    works.stop().await;
    listed
}
