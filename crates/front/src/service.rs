//! What all requests share.

use std::sync::Arc;
use std::time::Duration;

use acme_store::{AcmeStore, SaveOutcome, Unit};
use pki::Timestamp;
use runtime::{Rates, SharedClock, TrustedProxies};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::Accounts;
use crate::certificate::FreshCertificates;
use crate::config::{LimitsSection, ValidationSection};
use crate::directory::Directories;
use crate::faults::Faults;
use crate::limits::Learned;
use crate::nonce::Nonces;
use crate::refusal::Refusal;
use crate::renewal::RenewalInfos;
use crate::signer::Signer;
use crate::under_way::UnderWay;
use crate::validation::Validators;

/// A front at work.
pub(crate) struct Front {
    pub(crate) directories: Directories,
    pub(crate) accounts: Accounts,
    pub(crate) nonces: Arc<Nonces>,
    pub(crate) signer: Signer,
    pub(crate) validators: Validators,
    pub(crate) store: Arc<dyn AcmeStore>,
    pub(crate) clock: SharedClock,
    pub(crate) limits: LimitsSection,
    pub(crate) proxies: TrustedProxies,
    /// What each client may have this front do.
    pub(crate) work: Rates,
    pub(crate) validation: ValidationSection,
    /// What fails on purpose.
    pub(crate) faults: Arc<Faults>,
    /// Room for requests; what finds none is shed.
    pub(crate) room: Semaphore,
    /// Room for bodies that are on their way.
    pub(crate) bodies: Semaphore,
    pub(crate) fresh: FreshCertificates,
    pub(crate) renewal_infos: RenewalInfos,
    pub(crate) learned: Learned,
    /// Validations whose outcome a client's look may wait for.
    pub(crate) under_way: UnderWay,
    /// Validations and issuances, which do not depend on a client's staying connected.
    pub(crate) tasks: TaskTracker,
    /// When the process is to end.
    pub(crate) draining: CancellationToken,
}

/// Tries of a read, a change and a compare-and-swap, before an object is given up as contended.
pub(crate) const SAVE_TRIES: u32 = 5;

impl Front {
    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// How long a client's look may wait for an outcome: not at all when half of the room for requests is taken.
    pub(crate) fn patience(&self) -> Duration {
        let scarce = self.room.available_permits().saturating_mul(2) < self.limits.requests;
        if scarce || self.draining.is_cancelled() {
            return Duration::ZERO;
        }
        Duration::from_millis(self.limits.poll_wait_milliseconds)
    }

    /// Saves changes by compare-and-swap. False: something else has changed the same, or an earlier try of this was
    /// durable though its answer was lost; read again.
    pub(crate) async fn save(&self, unit: Unit) -> Result<bool, Refusal> {
        let saved = self.store.save(vec![unit]).await;
        fail::fail_point!("front.save.after");
        match saved {
            Ok(outcomes) => Ok(outcomes.first() == Some(&SaveOutcome::Saved)),
            Err(error) if error.may_be_durable() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
