//! The movable clock.

use std::path::Path;
use std::process::Command;

use e2e::program::{ours, run, succeed};
use e2e::{Demo, client, oracle};
use serde_json::{Value, json};

use crate::support::{curl, manage, serial};

const DAY: u64 = 86_400;

/// The command in the demo's time.
fn in_its_time<'a>(demo: &Demo, command: &'a mut Command) -> &'a mut Command {
    let clock = managed(demo, "GET", "");
    for (name, value) in clock["environment"].as_object().unwrap() {
        command.env(name, value.as_str().unwrap());
    }
    command
}

fn seconds_since_1970(text: &str) -> i64 {
    let output = succeed(Command::new("date").args(["--date", text, "+%s"]));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// The window that clients are told for a certificate, as seconds from the demo's now.
fn window(demo: &Demo, chain: &Path) -> (i64, i64) {
    let leaf = pki::chain::from_pem(&std::fs::read_to_string(chain).unwrap()).unwrap().remove(0);
    let id = acme::renewal::CertificateId {
        authority_key_id: leaf.authority_key_id().unwrap().to_vec(),
        serial: leaf.serial(),
    };
    // -k: the front's certificate begins in this machine's future.
    let directory = curl(demo, &["-k", &demo.facts.directory]).ok();
    let url = format!("{}/{id}", directory["renewalInfo"].as_str().unwrap());
    let window = curl(demo, &["-k", &url]).ok()["suggestedWindow"].clone();
    let now = now(demo);
    let at = |end: &str| seconds_since_1970(window[end].as_str().unwrap()) - now;
    (at("start"), at("end"))
}

fn now(demo: &Demo) -> i64 {
    seconds_since_1970(managed(demo, "GET", "")["now"].as_str().unwrap())
}

/// `/clock`, by whatever certificate the calls have at that time.
fn managed(demo: &Demo, method: &str, body: &str) -> Value {
    let url = format!("{}/clock", demo.facts.management.as_ref().unwrap());
    let mut arguments = vec!["-k", "--request", method, url.as_str()];
    if !body.is_empty() {
        arguments.extend(["--data", body]);
    }
    curl(demo, &arguments).ok()
}

#[test]
fn a_clock_that_is_moved_past_a_renewal_window_lets_the_client_renew() {
    let demo = Demo::start_as_pebble(&["--refuse-nonces", "0", "--movable-clock"]);
    let clock = manage(&demo, "GET", "/clock", "").ok();
    assert_eq!((&clock["movable"], &clock["advanced_seconds"]), (&json!(true), &json!(0)));
    let folder = demo.client_folder("dehydrated");
    let chain = client::dehydrated(&demo, &folder, "clock.demo.test");
    let first = serial(&chain);
    let (start, end) = window(&demo, &chain);
    // 90 days; renewed when two thirds have passed.
    assert!(start > 50 * 86_400 && end < 90 * 86_400, "{start} {end}");
    let _answers = client::FileServer::start(&folder.join("www"), demo.http_01_port);
    let mut renew = Command::new("dehydrated");
    renew.args(["--cron", "--domain", "clock.demo.test", "--config"]).arg(folder.join("config"));
    succeed(in_its_time(&demo, &mut renew));
    assert_eq!(serial(&chain), first, "renewed before its time");

    // Further than one life of node certificates: in steps.
    let before = now(&demo);
    let moved = managed(&demo, "POST", &format!("{{\"advance_seconds\": {}}}", 80 * DAY));
    assert_eq!(moved["advanced_seconds"], 80 * DAY);
    let after = now(&demo);
    assert!((80 * 86_400..81 * 86_400).contains(&(after - before)), "{before} {after}");
    let (start, end) = window(&demo, &chain);
    assert!(start < 0 && end < 0, "the window of a certificate that is 80 days old: {start} {end}");
    succeed(in_its_time(&demo, &mut renew));
    assert_ne!(serial(&chain), first, "not renewed");
    let lasts = succeed(Command::new("openssl").args(["x509", "-noout", "-enddate", "-in"]).arg(&chain));
    let lasts = String::from_utf8(lasts.stdout).unwrap();
    let end = seconds_since_1970(lasts.trim().strip_prefix("notAfter=").unwrap());
    assert!(end - after > 85 * 86_400, "{lasts}");
    // Relying parties in that time: the CRL is of that time too.
    let crl = oracle::crl_to_pem(&demo.crl(), &folder, "crl");
    let then = (now(&demo) + 1).to_string();
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-crl_check", "-attime", &then, "-CAfile"]).arg(&demo.facts.root);
    verify.arg("-untrusted").arg(&chain).arg("-CRLfile").arg(crl).arg(&chain);
    succeed(&mut verify);
    // Operators of that time.
    let listed = succeed(in_its_time(&demo, demo.operator().args(["node", "list", "--json"])));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("front-1"));

    // Not backwards, not to where the CA ends, and not in the host's time any more.
    for body in ["{\"advance_seconds\": 0}", "{\"advance_seconds\": 315360000}"] {
        let url = format!("{}/clock", demo.facts.management.as_ref().unwrap());
        curl(&demo, &["-k", "--data", body, &url]).refused(400, "does not go back");
    }
    let url = format!("{}/clock", demo.facts.management.as_ref().unwrap());
    curl(&demo, &["-k", "--data", "{\"advance_seconds\": -5}", &url]).refused(400, "not this call's");
    let folder = demo.stop();
    let state = folder.path().join("state");
    let output = run(Command::new(ours("chancery")).args(["demo", "--serve", "--state"]).arg(&state));
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--movable-clock"), "{said}");
}

#[test]
fn a_clock_that_is_not_movable_says_so() {
    let demo = Demo::start_as_pebble(&["--refuse-nonces", "0"]);
    assert_eq!(manage(&demo, "GET", "/clock", "").ok()["movable"], false);
    manage(&demo, "POST", "/clock", "{\"advance_seconds\": 1}").refused(409, "--movable-clock");
}
