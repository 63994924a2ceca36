//! Section E: finalize and download (RFC 8555 §7.4, §7.4.2).

use std::sync::atomic::Ordering;
use std::time::Duration;

use acme_store::{NewOrder, OrderChange, OrderRow, OrderStatus, ProcessingClaim, Unit};
use serde_json::json;

use crate::client::{Client, encode};
use crate::stage::{Stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn e1_only_a_ready_order_is_finalized() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let order = client.order(&["soon.example.org"]).await.ok(201).json();
    stage.finalize(&client, &order, &["soon.example.org"]).await.problem(403, "orderNotReady");
    let (order, _) = stage.ready_order(&client, &["done.granted.test"]).await;
    stage.finalize(&client, &order, &["done.granted.test"]).await.ok(200);
    stage.finalize(&client, &order, &["done.granted.test"]).await.problem(403, "orderNotReady");
    assert_eq!(stage.ca.certificates(), 1);
    // Nobody else's either.
    let stranger = Client::registered(&stage.wire, "open").await;
    let (order, _) = stage.ready_order(&client, &["mine.granted.test"]).await;
    stage.finalize(&stranger, &order, &["mine.granted.test"]).await.problem(404, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_a_refused_csr_leaves_the_order_ready() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["b.granted.test", "a.granted.test"]).await;
    let wrong: [&[&str]; 3] =
        [&["a.granted.test"], &["a.granted.test", "b.granted.test", "c.granted.test"], &["c.granted.test"]];
    for names in wrong {
        stage.finalize(&client, &order, names).await.problem(400, "badCSR");
        let order = client.post_as_get(&url).await.ok(200).json();
        assert_eq!(order["status"], "ready");
        assert_eq!(order["error"]["type"], "urn:ietf:params:acme:error:badCSR");
    }
    let finalized =
        stage.finalize(&client, &order, &["B.Granted.test", "a.granted.test"]).await.ok(200).json();
    assert_eq!(finalized["status"], "valid");
    assert!(finalized.get("error").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_what_is_no_good_csr_is_refused() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["csr.granted.test"]).await;
    let finalize = order["finalize"].as_str().unwrap();
    let good = stage.csr(&["csr.granted.test"]);
    let mut trailing = good.clone();
    trailing.push(0);
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    let pem = pki::chain::pem_block("CERTIFICATE REQUEST", &good);
    for csr in [Vec::new(), trailing, broken, pem.into_bytes()] {
        client.post(finalize, &json!({"csr": encode(csr)})).await.problem(400, "badCSR");
    }
    for payload in [json!({}), json!({"csr": 1}), json!([])] {
        client.post(finalize, &payload).await.problem(400, "malformed");
    }
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_of_two_finalize_calls_one_is_accepted() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    for number in 0..5 {
        let name = format!("race{number}.granted.test");
        let (order, url) = stage.ready_order(&client, &[&name]).await;
        let names = [name.as_str()];
        let (one, two) =
            tokio::join!(stage.finalize(&client, &order, &names), stage.finalize(&client, &order, &names));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 403], "{one:?} {two:?}");
        stage.poll(&client, &url, &["valid"]).await;
        assert_eq!(stage.ca.certificates(), number + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_signer_that_fails_costs_time_but_no_certificate() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["blip.granted.test"]).await;
    stage.ca.fail_issuances(3);
    let answer = stage.finalize(&client, &order, &["blip.granted.test"]).await.ok(200).json();
    assert!(["processing", "valid"].contains(&answer["status"].as_str().unwrap()));
    stage.poll(&client, &url, &["valid"]).await;
    assert_eq!(stage.ca.certificates(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_long_outage_is_waited_out() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["outage.granted.test"]).await;
    // Longer than one task tries: the sweeper takes over, again and again.
    stage.ca.fail_issuances(u32::MAX);
    let answer = stage.finalize(&client, &order, &["outage.granted.test"]).await.ok(200);
    assert_eq!(answer.json()["status"], "processing");
    assert!(answer.header("retry-after").is_some());
    let calls = || stage.ca.issue_calls.load(Ordering::SeqCst);
    let id = url.rsplit('/').next().unwrap();
    let version = async || stage.store.order(id).await.unwrap().unwrap().version;
    let before = version().await;
    until("two more looks at the order", async || version().await >= before + 2).await;
    let (tried, order) = (calls(), client.post_as_get(&url).await.ok(200).json());
    assert!(tried > 2 && order["status"] == "processing" && order.get("error").is_none(), "{order}");
    stage.ca.fail_issuances(0);
    stage.poll(&client, &url, &["valid"]).await;
    assert_eq!(stage.ca.certificates(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_an_order_that_a_person_must_look_at_rests_for_longer() {
    let stage = Stage::with(|config| config.limits.finalize_wait_milliseconds = 1).await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["broken.granted.test"]).await;
    let id = url.rsplit('/').next().unwrap();
    let lease = async || stage.store.order(id).await.unwrap().unwrap().lease_until_ms.unwrap();
    stage.ca.break_issuances(true);
    stage.finalize(&client, &order, &["broken.granted.test"]).await.ok(200);
    let first = lease().await;
    until("a rest of almost a minute", async || lease().await > first + 40_000).await;
    // It is no end.
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "processing");
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_an_order_outlives_its_front() {
    let stage = Stage::with(|config| config.limits.finalize_wait_milliseconds = 1).await;
    let mut client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["orphan.granted.test"]).await;
    // The request has reached the signer; the answer reaches nobody.
    let held = stage.ca.hold_issuances();
    let answer = stage.finalize(&client, &order, &["orphan.granted.test"]).await.ok(200).json();
    assert_eq!(answer["status"], "processing");
    held.reached().await;
    let id = url.rsplit('/').next().unwrap().to_owned();
    // The front is killed: its lease is all that is left of it.
    let stage = stage.kill().await;
    client.wire = stage.wire.clone();
    let row = stage.store.order(&id).await.unwrap().unwrap();
    assert_eq!((row.status, row.lease_until_ms.is_some()), (OrderStatus::Processing, true));
    let early =
        stage.store.claim_processing(&ProcessingClaim::Order(id), Duration::from_secs(1)).await.unwrap();
    assert!(early.is_empty(), "taken over before its time");
    // The sweeper of the next front sends the stored request again.
    until("a second request", async || stage.ca.issue_calls.load(Ordering::SeqCst) >= 2).await;
    let order = stage.poll(&client, &url, &["valid"]).await.json();
    client.post_as_get(order["certificate"].as_str().unwrap()).await.ok(200);
    assert_eq!(stage.ca.certificates(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_an_order_that_cannot_be_read_keeps_no_other_waiting() {
    let stage = Stage::with(|config| config.limits.finalize_wait_milliseconds = 1).await;
    let mut client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["behind.granted.test"]).await;
    let row = stage.store.order(url.rsplit('/').next().unwrap()).await.unwrap().unwrap();
    // Made before the other's lease, so that they are always before it in line.
    let broken = |number: u32| OrderRow { id: format!("broken-{number}"), ..row.clone() };
    for row in (0..3).map(broken) {
        let new = NewOrder { order: row, authorizations: Vec::new(), bound: None };
        stage.store.create_orders(vec![new]).await.unwrap();
    }
    let held = stage.ca.hold_issuances();
    stage.finalize(&client, &order, &["behind.granted.test"]).await.ok(200);
    held.reached().await;
    for number in 0..3 {
        let change = OrderChange {
            id: format!("broken-{number}"),
            expected: 1,
            status: OrderStatus::Processing,
            state: "{}".to_owned(),
            expires_at: row.expires_at,
            lease: Some(Duration::ZERO),
        };
        let unit = Unit { orders: vec![change], authorizations: Vec::new() };
        stage.store.save(vec![unit]).await.unwrap();
    }
    let stage = stage.kill().await;
    client.wire = stage.wire.clone();
    stage.poll_unseen(&row.id, OrderStatus::Valid).await;
    assert_eq!(stage.ca.certificates(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_the_chain_is_plain_pem_leaf_first_for_its_owner() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let stranger = Client::registered(&stage.wire, "open").await;
    let url = stage.issue(&client, &["chain.granted.test", "chain.example.org"]).await;
    let answer = client.post_as_get(&url).await.ok(200);
    assert_eq!(answer.header("content-type"), Some("application/pem-certificate-chain"));
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(
        text.starts_with("-----BEGIN CERTIFICATE-----\n") && text.ends_with("-----END CERTIFICATE-----\n")
    );
    assert!(!text.contains('\r') && !text.contains("\n\n"));
    let chain = pki::chain::from_pem(text).unwrap();
    assert_eq!(chain.len(), 2);
    pki::chain::is_issued_by(&chain[0], &chain[1]).unwrap();
    assert_eq!(chain[1].der(), stage.ca.issuer_der());
    let foreign = stranger.post_as_get(&url).await.problem(404, "malformed");
    let (front, serial) = url.rsplit_once('/').unwrap();
    let missing = stranger.post_as_get(&format!("{front}/{}", serial.replace(&serial[..4], "7777"))).await;
    assert_eq!(foreign, missing.problem(404, "malformed"));
    client.post(&url, &json!({})).await.problem(400, "malformed");
    // Still there after its revocation.
    let certificate = encode(chain[0].der());
    client.post(&client.url("revokeCert"), &json!({"certificate": certificate})).await.ok(200);
    client.post_as_get(&url).await.ok(200);
}

/// RFC 8555 §7.4.2: of a certificate that was just issued, and of one that the signer is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn e9_every_chain_links_to_all_others() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let stranger = Client::registered(&stage.wire, "open").await;
    let url = stage.issue(&client, &["alternate.granted.test"]).await;
    let above: Vec<_> = stage.ca.alternates().iter().map(|chain| chain.issuers[0].clone()).collect();
    let above = [vec![stage.ca.issuer_der().to_vec().into()], above].concat();
    let urls = [url.clone(), format!("{url}/1"), format!("{url}/2")];
    let stage = {
        look(&client, &urls, &above).await;
        // Another front has nothing fresh.
        stage.kill().await
    };
    let (mut client, mut stranger) = (client, stranger);
    client.wire = stage.wire.clone();
    stranger.wire = stage.wire.clone();
    look(&client, &urls, &above).await;
    for bad in [format!("{url}/3"), format!("{url}/0"), format!("{url}/01"), format!("{url}/1/")] {
        client.post_as_get(&bad).await.problem(404, "malformed");
    }
    stranger.post_as_get(&urls[1]).await.problem(404, "malformed");
}

async fn look(client: &Client, urls: &[String], above: &[bytes::Bytes]) {
    let mut leaf = None;
    for (url, issuer) in urls.iter().zip(above) {
        let answer = client.post_as_get(url).await.ok(200);
        assert_eq!(answer.header("content-type"), Some("application/pem-certificate-chain"));
        let chain = pki::chain::from_pem(std::str::from_utf8(&answer.body).unwrap()).unwrap();
        assert_eq!((chain.len(), chain[1].der()), (2, &issuer[..]));
        pki::chain::is_issued_by(&chain[0], &chain[1]).unwrap();
        assert_eq!(leaf.get_or_insert_with(|| chain[0].der().to_vec()), chain[0].der());
        let mut links = answer.links("alternate");
        links.sort();
        let others: Vec<_> = urls.iter().filter(|other| *other != url).cloned().collect();
        assert_eq!(links, others);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_orders_do_not_keep_what_they_no_longer_need() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (order, url) = stage.ready_order(&client, &["lean.granted.test"]).await;
    let id = url.rsplit('/').next().unwrap().to_owned();
    let before = stage.store.order(&id).await.unwrap().unwrap().state;
    assert!(before.contains("protected"));
    stage.finalize(&client, &order, &["lean.granted.test"]).await.ok(200);
    let after = stage.store.order(&id).await.unwrap().unwrap().state;
    assert!(!after.contains("protected") && after.len() < 300, "{after}");
}
