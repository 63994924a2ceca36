//! What fails on purpose (`crates/front/src/faults.rs`), and directories at other paths: for those who test clients.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use front::{AliasSection, Config};
use http::Method;
use runtime::{Invalid, RoleConfig as _};
use serde_json::json;

use crate::client::Client;
use crate::stage::Stage;

/// A front with a file of faults, which can be changed.
struct Faulty {
    stage: Stage,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Faulty {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("faults.toml");
        std::fs::write(&file, "version = 1\n\n").unwrap();
        let given = file.clone();
        let stage = Stage::with(|config| config.faults = Some(given.into())).await;
        Self { stage, file, _folder: folder }
    }

    fn say(&self, text: &str) {
        std::fs::write(&self.file, format!("version = 1\n{text}\n")).unwrap();
        self.stage.reload();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_nonces_are_refused_as_often_as_the_file_says() {
    let faulty = Faulty::start().await;
    let client = Client::registered(&faulty.stage.wire, "open").await;
    faulty.say("refuse_nonces_percent = 100");
    let refused = client.post_as_get(&client.account()).await;
    refused.problem(400, "badNonce");
    // With the nonce of the refusal it is no other: all are refused. None of them is good a second time.
    let header =
        json!({"alg": "ES256", "kid": client.account(), "nonce": refused.nonce(), "url": client.account()});
    client.post_with(&client.account(), &header, "").await.problem(400, "badNonce");
    faulty.say("refuse_nonces_percent = 0");
    client.post_with(&client.account(), &header, "").await.problem(400, "badNonce");
    client.post_as_get(&client.account()).await.ok(200);
    // By chance: some and not all. That 60 fall the same way happens once in 2^59 times.
    faulty.say("refuse_nonces_percent = 50");
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(client.post_as_get(&client.account()).await.status.as_u16());
    }
    assert!(statuses.contains(&200) && statuses.contains(&400), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_requests_fail_as_often_as_the_file_says_before_anything_is_done() {
    let faulty = Faulty::start().await;
    let client = Client::registered(&faulty.stage.wire, "open").await;
    let url = client.url("newOrder");
    let header = client.header(&url).await;
    let order = json!({"identifiers": [{"type": "dns", "value": "faults.granted.test"}]}).to_string();
    faulty.say("internal_errors_percent = 100");
    client.post_with(&url, &header, &order).await.problem(500, "serverInternal");
    faulty.say("rate_limited_percent = 100\nretry_after_seconds = 7");
    let limited = client.post_with(&url, &header, &order).await;
    limited.problem(429, "rateLimited");
    assert_eq!(limited.header("retry-after"), Some("7"));
    // What is not signed is answered.
    client.wire.plain(Method::HEAD, &client.url("newNonce")).await.ok(200);
    client.wire.get(&client.wire.directory_url("open")).await.ok(200);
    // The nonce of the refused requests is good still.
    faulty.say("");
    client.post_with(&url, &header, &order).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_held_back_and_orders_are_left_in_processing() {
    let faulty = Faulty::start().await;
    let client = Client::registered(&faulty.stage.wire, "open").await;
    faulty.say("delay_milliseconds = 300");
    let asked = Instant::now();
    client.wire.get(&client.wire.directory_url("open")).await.ok(200);
    assert!(asked.elapsed() >= Duration::from_millis(300));
    // Longer than finalize waits.
    faulty.say("processing_milliseconds = 4000");
    let names = ["processing.granted.test"];
    let (order, url) = faulty.stage.ready_order(&client, &names).await;
    let finalized = Instant::now();
    let answer = faulty.stage.finalize(&client, &order, &names).await.ok(200);
    assert_eq!(answer.json()["status"], "processing");
    assert!(answer.header("retry-after").is_some());
    faulty.stage.poll(&client, &url, &["valid"]).await;
    assert!(finalized.elapsed() >= Duration::from_millis(4000));
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_information_is_what_the_file_says() {
    let faulty = Faulty::start().await;
    let client = Client::registered(&faulty.stage.wire, "open").await;
    let url = faulty.stage.issue(&client, &["ari.granted.test"]).await;
    let leaf = pki::Certificate::from_der(&faulty.stage.leaf(&client, &url).await).unwrap();
    let id = acme::renewal::CertificateId {
        authority_key_id: leaf.authority_key_id().unwrap().to_vec(),
        serial: leaf.serial(),
    };
    let url = format!("{}/{id}", client.url("renewalInfo"));
    let signers = client.wire.get(&url).await.ok(200).body;
    faulty.say(&format!("[[renewal_info]]\ncertificate = \"{id}\"\nbody = \"no JSON\""));
    let answer = client.wire.get(&url).await.ok(200);
    assert_eq!(answer.body, "no JSON");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    faulty.say("");
    assert_eq!(client.wire.get(&url).await.ok(200).body, signers);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_front_with_a_file_says_so_and_a_bad_file_changes_nothing() {
    let faulty = Faulty::start().await;
    let wire = &faulty.stage.wire;
    let mark = async || {
        let answer = wire.get("/nowhere").await;
        answer.header("chancery-faults").unwrap().to_owned()
    };
    let first = mark().await;
    faulty.say("refuse_nonces_percent = 1");
    let second = mark().await;
    assert_ne!(first, second);
    faulty.say("refuse_nonces_percent = 101");
    assert_eq!(mark().await, second);
    faulty.say("");
    assert_eq!(mark().await, first);
    let plain = Stage::new().await;
    assert_eq!(plain.wire.get("/nowhere").await.header("chancery-faults"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_at_its_alias_with_its_own_urls() {
    let alias = AliasSection { path: "/dir".to_owned(), directory: "open".parse().unwrap() };
    let nowhere = AliasSection { path: "/none".to_owned(), directory: "none".parse().unwrap() };
    let stage = Stage::with(|config| config.directory_aliases = vec![alias, nowhere]).await;
    let own = stage.wire.get(&stage.wire.directory_url("open")).await.ok(200).json();
    let url = format!("{}/dir", stage.wire.base());
    let answer = stage.wire.get(&url).await.ok(200);
    assert_eq!(answer.json(), own);
    assert!(answer.links("index").is_empty());
    stage.wire.plain(Method::HEAD, &url).await.ok(200);
    for path in ["/dir/", "/dir?x=1", "/dirs", "/none"] {
        stage.wire.get(&format!("{}{path}", stage.wire.base())).await.problem(404, "malformed");
    }
    // What is signed names the directory's own URL.
    let client = Client::registered(&stage.wire, "open").await;
    client.post_as_get(&url).await.problem(403, "unauthorized");
    client.post_as_get(&stage.wire.directory_url("open")).await.ok(200);
    // A front without aliases has none.
    let plain = Stage::new().await;
    plain.wire.get(&format!("{}/dir", plain.wire.base())).await.problem(404, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_refuses_aliases_that_hide_something() {
    let configured = std::sync::Mutex::new(None);
    let stage = Stage::with(|config| *configured.lock().unwrap() = Some(config.clone())).await;
    stage.stop().await;
    let config: Config = configured.lock().unwrap().clone().unwrap();
    let check = |paths: &[&str]| -> Result<(), Invalid> {
        let alias =
            |path: &&str| AliasSection { path: (*path).to_owned(), directory: "open".parse().unwrap() };
        let config = Config { directory_aliases: paths.iter().map(alias).collect(), ..config.clone() };
        config.check()
    };
    check(&["/dir", "/directory"]).unwrap();
    for (paths, said) in [
        (&["dir"][..], "is no path"),
        (&["/"], "is no path"),
        (&["/dir?x"], "is no path"),
        (&["/dir#x"], "is no path"),
        (&["/acme/open/directory"], "own URLs"),
        (&["/acme/other"], "own URLs"),
        (&["/dir", "/dir"], "twice"),
    ] {
        let error = check(paths).unwrap_err().to_string();
        assert!(error.starts_with("directory_alias.path:") && error.contains(said), "{paths:?}: {error}");
    }
}
