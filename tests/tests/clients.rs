//! Real ACME clients get, renew and revoke certificates over the whole system.

use std::process::Command;

use e2e::Demo;
use e2e::client;
use e2e::oracle;
use e2e::program::{run, succeed};

#[test]
fn certbot_gets_renews_and_revokes_a_certificate() {
    let demo = Demo::start();
    let folder = demo.client_folder("certbot");
    let chain = client::certbot(&demo, &folder, &["www.demo.test", "demo.test"]);
    let before = oracle::crl_to_pem(&demo.crl(), &folder, "before");
    oracle::openssl_verifies(&chain, &demo.facts.root, &before);
    oracle::certtool_verifies(&chain, &demo.facts.root, &before);

    let first = std::fs::read_to_string(&chain).unwrap();
    let mut renew = client::certbot_command(&demo, &folder);
    renew.args(["renew", "--force-renewal", "--no-random-sleep-on-renew"]);
    succeed(&mut renew);
    assert_ne!(std::fs::read_to_string(&chain).unwrap(), first, "a renewal is a new certificate");

    // By the account: certbot signs with its account key.
    let leaf = oracle::first_of(&chain, &folder);
    let mut revoke = client::certbot_command(&demo, &folder);
    revoke.args(["revoke", "--reason", "superseded", "--no-delete-after-revoke", "--cert-path"]).arg(&chain);
    succeed(&mut revoke);
    let serial = serial_of(&leaf);
    demo.wait_for_crl("showed the revoked certificate", |crl| lists(crl, &serial));
    let after = oracle::crl_to_pem(&demo.crl(), &folder, "after");
    assert!(oracle::openssl_refuses(&chain, &demo.facts.root, &after).contains("revoked"));
}

#[test]
fn certbot_revokes_by_certificate_key() {
    let demo = Demo::start();
    let folder = demo.client_folder("certbot");
    let chain = client::certbot(&demo, &folder, &["key.demo.test"]);
    let serial = serial_of(&oracle::first_of(&chain, &folder));
    let key = folder.join("config/live/test/privkey.pem");
    // A client without the account: another folder, and the certificate's own key.
    let stranger = demo.client_folder("stranger");
    let mut revoke = client::certbot_command(&demo, &stranger);
    revoke.args(["revoke", "--reason", "keycompromise", "--no-delete-after-revoke"]);
    revoke.arg("--cert-path").arg(&chain).arg("--key-path").arg(&key);
    // With a key that is not the certificate's.
    let wrong = stranger.join("wrong.pem");
    std::fs::write(&wrong, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let mut refused = client::certbot_command(&demo, &stranger);
    refused.args(["revoke", "--reason", "keycompromise", "--no-delete-after-revoke"]);
    refused.arg("--cert-path").arg(&chain).arg("--key-path").arg(&wrong);
    assert!(!run(&mut refused).status.success(), "a key that is not the certificate's revoked it");
    assert!(!lists(&demo.crl(), &serial));
    succeed(&mut revoke);
    demo.wait_for_crl("showed the revoked certificate", |crl| lists(crl, &serial));
}

#[test]
fn lego_gets_certificates_by_http_01_and_by_grant() {
    let demo = Demo::start();
    let folder = demo.client_folder("lego");
    let chain = client::lego(&demo, &folder, "lego.demo.test", false, demo.http_01_port);
    let crl = oracle::crl_to_pem(&demo.crl(), &folder, "crl");
    oracle::openssl_verifies(&chain, &demo.facts.root, &crl);
    let serial = serial_of(&oracle::first_of(&chain, &folder));
    let revoked = client::lego_revoke(&demo, &folder, "lego.demo.test", 4);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    demo.wait_for_crl("showed the revoked certificate", |crl| lists(crl, &serial));
    let again = client::lego_revoke(&demo, &folder, "lego.demo.test", 4);
    let said = String::from_utf8_lossy(&again.stderr).into_owned() + &String::from_utf8_lossy(&again.stdout);
    assert!(!again.status.success() && said.contains("alreadyRevoked"), "{said}");

    // With EAB and a grant there is no challenge: nothing listens where the validator would look.
    let folder = demo.client_folder("lego-eab");
    let chain = client::lego(&demo, &folder, "app.managed.test", true, e2e::program::free_port());
    oracle::openssl_verifies(&chain, &demo.facts.root, &crl);
}

#[test]
fn dehydrated_gets_a_certificate() {
    let demo = Demo::start();
    let folder = demo.client_folder("dehydrated");
    let crl = oracle::crl_to_pem(&demo.crl(), &folder, "crl");
    let chain = client::dehydrated(&demo, &folder, "dehydrated.demo.test");
    oracle::openssl_verifies(&chain, &demo.facts.root, &crl);
}

#[test]
fn operators_see_and_revoke_what_clients_got() {
    let demo = Demo::start();
    let folder = demo.client_folder("certbot");
    let chain = client::certbot(&demo, &folder, &["operator.demo.test"]);
    let serial = serial_of(&oracle::first_of(&chain, &folder));

    let listed =
        succeed(demo.operator().args(["certificate", "list", "--name", "operator.demo.test", "--json"]));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["serial"], serial.to_string());

    succeed(demo.operator().args(["certificate", "revoke", &serial.to_string(), "--reason", "9"]));
    demo.wait_for_crl("showed the revoked certificate", |crl| lists(crl, &serial));
}

fn serial_of(certificate: &std::path::Path) -> pki::Serial {
    let said =
        succeed(Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(certificate)).stdout;
    let said = String::from_utf8(said).unwrap().trim().to_lowercase();
    pki::Serial::from_hex(said.strip_prefix("serial=").unwrap()).unwrap()
}

fn lists(crl: &[u8], serial: &pki::Serial) -> bool {
    pki::crl::Crl::from_der(crl).expect("a CRL").find(serial).is_some()
}
