//! Readers who take their time, and revisions that are replaced meanwhile.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::CRL;
use crate::world::{NOW, Node, World};

/// RFC 9113 §6.9.2; nothing comes beyond it before the body is read.
const WINDOW_OCTETS: u32 = 65_535;

/// Somebody who asked for the CRL and has read nothing of it yet. The connection lives as long as the sender.
async fn reader(node: &Node) -> (Incoming, SendRequest<Full<Bytes>>) {
    let stream = TcpStream::connect(node.address).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW_OCTETS).initial_connection_window_size(WINDOW_OCTETS);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://pki.example{CRL}")).body(Full::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    (response.into_body(), sender)
}

async fn rest((body, _sender): (Incoming, SendRequest<Full<Bytes>>)) -> Option<Bytes> {
    Some(body.collect().await.ok()?.to_bytes())
}

#[tokio::test]
async fn readers_of_what_was_replaced_go_when_the_limit_is_reached() {
    let world = World::new().await;
    world.publish_all();
    // Whoever goes, goes for the limit.
    let patient = "limits = { header_seconds = 600, stall_seconds = 600 }";
    let node = world
        .node(&format!("sync = {{ poll_seconds = 3600, object_mib = 1, total_mib = 2 }}\n{patient}"))
        .await;
    node.wait(|| async { node.get(CRL).await.status == 200 }).await;
    let publish = async |number| {
        let (crl, revision) = world.issuer.crl(number, NOW, 30_000);
        assert!(crl.len() < 1 << 20 && crl.len() * 3 > 2 << 20, "{}: two must fit, three not", crl.len());
        world.signer().publish((crl.clone(), revision));
        node.until(CRL, &crl).await;
        crl
    };
    publish(6).await;
    let oldest = reader(&node).await;
    let second = publish(7).await;
    let reads_second = reader(&node).await;
    let third = publish(8).await;
    let reads_third = reader(&node).await;
    assert_eq!(rest(oldest).await, None, "it is in memory beside two others");
    assert_eq!(rest(reads_second).await, Some(second));
    assert_eq!(rest(reads_third).await, Some(third.clone()));
    // Memory is free again: a further one stays beside what is served.
    let before = reader(&node).await;
    publish(9).await;
    assert_eq!(rest(before).await, Some(third));
    node.stop().await;
}
