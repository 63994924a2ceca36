//! The HTTPS certificate (DESIGN §9), HTTP/2, and the drain.

use std::time::Duration;

use bytes::Bytes;
use front::HttpsSection;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;

use crate::client::{Client, Wire};
use crate::stage::{BASE, Stage, pause, until};

async fn leaf(wire: &Wire) -> Vec<u8> {
    let stream = wire.connect().await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn own_certificate_is_kept_and_renewed_at_a_third_of_its_life() {
    let stage = Stage::new().await;
    let first = leaf(&stage.wire).await;
    let certificate = pki::Certificate::from_der(&first).unwrap();
    assert_eq!(
        certificate.names().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["acme.test"]
    );
    let file = stage.folder().join("state-0").join("https.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let kept = std::fs::read(&file).unwrap();
    // Another start takes up what is kept, and asks for nothing.
    let folder = stage.folder();
    std::fs::create_dir_all(folder.join("state-1")).unwrap();
    std::fs::write(folder.join("state-1").join("https.pem"), &kept).unwrap();
    let stage = stage.restart().await;
    assert_eq!(leaf(&stage.wire).await, first);
    // A third of its life later it is renewed; in a new process, because this one looks only now and then.
    std::fs::create_dir_all(folder.join("state-2")).unwrap();
    std::fs::write(folder.join("state-2").join("https.pem"), &kept).unwrap();
    stage.clock.advance(Duration::from_secs(11 * 24 * 3600));
    let stage = stage.restart().await;
    until("another certificate", async || leaf(&stage.wire).await != first).await;
    let file = folder.join("state-2").join("https.pem");
    until("another file", async || std::fs::read(&file).unwrap() != kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_again_and_a_bad_pair_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let write = |certificate: &rcgen::Certificate, pair: &KeyPair| {
        std::fs::write(&chain, certificate.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
    };
    let make = || {
        let pair = KeyPair::generate().unwrap();
        (CertificateParams::new(vec!["acme.test".to_owned()]).unwrap().self_signed(&pair).unwrap(), pair)
    };
    let (first, first_key) = make();
    write(&first, &first_key);
    let root = CertificateDer::from(first.der().to_vec());
    let files = HttpsSection::Files { certificate: chain.clone().into(), key: key.clone().into() };
    let stage = Stage::trusting(root, |config| config.https = files).await;
    assert_eq!(leaf(&stage.wire).await, first.der().to_vec());
    let (second, second_key) = make();
    write(&second, &second_key);
    stage.reload();
    let wire = Wire::new(stage.wire.address(), BASE, CertificateDer::from(second.der().to_vec()));
    assert_eq!(leaf(&wire).await, second.der().to_vec());
    // The key of another certificate: the old pair stays.
    write(&second, &first_key);
    stage.reload();
    assert_eq!(leaf(&wire).await, second.der().to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken() {
    let stage = Stage::new().await;
    let stream = stage.wire.with_protocols(&[b"h2"]).connect().await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder()
        .uri(stage.wire.directory_url("open"))
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_what_is_under_way() {
    let stage = Stage::new().await;
    let client = Client::registered(&stage.wire, "open").await;
    let held = stage.ca.hold_orders();
    let order = client.order(&["drained.example.org"]);
    let drained = async {
        held.reached().await;
        let stopped = tokio::spawn(stage.stop());
        pause().await;
        held.release();
        stopped.await.unwrap();
    };
    let (answer, ()) = tokio::join!(order, drained);
    answer.ok(201);
}
