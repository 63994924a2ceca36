//! HTTP/2 with prior knowledge on the same port.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pki::ocsp::CertStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{path, ready, status};
use crate::world::{Answer, Node};

async fn connect(node: &Node) -> (SendRequest<Full<Bytes>>, JoinHandle<()>) {
    let stream = TcpStream::connect(node.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    // Ends with the connection, by whosever will.
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

async fn ask(sender: &SendRequest<Full<Bytes>>, method: Method, path: &str, body: Vec<u8>) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://pki.example{path}"))
        .header("content-type", "application/ocsp-request")
        .body(Full::from(body))
        .unwrap();
    answer(sender.clone().send_request(request).await.unwrap()).await
}

async fn answer(response: Response<hyper::body::Incoming>) -> Answer {
    let status = response.status().as_u16();
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), value.to_str().unwrap().to_owned())
    };
    let headers = response.headers().iter().map(header).collect();
    let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    Answer { status, headers, body }
}

#[tokio::test]
async fn both_versions_answer_alike() {
    let (world, node) = ready("").await;
    let (sender, _) = connect(&node).await;
    let get = path(&world.oracle.request(1));
    let by_get = ask(&sender, Method::GET, &get, Vec::new()).await;
    let by_post = ask(&sender, Method::POST, "/ocsp", world.oracle.request(1)).await;
    assert_eq!(status(&by_get), CertStatus::Good);
    let old = node.get(&get).await;
    for answer in [&by_get, &by_post] {
        assert_eq!(answer.body, old.body);
        for name in ["content-type", "content-length", "etag", "cache-control", "expires", "last-modified"] {
            assert_eq!(answer.header(name), old.header(name), "{name}");
        }
    }
    let head = ask(&sender, Method::HEAD, &get, Vec::new()).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), old.header("content-length"));
    let certificate = ask(&sender, Method::GET, "/issuer/0a.crt", Vec::new()).await;
    assert_eq!((certificate.status, certificate.body), (200, world.issuer.der.to_vec()));
    let huge = ask(&sender, Method::POST, "/ocsp", vec![0x30; 20_000]).await;
    assert_eq!(huge.status, 413);
    node.stop().await;
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let (world, node) = ready("limits = { streams_per_connection = 10 }").await;
    let (sender, _) = connect(&node).await;
    // A client knows the limit when it has heard the first answer.
    ask(&sender, Method::GET, "/", Vec::new()).await;
    let asking = |number: u16| {
        let (sender, request) = (sender.clone(), world.oracle.request(number % 100));
        async move { ask(&sender, Method::POST, "/ocsp", request).await }
    };
    let answers = futures::future::join_all((0..400).map(asking)).await;
    assert!(answers.iter().all(|answer| status(answer) == CertStatus::Good));
    assert!(world.oracle.asked() <= 100);
    node.stop().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_happens_is_ended() {
    let (world, node) = ready("limits = { header_seconds = 1 }").await;
    let (sender, ended) = connect(&node).await;
    ask(&sender, Method::POST, "/ocsp", world.oracle.request(1)).await;
    timeout(Duration::from_secs(20), ended).await.expect("it is held for ever").unwrap();
    // Also one that never says more than the preface, or half of it.
    for opening in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTT"] {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(opening.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "{opening:?} was waited for");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (_world, node) = ready("limits = { body_seconds = 1 }").await;
    let stream = TcpStream::connect(node.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let _connection = tokio::spawn(connection);
    let never = http_body_util::StreamBody::new(futures::stream::pending::<
        Result<hyper::body::Frame<Bytes>, std::convert::Infallible>,
    >());
    let request = Request::post("http://pki.example/ocsp").body(never).unwrap();
    let response = timeout(Duration::from_secs(20), sender.send_request(request)).await;
    assert_eq!(response.expect("it is waited for").unwrap().status(), 408);
    node.stop().await;
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_opened_end_the_connection() {
    let (world, node) = ready("").await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(4, 0, 0, &[]));
    stream.write_all(&opening).await.unwrap();
    // GET / of http, authority "x": indexed fields, and one literal.
    let header = [0x82, 0x84, 0x86, 0x41, 0x01, b'x'];
    let (mut reader, mut writer) = stream.into_split();
    let flood = tokio::spawn(async move {
        let mut opened = 0_u32;
        while opened < 200_000 {
            let mut burst = Vec::new();
            for _ in 0..100 {
                let id = opened * 2 + 1;
                burst.extend(frame(1, 0x05, id, &header));
                burst.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
                opened += 1;
            }
            if writer.write_all(&burst).await.is_err() {
                break;
            }
        }
        opened
    });
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(30), reader.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection goes on");
    drop(reader);
    assert!(flood.await.unwrap() < 200_000);
    assert_eq!(status(&node.post(&world.oracle.request(1), "").await), CertStatus::Good);
    node.stop().await;
}
