//! Receipts: each of their fields, their signatures, their number and their age.

use std::time::Duration;

use acme::Problem;
use acme::problem::ErrorType;
use acme::receipt::{Caa, Outcome as Observation, Receipt, ReceiptKey, Run};
use ca_store::{AuthorityRow, DeactivationRow, NodeRow, NodeState};
use pki::{Period, Timestamp};
use signer::Reason;
use signer::authority::IssueOrder;

use crate::support::{Client, OTHER, PERSPECTIVES, Peek as _, Ready, World, csr, foreign_account, reason};

/// A world with an order for one name, and what the perspectives saw of it.
struct Scene {
    world: World,
    client: Client,
    ready: Ready,
}

impl Scene {
    async fn new() -> Self {
        Self::of("example.org").await
    }

    async fn of(name: &str) -> Self {
        let world = World::start().await;
        let client = world.client().await;
        let ready = world.ready(&client, &[name]).await;
        Self { world, client, ready }
    }

    /// In a directory that has names in CAA records.
    async fn with_caa() -> Self {
        let more = "maximum_names = 5\ncaa_identities = [\"ca.test\", \"pki.test\"]\nmethods = [\"http-01\", \"dns-01\"]\n";
        let world = World::start().await.with_policy("maximum_names = 5\n", more).await;
        let client = world.client().await;
        let ready = world.ready(&client, &["example.org"]).await;
        Self { world, client, ready }
    }

    fn receipt(&self) -> Receipt {
        let evidence = &self.ready.evidence[0];
        self.world.receipt(&self.client, &evidence.name, evidence)
    }

    fn order_with(&self, receipts: Vec<String>) -> IssueOrder {
        let mut ready = self.ready.clone();
        ready.evidence[0].receipts = receipts;
        ready.finalized_by(&self.client)
    }

    /// The refusal when all three perspectives have signed this receipt.
    async fn refusal_of(&self, receipt: &Receipt) -> Reason {
        let receipts = self.world.sign_receipts(receipt, &[0, 1, 2]);
        self.world.refusal(self.order_with(receipts)).await
    }
}

/// What CAA said of a name in that directory.
fn caa(permitted: bool, ttl_seconds: u32, checked: Timestamp) -> Option<Caa> {
    let identities = ["ca.test", "pki.test"].map(|name| name.parse().unwrap()).to_vec();
    Some(Caa { permitted, identities, found_at: None, ttl_seconds, checked })
}

type Change = Box<dyn Fn(&mut Receipt)>;

#[tokio::test]
async fn every_field_of_a_receipt_is_compared() {
    let scene = Scene::new().await;
    let good = scene.receipt();
    let stranger = scene.world.client().await;
    let another = scene.world.ready(&scene.client, &["other.example.org"]).await.evidence[0].clone();
    let changes: [(&str, Change, Reason); 11] = [
        (
            "authorization",
            Box::new({
                let another = another.clone();
                move |receipt| {
                    receipt.authorization = another.authorization;
                    receipt.token = acme::id::token(&another.authorization);
                }
            }),
            Reason::ReceiptAuthorization,
        ),
        (
            "directory",
            Box::new(|receipt| receipt.directory = OTHER.parse().unwrap()),
            Reason::ReceiptDirectory,
        ),
        ("account", Box::new(|receipt| receipt.account = foreign_account()), Reason::ReceiptAccount),
        (
            "account URL",
            Box::new({
                let url = stranger.account_url();
                move |receipt| receipt.account_url = url.parse().unwrap()
            }),
            Reason::ReceiptAccountUrl,
        ),
        (
            "base URL",
            Box::new(|receipt| {
                let (_, path) = receipt.account_url.as_str().split_once("/acme/").unwrap();
                receipt.account_url = format!("https://other.test/acme/{path}").parse().unwrap();
            }),
            Reason::ReceiptAccountUrl,
        ),
        (
            "requirement",
            Box::new(|receipt| receipt.requirement = "BR 2.2.6 3.2.2.4.7".to_owned()),
            Reason::ReceiptMalformed,
        ),
        (
            "thumbprint",
            Box::new({
                let thumbprint = stranger.thumbprint();
                move |receipt| receipt.thumbprint = thumbprint
            }),
            Reason::ReceiptKey,
        ),
        (
            "name",
            Box::new(|receipt| receipt.name = "other.example.org".parse().unwrap()),
            Reason::ReceiptName,
        ),
        (
            "wildcard",
            Box::new(|receipt| receipt.name = "*.example.org".parse().unwrap()),
            Reason::ReceiptName,
        ),
        ("token", Box::new(|receipt| receipt.token = "x".repeat(43)), Reason::ReceiptMalformed),
        (
            "times",
            Box::new(|receipt| receipt.started = receipt.finished.plus(Period::from_seconds(1))),
            Reason::ReceiptMalformed,
        ),
    ];
    for (field, change, expected) in changes {
        let mut receipt = good.clone();
        change(&mut receipt);
        assert_eq!(scene.refusal_of(&receipt).await, expected, "{field}");
    }
    assert!(scene.world.journal().await.is_empty());
    scene.world.issue(scene.ready.finalized_by(&scene.client)).await.unwrap();
}

#[tokio::test]
async fn another_clients_receipts_do_not_count() {
    let scene = Scene::new().await;
    let other = scene.world.client().await;
    let theirs = scene.world.ready(&other, &["example.org"]).await;
    let order = scene.order_with(theirs.evidence[0].receipts.clone());
    assert_eq!(scene.world.refusal(order).await, Reason::ReceiptAuthorization);
    // Nor with their authorization id.
    let mut ready = scene.ready.clone();
    ready.evidence = theirs.evidence;
    assert_eq!(scene.world.refusal(ready.finalized_by(&scene.client)).await, Reason::AuthorizationForged);
}

#[tokio::test]
async fn only_registered_and_active_validators_count() {
    let scene = Scene::new().await;
    let receipt = scene.receipt();
    // A perspective of the right name with a key of its own, one that nobody knows, and garbage.
    let impostor = ReceiptKey::from_seed(PERSPECTIVES[0].parse().unwrap(), &[77; 32]).unwrap();
    let unknown = ReceiptKey::from_seed("validator-9".parse().unwrap(), &[78; 32]).unwrap();
    let forged =
        impostor.sign(&Receipt { perspective: impostor.perspective().clone(), ..receipt.clone() }).unwrap();
    let unregistered =
        unknown.sign(&Receipt { perspective: unknown.perspective().clone(), ..receipt.clone() }).unwrap();
    let genuine = scene.world.sign_receipts(&receipt, &[1]).remove(0);
    let unsigned = format!("{}.{}", genuine.rsplit_once('.').unwrap().0, "A".repeat(86));
    for (bad, expected) in [
        (forged, Reason::ReceiptSignature),
        (unregistered, Reason::ReceiptUnregistered),
        (unsigned, Reason::ReceiptSignature),
        ("a.b.c".to_owned(), Reason::ReceiptMalformed),
    ] {
        let order = scene.order_with(vec![genuine.clone(), bad]);
        assert_eq!(scene.world.refusal(order).await, expected);
    }

    // Two of three are revoked: what they saw does not count any longer.
    let nodes = scene.world.store.nodes_unverified().await;
    for row in nodes.into_iter().filter(|row| row.name != PERSPECTIVES[2]) {
        let row = NodeRow { state: NodeState::Revoked, version: row.version + 1, ..row };
        let expected = Some(row.version - 1);
        scene.world.put(AuthorityRow::Node(scene.world.secrets.rows.seal(row)), expected).await;
    }
    scene.world.ca.reload_nodes().await.unwrap();
    let order = scene.ready.finalized_by(&scene.client);
    assert_eq!(scene.world.refusal(order).await, Reason::ReceiptUnregistered);
    assert!(scene.world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn a_quorum_is_distinct_perspectives_of_one_run() {
    let scene = Scene::new().await;
    let receipt = scene.receipt();
    let sign = |receipt: &Receipt, of: &[usize]| scene.world.sign_receipts(receipt, of);
    let failed = Receipt {
        outcome: Observation::Invalid(Problem::new(ErrorType::Connection, "refused")),
        ..receipt.clone()
    };
    // The front counts its tries as it likes: it is the primary's run that must be one.
    let again = Receipt { run: Run::from_bytes([2; 16]), ..receipt.clone() };

    let cases = [
        ("none", vec![]),
        ("one of three", sign(&receipt, &[0])),
        ("one of three, three times", sign(&receipt, &[0, 0, 0])),
        ("one, and two that saw nothing", [sign(&receipt, &[0]), sign(&failed, &[1, 2])].concat()),
        ("one in each of two runs", [sign(&receipt, &[0]), sign(&again, &[1])].concat()),
        ("yes and no from the same", [sign(&receipt, &[0, 1]), sign(&failed, &[0, 1])].concat()),
    ];
    for (case, receipts) in cases {
        assert_eq!(scene.world.refusal(scene.order_with(receipts)).await, Reason::QuorumMissed, "{case}");
    }
    // One may dissent, or be silent.
    let receipts = [sign(&receipt, &[0, 2]), sign(&failed, &[1])].concat();
    scene.world.issue(scene.order_with(receipts)).await.unwrap();
    let silent = Scene::new().await;
    let receipts = silent.world.sign_receipts(&silent.receipt(), &[1, 2]);
    silent.world.issue(silent.order_with(receipts)).await.unwrap();
}

#[tokio::test]
async fn a_perspective_outside_of_the_quorum_does_not_count() {
    let world = World::start().await;
    let mut client = Client::new(OTHER);
    let account = world.ca.register_account(&client.new_account()).await.unwrap().account.id;
    client = client.of_account(account);
    let ready = world.ready(&client, &["example.org"]).await;
    let with = |of: &[usize]| {
        let mut ready = ready.clone();
        let receipt = world.receipt(&client, &ready.evidence[0].name, &ready.evidence[0]);
        ready.evidence[0].receipts = world.sign_receipts(&receipt, of);
        ready.finalized_by(&client)
    };
    assert_eq!(world.refusal(with(&[1, 2])).await, Reason::QuorumMissed);
    world.issue(with(&[0])).await.unwrap();
}

#[tokio::test]
async fn d10_receipts_have_an_age() {
    let mut scene = Scene::new().await;
    // Long after the account was made, so that only the order's own time matters.
    scene.world.clock.advance(Duration::from_secs(3600));
    scene.ready = scene.world.ready(&scene.client, &["example.org"]).await;
    let minutes = |minutes: u64| Period::from_seconds(minutes * 60);
    let good = scene.receipt();
    for (shift, ahead) in [(minutes(5), true), (minutes(5), false)] {
        let at = if ahead { good.finished.plus(shift) } else { good.finished.minus(shift) };
        let receipt = Receipt { started: at, finished: at, ..good.clone() };
        let expected = if ahead { Reason::ReceiptFuture } else { Reason::ReceiptEarly };
        assert_eq!(scene.refusal_of(&receipt).await, expected);
    }

    // A validation of an earlier order of the account, within ten days.
    let reused = |ready: &Ready| {
        let mut ready = ready.clone();
        ready.evidence = scene.ready.evidence.clone();
        ready.finalized_by(&scene.client)
    };
    scene.world.clock.advance(Duration::from_secs(9 * 86_400));
    let second = scene.world.ready(&scene.client, &["example.org"]).await;
    scene.world.issue(reused(&second)).await.unwrap();
    scene.world.clock.advance(Duration::from_secs(2 * 86_400));
    let third = scene.world.ready(&scene.client, &["example.org"]).await;
    assert_eq!(scene.world.refusal(reused(&third)).await, Reason::ReceiptStale);
}

/// A directory whose validation was not good enough takes none from before it was mended: of an earlier order, and of an order
/// that waits for its finalization.
#[tokio::test]
async fn d10_validations_from_before_a_time_do_not_count() {
    let world = World::start().await;
    let client = world.client().await;
    let early = world.ready(&client, &["example.org"]).await;
    let since = world.now().plus(Period::from_seconds(1));
    let directory = "name = \"open\"\n";
    let world = world.with_policy(directory, &format!("{directory}validations_since = \"{since}\"\n")).await;
    let refusal = world.ca.issue(early.finalized_by(&client)).await;
    let Err(signer::Failure::Refused(refusal)) = refusal else { panic!("issued") };
    assert_eq!(refusal.reason, Reason::ReceiptStale);
    assert!(refusal.to_string().contains(&format!("from before {since}")), "{refusal}");
    world.clock.advance(Duration::from_secs(1));
    let mut later = world.ready(&client, &["example.org"]).await;
    let evidence = std::mem::replace(&mut later.evidence, early.evidence);
    assert_eq!(world.refusal(later.clone().finalized_by(&client)).await, Reason::ReceiptStale);
    later.evidence = evidence;
    world.issue(later.finalized_by(&client)).await.unwrap();
}

#[tokio::test]
async fn d10_where_nothing_is_reused_nothing_is_reused() {
    let world = World::start().await;
    let mut client = Client::new(OTHER);
    let account = world.ca.register_account(&client.new_account()).await.unwrap().account.id;
    client = client.of_account(account);
    let first = world.ready(&client, &["example.org"]).await;
    // Not in the same second, nor by a perspective whose clock is ahead.
    let receipt = world.receipt(&client, &first.evidence[0].name, &first.evidence[0]);
    let ahead = receipt.finished.plus(Period::from_seconds(30));
    for receipt in [receipt.clone(), Receipt { started: ahead, finished: ahead, ..receipt }] {
        let mut second = world.ready(&client, &["example.org"]).await;
        second.evidence = first.evidence.clone();
        second.evidence[0].receipts = world.sign_receipts(&receipt, &[0, 1, 2]);
        assert_eq!(world.refusal(second.finalized_by(&client)).await, Reason::ReceiptStale);
    }
}

#[tokio::test]
async fn g9_a_token_shows_nothing_after_its_authorization_has_ended() {
    let mut scene = Scene::new().await;
    let old = scene.ready.evidence.clone();
    for (days, expected) in [(6, None), (60, Some(Reason::ReceiptLate))] {
        scene.world.clock.advance(Duration::from_secs(days * 86_400));
        scene.ready = scene.world.ready(&scene.client, &["example.org"]).await;
        // Looked at just now, and whatever answers there still knows the old token.
        scene.ready.evidence.clone_from(&old);
        let now = scene.world.now();
        let receipt = Receipt { started: now, finished: now, ..scene.receipt() };
        let receipts = scene.world.sign_receipts(&receipt, &[0, 1, 2]);
        match expected {
            None => drop(scene.world.issue(scene.order_with(receipts)).await.unwrap()),
            Some(reason) => assert_eq!(scene.world.refusal(scene.order_with(receipts)).await, reason),
        }
    }
}

#[tokio::test]
async fn c7_a_receipt_goes_with_the_key_of_its_time() {
    let scene = Scene::new().await;
    scene.world.clock.advance(Duration::from_secs(3600));
    let renewed = Client::new(&scene.client.directory).of_account(scene.client.account.unwrap());
    scene.world.ca.change_key(&scene.client.key_change(&renewed)).await.unwrap();
    scene.world.clock.advance(Duration::from_secs(3600));
    // The old key's thumbprint in a receipt of now.
    let now = scene.world.now();
    let late = Receipt { started: now, finished: now, ..scene.receipt() };
    let mut ready = scene.ready.clone();
    ready.evidence[0].receipts = scene.world.sign_receipts(&late, &[0, 1, 2]);
    assert_eq!(scene.world.refusal(ready.finalized_by(&renewed)).await, Reason::ReceiptKey);
    // In a receipt of its time it is good.
    scene.world.issue(scene.ready.finalized_by(&renewed)).await.unwrap();
}

#[tokio::test]
async fn d2_a_wildcard_is_not_shown_over_http() {
    let scene = Scene::of("*.example.org").await;
    let order = scene.ready.finalized_by(&scene.client);
    assert_eq!(scene.world.refusal(order).await, Reason::ReceiptMethod);
    // Nor by a validation of the name below it.
    let plain = scene.world.ready(&scene.client, &["example.org"]).await;
    let mut ready = scene.ready.clone();
    ready.evidence = plain.evidence.clone();
    assert_eq!(scene.world.refusal(ready.finalized_by(&scene.client)).await, Reason::EvidenceForeign);
    let mut relabelled = plain.evidence.clone();
    relabelled[0].name = "*.example.org".parse().unwrap();
    ready.evidence = relabelled;
    assert_eq!(scene.world.refusal(ready.finalized_by(&scene.client)).await, Reason::AuthorizationForged);
}

#[tokio::test]
async fn each_name_needs_evidence_and_no_other_name_does() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["a.example.org", "b.example.org"]).await;
    let other = world.ready(&client, &["c.example.org"]).await;
    let order = |change: &dyn Fn(&mut Ready)| {
        let mut ready = ready.clone();
        change(&mut ready);
        ready.finalized_by(&client)
    };
    let missing = order(&|ready| drop(ready.evidence.pop()));
    let extra = order(&|ready| ready.evidence.extend(other.evidence.clone()));
    let twice = order(&|ready| ready.evidence[1] = ready.evidence[0].clone());
    for (order, expected) in [
        (missing, Reason::EvidenceMissing),
        (extra, Reason::EvidenceForeign),
        (twice, Reason::EvidenceForeign),
    ] {
        assert_eq!(world.refusal(order).await, expected);
    }
    let digest = order(&|ready| ready.evidence[0].created_by[0] ^= 1);
    assert_eq!(world.refusal(digest).await, Reason::AuthorizationForged);
    let swapped = order(&|ready| {
        let first = ready.evidence[0].receipts.clone();
        ready.evidence[0].receipts = std::mem::replace(&mut ready.evidence[1].receipts, first);
    });
    assert_eq!(world.refusal(swapped).await, Reason::ReceiptAuthorization);
    world.issue(ready.finalized_by(&client)).await.unwrap();
}

#[tokio::test]
async fn d9_a_deactivated_authorization_does_not_count() {
    let scene = Scene::new().await;
    let row = DeactivationRow {
        authorization: scene.ready.evidence[0].authorization.to_string(),
        account: scene.client.account.unwrap().to_string(),
        request: b"the client's JWS".to_vec(),
        at: scene.world.now(),
    };
    scene.world.put(AuthorityRow::Deactivation(scene.world.secrets.rows.seal(row)), None).await;
    let order = scene.ready.finalized_by(&scene.client);
    assert_eq!(scene.world.refusal(order).await, Reason::AuthorizationDeactivated);
    assert!(scene.world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn h6_caa_must_permit_and_be_young_enough() {
    let scene = Scene::with_caa().await;
    let good = scene.receipt();
    let hours_ago = |hours| good.finished.minus(Period::from_hours(hours));
    let with = |caa| Receipt { caa, ..good.clone() };
    assert_eq!(scene.refusal_of(&with(caa(false, 60, good.finished))).await, Reason::Caa);
    assert_eq!(scene.refusal_of(&with(caa(true, 60, hours_ago(9)))).await, Reason::Caa);
    // A TTL of ten hours is longer than eight.
    assert_eq!(scene.refusal_of(&with(caa(true, 36_000, hours_ago(11)))).await, Reason::Caa);
    let receipts = scene.world.sign_receipts(&with(caa(true, 36_000, hours_ago(9))), &[0, 1, 2]);
    scene.world.issue(scene.order_with(receipts)).await.unwrap();
}

#[tokio::test]
async fn h6_a_receipt_without_an_answer_of_caa_for_this_ca_does_not_count() {
    let scene = Scene::with_caa().await;
    let good = scene.receipt();
    assert_eq!(scene.refusal_of(&good).await, Reason::ReceiptCaa);
    for identities in
        [vec![], vec!["ca.test"], vec!["pki.test", "ca.test"], vec!["ca.test", "pki.test", "x.test"]]
    {
        let identities = identities.into_iter().map(|name| name.parse().unwrap()).collect();
        let Some(right) = caa(true, 60, good.finished) else { unreachable!() };
        let other = Receipt { caa: Some(Caa { identities, ..right }), ..good.clone() };
        assert_eq!(scene.refusal_of(&other).await, Reason::ReceiptCaa);
    }
    // Where the directory has no names in CAA, nobody asks for any.
    let plain = Scene::new().await;
    let asked = Receipt { caa: caa(true, 60, good.finished), ..plain.receipt() };
    assert_eq!(plain.refusal_of(&asked).await, Reason::ReceiptCaa);
}

#[tokio::test]
async fn h6_a_look_at_caa_alone_renews_the_answer_and_shows_no_control() {
    let scene = Scene::with_caa().await;
    let good = scene.receipt();
    let old = Receipt { caa: caa(true, 60, good.finished.minus(Period::from_hours(9))), ..good.clone() };
    let run = Run::from_bytes([8; 16]);
    let (fresh, only) = (caa(true, 60, good.finished), Observation::Caa);
    let renewed = Receipt { caa: fresh, outcome: only, run, ..good.clone() };
    // By itself it is no control, with however many signatures.
    assert_eq!(scene.refusal_of(&renewed).await, Reason::QuorumMissed);
    let sign = |receipt: &Receipt, who: &[usize]| scene.world.sign_receipts(receipt, who);
    let both = |first: Vec<String>, second: Vec<String>| scene.order_with([first, second].concat());
    // Not enough of them have asked anew; or not in one run.
    let few = both(sign(&old, &[0, 1, 2]), sign(&renewed, &[0]));
    assert_eq!(scene.world.refusal(few).await, Reason::Caa);
    let elsewhere = Receipt { run: Run::from_bytes([9; 16]), ..renewed.clone() };
    let mixed = both(sign(&old, &[0, 1, 2]), [sign(&renewed, &[0]), sign(&elsewhere, &[1])].concat());
    assert_eq!(scene.world.refusal(mixed).await, Reason::Caa);
    // Asked for another method than the one that showed control (RFC 8657).
    let method = acme::challenge::Method::Dns01;
    let requirement = acme::receipt::requirement(method, &renewed.name);
    let other = Receipt { method, requirement, ..renewed.clone() };
    let order = both(sign(&old, &[0, 1, 2]), sign(&other, &[0, 1, 2]));
    assert_eq!(scene.world.refusal(order).await, Reason::Caa);
    // And one that forbids is no renewal, nor does it take back what an older one permitted: it shows nothing.
    let forbidden = Receipt { caa: caa(false, 60, good.finished), ..renewed.clone() };
    let order = both(sign(&old, &[0, 1, 2]), sign(&forbidden, &[0, 1, 2]));
    assert_eq!(scene.world.refusal(order).await, Reason::Caa);
    let order = both(sign(&old, &[0, 1, 2]), sign(&renewed, &[1, 2]));
    scene.world.issue(order).await.unwrap();
}

#[tokio::test]
async fn who_holds_names_is_asked_by_revocation_too() {
    let scene = Scene::new().await;
    let request = signer::ClientRequest::read(
        scene.world.ca.registry(),
        &scene.client.request("revoke-cert", &serde_json::json!({})),
    )
    .unwrap();
    let account = scene.world.ca.register_account(&scene.client.new_account()).await.unwrap().account;
    let names = pki::Csr::from_der(&csr(&["example.org"])).unwrap().names().clone();
    let held = |evidence: &[signer::authority::NameEvidence]| {
        let (ca, evidence) = (scene.world.ca.clone(), evidence.to_vec());
        let (request, account, names) = (&request, &account, &names);
        async move { ca.check_names_held(request, account, names, &evidence, false).await }
    };
    held(&scene.ready.evidence).await.unwrap();
    assert_eq!(reason(held(&[]).await), Reason::EvidenceMissing);
}

/// A world whose open directory is of public trust.
async fn public_world() -> World {
    let world = World::start()
        .await
        .with_policy("validity = \"90d\"", "validity = \"90d\"\nkind = \"public-dv\"")
        .await;
    let all = "profiles = [\"tls\", \"short\", \"linted\", \"stapled\", \"unstapled\"]";
    let world = world.with_policy(all, "profiles = [\"tls\"]").await;
    let more = "maximum_names = 5\npublic_trust = true\ncaa_identities = [\"ca.test\", \"pki.test\"]\n\
                methods = [\"http-01\", \"dns-persist-01\"]\n";
    world.with_policy("maximum_names = 5\n", more).await
}

#[tokio::test]
async fn g11_public_trust_takes_no_receipt_without_dnssec_or_of_a_reserved_address() {
    let world = public_world().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["www.example.org"]).await;
    let scene = Scene { world, client, ready };
    let plain = scene.receipt();
    let good = Receipt {
        caa: caa(true, 60, plain.finished),
        addresses: vec!["8.8.8.8".parse().unwrap(), "2606:4700::1111".parse().unwrap()],
        ..plain
    };
    let unvalidated = Receipt { dnssec: false, ..good.clone() };
    assert_eq!(scene.refusal_of(&unvalidated).await, Reason::ReceiptDnssec);
    for reserved in ["192.0.2.1", "10.0.0.1", "127.0.0.1", "fd00::1", "2001:db8::1"] {
        let mut inside = good.clone();
        inside.addresses.push(reserved.parse().unwrap());
        assert_eq!(scene.refusal_of(&inside).await, Reason::ReceiptAddress, "{reserved}");
    }
    let receipts = scene.world.sign_receipts(&good, &[0, 1, 2]);
    scene.world.issue(scene.order_with(receipts)).await.unwrap();
}

#[tokio::test]
async fn g3_public_trust_refuses_reserved_names_and_public_suffixes() {
    let world = public_world().await;
    let client = world.client().await;
    for name in ["co.uk", "1.0.0.127.in-addr.arpa", "internal", "a.onion", "*.co.uk"] {
        assert_eq!(
            reason(world.ca.authorize_order(&client.new_order(&[name])).await),
            Reason::NameRejected,
            "{name}"
        );
    }
    world.ca.authorize_order(&client.new_order(&["example.co.uk"])).await.unwrap();
}

/// The limits that clients know from others hold where nobody has set any.
#[tokio::test]
async fn a18_a_public_directory_has_the_well_known_limits() {
    let world = public_world().await;
    let client = world.client().await;
    let told = async |name: &str| match world.ca.authorize_order(&client.new_order(&[name])).await {
        Err(signer::Failure::Refused(refusal)) => refusal.problem.detail,
        other => panic!("{other:?}"),
    };
    for number in 0..50 {
        // Five of the same names, and then others.
        let name = format!("n{}.example.org", number.max(4));
        let mut ready = world.ready_one(&client, &name).await;
        let plain = world.receipt(&client, &ready.evidence[0].name, &ready.evidence[0]);
        let caa = caa(true, 60, plain.finished);
        let receipt = Receipt { caa, addresses: vec!["8.8.8.8".parse().unwrap()], ..plain };
        ready.evidence[0].receipts = world.sign_receipts(&receipt, &[0, 1, 2]);
        world.issue(ready.finalized_by(&client)).await.unwrap();
        if number == 4 {
            let said = told("n4.example.org").await;
            assert!(said.contains("the limit duplicate_certificates is 5 in 7d"), "{said}");
        }
    }
    let said = told("n50.example.org").await;
    assert!(said.contains("for example.org: the limit certificates_per_domain is 50 in 7d"), "{said}");
    world.ca.authorize_order(&client.new_order(&["n50.example.net"])).await.unwrap();
}

#[tokio::test]
async fn g8_a_persistent_record_is_relied_upon_as_long_as_its_ttl() {
    let world = public_world().await;
    let client = world.client().await;
    let seen = |ready: &Ready, ttl_seconds, hours_ago| {
        let evidence = &ready.evidence[0];
        let plain = world.receipt(&client, &evidence.name, evidence);
        let method = acme::challenge::Method::DnsPersist01;
        let at = plain.finished.minus(Period::from_hours(hours_ago));
        Receipt {
            method,
            requirement: acme::receipt::requirement(method, &evidence.name),
            persisted: Some(acme::receipt::Persisted { ttl_seconds }),
            addresses: Vec::new(),
            started: at,
            finished: at,
            caa: caa(true, 60, plain.finished),
            ..plain
        }
    };
    let first = world.ready(&client, &["www.example.org"]).await;
    world.clock.advance(Duration::from_secs(7 * 3600));
    let second = world.ready(&client, &["www.example.org"]).await;
    let order = |ready: &Ready, evidence: &Ready, receipt: &Receipt| {
        let mut ready = ready.clone();
        ready.evidence.clone_from(&evidence.evidence);
        ready.evidence[0].receipts = world.sign_receipts(receipt, &[0, 1, 2]);
        ready.finalized_by(&client)
    };
    // Another order's: no longer than the TTL.
    let short = order(&second, &first, &seen(&first, 3600, 2));
    assert_eq!(world.refusal(short).await, Reason::ReceiptStale);
    world.issue(order(&second, &first, &seen(&first, 3 * 3600, 2))).await.unwrap();
    // The order's own: the TTL, or eight hours.
    world.clock.advance(Duration::from_secs(2 * 3600));
    let late = order(&first, &first, &seen(&first, 3600, 9));
    assert_eq!(world.refusal(late).await, Reason::ReceiptStale);
    world.issue(order(&first, &first, &seen(&first, 3600, 7))).await.unwrap();
}

/// Methods that nobody has turned on have no name here: neither a policy nor a receipt can say one.
#[test]
fn g12_methods_for_other_identifiers_are_none() {
    for name in ["device-attest-01", "onion-csr-01", "tkauth-01", "HTTP-01", "tls-sni-02", ""] {
        assert!(name.parse::<acme::challenge::Method>().is_err(), "{name}");
        assert!(serde_json::from_value::<acme::challenge::Method>(name.into()).is_err(), "{name}");
    }
}
