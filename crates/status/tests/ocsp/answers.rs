//! What is answered, and with what headers.

use std::time::Duration;

use pki::ocsp::{CertStatus, ErrorStatus, encode_request};
use pki::{Reason, Timestamp};

use super::{MALFORMED, Said, TRY_LATER, UNAUTHORIZED, is_error, path, ready, said, single, status};
use crate::world::oracle::{Key, Mood, serial};
use crate::world::{Ca, DAY, NOW, World, sha256};

#[tokio::test]
async fn l2_an_answer_is_signed_once_and_served_with_what_caches_need() {
    let (world, node) = ready("").await;
    let get = path(&world.oracle.request(1));
    let first = node.get(&get).await;
    assert_eq!(single(&first).id, world.oracle.id(1));
    assert_eq!(status(&first), CertStatus::Good);
    for answer in [node.get(&get).await, node.post(&world.oracle.request(1), "").await] {
        assert_eq!(answer.body, first.body);
    }
    assert_eq!(world.oracle.asked(), 1);
    assert_eq!(first.header("cache-control"), Some("max-age=300, public, no-transform, must-revalidate"));
    assert_eq!(first.header("last-modified"), Some("Mon, 01 Jun 2026 00:00:00 GMT"));
    assert_eq!(first.header("expires"), Some("Mon, 01 Jun 2026 00:05:00 GMT"));
    assert_eq!(first.header("content-length"), Some(first.body.len().to_string().as_str()));
    let etag = first.header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", hex::encode(sha256(&first.body))));

    let head = node.ask("HEAD", &get, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in ["content-length", "content-type", "etag", "cache-control", "expires", "last-modified"] {
        assert_eq!(head.header(name), first.header(name), "{name}");
    }
    for (headers, code) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        ("If-Modified-Since: Mon, 01 Jun 2026 00:00:00 GMT\r\n".to_owned(), 304),
        ("If-Modified-Since: Sun, 31 May 2026 23:59:59 GMT\r\n".to_owned(), 200),
    ] {
        let answer = node.ask("GET", &get, &headers).await;
        assert_eq!((answer.status, answer.body.is_empty()), (code, code == 304), "{headers}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
        assert_eq!(answer.header("cache-control"), first.header("cache-control"));
    }
    let post = node.post(&world.oracle.request(1), &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!((post.status, post.body), (200, first.body));
    node.stop().await;
}

#[tokio::test]
async fn l2_nobody_may_keep_an_answer_beyond_its_end() {
    let (world, node) = ready("").await;
    world.oracle.set_validity(3600);
    let get = path(&world.oracle.request(1));
    let first = node.get(&get).await;
    world.oracle.set_mood(Mood::Error(ErrorStatus::TryLater));
    world.set_clock(NOW + 3600 - 60);
    let late = node.get(&get).await;
    assert_eq!(late.body, first.body, "while no newer one comes, the old one is right");
    assert_eq!(late.header("cache-control"), Some("max-age=60, public, no-transform, must-revalidate"));
    assert_eq!(late.header("expires"), Some("Mon, 01 Jun 2026 01:00:00 GMT"));
    world.set_clock(NOW + 3600);
    assert!(is_error(&node.get(&get).await, TRY_LATER), "served past its nextUpdate");
    node.stop().await;
}

#[tokio::test]
async fn l1_every_spelling_of_a_get_finds_the_answer() {
    let (world, node) = ready("").await;
    // A serial number whose request has all three characters that have to be escaped.
    let text = |number| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(world.oracle.request(number))
    };
    let number = (0..u16::MAX).find(|number| {
        let text = text(*number);
        text.contains('+') && text.contains("/") && text.ends_with('=')
    });
    let number = number.unwrap();
    world.oracle.assign([number]);
    let text = text(number);
    let escaped = text.replace('+', "%2b").replace('/', "%2F").replace('=', "%3D");
    let every: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let first = node.get(&format!("/ocsp/{text}")).await;
    assert_eq!(status(&first), CertStatus::Good);
    let bare = text.trim_end_matches('=');
    for spelling in [&text, &escaped, &every, &format!("/{text}"), bare, &format!("{text}?query")] {
        // Twice: what was seen is found by another way.
        for _ in 0..2 {
            assert_eq!(node.get(&format!("/ocsp/{spelling}")).await.body, first.body, "{spelling}");
        }
    }
    assert_eq!(world.oracle.asked(), 1);
    for other in
        [text.replace('+', "-"), text.replace('/', "_"), format!("{text}="), text.replace('+', "%20")]
    {
        assert!(is_error(&node.get(&format!("/ocsp/{other}")).await, MALFORMED), "{other}");
    }
    node.stop().await;
}

#[tokio::test]
async fn the_prefix_and_the_methods_are_the_urls() {
    let (world, node) = ready("path_prefix = \"\"").await;
    let request = world.oracle.request(1);
    let get = path(&request);
    for (method, path, allowed) in [
        ("GET", "/ocsp", "POST"),
        ("GET", "/ocsp/", "POST"),
        ("PUT", "/ocsp", "POST"),
        ("DELETE", get.as_str(), "GET, HEAD"),
        ("POST", get.as_str(), "GET, HEAD"),
    ] {
        let answer = node.ask(method, path, "Content-Length: 0\r\n").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
    assert_eq!(node.get("/ocspx").await.status, 404);
    let head = "POST /ocsp/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let length = format!("Content-Length: {}\r\n", request.len());
    for (kind, code) in [
        ("", 200),
        ("Content-Type: application/ocsp-request\r\n", 200),
        ("Content-Type: Application/OCSP-Request; x=y\r\n", 200),
        ("Content-Type: text/plain\r\n", 415),
    ] {
        let request = [format!("{head}{length}{kind}\r\n").as_bytes(), &request].concat();
        assert_eq!(node.send_bytes(&request).await.status, code, "{kind}");
    }
    node.stop().await;
    let node = super::started_with_prefix(&world).await;
    assert_eq!(status(&node.get(&format!("/ca{get}")).await), CertStatus::Good);
    assert_eq!(node.get(&get).await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn l1_both_hashes_are_answered_as_they_were_asked() {
    let (world, node) = ready("").await;
    for id in [world.oracle.id(1), world.oracle.id_sha256(1)] {
        for _ in 0..2 {
            let answer = node.post(&encode_request(std::slice::from_ref(&id), None), "").await;
            assert_eq!(single(&answer).id.as_der(), id.as_der());
        }
    }
    assert_eq!(world.oracle.asked(), 2);
    node.stop().await;
}

#[tokio::test]
async fn l7_a_nonce_and_several_certificates_are_answered_live_and_never_kept() {
    let (world, node) = ready("").await;
    let ids = [world.oracle.id(1), world.oracle.id_sha256(2)];
    let mut asked = 0;
    for (ids, nonce) in [(&ids[..1], Some([5; 32])), (&ids[..], None), (&ids[..], Some([6; 32]))] {
        let request = encode_request(ids, nonce.as_ref().map(<[u8; 32]>::as_slice));
        for method in ["GET", "POST"] {
            let answer = match method {
                "GET" => node.get(&path(&request)).await,
                _ => node.post(&request, "").await,
            };
            asked += 1;
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!((answer.header("etag"), answer.header("expires")), (None, None));
            let Said::Response(response) = said(&answer) else { panic!("{answer:?}") };
            assert_eq!(response.nonce(), nonce.as_ref().map(<[u8; 32]>::as_slice));
            let answered: Vec<_> = response.singles().iter().map(|single| single.id.clone()).collect();
            assert_eq!(answered, ids);
            assert_eq!(world.oracle.asked(), asked);
        }
    }
    // A nonce that is too short is none, one that is too long is malformed (RFC 9654 §2.1).
    let short = encode_request(&ids[..1], Some(&[1; 15]));
    let long = encode_request(&ids[..1], Some(&[1; 129]));
    assert_eq!(status(&node.post(&short, "").await), CertStatus::Good);
    assert_eq!(node.post(&short, "").await.body, node.post(&world.oracle.request(1), "").await.body);
    assert!(is_error(&node.post(&long, "").await, MALFORMED));
    node.stop().await;
}

#[tokio::test]
async fn what_was_never_assigned_is_unknown_and_not_kept() {
    let (world, node) = ready("").await;
    let get = path(&world.oracle.request(500));
    for asked in 1..=2 {
        let answer = node.get(&get).await;
        assert_eq!(status(&answer), CertStatus::Unknown);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(world.oracle.asked(), asked);
    }
    world.oracle.assign([500]);
    assert_eq!(status(&node.get(&get).await), CertStatus::Good);
    node.stop().await;
}

#[tokio::test]
async fn l4_other_issuers_are_not_asked_about() {
    let (world, node) = ready("").await;
    let stranger = Ca::root("Stranger");
    let hashes = pki::ocsp::IssuerHashes::of(&pki::Certificate::from_der(&stranger.der).unwrap());
    let id = pki::ocsp::CertId::new(pki::ocsp::CertIdHash::Sha1, &hashes, &serial(1));
    for nonce in [None, Some([1; 32].as_slice())] {
        let request = encode_request(std::slice::from_ref(&id), nonce);
        assert!(is_error(&node.post(&request, "").await, UNAUTHORIZED));
    }
    assert_eq!(world.oracle.asked(), 0, "a signature's price for a stranger's question");
    // Beside one of ours, the signer says it.
    let both = encode_request(&[world.oracle.id(1), id], None);
    assert!(is_error(&node.post(&both, "").await, UNAUTHORIZED));
    assert_eq!(world.oracle.asked(), 1);
    node.stop().await;
}

#[tokio::test]
async fn l4_garbage_is_malformed() {
    let (world, node) = ready("").await;
    let good = world.oracle.request(1);
    let mut longer = good.clone();
    longer.push(0);
    for der in [&b""[..], b"\x30\x00", b"garbage", &good[..good.len() - 1], &longer, &[0x30; 3000]] {
        assert!(is_error(&node.post(der, "").await, MALFORMED), "{der:?}");
        if !der.is_empty() && der[0] == 0x30 {
            assert!(is_error(&node.get(&path(der)).await, MALFORMED), "{der:?}");
        }
    }
    assert!(is_error(&node.get("/ocsp/%").await, MALFORMED));
    assert_eq!(world.oracle.asked(), 0);
    node.stop().await;
}

#[tokio::test]
async fn before_anything_is_known_it_is_to_be_tried_later() {
    let mut world = World::new().await;
    world.stop_signer().await;
    let node = world.node("").await;
    assert!(is_error(&node.post(&world.oracle.request(1), "").await, TRY_LATER));
    node.stop().await;
}

#[tokio::test]
async fn l4_when_no_signer_answers_what_is_kept_is_served_and_the_rest_later() {
    let (mut world, node) = ready("ocsp = { wait_milliseconds = 500 }").await;
    let kept = node.post(&world.oracle.request(1), "").await;
    world.oracle.hold(true);
    assert!(is_error(&node.post(&world.oracle.request(2), "").await, TRY_LATER));
    world.oracle.hold(false);
    world.stop_signer().await;
    assert!(is_error(&node.post(&world.oracle.request(3), "").await, TRY_LATER));
    assert_eq!(node.post(&world.oracle.request(1), "").await.body, kept.body);
    // Overdue, and still right.
    world.set_clock(NOW + 47 * 3600);
    assert_eq!(node.post(&world.oracle.request(1), "").await.body, kept.body);
    world.set_clock(NOW + 48 * 3600);
    assert!(is_error(&node.post(&world.oracle.request(1), "").await, TRY_LATER));
    world.restart_signer().await;
    node.wait(|| async { matches!(said(&node.post(&world.oracle.request(3), "").await), Said::Response(_)) })
        .await;
    node.stop().await;
}

#[tokio::test]
async fn an_answer_that_does_not_verify_is_neither_kept_nor_served() {
    let (world, node) = ready("").await;
    let other = std::sync::Arc::new(Key::new(&Ca::root("Test issuer")));
    for mood in [Mood::Stranger(other), Mood::Lies, Mood::Crossed] {
        // Nobody was given 700: `good` for it would be a lie.
        let number = if matches!(mood, Mood::Lies) { 700 } else { 1 };
        world.oracle.set_mood(mood);
        assert!(is_error(&node.post(&world.oracle.request(number), "").await, TRY_LATER));
    }
    world.oracle.set_mood(Mood::True);
    assert_eq!(status(&node.post(&world.oracle.request(1), "").await), CertStatus::Good);
    node.stop().await;
}

#[tokio::test]
async fn a_call_that_fails_is_repeated_elsewhere_and_then_given_up() {
    let (world, node) = ready("").await;
    world.oracle.set_mood(Mood::Fails(tonic::Code::Unavailable));
    assert!(is_error(&node.post(&world.oracle.request(1), "").await, TRY_LATER));
    assert_eq!(world.oracle.asked(), 3);
    world.oracle.set_mood(Mood::Fails(tonic::Code::ResourceExhausted));
    assert!(is_error(&node.post(&world.oracle.request(1), "").await, TRY_LATER));
    assert_eq!(world.oracle.asked(), 4, "a signer that is full is asked again");
    node.stop().await;
}

#[tokio::test]
async fn what_arrives_during_a_call_travels_in_the_next_and_each_question_once() {
    let (world, node) = ready("ocsp = { calls = 1 }").await;
    world.oracle.hold(true);
    let ask = async |number: u16| node.post(&world.oracle.request(number), "").await;
    let first = ask(0);
    let others = async {
        node.wait(|| async { world.oracle.calls().len() == 1 }).await;
        futures::future::join_all((0..40).map(|number| ask(number / 2))).await
    };
    let release = async {
        node.wait(|| async { world.oracle.calls().len() == 1 }).await;
        // The first is under way; the others wait.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(world.oracle.calls().len(), 1);
        world.oracle.hold(false);
    };
    let (first, others, ()) = tokio::join!(first, others, release);
    assert!(others.iter().chain([&first]).all(|answer| status(answer) == CertStatus::Good));
    let sizes: Vec<_> = world.oracle.calls().iter().map(|call| call.serials.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 20, "{sizes:?}");
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    node.stop().await;
}

#[tokio::test]
async fn what_is_asked_for_is_renewed_before_it_is_due_and_the_rest_is_not() {
    let (world, node) = ready("ocsp = { hot_seconds = 1 }").await;
    let (hot, cold) = (path(&world.oracle.request(1)), path(&world.oracle.request(2)));
    let first = node.get(&hot).await;
    node.get(&cold).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // Due forty hours after it was made: renewed from thirty-five hours on.
    world.set_clock(NOW + 34 * 3600);
    node.get(&hot).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.oracle.asked(), 2);
    world.set_clock(NOW + 36 * 3600);
    node.wait(|| async { node.get(&hot).await.body != first.body }).await;
    let last = world.oracle.calls().pop().unwrap();
    assert_eq!((last.is_ahead, last.serials), (true, vec![vec![serial(1)]]));
    let renewed = single(&node.get(&hot).await);
    assert_eq!(renewed.this_update, Timestamp::from_unix((NOW + 36 * 3600) as u64));
    // The other is made anew when somebody asks for it after it was due.
    world.set_clock(NOW + 41 * 3600);
    assert_eq!(single(&node.get(&cold).await).this_update.unix(), (NOW + 41 * 3600) as u64);
    assert!(!world.oracle.calls().pop().unwrap().is_ahead);
    node.stop().await;
}

#[tokio::test]
async fn the_cache_is_bounded_and_forgets_what_nobody_asked_for() {
    let (world, node) = ready("ocsp = { answers = 10 }").await;
    for number in 0..10 {
        node.post(&world.oracle.request(number), "").await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(world.oracle.asked(), 10);
    // Used again, so that the next to go is another.
    node.post(&world.oracle.request(0), "").await;
    tokio::time::sleep(Duration::from_millis(3)).await;
    node.post(&world.oracle.request(10), "").await;
    assert_eq!(world.oracle.asked(), 11);
    for number in [0, 10, 9, 8] {
        node.post(&world.oracle.request(number), "").await;
    }
    assert_eq!(world.oracle.asked(), 11, "what was asked for lately is gone");
    node.post(&world.oracle.request(1), "").await;
    assert_eq!(world.oracle.asked(), 12, "more is kept than may be");
    node.stop().await;
}

#[tokio::test]
async fn l8_revoked_says_when_and_why() {
    let (world, node) = ready("").await;
    world.set_clock(NOW + DAY);
    world.oracle.revoke_silently(&[3]);
    let at = Timestamp::from_unix((NOW + DAY) as u64);
    let expected = CertStatus::Revoked { at, reason: Reason::KeyCompromise };
    for answer in
        [node.post(&world.oracle.request(3), "").await, node.get(&path(&world.oracle.request(3))).await]
    {
        assert_eq!(status(&answer), expected);
    }
    assert_eq!(world.oracle.asked(), 1);
    node.stop().await;
}
