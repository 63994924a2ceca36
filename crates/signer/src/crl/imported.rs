//! The CRLs of offline roots: the first from its ceremony by way of the policy, later ones imported by operators. They are
//! published like all others, and watched: nobody makes the next one by himself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ca_store::{ImportCrl, ImportOutcome, ImportedCrl};
use pki::crl::Crl;
use runtime::{Dependency, Readiness};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::measure::float;
use crate::audit::Event;
use crate::ca::Ca;
use crate::events::Change;
use crate::publication::{Object, Objects};
use crate::refusal::{Failure, Outcome, Reason, Refusal};
use crate::registry::{Root, pem_or_der};

/// An import that was not heard of is found this soon.
const ROUND: Duration = Duration::from_secs(5);

/// Publishes imported CRLs.
#[derive(Debug)]
pub struct ImportedCrls {
    ca: Arc<Ca>,
    objects: Objects,
    /// By root.
    notices: BTreeMap<String, Dependency>,
}

impl ImportedCrls {
    /// `readiness` gets a notice for each root.
    #[must_use]
    pub fn new(ca: Arc<Ca>, objects: Objects, readiness: &Readiness) -> Self {
        let notice =
            |root: &Root| (root.name.clone(), readiness.notice(format!("crl of root {}", root.name)));
        let notices = ca.registry.roots().iter().map(notice).collect();
        Self { ca, objects, notices }
    }

    /// Keeps the roots' CRLs current until the signer drains.
    ///
    /// # Errors
    /// Never: what fails is reported and tried again.
    pub async fn keep_current(self, draining: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut changes = self.ca.events.subscribe();
        while draining.run_until_cancelled(self.round()).await.is_some() {
            tokio::select! {
                () = draining.cancelled() => break,
                () = tokio::time::sleep(ROUND) => {}
                () = heard(&mut changes) => {}
            }
        }
        Ok(())
    }

    async fn round(&self) {
        match self.ca.store.imported_crls().await {
            Ok(rows) => self.ca.registry.roots().iter().for_each(|root| self.take_up(root, &rows)),
            Err(error) => tracing::warn!(%error, "crl.imported_unknown"),
        }
        self.ca.registry.roots().iter().for_each(|root| self.look(root));
    }

    fn take_up(&self, root: &Root, rows: &[ImportedCrl]) {
        let authority = authority(root);
        let Some(row) = rows.iter().find(|row| row.authority == authority) else { return };
        let path = root.crl_path();
        if self.objects.revision(&path) >= Some(row.number) {
            return;
        }
        // The row is nobody's word: the signature is.
        match Object::imported_crl(&row.der, &root.certificate) {
            Some(object) => {
                tracing::info!(path, number = row.number, "crl.imported");
                self.objects.publish(&path, object);
                self.ca.events.announce(Change::Object { path: path.into() });
            }
            None => {
                let detail = "imported_crls: not a CRL of the root".to_owned();
                self.ca.alarm(&Failure::Unreadable { table: "imported_crls", detail });
            }
        }
    }

    /// Says it in time: someone has to open the safe.
    fn look(&self, root: &Root) {
        let Some(notice) = self.notices.get(&root.name) else { return };
        let path = root.crl_path();
        let Some((this_update, next_update)) = self.objects.updates(&path) else {
            notice.down("there is none: import one with `chancery crl import`");
            return;
        };
        let now = self.ca.clock.reading();
        let left = next_update.since(now).seconds();
        let life = next_update.since(this_update).seconds();
        metrics::gauge!("chancery_root_crl_remaining_seconds", "root" => root.name.clone()).set(float(left));
        if left.saturating_mul(100) >= life.saturating_mul(u64::from(self.ca.limits.crl_alarm_percent)) {
            notice.up();
            return;
        }
        let detail = format!("ends at {next_update}: make the next one, and import it");
        if matches!(notice.state(), runtime::State::Up | runtime::State::Waiting) {
            self.ca.warn_operators(&format!("{path} {detail}"));
        }
        notice.down(detail);
    }
}

/// How `ca` names the root.
fn authority(root: &Root) -> String {
    hex::encode(root.certificate.key_id().unwrap_or_default())
}

async fn heard(changes: &mut Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(Change::ImportedCrl | Change::Missed) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

impl Ca {
    /// Keeps the CRL of one of this CA's roots, DER or PEM, and lets all signers publish it. Answers the root's name, and
    /// the row.
    ///
    /// # Errors
    /// When it is not a complete CRL of one of the roots, is of another time than now, is not newer than the one that is
    /// there, or lacks one of its entries without `allow_removals`.
    pub async fn import_crl(
        &self,
        operator: &str,
        file: Vec<u8>,
        allow_removals: bool,
    ) -> Outcome<(String, ImportedCrl)> {
        let der = pem_or_der(file);
        let crl = Crl::from_der(&der).map_err(|error| refused(&error.to_string()))?;
        let root = self.registry.roots().iter().find(|root| crl.verify_issued_by(&root.certificate).is_ok());
        let root = root.ok_or_else(|| refused("none of the roots of the policy has signed it"))?;
        let now = self.now()?;
        if crl.delta_base().is_some() {
            return Err(refused("it is a delta CRL").into());
        }
        if !crl.lists_ca_certificates() {
            return Err(refused("CAs' certificates are not in its scope (onlyContainsUserCerts)").into());
        }
        if crl.this_update() > now {
            return Err(refused("its thisUpdate is in the future").into());
        }
        if crl.next_update() <= now {
            return Err(refused("its nextUpdate is past").into());
        }
        let (number, this_update) = (crl.number(), crl.this_update());
        let newer = |than_number: u64, than: pki::Timestamp| {
            if number > than_number && this_update > than {
                return Ok(());
            }
            let detail = format!(
                "number {number} of {this_update} is not newer than number {than_number} of {than}, which is published"
            );
            Err(Failure::from(refused(&detail)))
        };
        if let Some(first) = root.crl.as_deref().and_then(|der| Crl::from_der(der).ok()) {
            newer(first.number(), first.this_update())?;
        }
        if !allow_removals {
            self.check_nothing_leaves(root, &crl).await?;
        }
        let row = ImportedCrl {
            authority: authority(root),
            number,
            this_update,
            next_update: crl.next_update(),
            der: der.clone(),
            imported_at: now,
            imported_by: operator.to_owned(),
        };
        let path = root.crl_path();
        let event = Event::CrlImported { path: &path, number, entries: crl.entry_count(), operator };
        let import = ImportCrl { crl: row.clone(), audit: vec![event.at(now)] };
        match self.store.import_crl(import).await? {
            // Its answer may have been lost.
            ImportOutcome::Imported => {}
            ImportOutcome::Superseded(there) if there.der == row.der => {}
            ImportOutcome::Superseded(there) => newer(there.number, there.this_update)?,
        }
        self.events.announce(Change::ImportedCrl);
        Ok((root.name.clone(), row))
    }
}

impl Ca {
    /// A CRL never loses an entry before it may (DESIGN §2.5), and only the root's operators know when that is.
    async fn check_nothing_leaves(&self, root: &Root, new: &Crl<'_>) -> Outcome<()> {
        let rows = self.store.imported_crls().await?;
        let name = authority(root);
        let row = rows.iter().find(|row| row.authority == name).map(|row| row.der.as_slice());
        let standing = row.into_iter().chain(root.crl.as_deref()).filter_map(|der| Crl::from_der(der).ok());
        let Some(standing) = standing.max_by_key(Crl::number) else { return Ok(()) };
        let listed: BTreeSet<_> = new.entries().filter_map(Result::ok).map(|entry| entry.serial).collect();
        let missing = |entry: &pki::crl::Entry| !listed.contains(&entry.serial);
        let missing: Vec<_> = standing.entries().filter_map(Result::ok).filter(missing).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let (count, serial) = (missing.len(), first.serial);
        let detail = format!(
            "{count} certificates that number {} lists are not in it, {serial} first; if all of them have ended, \
             say --allow-removals",
            standing.number()
        );
        Err(refused(&detail).into())
    }
}

fn refused(detail: &str) -> Refusal {
    Refusal::new(Reason::OperatorRequest, format!("this CRL is not imported: {detail}"))
}
