//! Incidents, as an operator types them: what would be, what is, and what is revoked at the deadline.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use e2e::Demo;
use e2e::library::{account, issue, leaf, responder};
use e2e::program::{run, succeed};
use pki::Timestamp;
use serde_json::Value;

/// Signers look every half minute.
const PATIENCE: Duration = Duration::from_secs(120);

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&succeed(command.arg("--json")).stdout).expect("one JSON object")
}

fn open(demo: &Demo, name: &str, deadline: &str) -> Command {
    let mut command = demo.operator();
    command.args(["incident", "open", "--name", name, "--title", "wrong policy OID"]);
    command.args(["--url", "https://ca.example/incidents/7", "--deadline", deadline]);
    command
}

fn ids(listed: &Value) -> Vec<&str> {
    listed["items"].as_array().expect("items").iter().map(|row| row["id"].as_str().expect("an id")).collect()
}

#[expect(clippy::disallowed_methods, reason = "the demo's clock is this host's")]
#[tokio::test(flavor = "multi_thread")]
async fn m6_an_incident_is_looked_at_opened_extended_and_closed_or_revokes_at_its_deadline() {
    let demo = Demo::start();
    let responder = responder(&demo).await;
    let client = account(&demo).await;
    let [doomed, spared] = ["doomed.demo.test", "spared.demo.test"];
    let doomed = (doomed, leaf(&issue(&client, &responder, &[doomed]).await));
    let spared = (spared, leaf(&issue(&client, &responder, &[spared]).await));
    let list = || json(demo.operator().args(["incident", "list"]));

    // A rehearsal changes nothing; nobody to ask, nothing either.
    let plan = json(open(&demo, spared.0, "+5d").args(["--wave-size", "1", "--dry-run"]));
    assert_eq!((&plan["would_be_selected"], &plan["waves"]), (&1.into(), &1.into()), "{plan}");
    let refused = run(open(&demo, spared.0, "+5d").stdin(Stdio::null()));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--yes"), "{said}");
    let refused = run(open(&demo, "nobody.demo.test", "+5d").arg("--yes"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("nothing was changed"), "{said}");
    assert!(ids(&list()).is_empty());

    // One that is extended, and then given up.
    let opened = json(open(&demo, spared.0, "+5d").arg("--yes"));
    assert_eq!((&opened["state"], &opened["total"]["left"]), (&"open".into(), &1.into()), "{opened}");
    let id = opened["id"].as_str().expect("an id").to_owned();
    assert_eq!(ids(&list()), [&id]);
    // There is nothing to resume: it is shown.
    let resumed = json(demo.operator().args(["incident", "open", "--name", spared.0, "--resume", &id]));
    assert_eq!((&resumed["id"], &resumed["title"]), (&opened["id"], &opened["title"]), "{resumed}");
    let extended = json(demo.operator().args(["incident", "extend", &id, "--deadline", "+6d"]));
    assert_ne!(extended["deadline"], opened["deadline"]);
    let closed = json(demo.operator().args(["incident", "close", &id]));
    assert_eq!(closed["state"], "closed", "{closed}");
    assert!(ids(&list()).is_empty());
    assert_eq!(ids(&json(demo.operator().args(["incident", "list", "--all"]))), [&id]);

    // One whose deadline comes soon.
    let at = |time: SystemTime| Timestamp::from(time).to_string();
    let now = SystemTime::now();
    let mut soon = open(&demo, doomed.0, &at(now + Duration::from_secs(15)));
    soon.args(["--begins", &at(now - Duration::from_secs(3600)), "--waves", "1", "--wave-minutes", "1"]);
    let opened = json(soon.arg("--yes"));
    let id = opened["id"].as_str().expect("an id").to_owned();
    let began = Instant::now();
    let done = loop {
        let shown = json(demo.operator().args(["incident", "show", &id]));
        if shown["state"] == "done" {
            break shown;
        }
        assert!(began.elapsed() < PATIENCE, "{shown}\n{}", demo.logs());
        std::thread::sleep(Duration::from_millis(500));
    };
    assert_eq!(done["total"]["revoked"], 1, "{done}");
    demo.wait_for_crl("showed the certificate that was left", |crl| {
        serials(crl).contains(&doomed.1.serial())
    });
    assert_eq!(serials(&demo.crl()), BTreeSet::from([doomed.1.serial()]), "and no other: {:?}", spared.1);
    let report = json(demo.operator().args(["incident", "report", "--accounts", &id]));
    assert_eq!(report["by_account"][0]["revoked"], 1, "{report}");
}

fn serials(crl: &[u8]) -> BTreeSet<pki::Serial> {
    let crl = pki::crl::Crl::from_der(crl).expect("a CRL");
    crl.entries().map(|entry| entry.expect("an entry").serial).collect()
}
