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
}

pub(crate) struct FakeValidator {
    key: ReceiptKey,
    clock: Arc<dyn Clock>,
    sights: Mutex<HashMap<String, VecDeque<Sight>>>,
    pub(crate) looks: AtomicU32,
    /// Of CAA alone.
    pub(crate) caa_looks: AtomicU32,
    pub(crate) thumbprints: Mutex<Vec<String>>,
}

impl FakeValidator {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).unwrap();
        let key = ReceiptKey::from_seed("validator-1".parse().unwrap(), &seed).unwrap();
        Self {
            key,
            clock,
            sights: Mutex::default(),
            looks: AtomicU32::new(0),
            caa_looks: AtomicU32::new(0),
            thumbprints: Mutex::default(),
        }
    }

    pub(crate) fn verifier(&self) -> ReceiptVerifier {
        ReceiptVerifier::new(self.key.perspective().clone(), self.key.public_key()).unwrap()
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
        let outcome = match self.next(&target.name.to_string()) {
            Sight::Valid if target.caa_only => Outcome::Caa,
            Sight::Valid => Outcome::Valid,
            Sight::Assumed => Outcome::Assumed,
            Sight::Invalid(kind) => Outcome::Invalid(Problem::new(kind, "as the test wants it")),
            Sight::Away => return Err(Status::unavailable("as the test wants it")),
            Sight::Held(gate) => {
                gate.pass().await;
                Outcome::Valid
            }
        };
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
            perspective: self.key.perspective().clone(),
            addresses: Vec::new(),
            caa,
            persisted,
            dnssec: false,
            started: now,
            finished: now,
            outcome,
        };
        let receipts = vec![self.key.sign(&receipt).unwrap()];
        Ok(Response::new(wire::ValidateResponse { receipts, silent: Vec::new() }))
    }
}
