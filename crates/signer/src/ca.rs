//! The CA at work: everything that its operations share.

use std::sync::Arc;

use ca_store::{CaStore, Info, StoreError};
use pki::Timestamp;
use rpc::Revocations;

use crate::account::{Accounts, EabTurns};
use crate::audit::Refusals;
use crate::clock::{ClockError, SigningClock};
use crate::config::Limits;
use crate::doors::Doors;
use crate::events::ChangeEvents;
use crate::issue::InFlight;
use crate::journal::Journal;
use crate::membership::Membership;
use crate::node_ca::NodeCa;
use crate::order::VerifiedOrders;
use crate::others::Others;
use crate::random::Randomness;
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::registry::{Registry, SynchronizeError};
use crate::revoke::Cursors;
use crate::secrets::Secrets;
use crate::server_certificate::ServerQuota;
use crate::takeover::Reported;
use crate::weak_keys::WeakKeys;

/// What a [`Ca`] is made of.
pub struct Parts {
    /// The database.
    pub store: Arc<dyn CaStore>,
    /// Directories, profiles, issuers.
    pub registry: Registry,
    /// Keys behind doors.
    pub doors: Doors,
    /// The node CA's certificate, if this signer has its key.
    pub node_ca: Option<NodeCa>,
    /// MACs.
    pub secrets: Secrets,
    /// Time.
    pub clock: SigningClock,
    /// Chance.
    pub random: Arc<dyn Randomness>,
    /// Lists of known keys.
    pub weak_keys: WeakKeys,
    /// Bounds.
    pub limits: Limits,
    /// This signer's node name.
    pub node: String,
}

/// The context of every operation. One for each signer; shared by `Arc`.
pub struct Ca {
    pub(crate) store: Arc<dyn CaStore>,
    pub(crate) info: Info,
    pub(crate) registry: Registry,
    pub(crate) doors: Doors,
    pub(crate) node_ca: Option<NodeCa>,
    pub(crate) secrets: Secrets,
    pub(crate) clock: SigningClock,
    pub(crate) random: Arc<dyn Randomness>,
    pub(crate) weak_keys: WeakKeys,
    pub(crate) limits: Limits,
    pub(crate) node: String,
    pub(crate) journal: Journal,
    pub(crate) accounts: Accounts,
    pub(crate) membership: Membership,
    pub(crate) revocations: Revocations,
    pub(crate) events: ChangeEvents,
    pub(crate) refusals: Refusals,
    pub(crate) in_flight: InFlight,
    pub(crate) verified: VerifiedOrders,
    pub(crate) server_quota: ServerQuota,
    pub(crate) reported: Reported,
    /// Where open incidents are followed next.
    pub(crate) cursors: Cursors,
    /// Registrations that compete for an EAB key.
    pub(crate) eab_turns: EabTurns,
    pub(crate) others: Others,
}

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Time.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The policy and the database.
    #[error(transparent)]
    Synchronize(#[from] SynchronizeError),
}

impl Ca {
    /// Compares the clock, brings the registry into `ca`, and reads the nodes. No token is needed for it.
    ///
    /// # Errors
    /// When the clock cannot be trusted, or a row of `ca`.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let Parts { store, registry, doors, node_ca, secrets, clock, random, weak_keys, limits, node } =
            parts;
        // Before anything is read that another signer may change.
        let others = Others::new(store.watch().await?);
        clock.check(&*store).await?;
        let now = clock.now()?;
        if let Err(error) = registry.synchronize(&*store, &secrets.rows, now).await {
            report_at_start(&*store, &error, now).await;
            return Err(error.into());
        }
        let info = store.info().await?;
        let ca = Self {
            journal: Journal::new(Arc::clone(&store), Arc::clone(&secrets.rows), limits.lease()),
            accounts: Accounts::new(&limits),
            in_flight: InFlight::new(limits.issuances_in_flight),
            verified: VerifiedOrders::new(limits.remembered_orders),
            membership: Membership::default(),
            revocations: Revocations::new(),
            events: ChangeEvents::default(),
            refusals: Refusals::default(),
            server_quota: ServerQuota::default(),
            reported: Reported::default(),
            cursors: Cursors::default(),
            eab_turns: EabTurns::default(),
            others,
            store,
            info,
            registry,
            doors,
            node_ca,
            secrets,
            clock,
            random,
            weak_keys,
            limits,
            node,
        };
        ca.reload_nodes().await?;
        if ca.weak_keys.is_empty() && ca.registry.issues_publicly() {
            ca.warn_operators(
                "public-dv profiles are offered, and no list of known keys is installed (weak_keys): BR §6.1.1.3 wants \
                 Debian's weak keys refused",
            );
        }
        let started = crate::audit::Event::SignerStarted { node: &ca.node };
        ca.store.append_audit(vec![started.at(now)], Vec::new()).await?;
        Ok(Arc::new(ca))
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn CaStore> {
        &self.store
    }

    /// Directories, profiles, issuers.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The keys.
    #[must_use]
    pub const fn doors(&self) -> &Doors {
        &self.doors
    }

    /// The bus of changes.
    #[must_use]
    pub const fn events(&self) -> &ChangeEvents {
        &self.events
    }

    /// The time by which something may be signed or decided.
    ///
    /// # Errors
    /// When the clock cannot be trusted.
    pub fn now(&self) -> Outcome<Timestamp> {
        Ok(self.clock.now()?)
    }

    /// Compares the clock with the database's.
    ///
    /// # Errors
    /// By the store; what the comparison says is in [`Ca::now`]'s answers.
    pub async fn check_clock(&self) -> Result<(), StoreError> {
        self.clock.check(&*self.store).await
    }

    /// Writes the refusals that were counted since the last time.
    ///
    /// # Errors
    /// By the store: they are counted on.
    pub async fn flush_refusals(&self) -> Result<(), StoreError> {
        self.refusals.flush(&*self.store).await
    }

    /// The nodes that are none any more; the mTLS port closes their connections.
    #[must_use]
    pub const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Reads the nodes again, throws the revoked ones out, and reports rows that were tampered with.
    ///
    /// # Errors
    /// By the store.
    pub async fn reload_nodes(&self) -> Result<(), StoreError> {
        for error in self.membership.reload(&*self.store, &self.secrets.rows).await? {
            self.alarm(&Failure::Tampered(error));
        }
        self.revocations.replace(self.membership.nodes().revoked());
        Ok(())
    }

    /// Something is wrong that a person must look at: it is counted and logged as such. A row that was tampered with is
    /// in the audit trail after the next batch.
    pub(crate) fn alarm(&self, failure: &Failure) {
        if let Failure::Tampered(error) = failure
            && let Some((table, key)) = error.row()
        {
            self.refusals.tampered(table, key, self.clock.reading());
        }
        let class = failure.class().as_str();
        metrics::counter!("chancery_alarms_total", "class" => class).increment(1);
        tracing::error!(target: "alarm", class, error = %failure, "alarm");
    }

    /// Something will go wrong unless a person does something: counted and logged as [`Ca::alarm`] does.
    pub(crate) fn warn_operators(&self, detail: &str) {
        metrics::counter!("chancery_alarms_total", "class" => "operator").increment(1);
        tracing::error!(target: "alarm", class = "operator", detail, "alarm");
    }

    /// Accounts for what a request comes to, and passes it on: refusals are counted, broken invariants alarmed.
    pub(crate) fn observe<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        match &outcome {
            Ok(_) => {}
            Err(Failure::Refused(refusal)) => self.count_refusal(refusal),
            Err(failure) if failure.class() == pki::ErrorClass::Fatal => self.alarm(failure),
            Err(failure) => tracing::warn!(error = %failure, "request.failed"),
        }
        outcome
    }

    /// Counts a call that the mTLS port turned away before any service saw it.
    pub(crate) fn count_turned_away(&self, refused: rpc::Refused) {
        let (reason, detail) = match refused {
            rpc::Refused::Nobody => (Reason::RpcNobody, "a call without a node's certificate"),
            rpc::Refused::Revoked => (Reason::RpcRevoked, "a call of a revoked node"),
            rpc::Refused::Role => (Reason::RpcRole, "a call that is not for the caller's role"),
            rpc::Refused::Unlisted => (Reason::RpcUnlisted, "a call that this port does not have"),
            rpc::Refused::TooLarge => (Reason::RpcTooLarge, "a message that is too large"),
            rpc::Refused::Malformed => (Reason::RpcMalformed, "a message that cannot be read"),
        };
        self.count_refusal(&Refusal::new(reason, detail));
    }

    fn count_refusal(&self, refusal: &Refusal) {
        self.refusals.count(refusal, self.clock.reading());
    }
}

/// A signer that does not start, because of a row that was tampered with, says so where auditors look.
async fn report_at_start(store: &dyn CaStore, error: &SynchronizeError, now: Timestamp) {
    let SynchronizeError::Tampered(error) = error else { return };
    let Some((table, key)) = error.row() else { return };
    let event = crate::audit::Event::RowTampered { table, key }.at(now);
    if let Err(error) = store.append_audit(vec![event], Vec::new()).await {
        tracing::warn!(%error, "row.tampered: not written");
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("node", &self.node).finish_non_exhaustive()
    }
}
