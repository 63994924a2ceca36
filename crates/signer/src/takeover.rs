//! Intents that nobody works on any more: their process died, or their token or database was away too long.
//!
//! Each is verified, and signed again from the same bytes; one that cannot be signed any more is given up, which frees
//! its order. A row whose MAC is wrong is never signed: it is reported and left as it is.

use ca_store::JournalEntry;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use pki::{ErrorClass, Period, Serial, Timestamp};
use std::collections::BTreeSet;

use crate::audit::Event;
use crate::ca::Ca;
use crate::journal::{CertificateIntent, Journaled, Record};
use crate::refusal::{Failure, Outcome};

/// Taken over at once; more are taken in the next round.
const BATCH: u32 = 200;
/// Signed at once.
const CONCURRENCY: usize = 16;
/// An intent is given up after this time: BR §7.1.2.7 wants notBefore within 48 hours of the signature, and a client
/// that has waited for a day is served better by a certificate that is valid for its whole time.
const GIVE_UP_AFTER: Period = Period::from_hours(24);

/// What a round has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Takeover {
    /// Intents that are certificates now.
    pub signed: usize,
    /// Intents that were given up.
    pub abandoned: usize,
    /// Rows that are not what a signer wrote.
    pub tampered: usize,
    /// Intents that stay for the next round.
    pub left: usize,
}

/// Rows that an alarm was given for.
#[derive(Debug, Default)]
pub(crate) struct Reported(Mutex<BTreeSet<Serial>>);

enum Done {
    Signed,
    Abandoned,
    Tampered,
    Left,
    Nothing,
}

impl Ca {
    /// One round of takeover.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn take_over(&self) -> Outcome<Takeover> {
        let orphans = self.journal.claim_orphans(BATCH).await?;
        if !orphans.is_empty() {
            fail::fail_point!("signer.takeover.after-claim");
        }
        let mut done =
            stream::iter(orphans).map(|entry| self.take_over_one(entry)).buffer_unordered(CONCURRENCY);
        let mut total = Takeover::default();
        while let Some(one) = done.next().await {
            match one {
                Done::Signed => total.signed += 1,
                Done::Abandoned => total.abandoned += 1,
                Done::Tampered => total.tampered += 1,
                Done::Left => total.left += 1,
                Done::Nothing => {}
            }
        }
        if total != Takeover::default() {
            tracing::info!(?total, "takeover.round");
        }
        Ok(total)
    }

    async fn take_over_one(&self, entry: JournalEntry) -> Done {
        let serial = entry.row.unverified().serial;
        let intent = match self.journal.adopt(entry) {
            Ok(Some(intent)) => intent,
            Ok(None) => return Done::Nothing,
            Err(failure) => {
                self.report_tampered(serial, &failure).await;
                return Done::Tampered;
            }
        };
        match self.finish_orphan(intent).await {
            Ok(done) => done,
            Err(failure) => {
                tracing::warn!(%serial, error = %failure, "takeover.failed");
                Done::Left
            }
        }
    }

    async fn finish_orphan(&self, intent: Journaled<CertificateIntent>) -> Outcome<Done> {
        let now = self.now()?;
        let serial = intent.intent().row().serial;
        if let Some(why) = self.beyond_hope(&intent, now) {
            let event = Event::CertificateAbandoned { serial, why };
            self.journal.abandon(intent, now, vec![event.at(now)]).await?;
            return Ok(Done::Abandoned);
        }
        let done = match self.sign_and_record(intent).await? {
            Record::Issued(_) => Done::Signed,
            Record::Abandoned => return Ok(Done::Nothing),
        };
        let event = Event::CertificateTakenOver { serial };
        self.store.append_audit(vec![event.at(now)], Vec::new()).await?;
        Ok(done)
    }

    /// Why an intent is not worth another try.
    fn beyond_hope(&self, intent: &Journaled<CertificateIntent>, now: Timestamp) -> Option<&'static str> {
        let row = intent.intent().row();
        if now.since(row.created_at) > GIVE_UP_AFTER {
            return Some("too old");
        }
        let issuer_is_gone =
            row.issuer != crate::doors::NODE_CA && self.registry.issuer(&row.issuer).is_none();
        issuer_is_gone.then_some("its issuer is not configured any more")
    }

    async fn report_tampered(&self, serial: Serial, failure: &Failure) {
        if !self.reported.0.lock().insert(serial) {
            return;
        }
        self.alarm(failure);
        // What cannot be written now is written with the next batch.
        if let Err(error) = self.flush_refusals().await {
            tracing::warn!(%serial, class = ErrorClass::as_str(error.class()), "takeover.report_failed");
        }
    }
}
