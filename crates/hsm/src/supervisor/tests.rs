//! A worker played by the test, at the other end of a real socketpair: it can lie, which a real one should not.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use parking_lot::Mutex;
use pki::{KeyAlgorithm, PublicKey, SignatureAlgorithm};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::*;
use crate::fault::RvClass;
use crate::frame::{Report, Request, Splitter};
use crate::{Deadline, Job, Key, KeyRef, Lane, Signing as _, Token, TokenConfig};

/// Hands out the far ends of sockets.
struct Stage(mpsc::UnboundedSender<Actor>);

#[async_trait::async_trait]
impl Launcher for Stage {
    async fn launch(&self) -> io::Result<Worker> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let stream = |socket: StdUnixStream| {
            socket.set_nonblocking(true)?;
            UnixStream::from_std(socket)
        };
        let actor = Actor { socket: stream(theirs)?, splitter: Splitter::default(), seen: VecDeque::new() };
        self.0.send(actor).map_err(|_| io::Error::other("the test is over"))?;
        Ok(Worker { socket: stream(ours)?, child: None })
    }
}

/// The test's side.
struct Actor {
    socket: UnixStream,
    splitter: Splitter,
    seen: VecDeque<Request>,
}

impl Actor {
    async fn request(&mut self) -> Request {
        loop {
            if let Some(request) = self.seen.pop_front() {
                return request;
            }
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout(LONGER_THAN_ANYTHING, self.socket.read(&mut buffer));
            let count = read.await.expect("the supervisor has something to say").unwrap();
            assert!(count > 0, "the supervisor hung up");
            self.splitter.extend(&buffer[..count]);
            while let Some(frame) = self.splitter.next().unwrap() {
                self.seen.push_back(Request::decode(frame).unwrap());
            }
        }
    }

    async fn say(&mut self, report: Report) {
        let mut octets = Vec::new();
        report.encode(&mut octets);
        self.socket.write_all(&octets).await.unwrap();
    }

    /// Plays the beginning: configured, ready, and the key is there.
    async fn begin(&mut self) {
        assert!(matches!(self.request().await, Request::Configure(_)));
        let text = String::new;
        self.say(Report::Ready { serial: text(), manufacturer: text(), model: text(), sessions: 1 }).await;
    }

    /// The next job; declarations of keys are answered on the way.
    async fn job(&mut self) -> (u64, bytes::Bytes) {
        loop {
            match self.request().await {
                Request::Sign { id, data, .. } => return (id, data),
                Request::Key { index, .. } => {
                    self.say(Report::Key { index, outcome: Ok(crate::Attributes::default()) }).await;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn signed(&mut self, id: u64, session: u16, signature: Vec<u8>) {
        self.say(Report::Signed { id, session, waited_micros: 0, took_micros: 40, signature }).await;
    }

    async fn refused(&mut self, id: u64, fault: Fault) {
        self.say(Report::Refused { id, fault }).await;
    }
}

struct Play {
    token: Token,
    key: Key,
    pair: EcdsaKeyPair,
    actors: Mutex<mpsc::UnboundedReceiver<Actor>>,
}

impl Play {
    fn new(adjust: impl FnOnce(&mut TokenConfig)) -> Arc<Play> {
        let (sender, actors) = mpsc::unbounded_channel();
        let mut config = TokenConfig::new("/m.so", "play", "/pin", "/latch");
        adjust(&mut config);
        let token = Token::start_with(config, Box::new(Stage(sender)));
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let public_key =
            PublicKey::from_ec_point(KeyAlgorithm::EcdsaP256, pair.public_key().as_ref()).unwrap();
        let key = token.key(KeyRef::generated(*b"1", public_key));
        Arc::new(Play { token, key, pair, actors: Mutex::new(actors) })
    }

    async fn actor(&self) -> Actor {
        for _ in 0..LONGER_THAN_ANYTHING.as_millis() {
            if let Ok(actor) = self.actors.lock().try_recv() {
                return actor;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("no worker is started");
    }

    /// Somebody wants a signature.
    fn ask(self: &Arc<Play>) -> tokio::task::JoinHandle<Result<Vec<u8>, HsmError>> {
        let play = Arc::clone(self);
        tokio::spawn(async move {
            let job = Job::for_message(SignatureAlgorithm::EcdsaSha256, MESSAGE);
            play.key.sign(Lane::Issuance, job, Deadline::after(Duration::from_secs(30))).await
        })
    }

    fn signature(&self) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), MESSAGE).unwrap().as_ref().to_vec()
    }

    fn wrong_signature(&self) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), b"something else").unwrap().as_ref().to_vec()
    }

    fn verifies(&self, signature: &[u8]) -> bool {
        self.key.public_key().verify(SignatureAlgorithm::EcdsaSha256, MESSAGE, signature).is_ok()
    }
}

/// Only a broken supervisor is silent for so long.
const LONGER_THAN_ANYTHING: Duration = Duration::from_secs(30);

const MESSAGE: &[u8] = b"to be signed";

#[tokio::test]
async fn a_wrong_signature_is_discarded_its_session_replaced_and_the_job_repeated_once() {
    let play = Play::new(|_| {});
    let mut actor = play.actor().await;
    actor.begin().await;
    let answer = play.ask();
    let (id, data) = actor.job().await;
    assert_eq!(data, digest::digest(&digest::SHA256, MESSAGE).as_ref());
    actor.signed(id, 7, play.wrong_signature()).await;
    // The order of the two does not matter: the session is marked before or after the job is queued.
    let (mut recycled, mut again) = (None, None);
    while recycled.is_none() || again.is_none() {
        match actor.request().await {
            Request::Recycle { session, key } => recycled = Some((session, key)),
            Request::Sign { id, data: same, .. } => {
                assert_eq!(same, data);
                again = Some(id);
            }
            Request::Key { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(recycled, Some((7, 0)));
    actor.signed(again.unwrap(), 0, play.signature()).await;
    assert!(play.verifies(&answer.await.unwrap().unwrap()));

    // Twice wrong is an error, whatever is wrong with it.
    for wrong in [play.wrong_signature(), Vec::new(), vec![0; 72], play.signature()[1..].to_vec()] {
        let answer = play.ask();
        for _ in 0..2 {
            let id = loop {
                match actor.request().await {
                    Request::Sign { id, .. } => break id,
                    Request::Recycle { .. } | Request::Key { .. } => {}
                    other => panic!("{other:?}"),
                }
            };
            actor.signed(id, 0, wrong.clone()).await;
        }
        assert_eq!(answer.await.unwrap(), Err(HsmError::WrongSignature));
    }
}

#[tokio::test]
async fn what_a_dead_worker_had_goes_to_the_next_one_but_not_for_ever() {
    let play = Play::new(|_| {});
    let answer = play.ask();
    for attempt in 1..=ATTEMPTS_MAX {
        let mut actor = play.actor().await;
        actor.begin().await;
        actor.job().await;
        assert!(!answer.is_finished(), "gave up after {attempt}");
    }
    assert_eq!(answer.await.unwrap(), Err(HsmError::Interrupted { attempts: ATTEMPTS_MAX }));

    let answer = play.ask();
    drop(play.actor().await);
    let mut actor = play.actor().await;
    actor.begin().await;
    let (id, _) = actor.job().await;
    actor.signed(id, 0, play.signature()).await;
    assert!(play.verifies(&answer.await.unwrap().unwrap()));
    assert!(play.token.health().respawns > u64::from(ATTEMPTS_MAX));
}

#[tokio::test]
async fn a_silent_worker_is_replaced() {
    let play = Play::new(|config| config.hang_timeout = Duration::from_millis(50));
    let answer = play.ask();
    let mut silent = play.actor().await;
    silent.begin().await;
    silent.job().await;
    let mut actor = play.actor().await;
    actor.begin().await;
    let (id, _) = actor.job().await;
    actor.signed(id, 0, play.signature()).await;
    assert!(play.verifies(&answer.await.unwrap().unwrap()));
    drop(silent);
}

#[tokio::test]
async fn faults_of_the_session_are_tried_again_and_faults_of_the_request_are_not() {
    let play = Play::new(|_| {});
    let mut actor = play.actor().await;
    actor.begin().await;
    let fault = |class| Fault::Call { function: "Sign".to_owned(), rv: "GeneralError".to_owned(), class };
    for class in [RvClass::Session, RvClass::Busy, RvClass::Device] {
        let answer = play.ask();
        let (id, _) = actor.job().await;
        actor.refused(id, fault(class)).await;
        let (id, _) = actor.job().await;
        actor.signed(id, 0, play.signature()).await;
        assert!(play.verifies(&answer.await.unwrap().unwrap()), "{class:?}");
    }
    let answer = play.ask();
    for _ in 0..ATTEMPTS_MAX {
        let (id, _) = actor.job().await;
        actor.refused(id, fault(RvClass::Session)).await;
    }
    assert_eq!(answer.await.unwrap(), Err(HsmError::Token(fault(RvClass::Session))));
    let answer = play.ask();
    let (id, _) = actor.job().await;
    actor.refused(id, fault(RvClass::Input)).await;
    assert_eq!(answer.await.unwrap(), Err(HsmError::Token(fault(RvClass::Input))));
    let answer = play.ask();
    let (id, _) = actor.job().await;
    actor.refused(id, Fault::Expired).await;
    assert_eq!(answer.await.unwrap(), Err(HsmError::Expired));
}

#[tokio::test]
async fn a_worker_that_gives_up_brings_the_token_down_at_once() {
    let play = Play::new(|config| config.respawn_max = Duration::from_millis(1));
    let answer = play.ask();
    let fault = Fault::TokenNotFound { label: "play".to_owned(), serial: None };
    let mut actor = play.actor().await;
    assert!(matches!(actor.request().await, Request::Configure(_)));
    actor.say(Report::Failed { fault: fault.clone() }).await;
    drop(actor);
    let unavailable = HsmError::Unavailable { token: "play".to_owned(), cause: fault };
    assert_eq!(answer.await.unwrap(), Err(unavailable.clone()));
    assert_eq!(play.ask().await.unwrap(), Err(unavailable));
    // It comes back.
    let mut actor = play.actor().await;
    actor.begin().await;
    play.token.watch().wait_for(|state| matches!(state, TokenState::Ready(_))).await.unwrap();
    let answer = play.ask();
    let (id, _) = actor.job().await;
    actor.signed(id, 0, play.signature()).await;
    assert!(play.verifies(&answer.await.unwrap().unwrap()));
}

#[tokio::test]
async fn gibberish_ends_a_worker() {
    let play = Play::new(|_| {});
    let mut actor = play.actor().await;
    actor.begin().await;
    actor.socket.write_all(&[0xff; 16]).await.unwrap();
    let mut state = play.token.watch();
    state.wait_for(|state| matches!(state, TokenState::Down(Fault::Protocol { .. }))).await.unwrap();
}

#[tokio::test]
async fn the_window_keeps_most_jobs_on_this_side() {
    let play = Play::new(|_| {});
    let mut actor = play.actor().await;
    actor.begin().await;
    let answers: Vec<_> = (0..100).map(|_| play.ask()).collect();
    let first = actor.job().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let waiting = play.token.health().waiting;
    // One session of unknown speed: one job to do, and one ahead.
    assert!((95..100).contains(&waiting), "{waiting} wait");
    actor.signed(first.0, 0, play.signature()).await;
    for _ in 0..99 {
        let (id, _) = actor.job().await;
        actor.signed(id, 0, play.signature()).await;
    }
    for answer in answers {
        assert!(play.verifies(&answer.await.unwrap().unwrap()));
    }
}
