//! The ceremony's way to keys: tokens are opened when a key is needed and not before, so that a token that has done its
//! part can stay in its safe.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use hsm::{Deadline, Job, KeyQuery, KeyRef, KeySpec, Lane, Signing as _, Token, TokenConfig, WorkerCommand};
use pki::{KeyAlgorithm, PublicKey, SignatureAlgorithm};

use super::plan::{KeyPlan, Plan};

/// RSA-4096 takes a network HSM tens of seconds to generate.
const PATIENCE: Duration = Duration::from_secs(120);

/// The tokens that were opened so far.
pub(crate) struct Keys<'a> {
    plan: &'a Plan,
    worker: WorkerCommand,
    latches: &'a Path,
    open: BTreeMap<String, Token>,
}

/// A key that is in its token, and what the token says of it.
pub(crate) struct Found {
    pub(crate) public_key: PublicKey,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) generated: bool,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(plan: &'a Plan, worker: WorkerCommand, latches: &'a Path) -> Self {
        Self { plan, worker, latches, open: BTreeMap::new() }
    }

    async fn token(&mut self, name: &str) -> anyhow::Result<&Token> {
        if !self.open.contains_key(name) {
            let plan = self
                .plan
                .tokens
                .iter()
                .find(|token| token.name == name)
                .with_context(|| format!("no token {name:?} in the ceremony file"))?;
            let latch = self.latches.join(format!("{name}.latch"));
            let mut config = TokenConfig::new(&plan.module, &plan.label, &plan.pin_file, latch);
            for (variable, value) in &plan.environment {
                config = config.with_environment(variable, value);
            }
            let token = Token::start(config, self.worker.clone());
            token.ready(Deadline::after(PATIENCE)).await.with_context(|| {
                format!("the token {:?} (module {}) cannot be used", plan.label, plan.module.display())
            })?;
            self.open.insert(name.to_owned(), token);
        }
        self.open.get(name).context("the token was just opened")
    }

    /// The key that the plan describes: found, or generated now.
    pub(crate) async fn make(&mut self, key: &KeyPlan) -> anyhow::Result<Found> {
        let id = hex::decode(&key.id).context("key id")?;
        let token = self.token(&key.token).await?;
        let there = token.find(KeyQuery::id(id.clone())).await?;
        if let Some(found) = there.into_iter().next() {
            let public_key = found
                .public_key
                .with_context(|| format!("key {:?} has no readable public key", key.label))?;
            ensure!(
                found.label == key.label && public_key.algorithm() == key.algorithm,
                "the token has another key under the id {}: label {:?}, {}; the ceremony file says {:?}, {}",
                key.id,
                found.label,
                public_key.algorithm(),
                key.label,
                key.algorithm
            );
            return Ok(Found { public_key, attributes: readable(&found.attributes)?, generated: false });
        }
        let spec = KeySpec { algorithm: key.algorithm, label: key.label.clone(), id };
        let made = token.generate(spec).await?;
        Ok(Found { attributes: readable(&made.attributes)?, public_key: made.public_key, generated: true })
    }

    /// A signature of `message` by the key, verified.
    pub(crate) async fn sign(
        &mut self,
        key: &KeyPlan,
        public_key: &PublicKey,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> anyhow::Result<Vec<u8>> {
        let id = hex::decode(&key.id).context("key id")?;
        let token = self.token(&key.token).await?;
        let handle = token.key(KeyRef::generated(id, public_key.clone()));
        handle.ready(Deadline::after(PATIENCE)).await?;
        let job = Job::for_message(algorithm, message);
        Ok(handle.sign(Lane::Bulk, job, Deadline::after(PATIENCE)).await?)
    }

    pub(crate) async fn close(self) {
        for (_, token) in self.open {
            token.shutdown().await;
        }
    }
}

/// The algorithm that a key of this plan signs with.
pub(crate) fn signature_of(algorithm: KeyAlgorithm) -> SignatureAlgorithm {
    algorithm.default_signature()
}

/// Attributes as the transcript shows them.
fn readable(attributes: &hsm::Attributes) -> anyhow::Result<BTreeMap<String, String>> {
    let value = serde_json::to_value(attributes)?;
    let members = value.as_object().context("attributes are an object")?;
    Ok(members
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect())
}
