//! A status node that is against everybody. It has its own mTLS key and asks the real signer whatever it likes: it gets
//! answers that are true, or none; other roles' RPCs are closed to it; and a flood of it keeps nobody from a certificate.

use std::time::Duration;

use bytes::Bytes;
use pki::ocsp::{self, Answer, CertId, CertIdHash, CertStatus, IssuerHashes};
use pki::{Certificate, Reason, Serial};
use rpc::Channel;
use rpc::proto::admin::v1::RevokeCertificateRequest;
use rpc::proto::status::v1 as wire;
use rpc::proto::status::v1::responder_client::ResponderClient;
use tonic::Code;

use crate::front::scene::{Scene, name, now};
use crate::front::words::call;

const MALFORMED_REQUEST: u8 = 1;
const TRY_LATER: u8 = 3;
const UNAUTHORIZED: u8 = 6;

/// Calls of the flood that are under way at once, and questions in each.
const FLOOD: (usize, usize) = (16, 256);

struct StatusNode {
    channel: Channel,
    responder: ResponderClient<Channel>,
    issuer: Certificate,
    root: Certificate,
}

impl StatusNode {
    fn of(scene: &Scene) -> Self {
        let channel = scene.system.channel(&scene.system.node("status"));
        let state = scene.system.state();
        let facts = std::fs::read(state.join("demo.json")).expect("demo.json");
        let facts: serde_json::Value = serde_json::from_slice(&facts).expect("JSON");
        let certificate = |what: &str| {
            let pem = std::fs::read_to_string(facts[what].as_str().expect("a path")).expect("PEM");
            pki::chain::from_pem(&pem).expect("PEM").remove(0)
        };
        let (issuer, root) = (certificate("issuer"), certificate("root"));
        Self { responder: ResponderClient::new(channel.clone()), channel, issuer, root }
    }

    async fn ask(&mut self, requests: Vec<Vec<u8>>, ahead: bool) -> Vec<wire::Answer> {
        let question = |request: Vec<u8>| wire::Question { request: request.into(), ahead };
        let request = wire::AnswerRequest { questions: requests.into_iter().map(question).collect() };
        self.responder.answer(request).await.expect("answers").into_inner().answers
    }

    async fn ask_one(&mut self, request: Vec<u8>) -> Answer {
        ocsp::read(&self.ask(vec![request], false).await[0].response).expect("an answer")
    }

    fn request(&self, serial: Serial) -> Vec<u8> {
        self.request_to(&self.issuer, serial)
    }

    fn request_to(&self, issuer: &Certificate, serial: Serial) -> Vec<u8> {
        let id = CertId::new(CertIdHash::Sha1, &IssuerHashes::of(issuer), &serial);
        ocsp::encode_request(&[id], None)
    }

    /// What a verified answer says of a certificate.
    async fn status(&mut self, serial: Serial) -> CertStatus {
        match self.ask_one(self.request(serial)).await {
            Answer::Successful(response) => {
                response.verify(&self.issuer, now()).expect("a sound answer");
                assert_eq!(response.singles()[0].id.serial(), Some(serial));
                response.singles()[0].status
            }
            Answer::Error(code) => panic!("an error: {code}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_untrue_comes_of_what_a_hostile_status_node_does() {
    let mut scene = Scene::open().await;
    let mut node = StatusNode::of(&scene);
    let client = scene.client().await;
    let mut serials = Vec::new();
    for label in ["status-good", "status-revoked"] {
        let der = scene.certificate(&client, &name(label)).await;
        serials.push(Certificate::from_der(&der).expect("a certificate").serial());
    }
    let (good, revoked) = (serials[0], serials[1]);
    let request = RevokeCertificateRequest { serial: revoked.to_string(), reason: 4 };
    scene.system.operator().revoke_certificate(request).await.expect("its revocation");
    scene.begin("hostile status node").await;

    // The truth, as often as it asks, and never good for a serial that nobody has.
    assert_eq!(node.status(good).await, CertStatus::Good);
    for _ in 0..3 {
        let status = node.status(revoked).await;
        assert!(matches!(status, CertStatus::Revoked { reason: Reason::Superseded, .. }), "{status:?}");
    }
    for near in 0..16_u8 {
        let mut octets: [u8; 16] = good.as_bytes().try_into().expect("16 octets");
        octets[15] ^= 1 << (near % 8);
        octets[usize::from(near / 8) + 1] ^= near + 1;
        assert_eq!(node.status(Serial::from_random(octets)).await, CertStatus::Unknown);
    }

    // In whose name: the root's and another's are not this responder's, whatever the serial.
    let of_node = scene.system.node("status");
    let node_ca = std::fs::read_to_string(of_node.authority).expect("the node CA");
    let node_ca = pki::chain::from_pem(&node_ca).expect("PEM").remove(0);
    for issuer in [node.root.clone(), node_ca] {
        for serial in [good, node.issuer.serial()] {
            let answer = node.ask_one(node.request_to(&issuer, serial)).await;
            assert!(matches!(answer, Answer::Error(UNAUTHORIZED)), "{answer:?}");
        }
    }

    // What is no request.
    let sound = node.request(good);
    let damaged = [vec![], vec![0x30], vec![0xff; 9000], [&sound[..], &[0]].concat(), sound[1..].to_vec()];
    for request in damaged {
        let answer = node.ask_one(request).await;
        assert!(matches!(answer, Answer::Error(MALFORMED_REQUEST)), "{answer:?}");
    }
    let questions = vec![wire::Question { request: sound.clone().into(), ahead: false }; 257];
    let refused = node.responder.answer(wire::AnswerRequest { questions }).await.expect_err("too many");
    assert_eq!(refused.code(), Code::InvalidArgument);

    // Another role's RPCs.
    for rule in rpc::AUTHORITY.iter().chain(rpc::ADMIN) {
        let outcome = call(&node.channel, rule.method, Bytes::new()).await;
        scene.turned_away(outcome, Code::PermissionDenied, "rpc-role");
    }
    let faults = scene.end(&["rpc-role".to_owned()].into()).await;
    assert_eq!(faults, Vec::<String>::new());

    // A flood of what is guessed: it is answered or put off, and an honest client gets its certificate meanwhile.
    let flood: Vec<_> = (0..FLOOD.0)
        .map(|call| {
            let mut responder = node.responder.clone();
            let questions = (0..FLOOD.1).map(|n| {
                let mut octets = [0x55; 16];
                octets[..2].copy_from_slice(&[call as u8 | 1, n as u8]);
                let request = node.request(Serial::from_random(octets)).into();
                wire::Question { request, ahead: n % 2 == 0 }
            });
            let request = wire::AnswerRequest { questions: questions.collect() };
            tokio::spawn(async move {
                for _ in 0..4 {
                    let answers =
                        responder.answer(request.clone()).await.expect("answers").into_inner().answers;
                    for answer in answers {
                        match ocsp::read(&answer.response).expect("an answer") {
                            Answer::Successful(it) => assert_eq!(it.singles()[0].status, CertStatus::Unknown),
                            Answer::Error(code) => assert_eq!(code, TRY_LATER),
                        }
                    }
                }
            })
        })
        .collect();
    tokio::time::timeout(Duration::from_secs(120), scene.certificate(&client, &name("status-flood")))
        .await
        .expect("a certificate, meanwhile");
    for task in flood {
        task.await.expect("only true answers");
    }
    assert_eq!(node.status(good).await, CertStatus::Good);
}
