//! What old and careless clients do, and what must go well all the same; what only looks like it, and is refused.

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::client::{Answer, Client, JOSE, encode, seal};
use crate::stage::Stage;

/// x/crypto/acme, and clients of older drafts, put a `resource` into every payload.
#[tokio::test(flavor = "multi_thread")]
async fn b4_every_payload_may_have_a_resource() {
    let stage = Stage::new().await;
    let mut client = Client::new(&stage.wire, "pre").await;
    client.register(&json!({"resource": "new-reg", "termsOfServiceAgreed": true})).await.ok(201);
    let order =
        json!({"resource": "new-order", "identifiers": [{"type": "dns", "value": "habit.example.org"}]});
    let answer = client.post(&client.url("newOrder"), &order).await.ok(201);
    let (order, url) = (answer.json(), answer.location());
    let identifier =
        json!({"resource": "new-authz", "identifier": {"type": "dns", "value": "habit.granted.test"}});
    client.post(&client.url("newAuthz"), &identifier).await.ok(201);
    let authorization = order["authorizations"][0].as_str().unwrap();
    let shown = client.post_as_get(authorization).await.ok(200).json();
    let challenge = shown["challenges"][0]["url"].as_str().unwrap();
    // And the key authorization, as before RFC 8555.
    let asked = json!({"resource": "challenge", "type": "http-01", "keyAuthorization": "x.y"});
    client.post(challenge, &asked).await.ok(200);
    stage.poll(&client, authorization, &["valid"]).await;
    let csr = encode(stage.csr(&["habit.example.org"]));
    client
        .post(order["finalize"].as_str().unwrap(), &json!({"resource": "new-cert", "csr": csr}))
        .await
        .ok(200);
    let issued = stage.poll(&client, &url, &["valid"]).await.json();
    let certificate = encode(stage.leaf(&client, issued["certificate"].as_str().unwrap()).await);
    client
        .post(&client.url("revokeCert"), &json!({"resource": "revoke-cert", "certificate": certificate}))
        .await
        .ok(200);
    client.post(authorization, &json!({"resource": "authz", "status": "deactivated"})).await.ok(200);
    client.post(&client.account(), &json!({"resource": "reg", "status": "deactivated"})).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_the_content_type_may_have_parameters() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    for good in ["application/jose+json", "application/jose+json; charset=utf-8", "Application/JOSE+JSON;x=y"]
    {
        let body = seal(&client.key, &client.header(&url).await, "").to_string();
        stage.wire.post(&url, good, body).await.ok(200);
    }
    for bad in ["application/json", "application/jose", "text/plain; application/jose+json", ""] {
        let body = seal(&client.key, &client.header(&url).await, "").to_string();
        stage.wire.post(&url, bad, body).await.problem(415, "malformed");
    }
}

/// RFC 8555 §6.1 has clients send one; some do not.
#[tokio::test(flavor = "multi_thread")]
async fn b4_no_user_agent_is_needed() {
    let stage = Stage::new().await;
    let long = "an agent of unusual length ".repeat(40);
    for agent in [None, Some(""), Some(&*long)] {
        let path = stage.wire.directory_url("open");
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path.strip_prefix(stage.wire.base()).unwrap())
            .header("host", "acme.test");
        if let Some(agent) = agent {
            request = request.header("user-agent", agent);
        }
        stage.wire.send(request.body(Full::default()).unwrap()).await.ok(200);
    }
}

/// A URL is the text that it is: a slash more is another one (RFC 8555 §6.4).
#[tokio::test(flavor = "multi_thread")]
async fn a11_a_slash_more_is_another_url() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    for url in
        [client.url("newOrder"), client.url("newNonce"), client.account(), stage.wire.directory_url("open")]
    {
        let answer = stage.wire.plain(Method::GET, &format!("{url}/")).await;
        answer.problem(404, "malformed");
        client.post_as_get(&format!("{url}/")).await.problem(404, "malformed");
    }
}

/// Some clients do not try again after badNonce: a nonce is used up by what it was sent with, and by nothing before.
#[tokio::test(flavor = "multi_thread")]
async fn a12_a_nonce_lasts_until_a_request_is_understood() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let (url, elsewhere) = (client.account(), client.url("newOrder"));
    let body = seal(&client.key, &client.header(&url).await, "").to_string();
    stage.wire.post(&url, "text/plain", body.clone()).await.problem(415, "malformed");
    stage.wire.post(&elsewhere, JOSE, body.clone()).await.problem(403, "unauthorized");
    stage.wire.post(&url, JOSE, format!("{body}}}")).await.problem(400, "malformed");
    stage.wire.post(&url, JOSE, body.clone()).await.ok(200);
    stage.wire.post(&url, JOSE, body).await.problem(400, "badNonce");
    // Wherever a nonce comes from, it is good.
    let sources = [
        stage.wire.get(&stage.wire.directory_url("open")).await,
        stage.wire.get("/nowhere").await,
        stage.wire.get(&client.url("newNonce")).await,
        client.post_as_get(&client.account()).await,
        client.post_as_get(&client.url("newOrder")).await,
    ];
    for source in sources {
        let mut header = client.header(&url).await;
        header["nonce"] = source.nonce().into();
        client.post_with(&url, &header, "").await.ok(200);
    }
}

/// A client that takes `null` for an object stumbles over it.
#[tokio::test(flavor = "multi_thread")]
async fn a17_what_is_not_there_is_absent_never_null() {
    fn nulls(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(all) => all.iter().any(nulls),
            Value::Object(all) => all.values().any(nulls),
            _ => false,
        }
    }
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let order = client.order(&["null.example.org"]).await.ok(201);
    let authorization = order.json()["authorizations"][0].as_str().unwrap().to_owned();
    let refused = client.order(&["a.refused.test"]).await;
    let answers: Vec<Answer> = vec![
        stage.wire.get(&stage.wire.directory_url("open")).await,
        client.post_as_get(&client.account()).await,
        client.post_as_get(&format!("{}/orders", client.account())).await,
        client.post_as_get(&authorization).await,
        client.post_as_get(&client.url("newOrder")).await,
        stage.wire.get("/nowhere").await,
        order,
        refused,
    ];
    for answer in answers {
        let object = answer.json();
        assert!(!nulls(&object), "{object}");
        let one_name = object.get("subproblems").is_none_or(|all| !all.as_array().unwrap().is_empty());
        assert!(one_name, "{object}");
    }
}
