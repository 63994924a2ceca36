//! The calls that Pebble and its challenge test server have.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use acme::renewal::CertificateId;
use e2e::program::{run, succeed};
use e2e::{Demo, client};
use serde_json::json;

use crate::support::{curl, manage, names, pebbles_directory, serial};

#[test]
fn a_client_finds_the_directory_and_scripts_find_the_management_calls() {
    let mut demo = Demo::start_as_pebble(&["--refuse-nonces", "0"]);
    demo.facts.directory = {
        let own = curl(&demo, &[&demo.facts.directory]).ok();
        let there = curl(&demo, &[&pebbles_directory(&demo)]).ok();
        // The URLs in it are those of the host that was asked.
        assert_eq!(there.to_string(), own.to_string().replace("127.0.0.1", "localhost"));
        pebbles_directory(&demo)
    };
    let folder = demo.client_folder("lego");
    let chain = client::lego(&demo, &folder, "kit.demo.test", false, demo.http_01_port);

    // Roots, intermediates, their keys.
    let file = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (root, issuer) = (file(&demo.facts.root), file(&demo.facts.issuer));
    assert_eq!(manage(&demo, "GET", "/roots/0", "").body, root);
    assert_eq!(manage(&demo, "GET", "/intermediates/0", "").body, issuer);
    for (path, certificate) in [("/root-keys/0", &root), ("/intermediate-keys/0", &issuer)] {
        let refused = manage(&demo, "GET", path, "").refused(403, "cannot leave it");
        assert_eq!(refused["certificate"], **certificate);
        assert!(!refused.to_string().contains("PRIVATE KEY"));
    }
    for path in ["/roots/1", "/intermediates/1", "/root-keys/1", "/intermediate-keys/x"] {
        manage(&demo, "GET", path, "").refused(404, "number 0");
    }
    manage(&demo, "GET", "/nothing", "").refused(404, "no such call");
    let issued = file(&folder.join("certificates/kit.demo.test.issuer.crt"));
    assert!(issued.contains(issuer.trim()), "another issuer than /intermediates/0");

    // The status of a certificate.
    let number = serial(&chain);
    let status = manage(&demo, "GET", &format!("/cert-status-by-serial/{number}"), "").ok();
    assert_eq!(status["Status"], "Valid");
    assert_eq!(status["Serial"], number.to_lowercase().trim_start_matches('0'));
    assert!(file(&chain).starts_with(status["Certificate"].as_str().unwrap()));
    assert!(status.get("Reason").is_none() && status.get("RevokedAt").is_none(), "{status}");

    // What clients are told of its renewal: first the signer's word, then whatever is said here, then the signer's again.
    let leaf = pki::chain::from_pem(&file(&chain)).unwrap().remove(0);
    let id =
        CertificateId { authority_key_id: leaf.authority_key_id().unwrap().to_vec(), serial: leaf.serial() };
    let renewal = curl(&demo, &[&demo.facts.directory]).ok()["renewalInfo"].as_str().unwrap().to_owned();
    let ask = || curl(&demo, &[&format!("{renewal}/{id}")]).body;
    let signers = ask();
    assert!(signers.contains("suggestedWindow"), "{signers}");
    let said = |text: &str| json!({"Certificate": file(&chain), "ARIResponse": text}).to_string();
    manage(&demo, "POST", "/set-renewal-info/", &said("{\"suggestedWindow\": 7")).ok();
    assert_eq!(ask(), "{\"suggestedWindow\": 7");
    manage(&demo, "POST", "/set-renewal-info/", &said("")).ok();
    assert_eq!(ask(), signers);
    let others = json!({"Certificate": issuer, "ARIResponse": ""}).to_string();
    manage(&demo, "POST", "/set-renewal-info/", &others).refused(404, "no such certificate");
    manage(&demo, "POST", "/set-renewal-info/", "{}").refused(400, "missing field");

    let revoked = client::lego_revoke(&demo, &folder, "kit.demo.test", 4);
    assert!(revoked.status.success());
    let status = manage(&demo, "GET", &format!("/cert-status-by-serial/{}", number.to_lowercase()), "").ok();
    assert_eq!((&status["Status"], &status["Reason"]), (&json!("Revoked"), &json!(4)));
    assert!(status["RevokedAt"].as_str().unwrap().ends_with('Z'), "{status}");
    manage(&demo, "GET", "/cert-status-by-serial/7b", "").refused(404, "no such certificate");
    manage(&demo, "GET", "/cert-status-by-serial/xyz", "").refused(400, "no serial number");
}

/// certbot by dns-01, whose hooks make the calls that clients' tests make.
fn certbot_by_dns(demo: &Demo, folder: &Path, name: &str) -> Command {
    let url = demo.facts.dns_management.as_ref().unwrap();
    let hook = |file: &str, call: &str, value: &str| {
        let body = format!("{{\\\"host\\\":\\\"_acme-challenge.$CERTBOT_DOMAIN.\\\"{value}}}");
        let path = folder.join(file);
        std::fs::write(&path, format!("#!/bin/sh\nexec curl --silent --fail -d \"{body}\" {url}/{call}\n"))
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let mut command = client::certbot_command(demo, folder);
    command.args([
        "certonly",
        "--manual",
        "--preferred-challenges",
        "dns",
        "--cert-name",
        "test",
        "-d",
        name,
    ]);
    command.arg("--manual-auth-hook").arg(hook(
        "add",
        "set-txt",
        ",\\\"value\\\":\\\"$CERTBOT_VALIDATION\\\"",
    ));
    command.arg("--manual-cleanup-hook").arg(hook("remove", "clear-txt", ""));
    command
}

#[test]
fn the_calls_to_the_name_server_are_what_validation_sees() {
    let demo = Demo::start_as_pebble(&["--refuse-nonces", "0"]);
    let folder = demo.client_folder("certbot");
    succeed(&mut certbot_by_dns(&demo, &folder, "*.dns.demo.test"));
    assert!(
        !demo.facts.names.join("_acme-challenge.dns.demo.test").exists(),
        "the hook did not clear its record"
    );
    let asked = names(&demo, "dns-request-history", r#"{"host":"_acme-challenge.dns.demo.test"}"#).ok();
    let txt = json!({"Question": {"Name": "_acme-challenge.dns.demo.test.", "Qtype": 16, "Qclass": 1}});
    assert!(asked.as_array().unwrap().contains(&txt), "{asked}");
    names(&demo, "clear-request-history", r#"{"host":"_acme-challenge.dns.demo.test","type":"dns"}"#).ok();
    let asked = names(&demo, "dns-request-history", r#"{"host":"_acme-challenge.dns.demo.test"}"#).ok();
    assert_eq!(asked, json!([]));

    // Each of these keeps a certificate away, and its opposite lets it come. A CNAME leads to where the record is.
    let delegated = r#"{"host":"_acme-challenge.cname.demo.test","target":"elsewhere.demo.test"}"#;
    for (name, call, body, undo) in [
        ("servfail.demo.test", "set-servfail", r#"{"host":"servfail.demo.test"}"#, "clear-servfail"),
        (
            "caa.demo.test",
            "add-caa",
            r#"{"host":"caa.demo.test","policies":[{"tag":"issue","value":"other.test"}]}"#,
            "clear-caa",
        ),
        ("a.demo.test", "add-a", r#"{"host":"a.demo.test","addresses":["127.0.0.9"]}"#, "clear-a"),
        ("aaaa.demo.test", "add-aaaa", r#"{"host":"aaaa.demo.test","addresses":["::1"]}"#, "clear-aaaa"),
    ] {
        names(&demo, call, body).ok();
        let folder = demo.client_folder(name);
        let refused = run(&mut client::certbot_certonly(&demo, &folder, &[name]));
        assert!(!refused.status.success(), "{call} changed nothing");
        names(&demo, undo, &json!({"host": name}).to_string()).ok();
        let _ = client::certbot(&demo, &folder, &[name]);
    }
    names(&demo, "set-cname", delegated).ok();
    names(&demo, "set-txt", r#"{"host":"elsewhere.demo.test.","value":"x"}"#).ok();
    let folder = demo.client_folder("cname");
    let refused = run(&mut certbot_by_dns(&demo, &folder, "cname.demo.test"));
    assert!(!refused.status.success(), "the alias was not followed");
    names(&demo, "clear-cname", r#"{"host":"_acme-challenge.cname.demo.test"}"#).ok();
    succeed(&mut certbot_by_dns(&demo, &folder, "cname.demo.test"));

    names(&demo, "set-default-ipv4", r#"{"ip":"127.0.0.9"}"#).ok();
    let folder = demo.client_folder("default");
    let refused = run(&mut client::certbot_certonly(&demo, &folder, &["default.demo.test"]));
    assert!(!refused.status.success(), "set-default-ipv4 changed nothing");
    names(&demo, "set-default-ipv4", r#"{"ip":"127.0.0.1"}"#).ok();
    let _ = client::certbot(&demo, &folder, &["default.demo.test"]);
    names(&demo, "add-http01", "{}").refused(501, "answers no challenges");
}

/// lego tries a refused request again, with the nonce of the refusal.
#[test]
fn a_client_that_tries_again_gets_its_certificate_though_half_of_the_nonces_are_refused() {
    let demo = Demo::start_as_pebble(&["--refuse-nonces", "100"]);
    let folder = demo.client_folder("refused");
    let lego = |folder: &Path| {
        run(&mut client::lego_command(&demo, folder, "nonce.demo.test", false, demo.http_01_port))
    };
    let refused = lego(&folder);
    assert!(!refused.status.success());
    let said =
        String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(said.contains("badNonce"), "{said}");
    let listed = manage(&demo, "POST", "/faults", r#"{"refuse_nonces_percent": 50}"#).ok();
    assert_eq!(listed["front"]["refuse_nonces_percent"], 50);
    let folder = demo.client_folder("half");
    let output = lego(&folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Pebble's own setting, and its default.
#[test]
fn the_share_of_refused_nonces_is_pebbles_unless_something_else_is_said() {
    let demo = Demo::start_as_pebble(&[]);
    let listed = manage(&demo, "GET", "/faults", "").ok();
    assert_eq!(listed["front"]["refuse_nonces_percent"], 5);
    drop(demo);
    // A demo that is not in Pebble's place has no alias, no faults, and no calls.
    let demo = Demo::start();
    assert_eq!(demo.facts.management, None);
    let there = pebbles_directory(&demo).replace("localhost", "127.0.0.1");
    assert_eq!(curl(&demo, &[&there]).status, 404);
    assert!(!demo.state().join("faults.toml").exists());
}
