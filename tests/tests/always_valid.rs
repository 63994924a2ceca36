//! `chancery demo --always-valid`: clients that answer no challenge, as their authors test them.

use e2e::client;
use e2e::library::{account, finalize, request, responder};
use e2e::program::{free_port, run, succeed};
use e2e::{Demo, oracle};
use instant_acme::{ChallengeType, Identifier, NewOrder};
use serde_json::Value;

fn demo() -> Demo {
    Demo::start_with(tempfile::tempdir().expect("a folder"), &["--always-valid"])
}

/// What an operator sees at first.
fn overview(demo: &Demo) -> Value {
    let output = succeed(demo.operator().args(["overview", "--json"]));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn certificate(pem: &str) -> pki::Certificate {
    pki::chain::from_pem(pem).expect("a chain").remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_challenge_succeeds_and_nobody_looks() {
    let demo = demo();
    let account = account(&demo).await;
    let ears = [demo.http_01_port, demo.tls_alpn_01_port]
        .map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free"));
    // Of each kind; nobody answers at the validator's ports, and there is no record.
    let names = [
        ("http.demo.test", ChallengeType::Http01),
        ("dns.demo.test", ChallengeType::Dns01),
        ("*.wild.demo.test", ChallengeType::Dns01),
        ("alpn.demo.test", ChallengeType::TlsAlpn01),
    ];
    let identifiers = names.clone().map(|(name, _)| Identifier::Dns(name.to_owned()));
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.expect("an order");
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.expect("an authorization");
        let name = authorization.identifier().to_string();
        let (_, kind) = names.iter().find(|(one, _)| *one == name).expect("a name of the order");
        let mut challenge = authorization.challenge(kind.clone()).expect("its challenge");
        challenge.set_ready().await.expect("the challenge is accepted");
    }
    let chain = finalize(&mut order, &request(&names.map(|(name, _)| name))).await;
    // The CA says of itself that it is for tests, and what it issues does not.
    let issuer = certificate(&std::fs::read_to_string(&demo.facts.issuer).expect("the issuer"));
    let root = certificate(&std::fs::read_to_string(&demo.facts.root).expect("the root"));
    assert!(issuer.is_test_ca() && root.is_test_ca() && !certificate(&chain).is_test_ca());
    let overview = overview(&demo);
    assert_eq!(overview["always_valid"], serde_json::json!(["managed", "open"]), "{overview}");
    assert_eq!(overview["issuers"][0]["test_ca"], true, "{overview}");
    for role in ["signer", "validator"] {
        let log = std::fs::read_to_string(demo.state().join(format!("log/{role}.log"))).expect("its log");
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains("always_valid")), "{log}");
    }
    // Where it would have looked, nobody came.
    for ear in ears {
        ear.set_nonblocking(true).expect("a socket");
        let came = ear.accept().map(|(_, address)| address);
        assert_eq!(came.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
    }
}

/// certbot answers nothing at all; lego, whose library is strict about certificates, at a port where nobody asks.
#[test]
fn clients_of_several_libraries_get_certificates_without_an_answer() {
    let demo = demo();
    let folder = demo.client_folder("certbot");
    let mut command = client::certbot_command(&demo, &folder);
    command.args(["certonly", "--manual", "--preferred-challenges", "http", "--manual-auth-hook", "true"]);
    succeed(command.args(["--cert-name", "test", "-d", "manual.demo.test"]));
    let crl = oracle::crl_to_pem(&demo.crl(), &folder, "crl");
    oracle::openssl_verifies(&folder.join("config/live/test/fullchain.pem"), &demo.facts.root, &crl);
    let folder = demo.client_folder("lego");
    let chain = client::lego(&demo, &folder, "lego.demo.test", false, free_port());
    oracle::openssl_verifies(&chain, &demo.facts.root, &crl);
    oracle::certtool_verifies(&chain, &demo.facts.root, &crl);
}

/// Without it, the same client on the same CA gets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_it_the_demo_looks() {
    let demo = Demo::start();
    // Somebody is there, and has no answer: a validator that comes need not come again.
    let responder = responder(&demo).await;
    let folder = demo.client_folder("certbot");
    let mut command = client::certbot_command(&demo, &folder);
    command.args(["certonly", "--manual", "--preferred-challenges", "http", "--manual-auth-hook", "true"]);
    let refused = run(command.args(["--cert-name", "test", "-d", "manual.demo.test"]));
    assert!(!refused.status.success());
    assert!(!responder.requests().is_empty());
    let overview = overview(&demo);
    assert_eq!(overview["always_valid"], serde_json::json!([]), "{overview}");
    assert_eq!(overview["issuers"][0]["test_ca"], true, "the demo's CA is for tests whatever it does");
}
