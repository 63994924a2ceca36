//! OCSP over real sockets, from answers that real keys signed.

mod answers;
mod hostile;
mod http2;
mod notices;
mod spool;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::ocsp::{CertStatus, Response, SingleRead, read};

use crate::world::{Answer, Node, World};

/// The path of a GET, as most clients write it.
pub fn path(der: &[u8]) -> String {
    let text = STANDARD.encode(der).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("/ocsp/{text}")
}

/// What an HTTP answer says.
#[derive(Debug)]
pub enum Said {
    Response(Box<Response>),
    /// An OCSP error.
    Error(u8),
}

pub fn said(answer: &Answer) -> Said {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/ocsp-response"));
    match read(&answer.body).unwrap() {
        pki::ocsp::Answer::Successful(response) => Said::Response(response),
        pki::ocsp::Answer::Error(code) => Said::Error(code),
    }
}

/// The only single response.
pub fn single(answer: &Answer) -> SingleRead {
    match said(answer) {
        Said::Response(response) => {
            assert_eq!(response.singles().len(), 1);
            response.singles()[0].clone()
        }
        Said::Error(code) => panic!("error {code}"),
    }
}

pub fn status(answer: &Answer) -> CertStatus {
    single(answer).status
}

pub fn is_error(answer: &Answer, code: u8) -> bool {
    let is_it = matches!(said(answer), Said::Error(found) if found == code);
    assert!(!is_it || answer.header("cache-control") == Some("no-store"), "{answer:?}");
    is_it
}

pub const MALFORMED: u8 = 1;
pub const TRY_LATER: u8 = 3;
pub const UNAUTHORIZED: u8 = 6;

/// With the issuer's certificate on the shelf, and a hundred good certificates.
pub async fn ready(more: &str) -> (World, Node) {
    let world = World::new().await;
    world.publish_all();
    world.oracle.assign(0..100);
    let node = started(&world, more).await;
    (world, node)
}

/// A node that has the objects.
pub async fn started(world: &World, more: &str) -> Node {
    let node = world.node(more).await;
    node.wait(|| async { node.get("/issuer/0a.crt").await.status == 200 }).await;
    node
}

/// The same, and it follows the notices.
pub async fn following(world: &World, more: &str) -> Node {
    let streams = world.oracle.streams();
    let node = started(world, more).await;
    node.wait(|| async { world.oracle.streams() > streams }).await;
    node
}

/// Behind `http://…/ca/ocsp`.
pub async fn started_with_prefix(world: &World) -> Node {
    let node = world.node("path_prefix = \"/ca\"").await;
    node.wait(|| async { node.get("/ca/issuer/0a.crt").await.status == 200 }).await;
    node
}
