//! The certificates of the OCSP responders: issued by the issuers themselves through the journal, short-lived, renewed before
//! their end limits an answer. One signer makes one, and all find it in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ca_store::{
    CertificateFilter, CertificateQuery, JournalEntry, JournalKind, JournalRow, LeaseOutcome, TimeRange,
};
use hsm::KeyHealth;
use parking_lot::{Mutex, RwLock};
use pki::lint::{self, Expected, LintContext, Subject};
use pki::tbs::{self, ResponderRequest};
use pki::{Certificate, Period, PublicKey, Serial, Timestamp, Validity};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::account::thumbprint_of;
use crate::ca::Ca;
use crate::events::Change;
use crate::issue::{issued, lint_record, shard_of};
use crate::journal::{CertificateDraft, Commit, OwnCertificate, Record};
use crate::refusal::{Failure, Outcome};
use crate::registry::{IssuerEntry, OcspSettings, Registry};

/// The journal is looked at this often: another signer may have renewed a certificate, or a key may have been blocked.
const ROUND: Duration = Duration::from_secs(10);
/// While there is none, or one is being made.
const RETRY: Duration = Duration::from_secs(1);
/// After a revocation, which may be that of the certificate.
const SOON: Duration = Duration::from_millis(100);
/// Making one is one signer's alone; a second one would be no harm. The lease is renewed while it is made.
const LEASE: Duration = Duration::from_secs(5);
/// For clients whose clocks are behind.
const BACKDATED: Period = Period::from_hours(1);
/// In a journal's row the profile's name: no profile can have it.
const PROFILE: &str = "ocsp-responder:";
/// Rows are read in pieces of this many.
const PIECE: u32 = 100;

/// The certificates in use, by issuer.
#[derive(Debug)]
pub(super) struct Certificates(BTreeMap<String, Current>);

type Current = RwLock<Option<Arc<Certificate>>>;

impl Certificates {
    pub(super) fn of(registry: &Registry) -> Self {
        let with_ocsp = registry.issuers().filter(|entry| entry.ocsp.is_some());
        Self(with_ocsp.map(|entry| (entry.id.clone(), Current::default())).collect())
    }

    /// The one that answers are signed with at this time.
    pub(super) fn current(&self, issuer: &str, now: Timestamp) -> Option<Arc<Certificate>> {
        let current = self.0.get(issuer)?.read().clone()?;
        (current.is_valid_at(now) && now < current.not_after()).then_some(current)
    }

    pub(super) async fn keep_current(&self, ca: &Ca, draining: &CancellationToken) {
        let keepers = ca.registry.issuers().filter_map(|entry| {
            let keeper = Keeper {
                ca,
                entry,
                ocsp: entry.ocsp.as_ref()?,
                current: self.0.get(&entry.id)?,
                trouble: None,
                reported: Mutex::default(),
            };
            // Each issuer by itself: one whose token is away does not hold up the others.
            Some(keeper.run(ca.events.subscribe(), draining))
        });
        let _: Vec<()> = futures::future::join_all(keepers).await;
    }
}

/// Looks after the responder of one issuer.
struct Keeper<'a> {
    ca: &'a Ca,
    entry: &'a Arc<IssuerEntry>,
    ocsp: &'a OcspSettings,
    current: &'a Current,
    /// What an alarm was given for.
    trouble: Option<Trouble>,
    /// Rows that an alarm was given for.
    reported: Mutex<BTreeSet<Serial>>,
}

/// What keeps a responder from answering as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The certificate's end limits answers.
    Late,
    /// The key is blocked.
    Blocked,
}

/// What the journal has for a responder's key.
#[derive(Default)]
struct Found {
    /// The one that ends last.
    best: Option<Arc<Certificate>>,
    /// One that is to be signed yet.
    open: Option<JournalEntry>,
}

impl Keeper<'_> {
    async fn run(mut self, mut changes: Receiver<Change>, draining: &CancellationToken) {
        loop {
            let look = async {
                match self.look_after().await {
                    Ok(pause) => pause,
                    Err(failure) => {
                        self.report(&failure);
                        RETRY
                    }
                }
            };
            let Some(pause) = draining.run_until_cancelled(look).await else { return };
            tokio::select! {
                () = draining.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                // With a pause, so that revocations without end are not as many looks.
                () = revoked(&mut changes, &self.entry.id) => tokio::time::sleep(SOON).await,
            }
        }
    }

    /// One look: takes up the best certificate, and makes one when it is time. Answers when to look again.
    async fn look_after(&mut self) -> Outcome<Duration> {
        let now = self.ca.now()?;
        let key = self.ca.doors.responder(&self.entry.id)?.public_key().await?;
        if !self.ca.store.blocked_keys(&[key.sha256()]).await?.is_empty() {
            *self.current.write() = None;
            self.show(now, true);
            return Ok(ROUND);
        }
        let found = self.find(&key, now).await?;
        *self.current.write() = found.best.clone();
        let mut pause = ROUND;
        if self.is_due(found.best.as_deref(), now) {
            pause = match self.renew(&key).await {
                Ok(pause) => pause,
                Err(failure) => {
                    self.report(&failure);
                    RETRY
                }
            };
        }
        self.show(now, false);
        Ok(pause)
    }

    /// Whether it is time for another one: when half of the time is gone in which answers are not limited by its end. The
    /// other half is for an issuer whose key is away.
    fn is_due(&self, best: Option<&Certificate>, now: Timestamp) -> bool {
        let Some(best) = best else { return true };
        // None ends later than its issuer.
        let issuer_end = self.entry.issuer.certificate().not_after();
        best.not_after() < issuer_end && best.not_after().since(now) <= self.renewal()
    }

    /// What is left of a certificate when it is renewed.
    fn renewal(&self) -> Period {
        let (lifetime, validity) = (self.ocsp.certificate_lifetime.seconds(), self.ocsp.validity.seconds());
        Period::from_seconds(validity + lifetime.saturating_sub(validity) / 2)
    }

    /// The certificates of a responder's key. Each row is verified; one that was tampered with is reported, and is not used.
    async fn find(&self, key: &PublicKey, now: Timestamp) -> Outcome<Found> {
        let mut found = Found::default();
        let mut query = CertificateQuery::first(CertificateFilter::Key(key.sha256()), PIECE);
        let before = now.plus(Period::from_days(3650));
        query.expires = Some(TimeRange { from: now, before });
        loop {
            let page = self.ca.store.certificates(&query).await?;
            for entry in page.items {
                self.consider(entry, key, now, &mut found);
            }
            match page.next {
                Some(next) => query = query.after(next),
                None => return Ok(found),
            }
        }
    }

    fn consider(&self, entry: JournalEntry, key: &PublicKey, now: Timestamp, found: &mut Found) {
        let (serial, is_revoked) = (entry.row.unverified().serial, entry.revocation.is_some());
        let row = match self.ca.journal.open(entry.clone()) {
            Ok(row) => row,
            Err(failure) => return self.report_row(serial, &failure),
        };
        if row.kind != JournalKind::Responder || row.issuer != self.entry.id || is_revoked {
            return;
        }
        if row.signature.is_none() {
            if row.abandoned_at.is_none() {
                found.open = Some(entry);
            }
            return;
        }
        match self.certificate(&row, key) {
            Ok(certificate) => {
                let later = |best: &Arc<Certificate>| best.not_after() >= certificate.not_after();
                if certificate.is_valid_at(now) && !found.best.as_ref().is_some_and(later) {
                    found.best = Some(Arc::new(certificate));
                }
            }
            Err(failure) => self.report_row(serial, &failure),
        }
    }

    /// Once, and not at each look.
    fn report_row(&self, serial: Serial, failure: &Failure) {
        if self.reported.lock().insert(serial) {
            self.ca.alarm(failure);
        }
    }

    /// The certificate of a row. Whatever signed it, it is used only if relying parties will accept it.
    fn certificate(&self, row: &JournalRow, key: &PublicKey) -> Outcome<Certificate> {
        let unusable = |detail: &str| Failure::Unreadable {
            table: "journal",
            detail: format!("{}: a responder's certificate that {detail}", row.serial),
        };
        let certificate = Certificate::from_der(&issued(row)?.certificate)
            .map_err(|error| unusable(&format!("cannot be read: {error}")))?;
        let issuer = self.entry.issuer.certificate();
        if certificate.public_key() != key || !certificate.may_sign_ocsp() {
            return Err(unusable("is not one"));
        }
        certificate
            .verify_signed_by(issuer.public_key())
            .map_err(|_| unusable("its issuer has not signed"))?;
        Ok(certificate)
    }

    /// Makes one, unless another signer does. Answers when to look again.
    async fn renew(&self, key: &PublicKey) -> Outcome<Duration> {
        let store = &self.ca.store;
        let name = format!("responder/{}", self.entry.id);
        if !matches!(store.claim_lease(&name, LEASE).await?, LeaseOutcome::Held { .. }) {
            return Ok(RETRY);
        }
        let made = {
            let making = self.renew_alone(key);
            tokio::pin!(making);
            loop {
                tokio::select! {
                    made = &mut making => break made,
                    () = tokio::time::sleep(LEASE / 3) => drop(store.claim_lease(&name, LEASE).await),
                }
            }
        };
        store.claim_lease(&name, Duration::ZERO).await?;
        made
    }

    async fn renew_alone(&self, key: &PublicKey) -> Outcome<Duration> {
        let now = self.ca.now()?;
        // Another signer may have had the lease since the last look.
        let found = self.find(key, now).await?;
        if !self.is_due(found.best.as_deref(), now) {
            *self.current.write() = found.best;
            return Ok(ROUND);
        }
        // Each try would be an intent: none is made that cannot be signed. The token's health says why.
        if !matches!(self.ca.doors.issuer(&self.entry.id)?.health(), KeyHealth::Ready(_)) {
            return Ok(RETRY);
        }
        let intent = match found.open {
            Some(open) => {
                let is_own = open.lease.is_some_and(|lease| lease.owner == self.ca.info.incarnation);
                // Another's is taken over when its lease has run out.
                match if is_own { self.ca.journal.adopt(open)? } else { None } {
                    Some(intent) => intent,
                    None => return Ok(RETRY),
                }
            }
            None => {
                let draft = self.draft(key, now)?;
                match self.ca.journal.commit(draft).await? {
                    Commit::Committed(intent) => intent,
                    Commit::KeyBlocked | Commit::KeyOfAccount => {
                        return Err(Failure::ResponderBlocked { issuer: self.entry.id.clone() });
                    }
                    _ => return Err(Failure::Contended),
                }
            }
        };
        match self.ca.sign_and_record(intent).await? {
            Record::Issued(row) => {
                let certificate = self.certificate(&row, key)?;
                let (issuer, serial) = (&self.entry.id, row.serial);
                tracing::info!(issuer, %serial, not_after = %certificate.not_after(), "responder.renewed");
                *self.current.write() = Some(Arc::new(certificate));
                Ok(ROUND)
            }
            Record::Abandoned => Err(Failure::Contended),
        }
    }

    /// The bytes, and what the journal says of them.
    fn draft(&self, key: &PublicKey, now: Timestamp) -> Outcome<CertificateDraft> {
        let issuer = &self.entry.issuer;
        let serial = Serial::from_random(self.ca.random.bytes()?);
        let validity = Validity {
            not_before: now.minus(BACKDATED).max(issuer.certificate().not_before()),
            // The last second is in it.
            not_after: now
                .plus(self.ocsp.certificate_lifetime)
                .minus(Period::from_seconds(1))
                .min(issuer.certificate().not_after()),
        };
        let common_name: String = format!("OCSP responder {}", self.entry.id).chars().take(64).collect();
        let request = ResponderRequest { serial, common_name: &common_name, public_key: key, validity };
        let unmakeable = |detail: String| Failure::Unmakeable { detail };
        let tbs = tbs::responder(issuer, request).map_err(|error| unmakeable(error.to_string()))?;
        let expected = Expected { serial, names: None, public_key: key, validity, shard: None };
        let context = LintContext::new(Subject::Responder, Some(issuer), now).expecting(expected);
        let findings = lint::check(tbs.as_bytes(), &context);
        if lint::stops(&findings) {
            let said: Vec<_> = findings.iter().map(|found| found.lint).collect();
            return Err(unmakeable(format!("responder's certificate: {}", said.join(", "))));
        }
        let actor = format!("signer/{}", self.ca.node);
        Ok(CertificateDraft::from(OwnCertificate {
            kind: JournalKind::Responder,
            serial,
            issuer: &self.entry.id,
            profile: PROFILE,
            shard: shard_of(&serial, self.entry.shards),
            public_key: key,
            csr_sha256: None,
            validity,
            tbs: tbs.as_bytes().to_vec(),
            at: now,
            actor: &actor,
            names: Vec::new(),
            lints: Some(lint_record(PROFILE, &findings)),
            account_key: thumbprint_of(key),
        }))
    }

    /// How long the certificate lasts; an alarm, once, when the responder does not answer as it should.
    fn show(&mut self, now: Timestamp, is_blocked: bool) {
        let current = self.current.read().clone();
        let left = current.as_ref().map_or(Period::from_seconds(0), |current| current.not_after().since(now));
        metrics::gauge!("chancery_responder_certificate_seconds", "issuer" => self.entry.id.clone())
            .set(left.seconds() as f64);
        let is_late = self.is_due(current.as_deref(), now) && left < self.ocsp.validity;
        let trouble = match (is_blocked, is_late) {
            (true, _) => Some(Trouble::Blocked),
            (false, true) => Some(Trouble::Late),
            (false, false) => None,
        };
        let before = std::mem::replace(&mut self.trouble, trouble);
        let issuer = self.entry.id.clone();
        match trouble.filter(|_| trouble != before) {
            Some(Trouble::Blocked) => self.ca.alarm(&Failure::ResponderBlocked { issuer }),
            Some(Trouble::Late) => {
                self.ca.alarm(&Failure::ResponderLate { issuer, seconds: left.seconds() });
            }
            None => {}
        }
    }

    fn report(&self, failure: &Failure) {
        metrics::counter!("chancery_responder_failures_total").increment(1);
        tracing::warn!(issuer = self.entry.id, error = %failure, "responder.failed");
        if failure.class() == pki::ErrorClass::Fatal {
            self.ca.alarm(failure);
        }
    }
}

/// Something was revoked of this issuer, or may have been: perhaps the responder's certificate.
async fn revoked(changes: &mut Receiver<Change>, of: &str) {
    loop {
        match changes.recv().await {
            Ok(Change::Shard { issuer, .. } | Change::Revoked { issuer, .. }) if *issuer == *of => return,
            Ok(Change::Missed) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            // The bus lives as long as the CA; if it were gone, the timer would still do.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}
