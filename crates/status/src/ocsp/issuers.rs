//! Whose certificates this node speaks of: those of the issuers whose certificates it serves, and of the pinned ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use pki::Certificate;
use pki::ocsp::{CertId, IssuerHashes, Response};

use super::answer::{Kept, Unfit};
use crate::shelf::Shelf;

/// The issuers, by the hashes that certIDs have.
#[derive(Debug)]
pub(crate) struct Issuers {
    shelf: Arc<Shelf>,
    anchors: Vec<Certificate>,
    list: ArcSwap<Vec<(IssuerHashes, Certificate)>>,
    /// The shelf's state that the list was made of.
    made_of: AtomicU64,
}

impl Issuers {
    pub(crate) fn new(shelf: Arc<Shelf>, anchors: Vec<Certificate>) -> Self {
        Self { shelf, anchors, list: ArcSwap::default(), made_of: AtomicU64::new(u64::MAX) }
    }

    /// The certificate of the issuer that is meant.
    pub(crate) fn of(&self, id: &CertId) -> Option<Certificate> {
        self.follow();
        let list = self.list.load();
        list.iter().find(|(hashes, _)| id.is_of(hashes)).map(|(_, certificate)| certificate.clone())
    }

    /// Whether none is known yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.follow();
        self.list.load().is_empty()
    }

    /// Verifies an answer that was read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn prove(&self, kept: &Kept, response: &Response, now: i64) -> Result<(), Unfit> {
        if kept.next_update <= now {
            return Err(Unfit::Past);
        }
        let issuer = self.of(&kept.id).ok_or(Unfit::UnknownIssuer)?;
        let at = pki::Timestamp::from_unix(u64::try_from(now).unwrap_or(0));
        response.verify(&issuer, at)?;
        kept.set_proven();
        Ok(())
    }

    fn follow(&self) {
        let generation = self.shelf.generation();
        if self.made_of.load(Ordering::Acquire) == generation {
            return;
        }
        let certificates = self.shelf.certificates();
        let all = certificates.into_iter().chain(self.anchors.iter().cloned());
        let list = all.map(|certificate| (IssuerHashes::of(&certificate), certificate)).collect();
        self.list.store(Arc::new(list));
        self.made_of.store(generation, Ordering::Release);
    }
}
