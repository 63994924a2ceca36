//! Receipts: whose, of what, of when, and how many. Where a perspective is honest, its receipt is genuine and about
//! something else; where it is the front's, it signs whatever the front wants.

use std::time::Duration;

use acme::Problem;
use acme::challenge::Method;
use acme::problem::ErrorType;
use acme::receipt::{Caa, NO_REQUIREMENT, Outcome, Persisted, Receipt, ReceiptKey, Run};
use aws_lc_rs::hmac;
use pki::{Name, Period, Timestamp};
use rpc::proto::signer::v1 as wire;
use serde_json::json;

use super::scene::{Ready, Scene, name, now};
use crate::support::{Client, csr_for, encode, json_of};

/// A client, its order, and what an honest perspective would have seen of it.
async fn order(scene: &mut Scene, attack: &str) -> (Client, Ready, Receipt) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &[&name(attack)]).await;
    let receipt = scene.receipt(&client, &parsed(&ready), ready.authorization());
    scene.meanwhile().await;
    (client, ready, receipt)
}

fn parsed(ready: &Ready) -> Name {
    ready.names[0].parse().expect("a name")
}

fn with(ready: &Ready, client: &Client, receipts: Vec<String>) -> wire::IssueRequest {
    let mut ready = ready.clone();
    ready.evidence[0].receipts = receipts;
    ready.finalized_by(client)
}

/// The front's order for the victim's name, with the victim's receipts.
pub(super) async fn anothers_receipts(scene: &mut Scene) {
    let (_, victims, _) = order(scene, "anothers-receipts").await;
    let front = scene.client().await;
    let ready = scene.ready(&front, &[&name("anothers-receipts")]).await;
    scene.meanwhile().await;
    refuse!(scene, issue(with(&ready, &front, victims.evidence[0].receipts.clone())));
}

/// Receipts of the same account and name, of an earlier authorization.
pub(super) async fn receipts_of_another_authorization(scene: &mut Scene) {
    let (client, first, _) = order(scene, "another-authorization").await;
    let second = scene.ready(&client, &[&name("another-authorization")]).await;
    refuse!(scene, issue(with(&second, &client, first.evidence[0].receipts.clone())));
}

/// The front had the perspectives look at its own name, under the authorization of the one that it wants.
pub(super) async fn receipts_for_another_name(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "bank").await;
    for seen in ["front.evil.test", "*.bank.victim.test", "192.0.2.1"] {
        let name = seen.parse::<Name>().or_else(|_| Name::parse_ip(seen)).expect("a name");
        let requirement = acme::receipt::requirement(receipt.method, &name);
        let receipts = scene.seen(&Receipt { name, requirement, ..receipt.clone() }, &[0, 1, 2]);
        refuse!(scene, issue(with(&ready, &client, receipts)));
    }
}

/// The front had the perspectives look for another account.
pub(super) async fn receipts_for_another_account(scene: &mut Scene) {
    let front = scene.client().await;
    let (client, ready, receipt) = order(scene, "another-account").await;
    let account = front.account.expect("an account");
    let receipts = scene.seen(&Receipt { account, ..receipt }, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// The front had the perspectives look for records that name another account's URL, or one of another server.
pub(super) async fn receipts_for_another_account_url(scene: &mut Scene) {
    let front = scene.client().await;
    let (client, ready, receipt) = order(scene, "another-account-url").await;
    let own = client.account_url();
    let (_, path) = own.split_once("/acme/").expect("a path");
    for url in [front.account_url(), format!("https://evil.test/acme/{path}"), format!("{own}/orders")] {
        let account_url = url.parse().expect("a URL");
        let receipts = scene.seen(&Receipt { account_url, ..receipt.clone() }, &[0, 1, 2]);
        refuse!(scene, issue(with(&ready, &client, receipts)));
    }
}

/// A name that public trust takes.
fn public_name(attack: &str) -> String {
    format!("{attack}.victim.example.org")
}

/// An order in the directory of public trust, and what an honest perspective would have seen of it: it has DNSSEC, and asked
/// CAA for this CA.
async fn public_order(scene: &mut Scene, name: &str) -> (Client, Ready, Receipt) {
    let client = scene.client_of("public").await;
    let ready = scene.ready(&client, &[name]).await;
    let receipt = scene.receipt(&client, &parsed(&ready), ready.authorization());
    let receipt = Receipt {
        caa: Some(caa(&["ca.test"], now())),
        addresses: vec!["8.8.8.8".parse().expect("an address")],
        ..receipt
    };
    scene.meanwhile().await;
    (client, ready, receipt)
}

fn caa(identities: &[&str], checked: Timestamp) -> Caa {
    let identities = identities.iter().map(|name| name.parse().expect("a name")).collect();
    Caa { permitted: true, identities, found_at: None, ttl_seconds: 60, checked }
}

/// The front had the perspectives ask CAA for another CA's names, or for more than the directory's.
pub(super) async fn receipts_for_another_cas_caa(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &public_name("another-ca")).await;
    for identities in [&["evil.test"][..], &["ca.test", "evil.test"], &[]] {
        let caa = Some(caa(identities, now()));
        let receipts = scene.seen(&Receipt { caa, ..receipt.clone() }, &[0, 1, 2]);
        refuse!(scene, issue(with(&ready, &client, receipts)));
    }
}

/// The front had the perspectives not ask CAA at all.
pub(super) async fn receipts_without_caa(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &public_name("without-caa")).await;
    let receipts = scene.seen(&Receipt { caa: None, ..receipt }, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// Looks at CAA alone, which show no control, as many as there are perspectives.
pub(super) async fn caa_alone_as_control(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &public_name("caa-alone")).await;
    let alone = Receipt { outcome: Outcome::Caa, ..receipt.clone() };
    refuse!(scene, issue(with(&ready, &client, scene_receipts(scene, &alone, &[0, 1, 2]))));
    // With the control of one perspective, in the same run.
    let receipts = [scene.seen(&receipt, &[0]), scene.seen(&alone, &[1, 2])].concat();
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// A validation whose CAA answer is too old, renewed by one perspective only.
pub(super) async fn old_caa_answers(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &public_name("old-caa")).await;
    let old = Receipt { caa: Some(caa(&["ca.test"], now().minus(Period::from_hours(9)))), ..receipt.clone() };
    let fresh = Receipt { outcome: Outcome::Caa, run: Run::from_bytes([9; 16]), ..receipt };
    refuse!(scene, issue(with(&ready, &client, scene_receipts(scene, &old, &[0, 1, 2]))));
    let receipts = [scene.seen(&old, &[0, 1, 2]), scene.seen(&fresh, &[0])].concat();
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// A validation whose CAA answer is too old, renewed for a method that CAA may permit instead.
pub(super) async fn caa_asked_for_another_method(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &public_name("caa-method")).await;
    let old = Receipt { caa: Some(caa(&["ca.test"], now().minus(Period::from_hours(9)))), ..receipt.clone() };
    let method = Method::Dns01;
    let requirement = acme::receipt::requirement(method, &receipt.name);
    let run = Run::from_bytes([9; 16]);
    let fresh = Receipt { outcome: Outcome::Caa, run, method, requirement, ..receipt };
    let receipts = [scene.seen(&old, &[0, 1, 2]), scene.seen(&fresh, &[0, 1, 2])].concat();
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// Perspectives without DNSSEC, in a directory of public trust.
pub(super) async fn receipts_without_dnssec(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &public_name("without-dnssec")).await;
    let receipts = scene.seen(&Receipt { dnssec: false, ..receipt }, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// Perspectives that looked inside of a network, in a directory of public trust.
pub(super) async fn receipts_of_reserved_addresses(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &public_name("reserved")).await;
    let addresses = vec!["10.0.0.1".parse().expect("an address")];
    let receipts = scene.seen(&Receipt { addresses, ..receipt }, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// The front has found validators that look at nothing, as those of a directory for tests are, and asks them for names of
/// other directories: of the same CA, which is marked as a test CA, and of public trust.
pub(super) async fn receipts_of_a_validator_that_looks_at_nothing(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "unseen").await;
    let assumed = assumed(&receipt);
    let receipts = scene.seen(&assumed, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
    // With one that looked; and in the words of those who did.
    let mixed = [scene.seen(&receipt, &[0]), scene.seen(&assumed, &[1, 2])].concat();
    refuse!(scene, issue(with(&ready, &client, mixed)));
    let looked = Receipt { outcome: Outcome::Assumed, ..receipt.clone() };
    let receipts = scene.seen(&looked, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
    let valid = Receipt { outcome: Outcome::Valid, ..assumed };
    let receipts = scene.seen(&valid, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
    // For somebody else's certificate to be revoked.
    let victim = scene.client().await;
    let certificate = scene.certificate(&victim, &name("unseen")).await;
    scene.meanwhile().await;
    let mut evidence = ready.evidence.clone();
    evidence[0].receipts = scene.seen(&self::assumed(&receipt), &[0, 1, 2]);
    refuse!(scene, revoke_with(client.revocation(&certificate, 0), evidence));
    let (client, ready, receipt) = public_order(scene, &public_name("unseen")).await;
    let receipts = scene.seen(&self::assumed(&receipt), &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// What a perspective signs that looks at nothing.
fn assumed(receipt: &Receipt) -> Receipt {
    Receipt {
        requirement: NO_REQUIREMENT.to_owned(),
        addresses: Vec::new(),
        caa: None,
        dnssec: false,
        outcome: Outcome::Assumed,
        ..receipt.clone()
    }
}

/// The front had the perspectives look below the label of its own account.
pub(super) async fn account_label_of_another_account(scene: &mut Scene) {
    let front = scene.client_of("public").await;
    let (client, ready, receipt) = public_order(scene, &public_name("label")).await;
    let method = Method::DnsAccount01;
    let receipt = Receipt {
        method,
        requirement: acme::receipt::requirement(method, &receipt.name),
        account_url: front.account_url().parse().expect("a URL"),
        addresses: Vec::new(),
        ..receipt
    };
    let receipts = scene.seen(&receipt, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// A wildcard on the strength of what a web server said.
pub(super) async fn wildcard_by_a_web_server(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &format!("*.{}", public_name("wild"))).await;
    let receipts = scene.seen(&receipt, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// A method that the directory does not name.
pub(super) async fn receipts_of_a_method_that_is_not_offered(scene: &mut Scene) {
    let (client, ready, receipt) = public_order(scene, &public_name("not-offered")).await;
    for method in [Method::TlsAlpn01, Method::DnsPersist01] {
        let requirement = acme::receipt::requirement(method, &receipt.name);
        let persisted = (method == Method::DnsPersist01).then_some(Persisted { ttl_seconds: 60 });
        let receipts = scene.seen(&Receipt { method, requirement, persisted, ..receipt.clone() }, &[0, 1, 2]);
        refuse!(scene, issue(with(&ready, &client, receipts)));
    }
}

/// The front had the perspectives look for another directory, whose quorum may be less.
pub(super) async fn receipts_for_another_directory(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "another-directory").await;
    let directory = "other".parse().expect("a directory");
    let receipts = scene.seen(&Receipt { directory, ..receipt }, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// The front answered the challenge with its own key.
pub(super) async fn receipts_for_the_fronts_key(scene: &mut Scene) {
    let front = scene.client().await;
    let (client, ready, receipt) = order(scene, "fronts-key").await;
    let receipts = scene.seen(&Receipt { thumbprint: front.thumbprint(), ..receipt }, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// A token of the front's choice.
pub(super) async fn receipts_for_another_token(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "another-token").await;
    let receipts = scene.seen(&Receipt { token: "x".repeat(43), ..receipt }, &[0, 1, 2]);
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// From before the order, and from tomorrow.
pub(super) async fn receipts_of_another_time(scene: &mut Scene) {
    let client = scene.client().await;
    // Longer than clocks may differ, so that the account is older than the receipt, and the order is not.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let ready = scene.ready(&client, &[&name("another-time")]).await;
    let receipt = scene.receipt(&client, &parsed(&ready), ready.authorization());
    scene.meanwhile().await;
    for at in [now().minus(Period::from_seconds(4)), now().plus(Period::from_hours(1))] {
        let receipts = scene.seen(&Receipt { started: at, finished: at, ..receipt.clone() }, &[0, 1, 2]);
        refuse!(scene, issue(with(&ready, &client, receipts)));
    }
}

/// The primary is the front's: it says yes, invents perspectives, and signs for the others.
pub(super) async fn quorum_invented_by_the_primary(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "invented").await;
    let own = scene.seen(&receipt, &[0]);
    let invented: Vec<_> = ["p-4", "p-5", "validator-9"]
        .map(|name| ReceiptKey::from_seed(name.parse().expect("a name"), &[99; 32]).expect("a key"))
        .iter()
        .map(|key| {
            key.sign(&Receipt { perspective: key.perspective().clone(), ..receipt.clone() })
                .expect("a receipt")
        })
        .collect();
    refuse!(scene, issue(with(&ready, &client, [own.clone(), invented].concat())));
    // In the names of the others, with its own key.
    let own_seed = [1; 32];
    let others = ["p-2", "p-3"].map(|name| {
        let key = ReceiptKey::from_seed(name.parse().expect("a name"), &own_seed).expect("a key");
        key.sign(&Receipt { perspective: key.perspective().clone(), ..receipt.clone() }).expect("a receipt")
    });
    refuse!(scene, issue(with(&ready, &client, [own, others.to_vec()].concat())));
}

/// One perspective, as often as the quorum is large, and in as many signatures.
pub(super) async fn one_perspective_several_times(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "several-times").await;
    refuse!(scene, issue(with(&ready, &client, scene_receipts(scene, &receipt, &[0, 0, 0]))));
    let attempts = (1..4).flat_map(|attempt| scene.seen(&Receipt { attempt, ..receipt.clone() }, &[0]));
    let receipts: Vec<_> = attempts.collect();
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

fn scene_receipts(scene: &Scene, receipt: &Receipt, perspectives: &[usize]) -> Vec<String> {
    scene.seen(receipt, perspectives)
}

/// A quorum behind more receipts than any client's tries leave.
pub(super) async fn more_receipts_than_are_read(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "more-receipts").await;
    let one = scene.seen(&receipt, &[0]);
    let receipts = [vec![one[0].clone(); 3000], scene.seen(&receipt, &[1, 2])].concat();
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// What different perspectives saw at different times, put together.
pub(super) async fn runs_mixed(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "runs").await;
    let runs = (0..3).flat_map(|at| {
        let run = Run::from_bytes([at as u8; 16]);
        scene.seen(&Receipt { run, ..receipt.clone() }, &[at])
    });
    let receipts: Vec<_> = runs.collect();
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// One saw the proof, two did not; the front leaves those out, or shows only one of two that disagree with themselves.
pub(super) async fn dissent_left_out(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "dissent").await;
    let outcome = Outcome::Invalid(Problem::new(ErrorType::Connection, "refused"));
    let failed = Receipt { outcome, ..receipt.clone() };
    let (yes, no) = (scene.seen(&receipt, &[0]), scene.seen(&failed, &[1, 2]));
    refuse!(scene, issue(with(&ready, &client, yes.clone())));
    refuse!(scene, issue(with(&ready, &client, [yes, no].concat())));
    refuse!(scene, issue(with(&ready, &client, Vec::new())));
    let both = [scene.seen(&receipt, &[0, 1]), scene.seen(&failed, &[1])].concat();
    refuse!(scene, issue(with(&ready, &client, both)));
}

/// Without a signature: no algorithm, an empty one, zeros.
pub(super) async fn unsigned_receipts(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "unsigned").await;
    let genuine = scene.seen(&receipt, &[1]).remove(0);
    let (signed, _) = genuine.rsplit_once('.').expect("three parts");
    let (_, payload) = signed.split_once('.').expect("two parts");
    let none = encode(json!({ "alg": "none", "typ": "chancery-receipt+jwt", "kid": "p-2" }).to_string());
    for forged in [
        format!("{none}.{payload}."),
        format!("{signed}."),
        signed.to_owned(),
        format!("{signed}.{}", encode([0; 64])),
        String::new(),
        format!("{genuine}.{genuine}"),
    ] {
        let receipts = [scene.seen(&receipt, &[0]), vec![forged]].concat();
        refuse!(scene, issue(with(&ready, &client, receipts)));
    }
}

/// With the front's keys: ECDSA, and an Ed25519 key of its own under a registered name.
pub(super) async fn receipts_signed_by_the_front(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "resigned").await;
    let front = scene.stranger("strict");
    let receipt = Receipt { perspective: "p-2".parse().expect("a name"), ..receipt };
    let header = encode(json!({ "alg": "ES256", "typ": "chancery-receipt+jwt", "kid": "p-2" }).to_string());
    let message = format!("{header}.{}", encode(serde_json::to_vec(&receipt).expect("JSON")));
    let ecdsa = format!("{message}.{}", encode(front.signature(message.as_bytes())));
    let key = ReceiptKey::from_seed("p-2".parse().expect("a name"), &[77; 32]).expect("a key");
    for forged in [ecdsa, key.sign(&receipt).expect("a receipt")] {
        let receipts = [scene.seen(&receipt, &[0]), vec![forged]].concat();
        refuse!(scene, issue(with(&ready, &client, receipts)));
    }
}

/// A perspective's public key as the secret of a MAC.
pub(super) async fn receipt_with_a_mac_of_the_public_key(scene: &mut Scene) {
    let (client, ready, receipt) = order(scene, "mac").await;
    let receipt = Receipt { perspective: "p-2".parse().expect("a name"), ..receipt };
    let header = encode(json!({ "alg": "HS256", "typ": "chancery-receipt+jwt", "kid": "p-2" }).to_string());
    let message = format!("{header}.{}", encode(serde_json::to_vec(&receipt).expect("JSON")));
    let key = hmac::Key::new(hmac::HMAC_SHA256, scene.system.perspectives[1].public_key());
    let forged = format!("{message}.{}", encode(hmac::sign(&key, message.as_bytes())));
    let receipts = [scene.seen(&receipt, &[0]), vec![forged]].concat();
    refuse!(scene, issue(with(&ready, &client, receipts)));
}

/// An order that is ready in the copy of `acme`, with its newOrder and the real validator's receipts: all that is missing is
/// the client's finalize.
pub(super) async fn copied_order_finalized_by_the_front(scene: &mut Scene) {
    let mut front = scene.client_of("open").await;
    scene.meanwhile().await;
    let honest = &scene.system.honest;
    let new_order = honest.new_order.clone().into_bytes();
    let names = json_of(&acme::base64url::decode(json_of(&new_order)["payload"].as_str().unwrap()).unwrap());
    let name = names["identifiers"][0]["value"].as_str().expect("a name").to_owned();
    let ready = Ready {
        order: honest.order.clone(),
        names: vec![name.clone()],
        evidence: vec![wire::AuthorizationEvidence {
            identifier: Some((&name.parse::<Name>().expect("a name")).into()),
            authorization_id: honest.authorization.clone(),
            created_by_digest: crate::support::digest(&new_order).to_vec().into(),
            receipts: honest.receipts.clone(),
            ancestor: None,
        }],
        new_order,
    };
    let victim = honest.account.parse().expect("an account");
    // As the front itself, with its own newOrder for the name, and as the client, with another key.
    refuse!(scene, issue(ready.finalized_by(&front)));
    let mut own = ready.clone();
    own.new_order = front.new_order(&[&name]);
    refuse!(scene, issue(own.finalized_by(&front)));
    front.account = Some(victim);
    refuse!(scene, issue(ready.with(front.finalize(&ready.order, &csr_for(&[&name])))));
}
