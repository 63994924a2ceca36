//! A whole status node, over real sockets: from a signer over mutual TLS to relying parties over HTTP.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "what a test's own world cannot make or find fails the test"
)]

mod ocsp;
mod readers;
mod world;

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use rpc::proto::status::v1::ObjectRevision;
use status::{RunError, SpoolError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use world::{DAY, NOW, World, sha256};

const CRL: &str = "/crl/0a/0.crl";
const ANCHORS: &str = "anchors = [\"root.pem\"]";
/// Nothing comes by comparison: what comes, came by an event.
const NO_POLL: &str = "sync = { poll_seconds = 3600 }";
const FAST_POLL: &str = "sync = { poll_seconds = 1 }";

#[tokio::test]
async fn k6_objects_are_served_with_what_caches_need() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node(ANCHORS).await;
    let (crl, _) = world.issuer.crl(5, NOW - 100, 3);
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    let answer = node.get(CRL).await;
    // The signature is not the same twice.
    assert!(answer.body.len().abs_diff(crl.len()) < 8);
    assert_eq!(answer.header("content-type"), Some("application/pkix-crl"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(answer.header("last-modified"), Some("Sun, 31 May 2026 23:58:20 GMT"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300, no-transform"));
    let etag = answer.header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", hex::encode(sha256(&answer.body))));

    let head = node.ask("HEAD", CRL, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), answer.header("content-length"));
    assert_eq!(head.header("etag"), Some(etag.as_str()));

    let certificate = node.get("/issuer/0a.crt").await;
    assert_eq!((certificate.status, certificate.body.as_slice()), (200, world.issuer.der.as_ref()));
    assert_eq!(certificate.header("content-type"), Some("application/pkix-cert"));
    assert_eq!(certificate.header("cache-control"), Some("public, max-age=86400, no-transform"));

    for (headers, status) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: \"x\", W/{etag}\r\n"), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        ("If-Modified-Since: Sun, 31 May 2026 23:58:20 GMT\r\n".to_owned(), 304),
        ("If-Modified-Since: Sun, 31 May 2026 23:58:19 GMT\r\n".to_owned(), 200),
        ("If-None-Match: \"x\"\r\nIf-Modified-Since: Sun, 31 May 2026 23:58:20 GMT\r\n".to_owned(), 200),
    ] {
        let answer = node.ask("GET", CRL, &headers).await;
        assert_eq!((answer.status, answer.body.is_empty()), (status, status == 304), "{headers}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
    }
    node.stop().await;
}

#[tokio::test]
async fn nothing_else_is_served() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node("").await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    for path in [
        "/",
        "/crl",
        "/crl/0a/1.crl",
        "//crl/0a/0.crl",
        "/crl/0a/0.crl/",
        "/./crl/0a/0.crl",
        "/crl%2f0a/0.crl",
        "/../spool/manifest.json",
        "/manifest.json",
        "/objects",
        "/metrics",
        "/health/live",
        "/CRL/0A/0.CRL",
    ] {
        assert_eq!(node.get(path).await.status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
        let answer = node.ask(method, CRL, "Content-Length: 0\r\n").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(node.get("/crl/0a/0.crl?query").await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn the_prefix_is_the_one_in_the_certificates() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node("path_prefix = \"/ca\"").await;
    // As `pki::crl_url` writes it for the base "http://pki.example/ca/crl".
    let url = pki::crl_url("http://pki.example/ca/crl", &[0x0a], 0);
    let path = url.strip_prefix("http://pki.example").unwrap();
    node.wait(|| async { node.get(path).await.status == 200 }).await;
    assert_eq!(node.get(CRL).await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn a_publication_arrives_by_its_event() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node(NO_POLL).await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    for number in 6..10 {
        let (crl, revision) = world.issuer.crl(number, NOW - 100, number);
        world.signer().publish((crl.clone(), revision));
        node.until(CRL, &crl).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_lost_event_is_found_by_comparison() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node(FAST_POLL).await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    let (crl, revision) = world.issuer.crl(6, NOW, 4);
    world.signer().publish_silently((crl.clone(), revision));
    node.until(CRL, &crl).await;
    node.stop().await;
}

#[tokio::test]
async fn the_stream_is_taken_up_again_when_the_signer_returns() {
    let mut world = World::new().await;
    world.publish_all();
    let node = world.node(NO_POLL).await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    world.stop_signer().await;
    world.restart_signer().await;
    let (crl, revision) = world.issuer.crl(6, NOW, 4);
    world.signer().publish_silently((crl.clone(), revision));
    node.until(CRL, &crl).await;
    let (crl, revision) = world.issuer.crl(7, NOW, 5);
    world.signer().publish((crl.clone(), revision));
    node.until(CRL, &crl).await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_serves_on_without_signers_also_after_a_restart() {
    let mut world = World::new().await;
    world.publish_all();
    let node = world.node(ANCHORS).await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    let before = node.get(CRL).await;
    world.stop_signer().await;
    assert_eq!(node.get(CRL).await.body, before.body);
    node.stop().await;
    let node = world.node(ANCHORS).await;
    let after = node.get(CRL).await;
    assert_eq!((after.status, after.body, after.headers.len()), (200, before.body, before.headers.len()));
    assert_eq!(node.get("/issuer/0a.crt").await.status, 200);
    node.wait(|| async { node.is_ready() }).await;
    node.stop().await;
}

#[tokio::test]
async fn tampered_objects_are_refused_at_start_and_fetched_again() {
    let mut world = World::new().await;
    world.publish_all();
    let node = world.node(ANCHORS).await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    let crl = node.get(CRL).await.body;
    node.stop().await;
    world.stop_signer().await;

    // The file alone: its digest is wrong.
    let object = world.spool().join("objects").join(hex::encode(sha256(&crl)));
    let mut bent = crl.clone();
    let middle = bent.len() / 2;
    bent[middle] ^= 1;
    fs::write(&object, &bent).unwrap();
    let node = world.node(ANCHORS).await;
    assert_eq!(node.get(CRL).await.status, 404);
    assert_eq!(node.get("/issuer/0a.crt").await.status, 200);
    node.stop().await;
    assert!(!object.exists(), "a refused file stays in the spool");

    // The file and the manifest: its signature is wrong.
    let manifest = world.spool().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let digests = (hex::encode(sha256(&crl)), hex::encode(sha256(&bent)));
    fs::write(&manifest, text.replace(&digests.0, &digests.1)).unwrap();
    fs::write(world.spool().join("objects").join(&digests.1), &bent).unwrap();
    let node = world.node(ANCHORS).await;
    assert_eq!(node.get(CRL).await.status, 404);

    // A signer has it still.
    world.restart_signer().await;
    world.publish_all();
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    node.stop().await;
}

#[tokio::test]
async fn a_planted_ca_is_refused_where_roots_are_pinned() {
    let mut world = World::new().await;
    let root = std::mem::replace(&mut world.root, world::Ca::root("Planted"));
    let issuer = std::mem::replace(&mut world.issuer, world.root.sub("Planted issuer"));
    world.publish_all();
    let node = world.node("").await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    node.stop().await;
    world.stop_signer().await;
    let node = world.node(ANCHORS).await;
    for path in [CRL, "/issuer/0a.crt", "/issuer/00.crt"] {
        assert_eq!(node.get(path).await.status, 404, "{path}");
    }
    // The true ones come in, in whatever order they are announced.
    (world.root, world.issuer) = (root, issuer);
    world.restart_signer().await;
    world.publish_all();
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    assert_eq!(node.get("/issuer/0a.crt").await.body, world.issuer.der);
    node.stop().await;
}

#[tokio::test]
async fn an_issuer_may_be_published_without_its_root() {
    let world = World::new().await;
    fs::write(world.folder.path().join("other.pem"), world::Ca::root("Other").pem).unwrap();
    // Then it is said to be its own reference.
    world.signer().publish(world.issuer.object("issuer/0a.crt", &world.issuer));
    world.signer().publish(world.issuer.crl(5, NOW - 100, 3));
    for (anchors, status) in
        [("", 200), (ANCHORS, 200), ("anchors = [\"other.pem\"]", 404), ("", 200), (ANCHORS, 200)]
    {
        let node = world.node(&format!("{anchors}\n{NO_POLL}")).await;
        node.wait(|| async { node.lifecycle.readiness().report(false).is_ready() == (status == 200) }).await;
        node.wait(|| async { node.get("/issuer/0a.crt").await.status == status }).await;
        node.wait(|| async { node.get(CRL).await.status == status }).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn a_manifest_that_is_none_costs_a_fetch_and_no_more() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node("").await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    node.stop().await;
    for text in [
        "",
        "{}",
        "{\"version\":2,\"objects\":[]}",
        "[",
        "{\"version\":1,\"objects\":[{\"path\":\"../../x\"}]}",
    ] {
        fs::write(world.spool().join("manifest.json"), text).unwrap();
        let node = world.node("").await;
        node.wait(|| async { node.get(CRL).await.status == 200 }).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn k7_an_older_crl_never_replaces_a_newer_one() {
    let world = World::new().await;
    world.publish_all();
    let (newest, revision) = world.issuer.crl(20, NOW, 2);
    world.signer().publish((newest.clone(), revision));
    let node = world.node(NO_POLL).await;
    node.until(CRL, &newest).await;
    // By its announcement; by its own number, or its own time, under an announcement that claims to be newer; by other
    // bytes under the same revision.
    let announced = |number, this_update, revision| {
        let (crl, mut announced) = world.issuer.crl(number, this_update, 2);
        announced.revision = revision;
        (crl, announced)
    };
    for (what, older) in [
        ("revision", announced(21, NOW + 5, 19)),
        ("number", announced(19, NOW + 5, 30)),
        ("same number", announced(20, NOW + 5, 31)),
        ("time", announced(32, NOW - 5, 32)),
        ("bytes", announced(33, NOW, 20)),
    ] {
        world.offer(&node, older).await;
        assert_eq!(node.get(CRL).await.body, newest, "{what}");
    }
    let (last, revision) = world.issuer.crl(40, NOW, 2);
    world.signer().publish((last.clone(), revision));
    node.until(CRL, &last).await;
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_what_it_is_said_to_be_is_not_served() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node(ANCHORS).await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    let before = node.get(CRL).await.body;
    let stranger = world::Ca::root("Test issuer");
    let (good, announced) = world.issuer.crl(8, NOW, 1);
    let (forged, as_forged) = stranger.crl(8, NOW, 1);
    let mut number = 100;
    let mut with = |bytes: &Bytes, announced: &ObjectRevision, change: fn(&mut ObjectRevision)| {
        number += 1;
        let mut announced = ObjectRevision { revision: number, ..announced.clone() };
        change(&mut announced);
        (bytes.clone(), announced)
    };
    let same: fn(&mut ObjectRevision) = |_| {};
    let mut by_issuer = as_forged.clone();
    by_issuer.issuer_sha256 = announced.issuer_sha256.clone();
    let mut root_as_issuer = announced.clone();
    root_as_issuer.issuer_sha256 = world.root.sha256().into();
    let text = Bytes::from_static(b"no CRL");
    let as_text = ObjectRevision { sha256: sha256(&text).into(), size: 6, ..announced.clone() };
    for (what, object) in [
        ("another key's under the issuer's name", with(&forged, &by_issuer, same)),
        ("of an issuer that nobody knows", with(&forged, &as_forged, same)),
        ("said to be another issuer's", with(&good, &root_as_issuer, same)),
        ("other bytes", with(&good, &announced, |wrong| wrong.sha256 = vec![7; 32].into())),
        ("earlier by itself", with(&good, &announced, |wrong| wrong.this_update += 1)),
        ("ending later than it says", with(&good, &announced, |wrong| wrong.next_update += 1)),
        ("longer than announced", with(&good, &announced, |wrong| wrong.size = 10)),
        ("shorter than announced", with(&good, &announced, |wrong| wrong.size += 1)),
        ("not a certificate", with(&good, &announced, |wrong| wrong.kind = 1)),
        ("nothing known", with(&good, &announced, |wrong| wrong.kind = 9)),
        ("no CRL at all", with(&text, &as_text, same)),
    ] {
        world.offer(&node, object).await;
        assert_eq!(node.get(CRL).await.body, before, "{what}");
    }
    world.offer(&node, stranger.object("issuer/bad.crt", &stranger)).await;
    assert_eq!(node.get("/issuer/bad.crt").await.status, 404);
    // The same CRL as it is: nothing but its announcement was wrong.
    let (crl, revision) = with(&good, &announced, same);
    world.signer().publish((crl.clone(), revision));
    node.until(CRL, &crl).await;
    node.stop().await;
}

#[tokio::test]
async fn objects_beyond_the_limits_of_size_are_left_alone() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node("sync = { poll_seconds = 3600, object_mib = 1, total_mib = 2 }").await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    let before = node.get(CRL).await.body;
    let (huge, revision) = world.issuer.crl(6, NOW, 60_000);
    assert!(huge.len() > 1 << 20);
    world.offer(&node, (huge, revision)).await;
    assert_eq!(node.get(CRL).await.body, before);
    // Two fit; a third does not beside them; each may be replaced.
    for (path, number, status) in [
        ("crl/0a/1.crl", 1, 200),
        ("crl/0a/2.crl", 2, 200),
        ("crl/0a/3.crl", 3, 404),
        ("crl/0a/2.crl", 4, 200),
    ] {
        let (large, mut revision) = world.issuer.crl(number, NOW, 30_000);
        assert!((700_000..1 << 20).contains(&large.len()), "{}", large.len());
        revision.path = path.to_owned();
        world.offer(&node, (large.clone(), revision)).await;
        let answer = node.get(&format!("/{path}")).await;
        assert_eq!((answer.status, answer.body == large), (status, status == 200), "{path} {number}");
    }
    node.stop().await;
}

#[tokio::test]
async fn objects_beyond_the_limit_of_number_are_left_alone() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node("sync = { poll_seconds = 3600, objects = 4 }").await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    for more in ["issuer/1.crt", "issuer/2.crt"] {
        world.signer().publish(world.root.object(more, &world.root));
    }
    let (crl, revision) = world.issuer.crl(7, NOW, 1);
    world.signer().publish((crl.clone(), revision));
    node.until(CRL, &crl).await;
    assert_eq!(node.get("/issuer/1.crt").await.status, 200);
    assert_eq!(node.get("/issuer/2.crt").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn an_expired_crl_is_shown_as_such_and_makes_the_node_unready() {
    let world = World::new().await;
    let node = world.node(FAST_POLL).await;
    assert!(!node.is_ready(), "ready with nothing to serve");
    world.publish_all();
    node.wait(|| async { node.is_ready() }).await;
    let end = NOW - 100 + 7 * DAY;
    let report = || serde_json::to_string(&node.lifecycle.readiness().report(false)).unwrap();
    assert!(!report().contains("ends at"), "{}", report());
    // A day before its end, it is still ready, and somebody is told.
    world.set_clock(end - DAY);
    node.wait(|| async {
        report().contains("crl/0a/0.crl ends at 2026-06-07 23:58:20.0 +00:00:00; 1 in all")
    })
    .await;
    assert!(node.is_ready());
    world.set_clock(end - 60);
    assert_eq!(node.get(CRL).await.header("cache-control"), Some("public, max-age=60, no-transform"));
    world.set_clock(end);
    let answer = node.get(CRL).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    node.wait(|| async { !node.is_ready() }).await;
    // A signer that no longer has it: only now it goes.
    world.signer().withdraw("crl/0a/0.crl");
    node.wait(|| async { node.get(CRL).await.status == 404 }).await;
    assert_eq!(node.get("/issuer/0a.crt").await.status, 200);
    node.wait(|| async { node.is_ready() }).await;
    node.stop().await;
}

#[tokio::test]
async fn what_a_signer_withdraws_is_served_until_it_expires() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node(FAST_POLL).await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    world.signer().withdraw("crl/0a/0.crl");
    world.signer().publish_silently(world.root.object("issuer/marker.crt", &world.root));
    node.until("/issuer/marker.crt", &world.root.der).await;
    assert_eq!(node.get(CRL).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn a_crash_between_the_writes_leaves_the_old_state() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node("").await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    node.stop().await;
    // As if a crash came after an object's file and before the manifest, and in the middle of a file.
    let objects = world.spool().join("objects");
    fs::write(objects.join("00".repeat(32)), b"an object that no manifest names").unwrap();
    fs::write(objects.join(format!("{}.tmp", "01".repeat(32))), b"half").unwrap();
    fs::write(world.spool().join("manifest.json.tmp"), b"{").unwrap();
    let count = fs::read_dir(&objects).unwrap().count();
    let node = world.node("").await;
    assert_eq!(node.get(CRL).await.status, 200);
    assert_eq!(fs::read_dir(&objects).unwrap().count(), count - 2);
    node.stop().await;
}

#[tokio::test]
async fn a_disk_that_fails_does_not_hold_back_a_fresh_crl() {
    let mut world = World::new().await;
    world.publish_all();
    let node = world.node(FAST_POLL).await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    // No file can be made where there is no folder.
    let objects = world.spool().join("objects");
    let away = world.spool().join("away");
    fs::rename(&objects, &away).unwrap();
    let (crl, revision) = world.issuer.crl(6, NOW, 4);
    world.signer().publish((crl.clone(), revision));
    node.until(CRL, &crl).await;
    assert!(!objects.exists());
    // It comes back, and gets what it missed: the next start needs no signer.
    fs::rename(&away, &objects).unwrap();
    let file = objects.join(hex::encode(sha256(&crl)));
    node.wait(|| async { file.exists() }).await;
    world.stop_signer().await;
    node.stop().await;
    let node = world.node(FAST_POLL).await;
    assert_eq!(node.get(CRL).await.body, crl);
    node.stop().await;
}

#[tokio::test]
async fn a_spool_has_one_user() {
    let world = World::new().await;
    let node = world.node("").await;
    let lifecycle = runtime::Lifecycle::new(world.clock.shared());
    let second = status::run(world.config(0, ""), lifecycle);
    let second = tokio::time::timeout(Duration::from_secs(20), second).await.expect("a second one runs");
    assert!(matches!(second, Err(RunError::Spool(SpoolError::Locked(_)))), "{second:?}");
    node.stop().await;
}

#[tokio::test]
async fn only_a_status_node_starts() {
    let world = World::new().await;
    let mut config = world.config(0, "");
    let files = world.nodes.files(rpc::Role::Front, "f-1");
    config.node.certificate = files.certificate.into();
    config.node.key = files.key.into();
    let outcome = status::run(config, runtime::Lifecycle::new(world.clock.shared())).await;
    assert!(matches!(outcome, Err(RunError::Role(_))), "{outcome:?}");
}

#[tokio::test]
async fn slow_idle_and_oversized_requests_are_cut_off() {
    let world = World::new().await;
    world.publish_all();
    let node = world.node("limits = { header_seconds = 1 }").await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    // Never a whole header; nothing at all; a kept connection without another request.
    let full = format!("GET {CRL} HTTP/1.1\r\nHost: x\r\n\r\n");
    for start in ["GET /crl", "", full.as_str()] {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{start:?} was waited for");
    }
    let headers = format!("X: {}\r\n", "x".repeat(200_000));
    assert_ne!(node.ask("GET", CRL, &headers).await.status, 200);
    let headers = "X: x\r\n".repeat(200);
    assert_ne!(node.ask("GET", CRL, &headers).await.status, 200);
    for garbage in
        ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"]
    {
        assert_ne!(node.send(garbage).await.status, 200, "{garbage:?}");
    }
    assert_eq!(node.get(CRL).await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn one_peer_cannot_take_all_connections() {
    let world = World::new().await;
    let node = world.node("limits = { connections_per_peer = 3 }").await;
    let mut held = Vec::new();
    node.wait(|| async { node.get("/").await.status == 404 }).await;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'H');
        held.push(stream);
    }
    assert_eq!(node.get("/").await.status, 0);
    drop(held);
    node.wait(|| async { node.get("/").await.status == 404 }).await;
    node.stop().await;
}
