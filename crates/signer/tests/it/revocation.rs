//! Who may revoke what, and why.

use acme::base64url::encode;
use acme::problem::ErrorType;
use ca_store::{CaStore as _, JournalKey, RevocationRow};
use pki::Serial;
use serde_json::json;
use signer::config::Limits;
use signer::issue::Issued;
use signer::{Failure, Reason, Refusal};
use testkit::signing::KeyFault;
use testkit::store::StoreFault;

use crate::support::{Client, OPEN, OTHER, STRICT, World, reason};

/// A certificate, and the key that it is for.
struct Held {
    issued: Issued,
    key: Client,
}

impl World {
    async fn certificate(&self, client: &Client, names: &[&str]) -> Held {
        let key = Client::new(OPEN);
        let mut ready = self.ready(client, names).await;
        ready.csr = key.csr_with_account_key(names);
        Held { issued: self.issue(ready.finalized_by(client)).await.unwrap(), key }
    }

    async fn revoke(&self, request: Vec<u8>) -> Result<(), Failure> {
        self.ca.revoke(&request, Vec::new()).await
    }

    async fn revoked(&self, serial: &Serial) -> Option<RevocationRow> {
        self.store.journal(&JournalKey::Serial(*serial)).await.unwrap().remove(0).revocation
    }
}

/// A revokeCert by an account.
fn by_account(client: &Client, der: &[u8], reason: u32) -> Vec<u8> {
    client.request("revoke-cert", &json!({ "certificate": encode(der), "reason": reason }))
}

/// A revokeCert by a key.
fn by_key(key: &Client, der: &[u8], reason: u32) -> Vec<u8> {
    key.request_with_jwk("revoke-cert", &json!({ "certificate": encode(der), "reason": reason }))
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> Refusal {
    match outcome {
        Err(Failure::Refused(refusal)) => *refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn f1_the_account_of_a_certificate_revokes_it() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    let request = by_account(&client, &held.issued.certificate, 4);
    world.revoke(request.clone()).await.unwrap();
    let row = world.revoked(&held.issued.serial).await.unwrap();
    assert_eq!((row.reason.code(), row.revision, row.revoked_at), (4, 1, world.now()));
    assert_eq!(row.source, format!("account {}", client.account.unwrap()));
    assert_eq!(world.audit_kinds().await.iter().filter(|kind| *kind == "certificate.revoked").count(), 1);

    // The same bytes again, and another request for the same.
    assert_eq!(reason(world.revoke(request).await), Reason::AlreadyRevoked);
    let other = by_account(&client, &held.issued.certificate, 1);
    let refusal = refusal(world.revoke(other).await);
    assert_eq!((refusal.problem.kind, refusal.problem.status()), (ErrorType::AlreadyRevoked, 400));
    assert_eq!(world.revoked(&held.issued.serial).await.unwrap().reason.code(), 4);
    assert_eq!(world.audit_kinds().await.iter().filter(|kind| *kind == "certificate.revoked").count(), 1);
}

#[tokio::test]
async fn f1_the_key_of_a_certificate_revokes_it_without_an_account() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    world.revoke(by_key(&held.key, &held.issued.certificate, 1)).await.unwrap();
    let row = world.revoked(&held.issued.serial).await.unwrap();
    assert_eq!((row.reason.code(), row.source.as_str()), (1, "certificate key"));
    let certificate = pki::Certificate::from_der(&held.issued.certificate).unwrap();
    let blocked = world.store.blocked_keys(&[certificate.public_key().sha256()]).await.unwrap();
    assert_eq!(blocked.len(), 1, "a compromised key is certified no more");
    assert!(world.audit_kinds().await.contains(&"key.blocked".to_owned()));
    // Not even for its own account.
    let mut again = world.ready_one(&client, "again.example").await;
    again.csr = held.key.csr_with_account_key(&["again.example"]);
    assert_eq!(world.refusal(again.finalized_by(&client)).await, Reason::CsrKeyBlocked);
}

#[tokio::test]
async fn f3_nobody_else_revokes_it() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    let der = &held.issued.certificate;

    let stranger = world.client().await;
    let refused = refusal(world.revoke(by_account(&stranger, der, 0)).await);
    assert_eq!((refused.problem.kind, refused.problem.status()), (ErrorType::Unauthorized, 403));

    let refused = refusal(world.revoke(by_key(&Client::new(OPEN), der, 0)).await);
    assert_eq!((refused.reason, refused.problem.status()), (Reason::RevocationForeign, 403));
    // The account's key is not the certificate's.
    assert_eq!(reason(world.revoke(by_key(&client, der, 0)).await), Reason::RevocationForeign);

    // The right account's words, signed by somebody else.
    let forged = Client::new(OPEN).of_account(client.account.unwrap());
    assert_eq!(reason(world.revoke(by_account(&forged, der, 0)).await), Reason::JwsSignature);

    // A deactivated account.
    world.ca.update_account(&client.update(&json!({ "status": "deactivated" }))).await.unwrap();
    assert_eq!(reason(world.revoke(by_account(&client, der, 0)).await), Reason::AccountInactive);
    assert_eq!(world.revoked(&held.issued.serial).await, None);
}

#[tokio::test]
async fn f2_an_account_that_holds_all_names_revokes_it() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["a.example", "b.example"]).await;
    let heir = world.client().await;
    let request = by_account(&heir, &held.issued.certificate, 5);
    let evidence = world.ready(&heir, &["a.example", "b.example"]).await.evidence;
    // Some of the names are not all of them.
    assert!(world.ca.revoke(&request, evidence[..1].to_vec()).await.is_err());
    // Nor is what somebody else validated.
    let foreign = world.ready(&client, &["a.example", "b.example"]).await.evidence;
    assert!(world.ca.revoke(&request, foreign).await.is_err());
    assert_eq!(world.revoked(&held.issued.serial).await, None);
    world.ca.revoke(&request, evidence).await.unwrap();
    assert!(world.revoked(&held.issued.serial).await.is_some());
}

#[tokio::test]
async fn f3_unknown_and_foreign_certificates_get_one_answer() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    let der = &held.issued.certificate;
    let mut answers = Vec::new();

    // Of no CA of ours.
    let own = rcgen::generate_simple_self_signed(vec!["example.org".to_owned()]).unwrap();
    answers.push(refusal(world.revoke(by_account(&client, own.cert.der(), 0)).await));
    // The journal's certificate with another signature that is as good.
    let row = world.store.journal(&JournalKey::Serial(held.issued.serial)).await.unwrap().remove(0).row;
    let tbs = pki::Tbs::from_der(&row.unverified().tbs).unwrap();
    let twin = pki::assemble(&tbs, &world.issuer_key.sign_message(tbs.as_bytes()));
    assert_ne!(twin, held.issued.certificate.to_vec());
    answers.push(refusal(world.revoke(by_account(&client, &twin, 0)).await));
    // With an octet more.
    let longer = [der.as_slice(), &[0]].concat();
    answers.push(refusal(world.revoke(by_account(&client, &longer, 0)).await));
    // No certificate at all.
    answers.push(refusal(world.revoke(by_account(&client, b"nothing", 0)).await));
    // Another directory's.
    let elsewhere = Client::new(OTHER);
    let agreed = elsewhere.new_account_with(&json!({ "termsOfServiceAgreed": true }));
    let id = world.ca.register_account(&agreed).await.unwrap().account.id;
    answers.push(refusal(world.revoke(by_account(&elsewhere.of_account(id), der, 0)).await));
    let key = held.key.moved_to(OTHER);
    answers.push(refusal(world.revoke(by_key(&key, der, 0)).await));

    for answer in answers {
        assert_eq!(answer.reason, Reason::CertificateUnknown);
        assert_eq!(answer.problem.status(), 404);
        assert_eq!(answer.problem.detail, "there is no such certificate in this directory");
    }
    assert_eq!(world.revoked(&held.issued.serial).await, None);
}

#[tokio::test]
async fn f5_reasons_that_are_not_a_clients_are_refused() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    for code in [2, 6, 7, 8, 9, 10, 11, 300] {
        let refused = refusal(world.revoke(by_account(&client, &held.issued.certificate, code)).await);
        assert_eq!(refused.reason, Reason::RevocationReason, "{code}");
        assert_eq!(refused.problem.kind, ErrorType::BadRevocationReason, "{code}");
    }
    let payload = json!({ "certificate": encode(&held.issued.certificate), "reason": "1" });
    assert!(world.revoke(client.request("revoke-cert", &payload)).await.is_err());
    assert_eq!(world.revoked(&held.issued.serial).await, None);
    // Without one: unspecified.
    let payload = json!({ "certificate": encode(&held.issued.certificate) });
    world.revoke(client.request("revoke-cert", &payload)).await.unwrap();
    assert_eq!(world.revoked(&held.issued.serial).await.unwrap().reason.code(), 0);
}

#[tokio::test]
async fn f4_only_the_key_raises_a_reason_to_key_compromise() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    let der = &held.issued.certificate;
    world.revoke(by_account(&client, der, 4)).await.unwrap();
    assert_eq!(reason(world.revoke(by_account(&client, der, 1)).await), Reason::AlreadyRevoked);
    // Not another reason either, and not downwards later.
    assert_eq!(reason(world.revoke(by_key(&held.key, der, 5)).await), Reason::AlreadyRevoked);
    assert_eq!(world.revoked(&held.issued.serial).await.unwrap().current_reason().code(), 4);
    let upgrade = by_key(&held.key, der, 1);
    world.revoke(upgrade.clone()).await.unwrap();
    let row = world.revoked(&held.issued.serial).await.unwrap();
    assert_eq!((row.reason.code(), row.current_reason().code()), (4, 1));
    assert_eq!(row.upgrade.unwrap().revision, 2, "the CRL is due again");
    assert_eq!(reason(world.revoke(upgrade).await), Reason::AlreadyRevoked);
    assert_eq!(reason(world.revoke(by_key(&held.key, der, 4)).await), Reason::AlreadyRevoked);
    assert_eq!(world.revoked(&held.issued.serial).await.unwrap().current_reason().code(), 1);
}

#[tokio::test]
async fn an_account_cannot_block_a_key_and_its_holder_still_can() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    let der = &held.issued.certificate;
    let spki = pki::Certificate::from_der(der).unwrap().public_key().sha256();
    world.revoke(by_account(&client, der, 1)).await.unwrap();
    assert!(world.store.blocked_keys(&[spki]).await.unwrap().is_empty());
    assert_eq!(reason(world.revoke(by_key(&held.key, der, 1)).await), Reason::AlreadyRevoked);
    assert_eq!(world.store.blocked_keys(&[spki]).await.unwrap().len(), 1);
    let blocked = |kinds: Vec<String>| kinds.iter().filter(|kind| *kind == "key.blocked").count();
    assert_eq!(blocked(world.audit_kinds().await), 1);
    let _ = world.revoke(by_key(&held.key, der, 1)).await;
    assert_eq!(blocked(world.audit_kinds().await), 1, "once");
}

#[tokio::test]
async fn a_request_for_something_else_revokes_nothing() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    let payload = json!({ "certificate": encode(&held.issued.certificate) });
    assert_eq!(reason(world.revoke(client.request("new-order", &payload)).await), Reason::UrlOperation);
    let elsewhere = client.request_to("https://elsewhere.test/acme/open/revoke-cert", &payload);
    assert_eq!(reason(world.revoke(elsewhere).await), Reason::UrlForeign);
    assert_eq!(world.revoked(&held.issued.serial).await, None);
}

#[tokio::test]
async fn a_lost_answer_is_a_revocation_all_the_same() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["example.org"]).await;
    let request = by_account(&client, &held.issued.certificate, 0);
    world.store.fail_next("revoke", StoreFault::Failed);
    assert!(matches!(world.revoke(request.clone()).await, Err(Failure::Store(_))));
    assert_eq!(world.revoked(&held.issued.serial).await, None);
    let mut changes = world.ca.events().subscribe();
    world.store.fail_next("revoke", StoreFault::FailedButPersisted);
    assert!(matches!(world.revoke(request.clone()).await, Err(Failure::Store(_))));
    // The CRL is told of it at once although nobody heard the answer.
    assert!(matches!(changes.try_recv(), Ok(signer::Change::Shard { .. })));
    assert!(world.revoked(&held.issued.serial).await.is_some());
    assert_eq!(reason(world.revoke(request).await), Reason::AlreadyRevoked);
}

#[tokio::test]
async fn an_operator_revokes_whatever_may_have_been_signed() {
    let world = World::start().await;
    let client = world.client().await;
    // An intent whose signature never came back.
    let ready = world.ready_one(&client, "lost.example").await;
    world.issuer_key.fail_next(KeyFault::FailedAfterSigning);
    let _ = world.ca.issue(ready.finalized_by(&client)).await;
    let lost = world.journal().await.remove(0);
    assert_eq!(lost.signature, None);
    let certificate = pki::assemble(&pki::Tbs::from_der(&lost.tbs).unwrap(), &[0]);
    let unsigned = by_account(&client, &certificate, 0);
    assert_eq!(reason(world.revoke(unsigned).await), Reason::CertificateUnknown);
    let at = world.ca.revoke_by_operator("alice", lost.serial, pki::Reason::Superseded).await.unwrap();
    assert_eq!(at, world.now());
    assert_eq!(world.revoked(&lost.serial).await.unwrap().source, "operator alice");

    let held = world.certificate(&client, &["example.org"]).await;
    for reason_code in [2, 10] {
        let because = pki::Reason::try_from(reason_code).unwrap();
        let refused = world.ca.revoke_by_operator("alice", held.issued.serial, because).await;
        assert_eq!(reason(refused), Reason::RevocationReason);
    }
    let because = pki::Reason::PrivilegeWithdrawn;
    world.ca.revoke_by_operator("alice", held.issued.serial, because).await.unwrap();
    let again = world.ca.revoke_by_operator("alice", held.issued.serial, because).await;
    assert_eq!(reason(again), Reason::AlreadyRevoked);
    let compromised = pki::Reason::KeyCompromise;
    world.ca.revoke_by_operator("alice", held.issued.serial, compromised).await.unwrap();
    let spki = pki::Certificate::from_der(&held.issued.certificate).unwrap().public_key().sha256();
    assert_eq!(world.store.blocked_keys(&[spki]).await.unwrap().len(), 1);
    let unknown = Serial::from_random([7; 16]);
    let refused = world.ca.revoke_by_operator("alice", unknown, because).await;
    assert_eq!(reason(refused), Reason::CertificateUnknown);
}

/// A certificate of `client` for the key of `key`.
async fn with_key(world: &World, client: &Client, key: &Client, names: &[&str]) -> Issued {
    let mut ready = world.ready(client, names).await;
    ready.csr = key.csr_with_account_key(names);
    world.issue(ready.finalized_by(client)).await.unwrap()
}

#[tokio::test]
async fn f6_who_proves_that_a_key_is_compromised_revokes_all_its_certificates() {
    let world = World::with_limits(Limits { revocation_page: 2, ..Limits::default() }).await;
    let (one, two) = (world.client().await, world.client_of(OTHER).await);
    let key = Client::new(OPEN);
    let first = with_key(&world, &one, &key, &["first.example"]).await;
    let mut others = Vec::new();
    for n in 0..5 {
        let client = if n % 2 == 0 { &one } else { &two };
        others.push(with_key(&world, client, &key, &[&format!("n{n}.example")]).await);
    }
    // Revoked for another reason before: raised.
    world.revoke(by_account(&one, &others[0].certificate, 4)).await.unwrap();
    let bystander = world.certificate(&one, &["bystander.example"]).await;

    // Whoever only says so revokes one certificate, and with another reason nobody else's goes along.
    world.revoke(by_account(&one, &others[2].certificate, 1)).await.unwrap();
    assert!(world.revoked(&others[1].serial).await.is_none());
    world.store.fail_after("revoke", 1, StoreFault::Failed);
    assert!(matches!(world.revoke(by_key(&key, &first.certificate, 1)).await, Err(Failure::Store(_))));
    assert!(world.revoked(&first.serial).await.is_some(), "itself at first");
    // The client tries again, and the rest is done.
    let again = world.revoke(by_key(&key, &first.certificate, 1)).await;
    assert_eq!(reason(again), Reason::AlreadyRevoked);
    for other in &others {
        let row = world.revoked(&other.serial).await.unwrap();
        assert_eq!(row.current_reason().code(), 1);
    }
    let source = world.revoked(&others[1].serial).await.unwrap().source;
    assert_eq!(source, format!("certificate key of {}", first.serial));
    assert_eq!(world.revoked(&bystander.issued.serial).await, None);
    let kinds = world.audit_kinds().await;
    // Six certificates, one of them twice: revoked, then raised.
    assert_eq!(kinds.iter().filter(|kind| *kind == "certificate.revoked").count(), 7);
}

#[tokio::test]
async fn what_a_compromised_key_leaves_behind_is_finished_by_any_signer() {
    let world = World::start().await;
    let (client, key) = (world.client().await, Client::new(OPEN));
    let first = with_key(&world, &client, &key, &["first.example"]).await;
    let mut others = Vec::new();
    for n in 0..3 {
        others.push(with_key(&world, &client, &key, &[&format!("n{n}.example")]).await.serial);
    }
    let bystander = world.certificate(&client, &["bystander.example"]).await.issued.serial;
    assert_eq!(world.ca.finish_compromised(false).await.unwrap(), 0, "no key is compromised");
    world.store.fail_after("revoke", 1, StoreFault::Failed);
    assert!(matches!(world.revoke(by_key(&key, &first.certificate, 1)).await, Err(Failure::Store(_))));
    assert_eq!(world.revoked(&others[0]).await, None);
    // The process dies, and nobody asks again.
    let world = world.restart().await;
    world.clock.advance(std::time::Duration::from_secs(8 * 86400));
    assert_eq!(world.ca.finish_compromised(false).await.unwrap(), 0, "too long ago for every round");
    assert_eq!(world.ca.finish_compromised(true).await.unwrap(), 3, "not for one that was just started");
    for serial in &others {
        let row = world.revoked(serial).await.unwrap();
        assert_eq!((row.reason.code(), row.source.as_str()), (1, "key blocked by certificate key"));
    }
    assert_eq!(world.ca.finish_compromised(true).await.unwrap(), 0);
    assert_eq!(world.revoked(&bystander).await, None);
}

#[tokio::test]
async fn by_another_reason_a_key_takes_nothing_along() {
    let world = World::start().await;
    let client = world.client().await;
    let key = Client::new(OPEN);
    let first = with_key(&world, &client, &key, &["first.example"]).await;
    let second = with_key(&world, &client, &key, &["second.example"]).await;
    world.revoke(by_key(&key, &first.certificate, 4)).await.unwrap();
    assert_eq!(world.revoked(&second.serial).await, None);
    // An operator's word is as good as the key's.
    let compromised = pki::Reason::KeyCompromise;
    world.ca.revoke_by_operator("alice", first.serial, compromised).await.unwrap();
    let row = world.revoked(&second.serial).await.unwrap();
    assert_eq!((row.current_reason().code(), row.source.as_str()), (1, "operator alice"));
}

#[tokio::test]
async fn a_directory_says_which_reasons_its_clients_may_give() {
    let world = World::start().await;
    let key = Client::new(STRICT);
    let client = world.client_of(STRICT).await;
    let held = with_key(&world, &client, &key, &["example.org"]).await;
    for code in [0, 3, 4] {
        let refused = refusal(world.revoke(by_account(&client, &held.certificate, code)).await);
        assert_eq!(refused.problem.kind, ErrorType::BadRevocationReason, "{code}");
        assert!(refused.problem.detail.contains("5 (cessationOfOperation)"), "{}", refused.problem.detail);
        let refused = refusal(world.revoke(by_key(&key, &held.certificate, code)).await);
        assert_eq!(refused.reason, Reason::RevocationReason, "{code}");
    }
    // That the key is compromised, only the key says here.
    let refused = refusal(world.revoke(by_account(&client, &held.certificate, 1)).await);
    assert_eq!(refused.problem.kind, ErrorType::BadRevocationReason);
    assert_eq!(world.revoked(&held.serial).await, None);
    world.revoke(by_account(&client, &held.certificate, 5)).await.unwrap();
    world.revoke(by_key(&key, &held.certificate, 1)).await.unwrap();
    assert_eq!(world.revoked(&held.serial).await.unwrap().current_reason().code(), 1);
}

#[tokio::test]
async fn f2_names_that_were_held_too_long_ago_do_not_count() {
    let world = World::start().await;
    let client = world.client().await;
    let held = world.certificate(&client, &["a.example"]).await;
    let heir = world.client().await;
    let evidence = world.ready(&heir, &["a.example"]).await.evidence;
    // The directory takes validations that are ten days old, and its orders live seven.
    world.clock.advance(std::time::Duration::from_secs(18 * 86_400));
    let request = by_account(&heir, &held.issued.certificate, 5);
    assert_eq!(reason(world.ca.revoke(&request, evidence).await), Reason::ReceiptStale);
    assert_eq!(world.revoked(&held.issued.serial).await, None);
    let evidence = world.ready(&heir, &["a.example"]).await.evidence;
    world.ca.revoke(&request, evidence).await.unwrap();
}
