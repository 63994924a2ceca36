//! One object at one place: look, judge, exchange; again if somebody else was faster.

use std::collections::HashMap;
use std::sync::Arc;

use pki::Certificate;

use super::PublishError;
use super::examine::{Found, Standing, check, examine};
use super::place::{Look, Place, Put, Version};
use crate::publication::{Mark, Objects, sha256};
use crate::registry::Registry;

/// Others may be faster this many times in a row.
const ROUNDS: usize = 8;

/// The certificates that CRLs and certificates are verified with, by their SHA-256.
#[derive(Debug)]
pub(super) struct Issuers(HashMap<[u8; 32], Certificate>);

impl Issuers {
    pub(super) fn of(registry: &Registry) -> Self {
        let roots = registry.roots().iter().map(|root| &root.certificate);
        let chains = registry.issuers().flat_map(|entry| &entry.chain);
        let issuers = registry.issuers().map(|entry| entry.issuer.certificate());
        Self(roots.chain(chains).chain(issuers).map(|one| (sha256(one.der()), one.clone())).collect())
    }

    fn of_object(&self, mark: &Mark) -> Result<Certificate, PublishError> {
        self.0.get(&mark.issuer_sha256).cloned().ok_or(PublishError::NotGenuine)
    }
}

/// What is known of an object at a place.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// None: nothing is there.
    pub(super) version: Option<Version>,
    pub(super) found: Found,
}

/// How a job ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was there.
    Same,
    /// Something newer was there.
    Ahead,
    /// Nothing was there, and now it is.
    Created,
    /// Something else was there.
    Replaced,
    /// Nothing is at hand (any more): it is being made again.
    NotAtHand,
}

/// The work.
pub(super) struct Job {
    pub(super) place: Arc<Place>,
    pub(super) objects: Objects,
    pub(super) issuers: Arc<Issuers>,
    pub(super) path: String,
    /// What was there last. With it, an event needs one request.
    pub(super) known: Option<Known>,
    /// Whether others may have changed what is there.
    pub(super) compare: bool,
}

/// The work done.
pub(super) struct Done {
    pub(super) path: String,
    pub(super) known: Option<Known>,
    pub(super) outcome: Result<Outcome, PublishError>,
}

impl Job {
    pub(super) async fn run(mut self) -> Done {
        let outcome = self.settle().await;
        // Whatever failed: what is there is looked at before anything else is done.
        let known = self.known.filter(|_| outcome.is_ok());
        Done { path: self.path, known, outcome }
    }

    async fn settle(&mut self) -> Result<Outcome, PublishError> {
        let mut compare = self.compare;
        for _ in 0..ROUNDS {
            let Some(mark) = self.objects.mark(&self.path) else { return Ok(Outcome::NotAtHand) };
            let known = match &self.known {
                Some(known) if !compare => known.clone(),
                _ => match self.look().await? {
                    Some(known) => known,
                    None => return Ok(Outcome::NotAtHand),
                },
            };
            self.known = Some(known.clone());
            match known.found.stands_to(&mark) {
                Standing::Same => return Ok(Outcome::Same),
                Standing::Ahead => return Ok(Outcome::Ahead),
                Standing::Contradicts => return Err(PublishError::Contradiction { ours: mark.revision }),
                Standing::Behind => {}
            }
            if let Some(outcome) = self.put(known).await? {
                return Ok(outcome);
            }
            compare = true;
        }
        Err(PublishError::Contended)
    }

    /// What is there; nothing if nothing is at hand to compare it with.
    async fn look(&self) -> Result<Option<Known>, PublishError> {
        let before = self.known.as_ref();
        let version = before.and_then(|known| known.version.as_ref());
        let (version, there) = match (self.place.look(&self.path, version).await?, before) {
            (Look::Absent, _) => return Ok(Some(Known { version: None, found: Found::Absent })),
            (Look::Unchanged, Some(known)) => return Ok(Some(known.clone())),
            // Said of nothing that was asked for.
            (Look::Unchanged, None) => return Err(PublishError::Contended),
            (Look::There { version, content }, _) => (Some(version), content),
            // Nobody knows whether it is newer.
            (Look::TooLong { octets }, _) => {
                let limit = self.place.read_limit();
                return Err(PublishError::TooLongThere { octets, limit });
            }
        };
        let Some((mark, ours)) = self.objects.copy(&self.path).await else { return Ok(None) };
        let issuer = self.issuers.of_object(&mark)?;
        let found = blocking(move || examine(&mark, &ours, &there, &issuer)).await?;
        Ok(Some(Known { version, found }))
    }

    /// Nothing if somebody was faster.
    async fn put(&mut self, known: Known) -> Result<Option<Outcome>, PublishError> {
        let Some((mark, ours)) = self.objects.copy(&self.path).await else {
            return Ok(Some(Outcome::NotAtHand));
        };
        let (octets, limit) = (ours.len() as u64, self.place.read_limit());
        if octets > limit {
            return Err(PublishError::TooLong { octets, limit });
        }
        let issuer = self.issuers.of_object(&mark)?;
        let (checked, content) = (mark.clone(), ours.clone());
        blocking(move || check(&checked, &content, &issuer)).await?;
        match self.place.put(&self.path, known.version.as_ref(), (&mark, ours)).await? {
            Put::Contested => Ok(None),
            Put::Done(version) => {
                self.known = Some(Known { version: Some(version), found: Found::of(&mark) });
                Ok(Some(if known.version.is_none() { Outcome::Created } else { Outcome::Replaced }))
            }
        }
    }
}

/// Reading and verifying a long list, where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PublishError> + Send + 'static,
) -> Result<T, PublishError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PublishError::Stopping))
}
