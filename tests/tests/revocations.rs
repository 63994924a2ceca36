//! Revocation over the whole system: by accounts in the two ways that they have, and by operators who select.

use std::collections::BTreeSet;
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, Output, Stdio};

use e2e::Demo;
use e2e::demo::{is_alive, signal};
use e2e::library::{
    account, answered, finalize, granted_account, issue, issue_granted, leaf, patience, request_with,
    responder, revoke,
};
use e2e::program::{run, succeed};
use instant_acme::{OrderStatus, RevocationReason};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn an_account_revokes_what_it_has_all_names_of_and_nothing_else() {
    let demo = Demo::start();
    let responder = responder(&demo).await;
    let (owner, heir, partial) = (account(&demo).await, account(&demo).await, account(&demo).await);
    let names = ["one.demo.test", "two.demo.test", "three.demo.test"];
    let chain = issue(&owner, &responder, &names).await;
    let certificate = leaf(&chain);

    let nobody = account(&demo).await;
    let refused = revoke(&nobody, certificate.der(), None).await.expect_err("a stranger");
    assert!(refused.contains("unauthorized"), "{refused}");
    // All names but one; the order is finalized by nobody.
    let mut order = answered(&partial, &responder, &names[..2]).await;
    assert_eq!(order.poll_ready(&patience()).await.expect("polling"), OrderStatus::Ready);
    let refused = revoke(&partial, certificate.der(), None).await.expect_err("all names but one");
    assert!(refused.contains("unauthorized"), "{refused}");
    // Reasons that are the CA's to give.
    for reason in [RevocationReason::PrivilegeWithdrawn, RevocationReason::CertificateHold] {
        let refused = revoke(&owner, certificate.der(), Some(reason)).await.expect_err("no client's reason");
        assert!(refused.contains("badRevocationReason"), "{refused}");
    }
    // Nobody's certificate.
    let own = rcgen::generate_simple_self_signed(vec!["one.demo.test".to_owned()]).expect("a certificate");
    let refused = revoke(&owner, own.cert.der(), None).await.expect_err("another CA's certificate");
    assert!(refused.contains("malformed") && refused.contains("404"), "{refused}");
    assert!(!lists(&demo.crl(), &certificate.serial()));

    let mut order = answered(&heir, &responder, &names).await;
    assert_eq!(order.poll_ready(&patience()).await.expect("polling"), OrderStatus::Ready);
    let reason = Some(RevocationReason::CessationOfOperation);
    revoke(&heir, certificate.der(), reason).await.expect("who holds all names revokes");
    demo.wait_for_crl("showed the revoked certificate", |crl| lists(crl, &certificate.serial()));
    for account in [&heir, &owner] {
        let refused = revoke(account, certificate.der(), None).await.expect_err("twice");
        assert!(refused.contains("alreadyRevoked"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_looks_first_and_then_revokes_what_was_selected() {
    let demo = Demo::start();
    let responder = responder(&demo).await;
    let (one, two) = (account(&demo).await, account(&demo).await);
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut shared = Vec::new();
    for (account, name) in [(&one, "first.demo.test"), (&two, "second.demo.test")] {
        let mut order = answered(account, &responder, &[name]).await;
        shared.push(leaf(&finalize(&mut order, &request_with(&[name], &key)).await));
    }
    let other = leaf(&issue(&one, &responder, &["below.first.demo.test"]).await);
    let serials = |certificates: &[&pki::Certificate]| -> BTreeSet<String> {
        certificates.iter().map(|it| it.serial().to_string()).collect()
    };

    // A rehearsal changes nothing, whatever it is told.
    let selected = lines(&succeed(demo.operator().args([
        "revoke",
        "--under",
        "first.demo.test",
        "--dry-run",
        "--json",
    ])));
    assert_eq!(serials_of(&selected), serials(&[&shared[0], &other]));
    assert_eq!(selected.last().unwrap()["summary"]["would_revoke"], 2);
    let said = succeed(demo.operator().args(["revoke", "--account", one.id(), "--dry-run"]));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("2 would be revoked") && said.contains("below.first.demo.test"), "{said}");

    // More than one, and nobody to ask.
    let refused = run(demo.operator().args(["revoke", "--under", "demo.test"]).stdin(Stdio::null()));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--yes"), "{said}");
    let refused = run(demo.operator().arg("revoke"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("say which certificates"));
    let refused =
        run(demo.operator().args(["revoke", "--name", "first.demo.test", "--reason", "certificateHold"]));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("privilegeWithdrawn"));
    assert_eq!(revoked_once(&demo).await, BTreeSet::new());

    // One, by its file.
    let folder = demo.client_folder("operator");
    let file = folder.join("other.pem");
    std::fs::write(&file, pki::chain::to_pem([&other])).unwrap();
    let done = lines(&succeed(
        demo.operator().args(["revoke", "--reason", "superseded", "--json", "--certificate"]).arg(&file),
    ));
    assert_eq!(serials_of(&done), serials(&[&other]));
    demo.wait_for_crl("showed the revoked certificate", |crl| lists(crl, &other.serial()));

    // A leaked key, in the file of a public key: every certificate that has it, and no new one.
    let file = folder.join("leaked.pem");
    std::fs::write(&file, key.public_key_pem()).unwrap();
    let mut command = demo.operator();
    command.args([
        "revoke",
        "--reason",
        "keyCompromise",
        "--name",
        "first.demo.test",
        "--yes",
        "--json",
        "--key",
    ]);
    let done = lines(&succeed(command.arg(&file)));
    assert_eq!(serials_of(&done), serials(&[&shared[0], &shared[1]]));
    let summary = &done.last().unwrap()["summary"];
    assert_eq!((&summary["revoked"], &summary["shares_key"]), (&2.into(), &1.into()), "{summary}");
    assert_eq!(summary["keys_blocked"], 1);
    demo.wait_for_crl("showed all of the key", |crl| shared.iter().all(|it| lists(crl, &it.serial())));
    let mut order = answered(&one, &responder, &["third.demo.test"]).await;
    assert_eq!(order.poll_ready(&patience()).await.expect("polling"), OrderStatus::Ready);
    let refused = order.finalize_csr(&request_with(&["third.demo.test"], &key)).await.expect_err("blocked");
    assert!(format!("{refused:?}").contains("badCSR"), "{refused:?}");

    // A list of serials, some done and one nobody's: what is left is said.
    let list = format!("# two\n{}\n\n{}\n", other.serial(), "5A:00:00:01");
    let mut command = demo.operator();
    command.args(["revoke", "--json", "--serials-file"]).arg(folder.join("list"));
    std::fs::write(folder.join("list"), list).unwrap();
    let output = run(&mut command);
    let summary = lines(&output).pop().unwrap();
    assert_eq!(summary["summary"]["unknown"], serde_json::json!(["5a000001"]));
    assert_eq!(summary["summary"]["already_revoked"], 1);
    assert!(!output.status.success());
    assert_eq!(revoked_once(&demo).await, serials(&[&other, &shared[0], &shared[1]]));
}

/// Certificates whose lines are so long that a run of them fills a pipe that nobody reads.
const MANY: usize = 24;

async fn many(demo: &Demo) -> BTreeSet<String> {
    let account = granted_account(demo).await;
    let label = "l".repeat(60);
    let mut serials = BTreeSet::new();
    for n in 0..MANY {
        let names: Vec<_> =
            (0..20).map(|m| format!("{label}.{label}.{label}.n{n}-{m}.managed.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        serials.insert(issue_granted(&account, &names).await.serial().to_string());
    }
    serials
}

/// A run that waits for its reader after some pages.
fn begin(demo: &Demo) -> (Child, impl Read + use<>) {
    let mut command = demo.operator();
    command.args(["revoke", "--under", "managed.test", "--reason", "superseded"]);
    command.args(["--yes", "--json", "--page-size", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("chancery revoke");
    let output = child.stdout.take().expect("its output");
    (child, output)
}

/// A line, and nothing after it.
fn line(output: &mut impl Read) -> Value {
    let mut line = Vec::new();
    let mut octet = [0];
    while output.read(&mut octet).expect("its output") == 1 && octet[0] != b'\n' {
        line.push(octet[0]);
    }
    serde_json::from_slice(&line).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_goes_on_when_it_is_begun_again() {
    let demo = Demo::start();
    let serials = many(&demo).await;
    let (mut child, mut output) = begin(&demo);
    for _ in 0..3 {
        assert_eq!(line(&mut output)["outcome"], "revoked");
    }
    child.kill().expect("it runs");
    child.wait().expect("its end");
    let before = revoked_once(&demo).await;
    assert!((3..MANY).contains(&before.len()), "{} of {MANY}", before.len());

    let (child, mut output) = begin(&demo);
    let mut text = String::new();
    BufReader::new(&mut output).read_to_string(&mut text).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["already_revoked"], before.len(), "{summary}");
    assert_eq!(summary["summary"]["revoked"], MANY - before.len(), "{summary}");
    assert_eq!(revoked_once(&demo).await, serials);
    demo.wait_for_crl("showed all of them", |crl| serials.iter().all(|it| lists(crl, &it.parse().unwrap())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_survives_the_death_of_its_signer() {
    let demo = Demo::start();
    let serials = many(&demo).await;
    let (child, mut output) = begin(&demo);
    for _ in 0..3 {
        assert_eq!(line(&mut output)["outcome"], "revoked");
    }
    let signer = demo.process_of("signer");
    signal(signer, "KILL");
    while is_alive(signer) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(revoked_once(&demo).await.len() < MANY);
    let mut text = String::new();
    BufReader::new(&mut output).read_to_string(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["revoked"], MANY, "{summary}");
    assert_eq!(revoked_once(&demo).await, serials);
}

/// The objects of an output, a line each.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

fn serials_of(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().filter_map(|line| line["serial"].as_str().map(str::to_owned)).collect()
}

/// The serials that the audit trail says were revoked: each in one row, and each in the table of revocations.
async fn revoked_once(demo: &Demo) -> BTreeSet<String> {
    let pool = open(&demo.state().join("signer/ca.db")).await;
    let audited: Vec<(String, i64)> = sqlx::query_as(
        "SELECT subject, count(*) FROM audit WHERE kind = 'certificate.revoked' GROUP BY subject",
    )
    .fetch_all(&pool)
    .await
    .expect("the audit trail");
    let rows: Vec<(String,)> = sqlx::query_as("SELECT lower(hex(serial)) FROM revocations")
        .fetch_all(&pool)
        .await
        .expect("the revocations");
    pool.close().await;
    assert!(audited.iter().all(|(_, count)| *count == 1), "{audited:?}");
    let audited: BTreeSet<_> = audited.into_iter().map(|(serial, _)| serial).collect();
    assert_eq!(audited, rows.into_iter().map(|(serial,)| serial).collect());
    audited
}

async fn open(path: &Path) -> sqlx::SqlitePool {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
    sqlx::SqlitePool::connect_with(options).await.expect("the database")
}

fn lists(crl: &[u8], serial: &pki::Serial) -> bool {
    pki::crl::Crl::from_der(crl).expect("a CRL").find(serial).is_some()
}
