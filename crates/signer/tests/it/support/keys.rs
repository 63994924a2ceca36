//! Where the keys of a test's signer are.

use std::sync::Arc;

use futures::future::BoxFuture;
use hsm::Signing;
use pki::PublicKey;
use signer::doors::{DoorError, DoorPlan, KeyPlace, KeySource};
use testkit::signing::SoftKey;

use super::authorities::SUCCESSOR;

#[derive(Debug)]
pub(super) struct TokenKeys {
    pub(super) tokens: Arc<dyn KeySource>,
    pub(super) node: SoftKey,
}

impl KeySource for TokenKeys {
    fn key(&self, plan: &DoorPlan) -> Option<Arc<dyn Signing>> {
        match plan.name.as_str() {
            signer::doors::NODE_CA => Some(Arc::new(self.node.clone())),
            _ => self.tokens.key(plan),
        }
    }

    fn public_key<'a>(&'a self, place: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>> {
        self.tokens.public_key(place)
    }
}

#[derive(Debug)]
pub(super) struct SoftKeys {
    pub(super) issuer: SoftKey,
    pub(super) node: SoftKey,
}

impl KeySource for SoftKeys {
    fn key(&self, plan: &DoorPlan) -> Option<Arc<dyn Signing>> {
        let key = match plan.name.as_str() {
            signer::doors::NODE_CA => &self.node,
            "tls-2" => &*SUCCESSOR,
            _ => &self.issuer,
        };
        Some(Arc::new(key.clone()))
    }

    fn public_key<'a>(&'a self, place: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>> {
        // These worlds have no responder at work.
        Box::pin(async { Err(DoorError::NoDoor(place.token.clone())) })
    }
}
