//! The door of an OCSP responder's key.

use std::sync::Arc;
use std::time::Duration;

use hsm::{Deadline, KeyHealth, Signing};
use parking_lot::RwLock;
use pki::{PublicKey, SignatureAlgorithm};

use super::{DoorError, DoorPlan, KeyPlace, KeySource, key_for};
use crate::ledger::LedgerAnswer;

/// A responder's key, as the registry knows it.
#[derive(Debug, Clone)]
pub struct ResponderPlan {
    /// Whose responder: the issuer's identity in `ca`.
    pub issuer: String,
    /// Where the private key is.
    pub place: KeyPlace,
}

/// The key of an issuer's OCSP responder: signs what the journal answers about that issuer's certificates.
#[derive(Debug)]
pub struct ResponderDoor {
    issuer: String,
    place: KeyPlace,
    source: Arc<dyn KeySource>,
    taken: Arc<Vec<DoorPlan>>,
    deadline: Duration,
    /// Absent until the token has told its public half.
    key: RwLock<Option<Arc<dyn Signing>>>,
}

impl ResponderDoor {
    pub(super) fn new(
        source: Arc<dyn KeySource>,
        taken: Arc<Vec<DoorPlan>>,
        plan: ResponderPlan,
        deadline: Duration,
    ) -> Result<Self, DoorError> {
        let ResponderPlan { issuer, place } = plan;
        let same = |other: &&DoorPlan| other.place.token == place.token && other.place.id == place.id;
        if let Some(other) = taken.iter().find(same) {
            return Err(DoorError::ResponderKey { issuer, other: other.name.clone() });
        }
        Ok(Self { issuer, place, source, taken, deadline, key: RwLock::default() })
    }

    /// The public key: what the responder's certificates are made for.
    ///
    /// # Errors
    /// When the token is away or has no such key, and [`DoorError::ResponderKey`] when the key has another purpose.
    pub async fn public_key(&self) -> Result<PublicKey, DoorError> {
        if let Some(key) = &*self.key.read() {
            return Ok(key.public_key().clone());
        }
        let public_key = self.source.public_key(&self.place).await?;
        if let Some(other) = self.taken.iter().find(|other| other.public_key == public_key) {
            return Err(DoorError::ResponderKey { issuer: self.issuer.clone(), other: other.name.clone() });
        }
        let plan = DoorPlan {
            name: format!("{}{}", RESPONDER_OF, self.issuer),
            algorithm: public_key.algorithm().default_signature(),
            public_key: public_key.clone(),
            place: self.place.clone(),
        };
        let key = key_for(&*self.source, &plan)?;
        self.key.write().get_or_insert(key);
        Ok(public_key)
    }

    /// Signs an answer. The signature was verified by [`hsm`] (invariant 7); the algorithm is the key's.
    ///
    /// # Errors
    /// When the answer is another issuer's or another key's, or the token does not sign.
    pub async fn sign(&self, answer: &LedgerAnswer) -> Result<Vec<u8>, DoorError> {
        if answer.issuer() != self.issuer {
            let (named, door) = (answer.issuer().to_owned(), self.issuer.clone());
            return Err(DoorError::WrongDoor { named, door });
        }
        let key = self.key.read().clone().ok_or_else(|| DoorError::NoDoor(self.issuer.clone()))?;
        if key.public_key() != answer.responder_key() {
            return Err(DoorError::WrongKey(self.issuer.clone()));
        }
        let job = answer.job(algorithm_of(&*key));
        Ok(key.sign(answer.lane(), job, Deadline::after(self.deadline)).await?)
    }

    /// What is known about the key.
    #[must_use]
    pub fn health(&self) -> KeyHealth {
        self.key.read().as_ref().map_or(KeyHealth::Unknown, |key| key.health())
    }
}

/// Before the issuer's name where the other doors have theirs. No issuer of the policy begins so.
pub const RESPONDER_OF: &str = "responder:";

fn algorithm_of(key: &dyn Signing) -> SignatureAlgorithm {
    key.public_key().algorithm().default_signature()
}
