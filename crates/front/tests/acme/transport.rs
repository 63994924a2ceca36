//! Section A of the protocol checklist: transport and JWS (RFC 8555 §6).

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::KeySize;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Client, JOSE, Key, encode, seal};
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a1_plain_http_gets_no_acme_resource() {
    let stage = Stage::new().await;
    let mut stream = TcpStream::connect(stage.wire.address()).await.unwrap();
    stream.write_all(b"GET /acme/open/directory HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed, perhaps by a reset, perhaps after a TLS alert: never an HTTP answer.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_padded_base64url_is_malformed() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    for part in ["protected", "payload", "signature"] {
        let mut body = seal(&client.key, &client.header(&url).await, "");
        body[part] = json!(format!("{}=", body[part].as_str().unwrap()));
        stage.wire.post(&url, JOSE, body.to_string()).await.problem(400, "malformed");
    }
    let mut header = client.header(&url).await;
    header["nonce"] = json!(format!("{}=", header["nonce"].as_str().unwrap()));
    client.post_with(&url, &header, "").await.problem(400, "malformed");
    // A padded CSR: on an order that is ready.
    let (order, url) = stage.ready_order(&client, &["padded.granted.test"]).await;
    let csr = format!("{}=", encode(stage.csr(&["padded.granted.test"])));
    client.post(order["finalize"].as_str().unwrap(), &json!({"csr": csr})).await.problem(400, "malformed");
    assert_eq!(client.post_as_get(&url).await.ok(200).json()["status"], "ready");
    // A padded certificate in a revocation.
    let answer = client.post(&client.url("revokeCert"), &json!({"certificate": "AAAA="})).await;
    answer.problem(400, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_scripts_of_any_origin_may_read_and_ask() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let answers = [
        stage.wire.get(&stage.wire.directory_url("open")).await.ok(200),
        client.order(&["cors.example.org"]).await.ok(201),
        stage.wire.get("/nowhere").await.ok(404),
    ];
    for answer in answers {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["Replay-Nonce", "Location", "Link"] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(client.url("newOrder").strip_prefix(stage.wire.base()).unwrap())
        .header("host", "localhost")
        .header("origin", "https://elsewhere.test")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let answer = stage.wire.send(request.body(Full::default()).unwrap()).await.ok(204);
    assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
    assert!(answer.header("access-control-allow-headers").unwrap().eq_ignore_ascii_case("content-type"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_another_content_type_gets_415() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    for kind in ["application/json", "application/jose", "text/plain", ""] {
        let body = seal(&client.key, &client.header(&url).await, "").to_string();
        stage.wire.post(&url, kind, body).await.problem(415, "malformed");
    }
    // A media type's case and parameters do not change it (RFC 9110 §8.3.1).
    let body = seal(&client.key, &client.header(&url).await, "").to_string();
    stage.wire.post(&url, "Application/JOSE+JSON; charset=utf-8", body).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_only_the_flattened_serialization_and_only_signatures() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    let good = seal(&client.key, &client.header(&url).await, "");
    let part = |name: &str| good[name].as_str().unwrap().to_owned();
    let compact = format!("{}.{}.{}", part("protected"), part("payload"), part("signature"));
    let general = json!({"payload": part("payload"),
        "signatures": [{"protected": part("protected"), "signature": part("signature")}]});
    let mut both = good.clone();
    both["signatures"] = json!([{"protected": part("protected"), "signature": part("signature")}]);
    let mut unprotected = good.clone();
    unprotected["header"] = json!({"x": 1});
    let mut detached = good.clone();
    detached.as_object_mut().unwrap().remove("payload");
    for body in
        [compact, general.to_string(), both.to_string(), unprotected.to_string(), detached.to_string()]
    {
        stage.wire.post(&url, JOSE, body).await.problem(400, "malformed");
    }
    let mut header = client.header(&url).await;
    header["b64"] = json!(false);
    header["crit"] = json!(["b64"]);
    client.post_with(&url, &header, "").await.problem(400, "malformed");
    let mut header = client.header(&url).await;
    header["alg"] = json!("none");
    client.post_with(&url, &header, "").await.problem(400, "badSignatureAlgorithm");
    // A MAC under what everybody knows, the public key.
    let mut header = client.header(&url).await;
    header["alg"] = json!("HS256");
    let protected = encode(header.to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, client.key.jwk().to_string().as_bytes());
    let tag = encode(hmac::sign(&key, format!("{protected}.").as_bytes()));
    let body = json!({"protected": protected, "payload": "", "signature": tag});
    stage.wire.post(&url, JOSE, body.to_string()).await.problem(400, "badSignatureAlgorithm");
    // And the good one, with the nonce that none of the refused ones has used up.
    stage.wire.post(&url, JOSE, good.to_string()).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_every_usual_algorithm_is_accepted() {
    let stage = Stage::new().await;
    for key in [Key::es256(), Key::es384(), Key::ed25519(), Key::rsa(KeySize::Rsa2048)] {
        let mut client = Client::with_key(&stage.wire, "open", key).await;
        client.register(&json!({"termsOfServiceAgreed": true})).await.ok(201);
        client.post_as_get(&client.account()).await.ok(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_unsupported_algorithm_lists_algorithms() {
    let stage = Stage::new().await;
    let client = Client::new(&stage.wire, "open").await;
    let url = client.url("newAccount");
    let mut header = client.header(&url).await;
    header["alg"] = json!("ES256K");
    let problem = client.post_with(&url, &header, "{}").await.problem(400, "badSignatureAlgorithm");
    let listed = problem["algorithms"].as_array().unwrap();
    for algorithm in ["ES256", "ES384", "RS256", "EdDSA"] {
        assert!(listed.contains(&json!(algorithm)), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_unacceptable_keys_are_bad_public_keys() {
    let stage = Stage::new().await;
    let client = Client::new(&stage.wire, "open").await;
    let url = client.url("newAccount");
    let good = client.key.jwk();
    let mut off_curve = good.clone();
    off_curve["y"] = good["x"].clone();
    let wrong_curve = Key::es384().jwk();
    let weak = json!({"kty": "RSA", "e": "AQAB", "n": encode([0xc1; 128])});
    for (algorithm, jwk) in [("ES256", off_curve), ("ES256", wrong_curve), ("RS256", weak), ("RS256", good)] {
        let mut header = client.header(&url).await;
        header["alg"] = json!(algorithm);
        header["jwk"] = jwk;
        client.post_with(&url, &header, "{}").await.problem(400, "badPublicKey");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_exactly_one_of_jwk_and_kid() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    let mut both = client.header(&url).await;
    both["jwk"] = client.key.jwk();
    client.post_with(&url, &both, "").await.problem(400, "malformed");
    let mut neither = client.header(&url).await;
    neither.as_object_mut().unwrap().remove("kid");
    client.post_with(&url, &neither, "").await.problem(400, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_each_resource_takes_its_kind_of_key_and_the_exact_account_url() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let kid = client.account();
    let url = client.url("newAccount");
    client.post(&url, &json!({})).await.problem(400, "malformed");
    let url = client.url("newOrder");
    let header = json!({"alg": "ES256", "jwk": client.key.jwk(), "nonce": client.nonce().await, "url": url});
    client.post_with(&url, &header, "{}").await.problem(400, "malformed");
    let bare = kid.rsplit('/').next().unwrap();
    let elsewhere = kid.replacen("/open/", "/eab/", 1);
    for wrong in [format!("{kid}/"), bare.to_owned(), kid.to_uppercase(), format!("{kid}?x=1"), elsewhere] {
        let mut header = client.header(&kid).await;
        header["kid"] = json!(wrong);
        let answer = client.post_with(&kid, &header, "").await;
        assert!(answer.status.is_client_error(), "{wrong}: {answer:?}");
    }
    // A well-formed URL of nobody's account.
    let mut header = client.header(&kid).await;
    header["kid"] = json!(format!("{}{}", kid.strip_suffix(bare).unwrap(), other_id(bare)));
    let answer = client.post_with(&kid, &header, "").await;
    answer.problem(400, "accountDoesNotExist");
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_url_must_be_the_requested_one() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    let port = url.replacen("https://", "https://other.test:1/", 1);
    for wrong in [
        client.url("newOrder"),
        format!("{url}/"),
        format!("{url}?a=b"),
        port,
        url.replacen("https", "http", 1),
    ] {
        let mut header = client.header(&url).await;
        header["url"] = json!(wrong);
        client.post_with(&url, &header, "").await.problem(403, "unauthorized");
    }
    // A proxy may call this host as it likes: only the URL that the client signed counts.
    let body = seal(&client.key, &client.header(&url).await, "").to_string();
    let request = Request::builder()
        .method(Method::POST)
        .uri(url.strip_prefix(stage.wire.base()).unwrap())
        .header("host", "internal.proxy.test:8080")
        .header("content-type", JOSE);
    stage.wire.send(request.body(Full::from(body)).unwrap()).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_bad_nonces_are_refused_with_a_good_one() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    let used = client.nonce().await;
    let header = |nonce: Value| json!({"alg": "ES256", "kid": client.account(), "url": url, "nonce": nonce});
    client.post_with(&url, &header(json!(used)), "").await.ok(200);
    let never_made = encode([7; 40]);
    let mut last = None;
    for nonce in [used.as_str(), never_made.as_str(), "AA"] {
        let answer = client.post_with(&url, &header(json!(nonce)), "").await;
        answer.problem(400, "badNonce");
        last = Some(answer.nonce());
    }
    let mut without = header(json!(""));
    without.as_object_mut().unwrap().remove("nonce");
    client.post_with(&url, &without, "").await.problem(400, "badNonce");
    client.post_with(&url, &header(json!("not base64url!")), "").await.problem(400, "malformed");
    client.post_with(&url, &header(json!(last.unwrap())), "").await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_every_error_carries_a_nonce_that_works() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    let oversized = "x".repeat(70 * 1024);
    let answers = [
        (404, stage.wire.get("/").await),
        (404, stage.wire.get("/acme/nowhere/directory").await),
        (404, stage.wire.post("/acme/open/unknown", JOSE, "{}").await),
        (405, stage.wire.get(&url).await),
        (405, stage.wire.plain(Method::DELETE, &url).await),
        (413, stage.wire.post(&url, JOSE, oversized).await),
        (415, stage.wire.post(&url, "text/plain", "{}").await),
        (400, stage.wire.post(&url, JOSE, "not a JWS").await),
    ];
    for (status, answer) in answers {
        answer.problem(status, "malformed");
        let header = json!({"alg": "ES256", "kid": client.account(), "url": url, "nonce": answer.nonce()});
        let again = client.post_with(&url, &header, "").await.ok(200);
        assert_ne!(again.nonce(), answer.nonce());
    }
    stage.ca.fail_everything(true);
    let answer = client.order(&["down.example.org"]).await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    answer.problem(answer.status.as_u16(), "serverInternal");
    stage.ca.fail_everything(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_one_of_two_requests_with_one_nonce_is_processed() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.account();
    for _ in 0..10 {
        let body = seal(&client.key, &client.header(&url).await, "").to_string();
        let (one, two, three) = tokio::join!(
            stage.wire.post(&url, JOSE, body.clone()),
            stage.wire.post(&url, JOSE, body.clone()),
            stage.wire.post(&url, JOSE, body.clone()),
        );
        let good = [&one, &two, &three].iter().filter(|answer| answer.status == 200).count();
        assert_eq!(good, 1, "{one:?} {two:?} {three:?}");
        for refused in [one, two, three].iter().filter(|answer| answer.status != 200) {
            refused.problem(400, "badNonce");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_nonce_of_another_front_is_redeemed_there_once() {
    let (one, two) = Stage::pair().await;
    let client = Client::registered(&one.wire, "open").await;
    let url = client.account();
    let nonce = client.nonce().await;
    let header = json!({"alg": "ES256", "kid": client.account(), "url": url, "nonce": nonce});
    let body = seal(&client.key, &header, "").to_string();
    // Made by the first front, used at the second and at the first at once.
    let (there, here) =
        tokio::join!(two.wire.post(&url, JOSE, body.clone()), one.wire.post(&url, JOSE, body.clone()));
    let good = [&there, &here].iter().filter(|answer| answer.status == 200).count();
    assert_eq!(good, 1, "{there:?} {here:?}");
    // And alone at the second.
    let body = seal(&client.key, &client.header(&url).await, "").to_string();
    two.wire.post(&url, JOSE, body.clone()).await.ok(200);
    one.wire.post(&url, JOSE, body).await.problem(400, "badNonce");
    // A front that is gone: badNonce, never malformed.
    let body = seal(&client.key, &client.header(&url).await, "").to_string();
    one.stop().await;
    two.wire.post(&url, JOSE, body).await.problem(400, "badNonce");
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_get_only_where_it_belongs() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let order = client.order(&["get.example.org"]).await.ok(201);
    let object = order.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let urls = [
        client.url("newAccount"),
        client.url("newOrder"),
        client.url("revokeCert"),
        client.url("keyChange"),
        client.account(),
        order.location(),
        text(&object["finalize"]),
        text(&object["authorizations"][0]),
    ];
    for url in urls {
        let answer = stage.wire.get(&url).await;
        answer.problem(405, "malformed");
        assert!(answer.header("allow").unwrap().contains("POST"));
    }
    for url in [client.account(), order.location(), stage.wire.directory_url("open")] {
        client.post_as_get(&url).await.ok(200);
    }
    let answer = client.post_as_get(&client.url("newNonce")).await.ok(200);
    assert!(answer.body.is_empty());
    // An empty object is not an empty payload.
    client.post(&order.location(), &json!({})).await.problem(400, "malformed");
    client.post_as_get(&client.url("newOrder")).await.problem(400, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_foreign_objects_look_like_missing_ones() {
    let stage = Stage::new().await;
    let owner = Client::registered(&stage.wire, "open").await;
    let stranger = Client::registered(&stage.wire, "open").await;
    let order = owner.order(&["mine.example.org"]).await.ok(201);
    let object = order.json();
    let authorization = object["authorizations"][0].as_str().unwrap().to_owned();
    let challenge = owner.post_as_get(&authorization).await.ok(200).json()["challenges"][0]["url"].clone();
    let challenge = challenge.as_str().unwrap().to_owned();
    for (url, payload) in [(order.location(), ""), (authorization, ""), (challenge, "{}")] {
        let foreign = stranger.post_text(&url, payload).await;
        let tail = url.rfind("/acme/open/").unwrap() + "/acme/open/".len();
        let (kind, rest) = url[tail..].split_once('/').unwrap();
        let method = rest.split_once('/').map(|(_, method)| format!("/{method}")).unwrap_or_default();
        let id = rest.split('/').next().unwrap();
        let missing_id = other_id(id);
        let missing = format!("{}{kind}/{missing_id}{method}", &url[..tail]);
        let missing = stranger.post_text(&missing, payload).await;
        assert_eq!(foreign.status, missing.status);
        assert_eq!(foreign.problem(404, "malformed"), missing.problem(404, "malformed"));
    }
    // Accounts: their URLs tell nothing either.
    stranger.post_as_get(&owner.account()).await.problem(403, "unauthorized");
    stranger.post_as_get(&format!("{}/orders", owner.account())).await.problem(403, "unauthorized");
    let nobody = owner.account();
    let (front, id) = nobody.rsplit_once('/').unwrap();
    let nobody = format!("{front}/{}", other_id(id));
    stranger.post_as_get(&nobody).await.problem(403, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a17_several_refused_names_are_one_problem_with_subproblems() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let answer = client.order(&["good.example.org", "a.refused.test", "b.refused.test"]).await;
    let problem = answer.problem(400, "rejectedIdentifier");
    let subproblems = problem["subproblems"].as_array().unwrap();
    let values: Vec<_> = subproblems.iter().map(|one| one["identifier"]["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["a.refused.test", "b.refused.test"]);
    for one in subproblems {
        assert_eq!(one["type"], "urn:ietf:params:acme:error:rejectedIdentifier");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_bounds_hold_and_say_so() {
    let stage = Stage::with(|config| config.limits.pending_authorizations_per_account = 2).await;
    let client = Client::registered(&stage.wire, "open").await;
    let url = client.url("newOrder");
    // A member that means nothing, in a newOrder that is good but for its depth: 16 levels, its own included.
    let nested = |levels: usize| {
        let deep = format!("{}1{}", "{\"a\":".repeat(levels - 1), "}".repeat(levels - 1));
        format!("{{\"identifiers\":[{{\"type\":\"dns\",\"value\":\"deep.granted.test\"}}],\"x\":{deep}}}")
    };
    client.post_text(&url, &nested(16)).await.ok(201);
    let problem = client.post_text(&url, &nested(17)).await.problem(400, "malformed");
    assert!(problem["detail"].as_str().unwrap().contains("nested too deeply"), "{problem}");
    // And around the payload.
    let sealed = async |levels: usize| {
        let header = client.header(&url).await;
        let mut jws = seal(&client.key, &header, &nested(1)).to_string();
        let deep = format!("{}1{}", "{\"a\":".repeat(levels - 1), "}".repeat(levels - 1));
        jws.truncate(jws.len() - 1);
        stage.wire.post(&url, JOSE, format!("{jws},\"x\":{deep}}}")).await
    };
    let problem = sealed(17).await.problem(400, "malformed");
    assert!(problem["detail"].as_str().unwrap().contains("nested too deeply"), "{problem}");
    sealed(16).await.ok(201);
    client.order(&["one.example.org", "two.example.org"]).await.ok(201);
    let answer = client.order(&["three.example.org"]).await;
    let problem = answer.problem(429, "rateLimited");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("pending_authorizations_per_account is 2"), "{detail}");
    // It frees when the first that is pending expires, in a day.
    let wait = answer.header("retry-after").unwrap().parse::<u64>().unwrap();
    stage.clock.advance(Duration::from_secs(wait - 1));
    client.order(&["three.example.org"]).await.problem(429, "rateLimited");
    stage.clock.advance(Duration::from_secs(1));
    client.order(&["three.example.org"]).await.ok(201);
    // Of several at once, as many are made as there is room for.
    let held = stage.ca.hold_orders();
    let slow = client.order(&["four.example.org"]);
    let quick = async {
        held.reached().await;
        let quick = client.order(&["five.example.org"]).await;
        held.release();
        quick
    };
    let (slow, quick) = tokio::join!(slow, quick);
    quick.ok(201);
    slow.problem(429, "rateLimited");
    assert!(slow.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    // A header block that is too large ends the connection or is refused, but is not read.
    let mut stream = stage.wire.connect().await;
    let request =
        format!("GET /acme/open/directory HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_too_many_requests_at_once_are_shed() {
    let stage = Stage::with(|config| config.limits.requests = 1).await;
    let client = Client::registered(&stage.wire, "open").await;
    let held = stage.ca.hold_orders();
    let slow = client.order(&["slow.example.org"]);
    let shed = async {
        held.reached().await;
        let answer = stage.wire.get(&stage.wire.directory_url("open")).await;
        held.release();
        answer
    };
    let (slow, shed) = tokio::join!(slow, shed);
    slow.ok(201);
    shed.problem(503, "serverInternal");
    assert!(shed.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
}

/// Who sends a body slowly takes none of the places in which work is done.
#[tokio::test(flavor = "multi_thread")]
async fn a18_slow_bodies_shed_nobody() {
    let stage = Stage::with(|config| config.limits.requests = 1).await;
    let mut slow = stage.wire.connect().await;
    let head = "POST /acme/open/new-order HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/jose+json\r\n\
                content-length: 1000\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.flush().await.unwrap();
    let client = Client::registered(&stage.wire, "open").await;
    client.order(&["quick.example.org"]).await.ok(201);
}

/// An id of the same form that nobody has.
fn other_id(id: &str) -> String {
    let (front, back) = id.split_at(20);
    let letter = if back.starts_with('x') { 'y' } else { 'x' };
    format!("{front}{letter}{}", &back[1..])
}
