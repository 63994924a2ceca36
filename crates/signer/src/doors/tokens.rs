//! The tokens themselves, from the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use hsm::{Health, KeyHealth, KeyQuery, KeyRef, Origin, Signing, Token, TokenState, WorkerCommand};
use pki::PublicKey;

use super::{DoorError, DoorPlan};
use crate::config::TokenSection;

/// Where a private key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlace {
    /// Name of the token's section in `signer.toml`.
    pub token: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// How it came there.
    pub origin: Origin,
}

/// Gives keys by their places. [`Tokens`] in production; in tests a source of keys that fail on purpose.
pub trait KeySource: fmt::Debug + Send + Sync {
    /// The key of a plan; `None` if there is no such place.
    fn key(&self, plan: &DoorPlan) -> Option<Arc<dyn Signing>>;

    /// The public half of the key at a place, for keys that no certificate names yet.
    ///
    /// # Errors
    /// When the token is away, or has not exactly one such key.
    fn public_key<'a>(&'a self, place: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>>;
}

/// The configured tokens, each with its worker process.
#[derive(Clone)]
pub struct Tokens(BTreeMap<String, Token>);

impl Tokens {
    /// Starts the workers. Returns at once; a token may be away.
    #[must_use]
    pub fn start(sections: &[TokenSection], state: &Path, worker: &WorkerCommand) -> Self {
        let start = |section: &TokenSection| {
            (section.name.clone(), Token::start(section.to_token_config(state), worker.clone()))
        };
        Self(sections.iter().map(start).collect())
    }

    /// Each token's name, label and health.
    pub fn health(&self) -> impl Iterator<Item = (&str, Health)> {
        self.0.iter().map(|(name, token)| (name.as_str(), token.health()))
    }

    /// The tokens' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What keeps a token from signing with every key that was asked of it; `None` when nothing does.
    #[must_use]
    pub fn trouble(&self, name: &str) -> Option<String> {
        let health = self.0.get(name)?.health();
        match &health.state {
            TokenState::Ready(_) => health.keys.iter().find_map(|(id, key)| match key {
                KeyHealth::Refused(fault) => Some(format!("key {}: {fault}", hex::encode(id))),
                KeyHealth::Unknown | KeyHealth::Ready(_) => None,
            }),
            TokenState::Starting => Some("starting".to_owned()),
            TokenState::Down(fault) => Some(fault.to_string()),
        }
    }

    /// Tries tokens that are down again, now.
    pub fn probe(&self) {
        self.0.values().for_each(Token::probe);
    }

    /// Stops the workers.
    pub async fn shutdown(&self) {
        for token in self.0.values() {
            token.shutdown().await;
        }
    }
}

impl KeySource for Tokens {
    fn key(&self, plan: &DoorPlan) -> Option<Arc<dyn Signing>> {
        let token = self.0.get(&plan.place.token)?;
        let reference = KeyRef {
            id: plan.place.id.clone(),
            public_key: plan.public_key.clone(),
            origin: plan.place.origin,
        };
        Some(Arc::new(token.key(reference)))
    }

    fn public_key<'a>(&'a self, place: &'a KeyPlace) -> BoxFuture<'a, Result<PublicKey, DoorError>> {
        Box::pin(async move {
            let token = self.0.get(&place.token).ok_or_else(|| DoorError::NoDoor(place.token.clone()))?;
            let found = token.find(KeyQuery::id(place.id.clone())).await?;
            // Two keys of one id are two answers.
            let [key] = found.as_slice() else { return Err(place.has_no_key()) };
            key.public_key.clone().ok_or_else(|| place.has_no_key())
        })
    }
}

impl KeyPlace {
    fn has_no_key(&self) -> DoorError {
        DoorError::NoPublicKey { token: self.token.clone(), id: hex::encode(&self.id) }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
