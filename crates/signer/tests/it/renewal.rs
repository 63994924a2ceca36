//! Renewal information and orders that replace a certificate (RFC 9773).

use std::time::Duration;

use acme::renewal::CertificateId;
use ca_store::{CaStore as _, JournalKey};
use pki::{Certificate, Serial, Timestamp};
use serde_json::json;
use signer::Reason;
use signer::issue::Issued;
use signer::renewal::RenewalInfo;

use crate::support::{Client, OPEN, OTHER, Peek as _, Ready, World, reason};

/// The id of a certificate (RFC 9773 §4.1).
pub(crate) fn id_of(issued: &Issued) -> CertificateId {
    let certificate = Certificate::from_der(&issued.certificate).unwrap();
    CertificateId {
        authority_key_id: certificate.authority_key_id().unwrap().to_vec(),
        serial: certificate.serial(),
    }
}

impl World {
    pub(crate) async fn info(&self, id: &CertificateId) -> RenewalInfo {
        self.ca.renewal_info(&OPEN.parse().unwrap(), id).await.unwrap()
    }

    pub(crate) async fn issue_for(&self, client: &Client, names: &[&str]) -> Issued {
        let ready = self.ready(client, names).await;
        self.issue_patiently(ready.finalized_by(client)).await
    }

    /// An order for these names that replaces a certificate.
    pub(crate) async fn replacing(&self, client: &Client, names: &[&str], id: &CertificateId) -> Ready {
        self.ready_with(client, replacing(client, names, &id.to_string())).await
    }
}

fn replacing(client: &Client, names: &[&str], id: &str) -> Vec<u8> {
    client.new_order_with(names, json!({ "replaces": id }))
}

#[tokio::test]
async fn i1_a_certificate_is_to_be_renewed_in_the_last_third_of_its_life() {
    let world = World::start().await;
    let client = world.client().await;
    let issued = world.issue_for(&client, &["example.org"]).await;
    let certificate = Certificate::from_der(&issued.certificate).unwrap();
    let info = world.info(&id_of(&issued)).await;
    assert_eq!((info.explanation_url.clone(), info.retry_after.seconds()), (None, 6 * 3600));
    let lifetime = certificate.not_after().since(certificate.not_before()).seconds() + 1;
    let at = |time: Timestamp| time.since(certificate.not_before()).seconds() * 100 / lifetime;
    let (start, end) = (at(info.window.start()), at(info.window.end()));
    assert!((66..=76).contains(&start) && (76..=86).contains(&end), "{start} {end}");
    assert_eq!(world.info(&id_of(&issued)).await, info, "always the same");
    // Where the life has ended, so has the window.
    world.clock.advance(Duration::from_secs(lifetime));
    assert_eq!(world.info(&id_of(&issued)).await, info);
    assert!(info.window.end() < world.now());
}

#[tokio::test]
async fn i1_other_certificates_are_unknown() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let id = id_of(&issued);
    let ask = async |directory: &str, id: &CertificateId| {
        world.ca.renewal_info(&directory.parse().unwrap(), id).await
    };
    // A directory of the same issuers says it too: it is no secret.
    assert_eq!(ask(OTHER, &id).await.unwrap().window, world.info(&id).await.window);
    let serial = Serial::from_random([1; 16]);
    assert_eq!(reason(ask(OPEN, &CertificateId { serial, ..id.clone() }).await), Reason::CertificateUnknown);
    let of_another_issuer = CertificateId { authority_key_id: vec![1], ..id.clone() };
    assert_eq!(reason(ask(OPEN, &of_another_issuer).await), Reason::CertificateUnknown);
    assert_eq!(reason(ask("missing", &id).await), Reason::CertificateUnknown);
    let world =
        world.with_policy("maximum_names = 5", "maximum_names = 5\nrenewal = { offered = false }").await;
    let refused = world.ca.renewal_info(&OPEN.parse().unwrap(), &id).await;
    assert_eq!(reason(refused), Reason::CertificateUnknown);
}

#[tokio::test]
async fn i2_a_revoked_certificates_window_is_in_the_past() {
    let world = World::start().await;
    let client = world.client().await;
    let issued = world.issue_for(&client, &["example.org"]).await;
    assert!(world.info(&id_of(&issued)).await.window.start() > world.now());
    world.ca.revoke_by_operator("alice", issued.serial, pki::Reason::Superseded).await.unwrap();
    let window = world.info(&id_of(&issued)).await.window;
    assert!(window.start() < window.end() && window.end() < world.now());
}

#[tokio::test]
async fn i3_a_successor_is_in_the_journal() {
    let world = World::start().await;
    let client = world.client().await;
    let first = world.issue_for(&client, &["a.example", "b.example"]).await;
    let id = id_of(&first);
    // One name in common is enough.
    let ready = world.replacing(&client, &["b.example", "c.example"], &id).await;
    assert_eq!(ready.order.replaces.as_ref(), Some(&id));
    let second = world.issue(ready.finalized_by(&client)).await.unwrap();
    let entry = world.store.entry_of_order(&ready.order.id.to_string()).await;
    assert_eq!(entry.row.unverified().replaces, Some(first.serial));
    let successors = world.store.journal(&JournalKey::Replacing(first.serial)).await.unwrap();
    assert_eq!(successors.len(), 1);
    assert_eq!(successors[0].row.unverified().serial, second.serial);
    // Whoever asks again, gets the same.
    assert_eq!(world.issue(ready.finalized_by(&client)).await.unwrap(), second);
    // It has a successor of its own, and the first one none more.
    let third = world.replacing(&client, &["c.example"], &id_of(&second)).await;
    world.issue(third.finalized_by(&client)).await.unwrap();
    let again = world.ca.authorize_order(&replacing(&client, &["a.example"], &id.to_string())).await;
    let Err(signer::Failure::Refused(refusal)) = again else { panic!("{again:?}") };
    assert_eq!((refusal.reason, refusal.problem.status()), (Reason::AlreadyReplaced, 409));
    assert_eq!(refusal.problem.kind, acme::ErrorType::AlreadyReplaced);
    // That it has one does not change when it should have been renewed.
    assert!(world.info(&id).await.window.start() > world.now());
}

#[tokio::test]
async fn i3_who_may_not_replace_a_certificate() {
    let world = World::start().await;
    let (client, stranger) = (world.client().await, world.client().await);
    let elsewhere = world.client_of(OTHER).await;
    let id = id_of(&world.issue_for(&client, &["a.example"]).await);
    let order = async |client: &Client, names: &[&str], id: &str| {
        reason(world.ca.authorize_order(&replacing(client, names, id)).await)
    };
    assert_eq!(order(&stranger, &["a.example"], &id.to_string()).await, Reason::ReplacedForeign);
    assert_eq!(order(&client, &["b.example"], &id.to_string()).await, Reason::ReplacedNames);
    assert_eq!(order(&client, &["*.a.example"], &id.to_string()).await, Reason::ReplacedNames);
    assert_eq!(order(&elsewhere, &["a.example"], &id.to_string()).await, Reason::ReplacedUnknown);
    let unknown = CertificateId { serial: Serial::from_random([7; 16]), ..id.clone() };
    assert_eq!(order(&client, &["a.example"], &unknown.to_string()).await, Reason::ReplacedUnknown);
    let of_another_issuer = CertificateId { authority_key_id: vec![1], ..id.clone() };
    assert_eq!(order(&client, &["a.example"], &of_another_issuer.to_string()).await, Reason::ReplacedUnknown);
    for malformed in ["", "x", &format!("{id}="), &format!("{id}.AQ")] {
        assert_eq!(
            order(&client, &["a.example"], malformed).await,
            Reason::ExtensionRequested,
            "{malformed}"
        );
    }
    // Where the directory does not take it, it means nothing.
    let world =
        world.with_policy("maximum_names = 5", "maximum_names = 5\nrenewal = { offered = false }").await;
    let plain = world.replacing(&stranger, &["a.example"], &id).await;
    assert_eq!(plain.order.replaces, None);
    let issued = world.issue(plain.finalized_by(&stranger)).await.unwrap();
    let entries = world.store.journal(&JournalKey::Serial(issued.serial)).await.unwrap();
    assert_eq!(entries[0].row.unverified().replaces, None);
}

/// A front may keep an order back; the intent's transaction has the last word.
#[tokio::test]
async fn i3_of_several_orders_that_replace_one_certificate_one_is_issued() {
    let world = World::start().await;
    let client = world.client().await;
    let id = id_of(&world.issue_for(&client, &["a.example"]).await);
    let mut orders = Vec::new();
    for _ in 0..6 {
        orders.push(world.replacing(&client, &["a.example"], &id).await);
    }
    let outcomes =
        futures::future::join_all(orders.iter().map(|ready| world.issue(ready.finalized_by(&client)))).await;
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 5));
    for outcome in refused {
        assert_eq!(reason(outcome), Reason::AlreadyReplaced);
    }
}
