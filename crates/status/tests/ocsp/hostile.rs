//! Garbage, slow and huge requests, and too many of them.

use std::time::Duration;

use pki::ocsp::{CertStatus, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::{Said, TRY_LATER, is_error, path, ready, said, status};
use crate::world::{NOW, Node};

/// Sends this and says whether the node ended the connection, and what it said.
async fn ended(node: &Node, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "{:?} was waited for", String::from_utf8_lossy(request));
    answer
}

fn starts(answer: &[u8], with: &str) -> bool {
    assert!(answer.starts_with(with.as_bytes()), "{}", String::from_utf8_lossy(answer));
    true
}

const POST: &str = "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Type: application/ocsp-request\r\n";

#[tokio::test]
async fn bodies_that_come_slowly_or_never_are_not_waited_for() {
    let (_world, node) = ready("limits = { body_seconds = 1 }").await;
    let never = ended(&node, format!("{POST}Content-Length: 80\r\n\r\n").as_bytes()).await;
    assert!(starts(&never, "HTTP/1.1 408 "));
    let half =
        ended(&node, format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n").as_bytes()).await;
    assert!(starts(&half, "HTTP/1.1 408 "));
    // An octet now and then does not make the time longer.
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(format!("{POST}Content-Length: 80\r\n\r\n").as_bytes()).await.unwrap();
    let begun = Instant::now();
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if stream.write_all(b"0").await.is_err() {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(6), "a slow body is read to its end");
    node.stop().await;
}

#[tokio::test]
async fn huge_bodies_are_refused_before_they_are_read() {
    let (world, node) = ready("").await;
    let announced = ended(&node, format!("{POST}Content-Length: 10485760\r\n\r\n").as_bytes()).await;
    assert!(starts(&announced, "HTTP/1.1 413 "));
    // Ten megabytes that are really sent, in chunks whose number nobody tells.
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(format!("{POST}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[0x30; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 10 << 20 {
        match timeout(Duration::from_secs(10), stream.write_all(&chunk)).await {
            Ok(Ok(())) => sent += chunk.len(),
            Ok(Err(_)) => break,
            Err(_) => panic!("the node neither reads nor closes"),
        }
    }
    assert!(sent < 10 << 20, "ten megabytes were read");
    assert_eq!(status(&node.post(&world.oracle.request(1), "").await), CertStatus::Good);
    node.stop().await;
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    let (world, node) = ready("limits = { header_seconds = 2 }").await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(b"GET /ocsp/MA HTTP/1.1\r\n").await.unwrap();
    let line = format!("X-{}: {}\r\n", "a".repeat(20), "b".repeat(500));
    let mut sent = 0;
    for _ in 0..10_000 {
        if timeout(Duration::from_secs(10), stream.write_all(line.as_bytes())).await.unwrap().is_err() {
            break;
        }
        sent += line.len();
        tokio::task::yield_now().await;
    }
    assert!(sent < 4 << 20, "{sent} bytes of headers were read");
    let long = format!("/ocsp/{}", "M".repeat(15_000));
    assert!(matches!(node.get(&long).await.status, 200 | 414 | 431), "a long path");
    let longer = format!("/ocsp/{}", "M".repeat(60_000));
    assert_ne!(node.get(&longer).await.status, 200);
    assert_eq!(status(&node.post(&world.oracle.request(1), "").await), CertStatus::Good);
    node.stop().await;
}

#[tokio::test]
async fn who_asks_for_many_signatures_waits_and_the_rest_is_served() {
    let (world, node) = ready("limits = { live_per_second = 1, live_burst = 5 }").await;
    let mut later = 0;
    for number in 0..20 {
        later += usize::from(is_error(&node.post(&world.oracle.request(number), "").await, TRY_LATER));
    }
    assert!((10..=15).contains(&later), "{later}");
    // What is kept costs no signature.
    for _ in 0..50 {
        assert_eq!(status(&node.get(&path(&world.oracle.request(0))).await), CertStatus::Good);
    }
    // X-Forwarded-For is nothing but a header.
    let header = "X-Forwarded-For: 203.0.113.9\r\n";
    assert!(is_error(&node.post(&world.oracle.request(90), header).await, TRY_LATER));
    node.stop().await;
}

#[tokio::test]
async fn a_trusted_proxy_has_no_limit_and_its_clients_have_theirs() {
    let more = "trusted_proxies = [\"127.0.0.0/8\"]\nlimits = { live_per_second = 1, live_burst = 3, connections_per_peer = 2 }";
    let (world, node) = ready(more).await;
    for number in 0..20 {
        let answer = node.post(&world.oracle.request(number), "").await;
        assert_eq!(status(&answer), CertStatus::Good, "{number}");
    }
    let from = |client: &str| format!("X-Forwarded-For: 198.51.100.1, {client}\r\n");
    let mut later = 0;
    for number in 20..30 {
        let answer = node.post(&world.oracle.request(number), &from("203.0.113.9")).await;
        later += usize::from(is_error(&answer, TRY_LATER));
    }
    assert!((5..=7).contains(&later), "{later}");
    let other = node.post(&world.oracle.request(40), &from("203.0.113.10")).await;
    assert_eq!(status(&other), CertStatus::Good);
    // More connections than one peer may have.
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'H');
        held.push(stream);
    }
    node.stop().await;
}

#[tokio::test]
async fn only_so_many_wait_for_a_signer() {
    let more = "ocsp = { waiting = 3, waiting_unkept = 2, calls = 1, wait_milliseconds = 5000 }";
    let (world, node) = ready(more).await;
    let kept = node.post(&world.oracle.request(99), "").await;
    world.oracle.hold(true);
    let ask = async |request: Vec<u8>| node.post(&request, "").await;
    let plain = futures::future::join_all((0..8).map(|number| ask(world.oracle.request(number))));
    let nonce = |number: u8| encode_request(&[world.oracle.id(1)], Some(&[number; 32]));
    let unkept = futures::future::join_all((0..8).map(|number| ask(nonce(number))));
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Whatever waits, what is kept is served.
        assert_eq!(node.post(&world.oracle.request(99), "").await.body, kept.body);
        world.oracle.hold(false);
    };
    let (plain, unkept, ()) = tokio::join!(plain, unkept, release);
    let answered = |answers: &[crate::world::Answer]| {
        answers.iter().filter(|answer| matches!(said(answer), Said::Response(_))).count()
    };
    assert_eq!((answered(&plain), answered(&unkept)), (3, 2));
    node.stop().await;
}

#[tokio::test]
async fn only_so_many_bodies_are_read_at_once() {
    let (world, node) = ready("limits = { bodies = 2, bodies_per_peer = 2, body_seconds = 3 }").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(format!("{POST}Content-Length: 80\r\n\r\n").as_bytes()).await.unwrap();
        held.push(stream);
    }
    node.wait(|| async { node.post(&world.oracle.request(1), "").await.status == 503 }).await;
    // A GET has none.
    assert_eq!(status(&node.get(&path(&world.oracle.request(1))).await), CertStatus::Good);
    drop(held);
    node.wait(|| async { node.post(&world.oracle.request(1), "").await.status == 200 }).await;
    node.stop().await;
}

/// Begins a POST from this address and does not end it. Its status is 100 as soon as its body is waited for (RFC 9110 §10.1.1).
async fn begun(node: &Node, from: [u8; 4], headers: &str) -> (String, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(node.address).await.unwrap();
    let head = format!("{POST}{headers}Expect: 100-continue\r\nContent-Length: 80\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; "HTTP/1.1 100".len()];
    stream.read_exact(&mut line).await.unwrap();
    (String::from_utf8_lossy(&line[9..]).into_owned(), stream)
}

#[tokio::test]
async fn one_peer_cannot_take_all_places_for_bodies() {
    let more = "trusted_proxies = [\"127.0.0.3/32\"]\nlimits = { bodies = 8, bodies_per_peer = 2, body_seconds = 60 }";
    let (world, node) = ready(more).await;
    let (slow, proxy) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    let mut held = Vec::new();
    let mut begin = async |from, headers, count: usize| {
        let mut codes = Vec::new();
        for _ in 0..count {
            let (code, stream) = begun(&node, from, headers).await;
            codes.push(code);
            held.push(stream);
        }
        codes
    };
    assert_eq!(begin(slow, "", 4).await, ["100", "100", "503", "503"]);
    // What it says of others does not help.
    assert_eq!(begin(slow, "X-Forwarded-For: 203.0.113.9\r\n", 1).await, ["503"]);
    assert_eq!(begin(proxy, "", 3).await, ["100"; 3]);
    assert_eq!(begin(proxy, "X-Forwarded-For: 203.0.113.9\r\n", 3).await, ["100", "100", "503"]);
    // The last place is enough for the rest of the world: whoever has sent his body gives it back.
    for number in 0..5 {
        assert_eq!(status(&node.post(&world.oracle.request(number), "").await), CertStatus::Good, "{number}");
    }
    drop(held);
    node.wait(|| async { begun(&node, slow, "").await.0 == "100" }).await;
    node.stop().await;
}

#[tokio::test]
async fn a_peer_has_a_sixteenth_of_the_places_for_bodies() {
    let (_world, node) = ready("limits = { bodies = 48, body_seconds = 60 }").await;
    let mut held = Vec::new();
    for number in 0..4 {
        let (code, stream) = begun(&node, [127, 0, 0, 2], "").await;
        assert_eq!(code, if number < 3 { "100" } else { "503" }, "{number}");
        held.push(stream);
    }
    drop(held);
    node.stop().await;
}

#[tokio::test]
async fn health_says_when_signers_are_away_and_answers_overdue() {
    let (mut world, node) = ready("ocsp = { poll_seconds = 1, wait_milliseconds = 300 }").await;
    let report = || serde_json::to_string(&node.lifecycle.readiness().report(false)).unwrap();
    let is_up =
        |name: &str| report().contains(&format!("\"{name}\":{{\"required\":false,\"state\":\"up\"}}"));
    node.post(&world.oracle.request(1), "").await;
    node.wait(|| async { is_up("ocsp signers") && is_up("ocsp renewal") && is_up("ocsp spool writes") })
        .await;
    world.stop_signer().await;
    node.wait(|| async { !is_up("ocsp signers") }).await;
    world.set_clock(NOW + 41 * 3600);
    node.wait(|| async { !is_up("ocsp renewal") }).await;
    assert!(node.is_ready(), "what is there is served");
    world.restart_signer().await;
    node.wait(|| async { is_up("ocsp signers") && is_up("ocsp renewal") }).await;
    node.stop().await;
}
