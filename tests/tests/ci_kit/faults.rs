//! Faults of the front, and outages of the roles and of the HSM: each is seen, ends, and leaves a CA that works.

use std::time::{Duration, Instant};

use e2e::program::run;
use e2e::{Demo, client};

use crate::support::{curl, manage};

/// How long something may take to happen by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn works(demo: &Demo, name: &str) {
    let folder = demo.client_folder(name);
    let _ = client::lego(demo, &folder, &format!("{name}.demo.test"), false, demo.http_01_port);
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_fronts_faults_are_set_seen_and_lifted() {
    let demo = Demo::start_as_pebble(&["--refuse-nonces", "0"]);
    let fails = |name: &str| {
        let folder = demo.client_folder(name);
        let mut command =
            client::lego_command(&demo, &folder, &format!("{name}.demo.test"), false, demo.http_01_port);
        let output = run(&mut command);
        assert!(!output.status.success(), "{name}: the fault changed nothing");
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    };
    manage(&demo, "POST", "/faults", r#"{"internal_errors_percent": 100}"#).ok();
    assert!(fails("internal").contains("serverInternal"));
    // What is not named stays.
    let body = r#"{"rate_limited_percent": 100, "retry_after_seconds": 3}"#;
    let listed = manage(&demo, "POST", "/faults", body).ok();
    assert_eq!(listed["front"]["internal_errors_percent"], 100);
    manage(&demo, "POST", "/faults", r#"{"internal_errors_percent": 0}"#).ok();
    assert!(fails("limited").contains("rateLimited"));
    for (body, said) in [
        (r#"{"rate_limited_percent": 101}"#, "at most 100"),
        (r#"{"processing_milliseconds": 6000}"#, "at most 5000"),
        (r#"{"rate_limit_percent": 1}"#, "unknown field"),
    ] {
        manage(&demo, "POST", "/faults", body).refused(400, said);
    }
    let listed = manage(&demo, "DELETE", "/faults", "").ok();
    assert_eq!(
        (&listed["front"]["rate_limited_percent"], &listed["outages"]),
        (&0.into(), &serde_json::json!({}))
    );
    manage(&demo, "POST", "/faults", r#"{"delay_milliseconds": 200, "processing_milliseconds": 3000}"#).ok();
    let started = Instant::now();
    works(&demo, "slow");
    assert!(started.elapsed() >= Duration::from_secs(3));
    manage(&demo, "DELETE", "/faults", "").ok();
    works(&demo, "lifted");
}

#[test]
fn roles_and_the_hsm_are_out_for_a_while_and_come_back() {
    let demo = Demo::start_as_pebble(&["--refuse-nonces", "0"]);
    let begin = |of: &str, body: &str| {
        let listed = manage(&demo, "POST", &format!("/outages/{of}"), body).ok();
        assert!(listed["outages"][of]["seconds_left"].as_u64().is_some(), "{listed}");
    };
    let end = |of: &str| {
        let listed = manage(&demo, "DELETE", &format!("/outages/{of}"), "").ok();
        assert!(listed["outages"].get(of).is_none(), "{listed}");
    };
    let silent = |url: &str| curl(&demo, &["--max-time", "2", url]).status == 0;
    let stopped = |role: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", demo.process_of(role))).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    };
    for (of, body, said) in [
        ("front", r#"{"seconds": 0}"#, "from 1 to 3600"),
        ("front", r#"{"how": "unplug"}"#, "unplugged"),
        ("hsm", r#"{"how": "stop"}"#, "unplugged"),
        ("front", r#"{"how": "burn"}"#, "unknown variant"),
    ] {
        manage(&demo, "POST", &format!("/outages/{of}"), body).refused(400, said);
    }
    manage(&demo, "POST", "/outages/moon", "").refused(404, "signer");

    for role in ["signer", "validator", "front", "status"] {
        // Stopped.
        begin(role, r#"{"how": "stop", "seconds": 600}"#);
        until("the role stops", || stopped(role));
        manage(&demo, "POST", &format!("/outages/{role}"), "").refused(409, "already");
        match role {
            "front" => assert!(silent(&demo.facts.directory)),
            "status" => assert!(silent(&demo.facts.crl)),
            _ => {}
        }
        end(role);
        until("the role goes on", || !stopped(role));
        // Killed, and down for a while.
        let victim = demo.process_of(role);
        begin(role, r#"{"how": "kill", "seconds": 600}"#);
        until("the role dies", || !e2e::demo::is_alive(victim));
        std::thread::sleep(Duration::from_secs(1));
        let running =
            demo.processes().into_iter().any(|(_, command)| command.contains(&format!("chancery {role} ")));
        assert!(!running, "{role} was started again");
        end(role);
        assert_ne!(demo.process_of(role), victim);
        works(&demo, role);
    }
    // A token that nobody finds.
    let healthy = || {
        let output = run(demo.operator().args(["overview", "--json"]));
        let overview: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        overview["tokens"][0]["healthy"] == true
    };
    assert!(healthy());
    begin("hsm", r#"{"seconds": 600}"#);
    until("the signer misses its token", || !healthy());
    end("hsm");
    assert!(healthy());
    works(&demo, "hsm");
    // One that nobody ends, ends.
    begin("status", r#"{"seconds": 1}"#);
    until("the outage ends", || {
        manage(&demo, "GET", "/faults", "").ok()["outages"].as_object().unwrap().is_empty()
    });
    until("the role goes on", || !stopped("status"));
    // What is out when all is lifted is no longer.
    begin("front", r#"{"seconds": 600}"#);
    manage(&demo, "DELETE", "/faults", "").ok();
    works(&demo, "all");
    // What is out when the demo ends does not hold it up.
    begin("signer", r#"{"seconds": 600}"#);
    until("the signer stops", || stopped("signer"));
    drop(demo.stop());
}
