//! The doors to the keys: the only module that holds a handle of [`hsm`] (DESIGN §2.1).
//!
//! There is a type for each purpose of a key, and each signs one type of thing. An issuer signs what was journaled, the
//! node CA signs node requests (journaled as well), a responder signs what the journal answers, and nothing here signs bytes
//! that a caller brings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hsm::{Deadline, HsmError, KeyHealth, Lane, Signing};
use pki::{PublicKey, SignatureAlgorithm};

use crate::journal::{IssuerObject, Journaled, NodeRequest};

mod responder;
mod tokens;

pub use hsm::WorkerCommand;
pub use responder::{RESPONDER_OF, ResponderDoor, ResponderPlan};
pub use tokens::{KeyPlace, KeySource, Tokens};

/// Why a door did not sign.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The token.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The intent is for another key. A bug, or a row moved between issuers.
    #[error("the intent names issuer {named:?}, which is not behind the door of {door:?}")]
    WrongDoor {
        /// The issuer that the intent names.
        named: String,
        /// Whose door this is.
        door: String,
    },
    /// No key is behind this name.
    #[error("no key is configured for issuer {0:?}")]
    NoDoor(String),
    /// An issuer has the node CA's key: certificates of clients would be nodes' (DESIGN §1).
    #[error("issuer {0:?} has the node CA's key")]
    NodeKey(String),
    /// A responder has the key of an issuer, or the node CA's: an answer might be signed that is a certificate.
    #[error("the OCSP responder of issuer {issuer:?} has the key of {other:?}; it needs a key of its own")]
    ResponderKey {
        /// Whose responder.
        issuer: String,
        /// Whose key.
        other: String,
    },
    /// The token has no key at a responder's place, or several, or does not say what its public half is.
    #[error(
        "token {token:?} does not have exactly one key with the id {id}, or does not tell its public half"
    )]
    NoPublicKey {
        /// The token.
        token: String,
        /// `CKA_ID`, hexadecimal.
        id: String,
    },
    /// The key that is configured is not the certificate's.
    #[error("the key configured for {0:?} is not that of its certificate")]
    WrongKey(String),
}

/// An issuer's key: signs journaled certificates and CRLs of that issuer.
#[derive(Debug)]
pub struct IssuerDoor {
    issuer: String,
    algorithm: SignatureAlgorithm,
    key: Arc<dyn Signing>,
    deadline: Duration,
}

impl IssuerDoor {
    /// Signs an intent. The signature was verified by [`hsm`] (invariant 7).
    ///
    /// # Errors
    /// When the intent is for another door, or the token does not sign.
    pub async fn sign<T: IssuerObject>(&self, intent: &Journaled<T>) -> Result<Vec<u8>, DoorError> {
        let object = intent.intent();
        if object.issuer() != self.issuer || !object.is_for_issuers() {
            return Err(DoorError::WrongDoor {
                named: object.issuer().to_owned(),
                door: self.issuer.clone(),
            });
        }
        let job = object.job(self.algorithm);
        Ok(self.key.sign(object.lane(), job, Deadline::after(self.deadline)).await?)
    }

    /// What is known about the key.
    #[must_use]
    pub fn health(&self) -> KeyHealth {
        self.key.health()
    }
}

/// The node CA's key.
#[derive(Debug)]
pub struct NodeDoor {
    algorithm: SignatureAlgorithm,
    key: Arc<dyn Signing>,
    deadline: Duration,
}

impl NodeDoor {
    /// Signs a node's certificate.
    ///
    /// # Errors
    /// When the token does not sign.
    pub async fn sign(&self, request: &NodeRequest) -> Result<Vec<u8>, DoorError> {
        let job = request.job(self.algorithm);
        Ok(self.key.sign(Lane::Issuance, job, Deadline::after(self.deadline)).await?)
    }

    /// What is known about the key.
    #[must_use]
    pub fn health(&self) -> KeyHealth {
        self.key.health()
    }
}

/// A key behind a door, as the registry knows it.
#[derive(Debug, Clone)]
pub struct DoorPlan {
    /// The issuer's identity in `ca`; for the node CA its fixed name.
    pub name: String,
    /// The public key of the certificate.
    pub public_key: PublicKey,
    /// How it signs.
    pub algorithm: SignatureAlgorithm,
    /// Where the private key is.
    pub place: KeyPlace,
}

/// All doors of this signer.
#[derive(Debug)]
pub struct Doors {
    issuers: BTreeMap<String, IssuerDoor>,
    node: Option<NodeDoor>,
    responders: BTreeMap<String, ResponderDoor>,
    /// The keys that sign certificates and CRLs: no responder has one of them.
    taken: Arc<Vec<DoorPlan>>,
}

impl Doors {
    /// Opens a door for each plan. The tokens may be away: a door then fails until they return.
    ///
    /// # Errors
    /// [`DoorError::NoDoor`] for a token that is not configured, [`DoorError::WrongKey`] when the source gives another
    /// key than the certificate's, [`DoorError::NodeKey`] when an issuer has the node CA's.
    pub fn open(
        source: &dyn KeySource,
        issuers: Vec<DoorPlan>,
        node: Option<DoorPlan>,
        deadline: Duration,
    ) -> Result<Self, DoorError> {
        if let Some(node) = &node
            && let Some(plan) =
                issuers.iter().find(|plan| plan.public_key == node.public_key || plan.place == node.place)
        {
            return Err(DoorError::NodeKey(plan.name.clone()));
        }
        let taken = Arc::new(issuers.iter().chain(&node).cloned().collect());
        let issuers = issuers.into_iter().map(|plan| {
            let key = key_for(source, &plan)?;
            let door = IssuerDoor { issuer: plan.name.clone(), algorithm: plan.algorithm, key, deadline };
            Ok((plan.name, door))
        });
        let node = node.map(|plan| {
            let key = key_for(source, &plan)?;
            Ok::<_, DoorError>(NodeDoor { algorithm: plan.algorithm, key, deadline })
        });
        Ok(Self {
            issuers: issuers.collect::<Result<_, DoorError>>()?,
            node: node.transpose()?,
            responders: BTreeMap::new(),
            taken,
        })
    }

    /// With a door for each OCSP responder. What its public key is, the token tells when it is there; `deadline` is for each
    /// signature.
    ///
    /// # Errors
    /// [`DoorError::ResponderKey`] for a place where an issuer's key is, or the node CA's.
    pub fn with_responders(
        mut self,
        source: &Arc<dyn KeySource>,
        plans: Vec<ResponderPlan>,
        deadline: Duration,
    ) -> Result<Self, DoorError> {
        for plan in plans {
            let issuer = plan.issuer.clone();
            let door = ResponderDoor::new(Arc::clone(source), Arc::clone(&self.taken), plan, deadline)?;
            self.responders.insert(issuer, door);
        }
        Ok(self)
    }

    /// The door of an issuer's OCSP responder.
    ///
    /// # Errors
    /// [`DoorError::NoDoor`].
    pub fn responder(&self, issuer: &str) -> Result<&ResponderDoor, DoorError> {
        self.responders.get(issuer).ok_or_else(|| DoorError::NoDoor(issuer.to_owned()))
    }

    /// The door of an issuer.
    ///
    /// # Errors
    /// [`DoorError::NoDoor`].
    pub fn issuer(&self, id: &str) -> Result<&IssuerDoor, DoorError> {
        self.issuers.get(id).ok_or_else(|| DoorError::NoDoor(id.to_owned()))
    }

    /// The node CA's door.
    ///
    /// # Errors
    /// [`DoorError::NoDoor`] when this signer has no node CA.
    pub fn node(&self) -> Result<&NodeDoor, DoorError> {
        self.node.as_ref().ok_or_else(|| DoorError::NoDoor(NODE_CA.to_owned()))
    }
}

/// The node CA's name where issuers have theirs. No issuer of the policy can have it: a colon is not allowed there.
pub const NODE_CA: &str = "node:ca";

fn key_for(source: &dyn KeySource, plan: &DoorPlan) -> Result<Arc<dyn Signing>, DoorError> {
    let key = source.key(plan).ok_or_else(|| DoorError::NoDoor(plan.name.clone()))?;
    // hsm compares the token's key with this one at start and after every recovery; here: that it was asked to.
    if *key.public_key() == plan.public_key { Ok(key) } else { Err(DoorError::WrongKey(plan.name.clone())) }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;

    #[derive(Debug)]
    struct NoKeys;

    impl KeySource for NoKeys {
        fn key(&self, _: &DoorPlan) -> Option<Arc<dyn Signing>> {
            None
        }

        fn public_key<'a>(&'a self, place: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>> {
            Box::pin(async { Err(DoorError::NoDoor(place.token.clone())) })
        }
    }

    fn plan(name: &str, key: &PublicKey, id: u8) -> DoorPlan {
        let place = KeyPlace { token: "t".to_owned(), id: vec![id], origin: hsm::Origin::Generated };
        DoorPlan {
            name: name.to_owned(),
            public_key: key.clone(),
            algorithm: SignatureAlgorithm::Ed25519,
            place,
        }
    }

    #[test]
    fn no_issuer_has_the_node_cas_key() {
        let mut point = [0x66; 32];
        point[0] = 0x58;
        let key = PublicKey::from_ed25519(&point).unwrap();
        let open = |issuer: DoorPlan, node: DoorPlan| {
            Doors::open(&NoKeys, vec![issuer], Some(node), Duration::from_secs(1)).unwrap_err()
        };
        let error = open(plan("tls", &key, 1), plan(NODE_CA, &key, 2));
        assert!(matches!(&error, DoorError::NodeKey(issuer) if issuer == "tls"), "{error}");
    }
}
