//! Section B: directory and nonce (RFC 8555 §7.1.1, §7.2); and what holds for every answer.

use http::Method;
use serde_json::json;

use crate::ca::TERMS;
use crate::client::Client;
use crate::stage::{OTHER_BASE, Stage, pause};

#[tokio::test(flavor = "multi_thread")]
async fn b1_directory_says_where_everything_is() {
    let stage = Stage::new().await;
    let answer = stage.wire.get(&stage.wire.directory_url("open")).await.ok(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let directory = answer.json();
    for name in ["newNonce", "newAccount", "newOrder", "revokeCert", "keyChange"] {
        let url = directory[name].as_str().unwrap();
        assert!(url.starts_with("https://acme.test/acme/open/"), "{url}");
    }
    assert!(directory.get("newAuthz").is_none());
    assert_eq!(directory["renewalInfo"], "https://acme.test/acme/open/renewal-info");
    let meta = json!({
        "termsOfService": TERMS,
        "website": "https://ca.test",
        "caaIdentities": ["ca.test"],
        "profiles": {"tls": "90 days"},
    });
    assert_eq!(directory["meta"], meta);
    let other = stage.wire.get(&stage.wire.directory_url("eab")).await.ok(200).json();
    assert_eq!(other["meta"]["externalAccountRequired"], true);
    assert!(other.get("renewalInfo").is_none());
    stage.wire.get(&stage.wire.directory_url("missing")).await.problem(404, "malformed");
    // newAuthz is not there, and is not served either.
    stage.wire.get("/acme/open/new-authz").await.problem(404, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_second_base_url_has_urls_of_its_own() {
    let stage = Stage::new().await;
    let request = http::Request::builder()
        .uri("/tls/acme/open/directory")
        .header("host", "acme.test:8443")
        .body(http_body_util::Full::default())
        .unwrap();
    let directory = stage.wire.send(request).await.ok(200).json();
    let url = directory["newOrder"].as_str().unwrap();
    assert_eq!(url, format!("{OTHER_BASE}/acme/open/new-order"));
    // A client that came by it stays with it, also when a proxy takes the path off.
    let wire = stage.wire.under(OTHER_BASE);
    let mut client = Client { wire, key: crate::client::Key::es256(), directory, kid: None };
    client.register(&json!({"termsOfServiceAgreed": true})).await.ok(201);
    assert!(client.account().starts_with(OTHER_BASE));
    let answer = client.order(&["based.granted.test"]).await.ok(201);
    assert!(answer.location().starts_with(OTHER_BASE));
    assert_eq!(answer.links("index"), [format!("{OTHER_BASE}/acme/open/directory")]);
    // And the account is the same under the other.
    let mut other = Client::with_key(&stage.wire, "open", client.key).await;
    other.register(&json!({})).await.ok(200);
    assert_eq!(
        other.account().strip_prefix("https://acme.test"),
        client.kid.unwrap().strip_prefix(OTHER_BASE)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_every_answer_but_the_directory_links_to_it() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let directory = stage.wire.directory_url("open");
    assert!(stage.wire.get(&directory).await.links("index").is_empty());
    let order = client.order(&["link.example.org"]).await.ok(201);
    let authorization = order.json()["authorizations"][0].as_str().unwrap().to_owned();
    let answers = [
        stage.wire.plain(Method::HEAD, &client.url("newNonce")).await,
        client.post_as_get(&client.account()).await,
        client.post_as_get(&authorization).await,
        stage.wire.get(&client.url("newOrder")).await,
        stage.wire.post(&client.url("newOrder"), "text/plain", "").await,
        client.post(&client.url("newOrder"), &json!({})).await,
        order,
    ];
    for answer in answers {
        assert_eq!(answer.links("index"), [directory.as_str()], "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_new_nonce_by_head_and_get() {
    let stage = Stage::new().await;
    let url = format!("{}/acme/open/new-nonce", stage.wire.base());
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 204)] {
        let answer = stage.wire.plain(method, &url).await.ok(status);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let nonce = answer.nonce();
        assert!(
            nonce.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'),
            "{nonce}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_unknown_members_mean_nothing() {
    let stage = Stage::new().await;
    let mut client = Client::new(&stage.wire, "open").await;
    let payload = json!({"resource": "new-reg", "termsOfServiceAgreed": true, "x": {"y": [1]}});
    client.register(&payload).await.ok(201);
    let order = json!({"resource": "new-order", "identifiers": [{"type": "dns", "value": "b4.granted.test", "x": 1}]});
    let order = client.post(&client.url("newOrder"), &order).await.ok(201).json();
    let csr = crate::client::encode(stage.csr(&["b4.granted.test"]));
    let answer =
        client.post(order["finalize"].as_str().unwrap(), &json!({"csr": csr, "resource": "x"})).await;
    answer.ok(200);
    // An unknown member of the JWS itself, beside its three.
    let url = client.account();
    let mut body = crate::client::seal(&client.key, &client.header(&url).await, "");
    body["comment"] = json!("none");
    stage.wire.post(&url, crate::client::JOSE, body.to_string()).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_knows_signer_certificate_and_database() {
    let stage = Stage::new().await;
    for _ in 0..200 {
        let report = stage.readiness();
        if report["ready"] == true {
            let dependencies = report["dependencies"].as_object().unwrap();
            for name in ["signer", "https certificate", "database", "account changes"] {
                assert_eq!(dependencies[name]["state"], "up", "{report}");
            }
            return;
        }
        pause().await;
    }
    panic!("never ready: {}", stage.readiness());
}
