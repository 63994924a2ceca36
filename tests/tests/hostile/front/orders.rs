//! Orders: which newOrder, which order id, which finalize.

use acme::id::IdKeys;
use acme::{OrderId, TierSecret, TierSecrets};
use serde_json::{Value, json};

use super::scene::{Ready, Scene, issue, name, now};
use crate::support::{Client, csr_for, digest, encode, json_of};

/// One newOrder, two orders: the client finalizes what it is shown, twice.
pub(super) async fn new_order_replayed(scene: &mut Scene) {
    let victim = scene.client().await;
    let first = scene.ready(&victim, &[&name("replayed")]).await;
    let second = scene.ready_with(&victim, first.new_order.clone()).await;
    scene.issue(first.finalized_by(&victim)).await.expect("a certificate");
    scene.meanwhile().await;
    refuse!(scene, issue(second.finalized_by(&victim)));
    // Eight orders of one newOrder, finalized at the same moment.
    let new_order = victim.new_order(&["replayed-at-once.victim.test"]);
    let mut orders = Vec::new();
    for _ in 0..8 {
        orders.push(scene.ready_with(&victim, new_order.clone()).await);
    }
    let requests = orders.iter().map(|ready| {
        let (mut front, request) = (scene.front.clone(), ready.finalized_by(&victim));
        async move { front.issue(request).await }
    });
    let outcomes = futures::future::join_all(requests).await;
    scene.meanwhile().await;
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    scene.check(made.len() == 1, &format!("{} certificates for one newOrder", made.len()));
    refused.into_iter().for_each(|outcome| scene.refuse(outcome));
}

/// The same newOrder in other octets: white space, order of members, members that mean nothing, and the other of the two
/// signatures that ECDSA has.
pub(super) async fn new_order_encoded_anew(scene: &mut Scene) {
    let victim = scene.client().await;
    let first = scene.ready(&victim, &[&name("encoded")]).await;
    scene.issue(first.finalized_by(&victim)).await.expect("a certificate");
    let mut again = Vec::new();
    for new_order in encoded_anew(&first.new_order) {
        again.push(scene.ready_with(&victim, new_order).await);
    }
    scene.meanwhile().await;
    for ready in again {
        refuse!(scene, issue(ready.finalized_by(&victim)));
    }
}

/// JWSs of the same words.
fn encoded_anew(jws: &[u8]) -> Vec<Vec<u8>> {
    let value = json_of(jws);
    let part = |member: &str| value[member].to_string();
    let (protected, payload, signature) = (part("protected"), part("payload"), part("signature"));
    let malleable = Value::from(encode(other_signature(
        &acme::base64url::decode(value["signature"].as_str().expect("a signature")).expect("base64url"),
    )));
    [
        serde_json::to_string_pretty(&value).expect("JSON"),
        format!(
            " \n{{\t\"signature\" : {signature}, \"payload\": {payload} ,\"protected\":{protected}}}\r\n"
        ),
        format!(r#"{{"x":[1],"protected":{protected},"payload":{payload},"signature":{signature}}}"#),
        format!(r#"{{"p\u0072otected":{protected},"payload":{payload},"signature":{signature}}}"#),
        format!(r#"{{"protected":{protected},"payload":{payload},"signature":{malleable}}}"#),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// (r, n − s): as good as (r, s).
fn other_signature(signature: &[u8]) -> Vec<u8> {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = hex::decode(ORDER).expect("hexadecimal");
    let (r, s) = signature.split_at(32);
    let mut borrow = 0_i16;
    let mut difference: Vec<u8> = order
        .iter()
        .zip(s)
        .rev()
        .map(|(n, s)| {
            let octet = i16::from(*n) - i16::from(*s) - borrow;
            borrow = i16::from(octet < 0);
            octet.rem_euclid(256) as u8
        })
        .collect();
    difference.reverse();
    [r, &difference].concat()
}

/// One name more, one less, another one, another profile: not what the client signed.
pub(super) async fn new_order_altered(scene: &mut Scene) {
    let victim = scene.client_of("other").await;
    let ready = scene.ready(&victim, &["altered-1.victim.test", "altered-2.victim.test"]).await;
    scene.meanwhile().await;
    let payload = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        json!({ "identifiers": names })
    };
    let mut profile = payload(&ready.names());
    profile["profile"] = "tls".into();
    for payload in [
        payload(&["altered-1.victim.test", "altered-2.victim.test", "bank.test"]),
        payload(&["altered-1.victim.test"]),
        payload(&["bank.test"]),
        payload(&["*.altered-1.victim.test"]),
        profile,
    ] {
        let mut jws = json_of(&ready.new_order);
        jws["payload"] = encode(payload.to_string()).into();
        let altered = jws.to_string().into_bytes();
        refuse!(scene, order(&altered));
        let mut request = ready.finalized_by(&victim);
        request.new_order_jws = altered.into();
        refuse!(scene, issue(request));
    }
}

/// Profiles that the directory does not offer, the signer's own among them.
pub(super) async fn new_order_of_another_profile(scene: &mut Scene) {
    let client = scene.client().await;
    scene.meanwhile().await;
    for profile in ["day", "front", "nothing"] {
        let payload = json!({ "profile": profile });
        refuse!(scene, order(&client.new_order_with(&["profile.victim.test"], payload)));
    }
}

/// The front's own account orders a replacement for the victim's certificate; and one for other names than the certificate
/// has, or from another directory.
pub(super) async fn replacement_of_anothers_certificate(scene: &mut Scene) {
    let (victim, front) = (scene.client().await, scene.client().await);
    let elsewhere = scene.client_of("other").await;
    let replaced = id_of(&scene.certificate(&victim, &name("replaced")).await);
    scene.meanwhile().await;
    let payload = || json!({ "replaces": replaced });
    refuse!(scene, order(&front.new_order_with(&[&name("replaced")], payload())));
    refuse!(scene, order(&victim.new_order_with(&[&name("not-replaced")], payload())));
    refuse!(scene, order(&elsewhere.new_order_with(&[&name("replaced")], payload())));
}

/// Two orders of the victim that replace one certificate, kept back and shown one after the other; and a third after that.
pub(super) async fn replaced_twice(scene: &mut Scene) {
    let victim = scene.client().await;
    let names = [name("replaced-twice")];
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let replaced = id_of(&scene.certificate(&victim, names[0]).await);
    let new_order = || victim.new_order_with(&names, json!({ "replaces": replaced }));
    let first = scene.ready_with(&victim, new_order()).await;
    let second = scene.ready_with(&victim, new_order()).await;
    scene.issue(first.finalized_by(&victim)).await.expect("a certificate");
    scene.meanwhile().await;
    refuse!(scene, issue(second.finalized_by(&victim)));
    refuse!(scene, order(&new_order()));
}

/// Orders from a time when there was room, kept back and finalized at the same moment; and one that says it is a renewal.
pub(super) async fn more_than_a_limit(scene: &mut Scene) {
    let victim = scene.client_of("limited").await;
    let mut kept_back = Vec::new();
    for number in 0..8 {
        kept_back.push(scene.ready(&victim, &[&format!("n{number}.limited.test")]).await);
    }
    let replaced = id_of(&scene.certificate(&victim, "newest.limited.test").await);
    let requests = kept_back.iter().map(|ready| issue(scene.front.clone(), ready.finalized_by(&victim)));
    let outcomes = futures::future::join_all(requests).await;
    scene.meanwhile().await;
    let (made, refused): (Vec<_>, Vec<_>) = kept_back.iter().zip(outcomes).partition(|(_, it)| it.is_ok());
    scene.check(made.len() == 1, &format!("{} certificates where there was room for one", made.len()));
    for (ready, outcome) in refused {
        scene.refuse(outcome);
        refuse!(scene, issue(ready.finalized_by(&victim)));
    }
    let payload = || json!({ "replaces": replaced });
    refuse!(scene, order(&victim.new_order_with(&["newest.limited.test"], payload())));
    refuse!(scene, order(&victim.new_order_with(&["newest.limited.test", "n9.limited.test"], payload())));
}

/// The id of a certificate (RFC 9773 §4.1).
fn id_of(certificate: &[u8]) -> String {
    let certificate = pki::Certificate::from_der(certificate).expect("a certificate");
    let key_id = certificate.authority_key_id().expect("a key identifier").to_vec();
    acme::renewal::CertificateId { authority_key_id: key_id, serial: certificate.serial() }.to_string()
}

/// Who has a node's identity is a node; nothing that ACME issues may look like one.
pub(super) async fn signers_name_ordered(scene: &mut Scene) {
    let client = scene.client().await;
    scene.meanwhile().await;
    for (kind, value) in [
        ("uri", "chancery://signer/signer-1"),
        ("dns", "chancery://signer/signer-1"),
        ("dns", "signer/signer-1"),
        ("dns", "signer_1"),
    ] {
        let payload = json!({ "identifiers": [{ "type": kind, "value": value }] });
        refuse!(scene, order(&client.request("new-order", &payload)));
    }
}

/// A customer that may ask for some names asks for others.
pub(super) async fn name_that_is_not_permitted(scene: &mut Scene) {
    let (id, kid, key) = scene.system.registration("managed", "permitted", 1).await;
    scene.system.permit(&id, "permitted.test").await;
    let client = scene.stranger("managed");
    let request = client.new_account_with_binding(&client.binding((&kid, &key)));
    let client = scene.registered(client, request).await;
    scene.meanwhile().await;
    refuse!(scene, order(&client.new_order(&["bank.test"])));
    refuse!(scene, order(&client.new_order(&["www.permitted.test", "bank.test"])));
}

/// The same finalize a hundred times over, at once: one certificate, the same for all.
pub(super) async fn finalize_replayed(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &[&name("finalize")]).await;
    let request = ready.finalized_by(&victim);
    let first = scene.issue(request.clone()).await.expect("a certificate");
    scene.meanwhile().await;
    let again = (0..100).map(|_| issue(scene.front.clone(), request.clone()));
    let again = futures::future::join_all(again).await;
    let same = |answer: &Result<_, _>| answer.as_ref().is_ok_and(|certificate| *certificate == first);
    scene.check(again.iter().all(same), "another certificate");
}

/// The same finalize in other octets is the same finalize.
pub(super) async fn finalize_encoded_anew(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &[&name("finalize-encoded")]).await;
    let request = ready.finalized_by(&victim);
    let first = scene.issue(request.clone()).await.expect("a certificate");
    scene.meanwhile().await;
    for finalize in encoded_anew(&request.finalize_jws) {
        let again = scene.issue(ready.with(finalize)).await.expect("the certificate");
        scene.check(again == first, "another certificate");
    }
}

/// The client's order, the front's CSR: in the client's finalize, or under a signature of the front's.
pub(super) async fn finalize_by_the_front(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &[&name("fronts-csr")]).await;
    scene.meanwhile().await;
    let fronts = csr_for(&ready.names());
    let mut jws = json_of(&ready.finalized_by(&victim).finalize_jws);
    jws["payload"] = encode(json!({ "csr": encode(&fronts) }).to_string()).into();
    refuse!(scene, issue(ready.with(jws.to_string().into_bytes())));
    refuse!(scene, issue(ready.finalized_with(&victim.pretender(), &fronts)));
}

/// The client finalizes one order, and the front shows the newOrder of another one of the same account.
pub(super) async fn finalize_for_another_new_order(scene: &mut Scene) {
    let victim = scene.client().await;
    let wanted = scene.ready(&victim, &[&name("wanted")]).await;
    let older = scene.ready(&victim, &["older.victim.test"]).await;
    scene.meanwhile().await;
    let mut request = older.finalized_by(&victim);
    request.new_order_jws = wanted.new_order.clone().into();
    refuse!(scene, issue(request));
    let mut request = wanted.finalized_by(&victim);
    request.new_order_jws = older.new_order.clone().into();
    request.authorizations = older.evidence.clone();
    refuse!(scene, issue(request));
}

/// The front's own account finalizes the victim's order, before and after the victim has.
pub(super) async fn finalize_by_another_account(scene: &mut Scene) {
    let (victim, front) = (scene.client().await, scene.client().await);
    let ready = scene.ready(&victim, &[&name("anothers-order")]).await;
    let own = scene.ready(&front, &["front.victim.test"]).await;
    scene.meanwhile().await;
    refuse!(scene, issue(ready.finalized_by(&front)));
    scene.issue(ready.finalized_by(&victim)).await.expect("a certificate");
    scene.meanwhile().await;
    refuse!(scene, issue(ready.finalized_by(&front)));
    // With a newOrder of its own, and the victim's order id.
    let finalize = front.finalize(&ready.order, &csr_for(&own.names()));
    refuse!(scene, issue(own.with(finalize)));
}

/// Ids that no signer made: every octet of one changed in turn.
pub(super) async fn order_id_forged(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &[&name("forged-id")]).await;
    scene.meanwhile().await;
    let genuine: OrderId = ready.order.parse().expect("an id");
    // The first octet is the kind: another kind is another URL.
    for at in 1..genuine.as_bytes().len() {
        let mut octets = genuine.as_bytes().to_vec();
        octets[at] ^= 1;
        refuse!(scene, issue(finalized(&ready, &victim, &encode(octets))));
    }
}

fn finalized(ready: &Ready, client: &Client, order: &str) -> rpc::proto::signer::v1::IssueRequest {
    ready.with(client.finalize(order, &csr_for(&ready.names())))
}

/// The victim is made to finalize an id that was made for the front's own order for the same name.
pub(super) async fn order_id_of_another_account(scene: &mut Scene) {
    let (victim, front) = (scene.client().await, scene.client().await);
    let ready = scene.ready(&victim, &[&name("foreign-id")]).await;
    let foreign = scene.ready(&front, &[&name("foreign-id")]).await;
    let elsewhere = scene.client_of("other").await;
    let elsewhere = scene.ready(&elsewhere, &[&name("foreign-id")]).await;
    scene.meanwhile().await;
    refuse!(scene, issue(finalized(&ready, &victim, &foreign.order)));
    refuse!(scene, issue(finalized(&ready, &victim, &elsewhere.order)));
}

/// A genuine id of eight days ago, as a front may have kept it.
pub(super) async fn order_id_too_old(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &[&name("old-id")]).await;
    scene.meanwhile().await;
    // The test makes it with the tier secret: no signer of now would.
    let secret = std::fs::read_to_string(scene.system.state().join("tier-secret")).expect("the tier secret");
    let secret = acme::base64url::decode_array(secret.trim().split_once(':').expect("its version").1);
    let secret = TierSecret::new(1, secret.expect("32 octets")).expect("a secret");
    let keys = IdKeys::new(&TierSecrets::new(vec![secret]).expect("secrets"));
    let (directory, account) = ("strict".parse().unwrap(), victim.account.expect("an account"));
    let mint = |days| {
        let at = now().minus(pki::Period::from_days(days));
        keys.mint_order(&directory, &account, &digest(&ready.new_order), at, [9; 16]).to_string()
    };
    refuse!(scene, issue(finalized(&ready, &victim, &mint(8))));
    refuse!(scene, issue(finalized(&ready, &victim, &mint(3650))));
}

/// An id of another kind, with a genuine MAC.
pub(super) async fn authorization_id_for_an_order_id(scene: &mut Scene) {
    let victim = scene.client().await;
    let ready = scene.ready(&victim, &[&name("kinds")]).await;
    scene.meanwhile().await;
    refuse!(scene, issue(finalized(&ready, &victim, &ready.evidence[0].authorization_id)));
    let order: OrderId = ready.order.parse().expect("an id");
    let mut octets = order.as_bytes().to_vec();
    octets[0] ^= 3;
    refuse!(scene, issue(finalized(&ready, &victim, &encode(octets))));
}
