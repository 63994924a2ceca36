//! A validator's double: sees what a test tells it to see, and signs receipts as the real one does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use acme::receipt::{Caa, Outcome, Receipt, ReceiptKey, ReceiptVerifier};
use acme::{ErrorType, Problem};
use parking_lot::Mutex;
use rpc::Target;
use rpc::proto::validator::v1 as wire;
use rpc::proto::validator::v1::validator_server::Validator;
use runtime::Clock;
use tonic::{Request, Response, Status};

use crate::ca::Gate;

/// What the double is to see at its next look at a name.
#[derive(Clone)]
pub(crate) enum Sight {
    Valid,
    /// It looks at nothing.
    Assumed,
    Invalid(ErrorType),
    /// It does not answer.
    Away,
    /// It waits, and then sees that all is well.
    Held(Gate),
    /// Those perspectives say that all is well that the directory does not ask.
    Others,
    /// Each perspective sees something else; in the directory `quorum`, which has three.
    Each([Eye; 3]),
}

/// What one perspective says.
#[derive(Clone)]
pub(crate) enum Eye {
    Yes,
    No(ErrorType),
    Silent,
    /// It has looked at nothing.
    Closed,
    /// It has asked CAA, and looked at nothing else.
    CaaAlone,
    /// Its receipt is of another try.
    AnotherTry,
    /// It says both.
    YesAndNo(ErrorType),
}

/// Of the directory `quorum`; others have the first alone.
pub(crate) const PERSPECTIVES: [&str; 3] = ["validator-1", "validator-2", "validator-3"];

pub(crate) struct FakeValidator {
    keys: [ReceiptKey; 3],
    clock: Arc<dyn Clock>,
    sights: Mutex<HashMap<String, VecDeque<Sight>>>,
    pub(crate) looks: AtomicU32,
    /// Of CAA alone.
    pub(crate) caa_looks: AtomicU32,
    pub(crate) thumbprints: Mutex<Vec<String>>,
}

impl FakeValidator {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let keys = PERSPECTIVES.map(|name| {
            let mut seed = [0; 32];
            aws_lc_rs::rand::fill(&mut seed).unwrap();
            ReceiptKey::from_seed(name.parse().unwrap(), &seed).unwrap()
        });
        Self {
            keys,
            clock,
            sights: Mutex::default(),
            looks: AtomicU32::new(0),
            caa_looks: AtomicU32::new(0),
            thumbprints: Mutex::default(),
        }
    }

    pub(crate) fn verifiers(&self) -> Vec<ReceiptVerifier> {
        let verifier = |key: &ReceiptKey| ReceiptVerifier::new(key.perspective().clone(), key.public_key());
        self.keys.iter().map(|key| verifier(key).unwrap()).collect()
    }

    /// What it is to see at its next looks at this name; afterwards all is well.
    pub(crate) fn plan(&self, name: &str, sights: impl IntoIterator<Item = Sight>) {
        self.sights.lock().insert(name.to_owned(), sights.into_iter().collect());
    }

    fn next(&self, name: &str) -> Sight {
        self.sights.lock().get_mut(name).and_then(VecDeque::pop_front).unwrap_or(Sight::Valid)
    }
}

#[async_trait::async_trait]
impl Validator for FakeValidator {
    async fn validate(
        &self,
        request: Request<wire::ValidateRequest>,
    ) -> Result<Response<wire::ValidateResponse>, Status> {
        let target: Target = request.into_inner().target.unwrap().try_into()?;
        if target.caa_only {
            self.caa_looks.fetch_add(1, Ordering::SeqCst);
        } else {
            self.looks.fetch_add(1, Ordering::SeqCst);
            self.thumbprints.lock().push(target.thumbprint.to_string());
        }
        let asked = if target.directory.as_str() == "quorum" { 3 } else { 1 };
        let all = |eye: Eye| [eye.clone(), eye.clone(), eye];
        let eyes = match self.next(&target.name.to_string()) {
            Sight::Valid => all(Eye::Yes),
            Sight::Assumed => all(Eye::Closed),
            Sight::Invalid(kind) => all(Eye::No(kind)),
            Sight::Away => return Err(Status::unavailable("as the test wants it")),
            Sight::Held(gate) => {
                gate.pass().await;
                all(Eye::Yes)
            }
            Sight::Others => {
                let receipts =
                    self.keys.iter().skip(asked).map(|key| self.sign(key, &target, Outcome::Valid));
                let receipts = receipts.collect();
                return Ok(Response::new(wire::ValidateResponse { receipts, ..Default::default() }));
            }
            Sight::Each(eyes) => eyes,
        };
        let mut response = wire::ValidateResponse::default();
        for (key, eye) in self.keys.iter().zip(eyes).take(asked) {
            match eye {
                Eye::Silent => response.silent.push(key.perspective().to_string()),
                Eye::Yes if target.caa_only => response.receipts.push(self.sign(key, &target, Outcome::Caa)),
                Eye::CaaAlone => response.receipts.push(self.sign(key, &target, Outcome::Caa)),
                Eye::AnotherTry => {
                    let other = Target { attempt: target.attempt + 1, ..target.clone() };
                    response.receipts.push(self.sign(key, &other, Outcome::Valid));
                }
                Eye::Closed => response.receipts.push(self.sign(key, &target, Outcome::Assumed)),
                Eye::Yes => response.receipts.push(self.sign(key, &target, Outcome::Valid)),
                Eye::No(kind) => response.receipts.push(self.sign(key, &target, no(kind))),
                Eye::YesAndNo(kind) => {
                    response
                        .receipts
                        .extend([Outcome::Valid, no(kind)].map(|one| self.sign(key, &target, one)));
                }
            }
        }
        Ok(Response::new(response))
    }
}

fn no(kind: ErrorType) -> Outcome {
    Outcome::Invalid(Problem::new(kind, "as the test wants it"))
}

impl FakeValidator {
    fn sign(&self, key: &ReceiptKey, target: &Target, outcome: Outcome) -> String {
        let target = target.clone();
        let now = self.clock.now().into();
        let control = outcome == Outcome::Valid && target.method == acme::challenge::Method::DnsPersist01;
        let persisted = control.then_some(acme::receipt::Persisted { ttl_seconds: 3600 });
        let permitted = !matches!(&outcome, Outcome::Invalid(problem) if problem.kind == ErrorType::Caa);
        let looked = outcome != Outcome::Assumed;
        let asked = looked && target.name.base().is_some() && !target.caa_identities.is_empty();
        let caa = asked.then_some(Caa {
            permitted,
            identities: target.caa_identities,
            found_at: None,
            ttl_seconds: 60,
            checked: now,
        });
        let receipt = Receipt {
            token: acme::id::token(&target.authorization),
            authorization: target.authorization,
            directory: target.directory,
            account: target.account,
            account_url: target.account_url,
            thumbprint: target.thumbprint,
            requirement: match looked {
                true => acme::receipt::requirement(target.method, &target.name),
                false => acme::receipt::NO_REQUIREMENT.to_owned(),
            },
            name: target.name,
            method: target.method,
            attempt: target.attempt,
            run: acme::receipt::Run::from_bytes([3; 16]),
            perspective: key.perspective().clone(),
            addresses: Vec::new(),
            caa,
            persisted,
            dnssec: false,
            started: now,
            finished: now,
            outcome,
        };
        key.sign(&receipt).unwrap()
    }
}
