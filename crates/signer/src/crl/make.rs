//! One CRL: snapshot, bytes, journal, signature, publication.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca_store::{BeginCrl, CrlDraft, CrlKey, CrlRow, CrlShard, PublishCrl, PublishOutcome};
use pki::Timestamp;
use tokio::time::Instant;

use super::due::{Kind, expired_before};
use super::previous::Previous;
use super::spool::{self, Finished, Written};
use super::{CrlMaker, measure};
use crate::audit::Event;
use crate::events::Change;
use crate::publication::Object;
use crate::refusal::{Failure, Outcome};
use crate::registry::IssuerEntry;

/// The ceremony's first CRL has this number.
const CEREMONY_NUMBER: u64 = 1;
/// Other signers may be faster this many times.
const TRIES: usize = 3;
/// thisUpdate has whole seconds: this often it is asked whether the next one has come.
const SECOND_LOOK: Duration = Duration::from_millis(10);

/// A CRL to be made.
pub(super) struct Order<'a> {
    pub(super) entry: &'a Arc<IssuerEntry>,
    pub(super) shard: CrlShard,
    pub(super) kind: Kind,
    /// Nothing follows it.
    pub(super) last_of_all: bool,
}

/// Whether a published CRL is at hand.
pub(super) enum TakenUp {
    /// Nothing had to be made.
    WasAtHand,
    /// It was made again, which took so long.
    Made(Duration),
    /// What the journal gives is not it: a new one must be made.
    Not,
}

impl CrlMaker {
    /// Journals, signs, verifies, publishes. `last`: thisUpdate of the CRL of this kind that is published. Answers how long
    /// it took.
    pub(super) async fn make(&self, order: &Order<'_>, mut last: Option<Timestamp>) -> Outcome<Duration> {
        for _ in 0..TRIES {
            // Waits before the snapshot, so that what is revoked in between is in it.
            self.after(last).await?;
            let started = Instant::now();
            let draft = self.begin(&order.shard).await?;
            if order.is_done(&draft, last) {
                // Another signer made it since this one looked.
                return Ok(started.elapsed());
            }
            let (row, written) = self.draft(order, draft).await?;
            match self.finish(order, row.clone(), written).await? {
                PublishOutcome::Published => {
                    measure::made(order.kind, started.elapsed());
                    return Ok(started.elapsed());
                }
                // Another signer was faster. Its CRL may lack what this one has: they may be of the same second.
                PublishOutcome::Superseded(current) if current.revision < row.revision => {
                    last = Some(current.this_update);
                }
                PublishOutcome::Superseded(_) | PublishOutcome::Unknown => return Ok(started.elapsed()),
            }
        }
        Err(Failure::Contended)
    }

    /// A number and a snapshot.
    async fn begin(&self, shard: &CrlShard) -> Outcome<CrlDraft> {
        loop {
            fail::fail_point!("signer.crl.before-begin");
            let draft = self.ca.store.begin_crl(BeginCrl { shard: shard.clone() }).await?;
            fail::fail_point!("signer.crl.after-begin");
            if draft.number > CEREMONY_NUMBER {
                return Ok(draft);
            }
        }
    }

    /// The bytes of a snapshot.
    async fn draft(&self, order: &Order<'_>, draft: CrlDraft) -> Outcome<(CrlRow, Written)> {
        let entry = order.entry;
        let base = match order.kind {
            Kind::Complete => None,
            // It was there when this one was ordered, and none is ever taken back.
            Kind::Delta => Some(draft.published.as_ref().ok_or(Failure::Contended)?),
        };
        let before = draft.published.iter().chain(&draft.published_delta);
        let this_update = self.after(before.map(|row| row.this_update).max()).await?;
        let next_update = match order.last_of_all {
            true => entry.issuer.certificate().not_after(),
            false => this_update.plus(order.kind.lifetime(entry)),
        };
        let complete = draft.published.as_ref().map(|row| row.this_update);
        let mut row = CrlRow {
            key: CrlKey { shard: draft.shard.clone(), number: draft.number },
            revision: draft.revision,
            base: base.map(|base| base.key.number),
            base_revision: base.map(|base| base.revision),
            this_update,
            next_update,
            expired_before: expired_before(complete, this_update, entry),
            entries: 0,
            tbs_sha256: [0; 32],
            signature: None,
        };
        let written = self.write(entry, &row).await?;
        row.entries = written.tbs.entries;
        let rows = draft.published.iter().chain(&draft.published_delta);
        let previous_number = rows.map(|row| row.key.number).max();
        let written = self.lint(entry, &row, previous_number, written).await?;
        Ok((row, written))
    }

    /// Journal, signature, file, publication.
    async fn finish(&self, order: &Order<'_>, row: CrlRow, written: Written) -> Outcome<PublishOutcome> {
        let entry = order.entry;
        let path = order.kind.path(entry, row.key.shard.shard);
        let (number, entries) = (row.key.number, row.entries);
        let event = Event::CrlIntended { path: &path, number, entries };
        let Written { draft, tbs, digester, listed } = written;
        let row = CrlRow { tbs_sha256: digester.sha256(), ..row };
        fail::fail_point!("signer.crl.before-journal");
        let journaled =
            self.ca.journal.commit_crl(row.clone(), digester, vec![event.at(row.this_update)]).await?;
        fail::fail_point!("signer.crl.after-journal");
        let signature = self.ca.doors.issuer(&entry.id)?.sign(&journaled).await?;
        fail::fail_point!("signer.crl.after-sign");
        // Never published without having been verified with the issuer's certificate.
        let finished = self.spool.finish(entry, &row.key, (draft, &tbs), &signature).await?;
        let previous = Previous::new(&row, &listed, (&tbs, &signature), finished.file.clone());
        let event = Event::CrlPublished { path: &path, number };
        let publish = PublishCrl { key: row.key.clone(), signature, audit: vec![event.at(row.this_update)] };
        fail::fail_point!("signer.crl.before-publish");
        let outcome = self.ca.store.publish_crl(publish).await?;
        fail::fail_point!("signer.crl.after-publish");
        if outcome == PublishOutcome::Published {
            tracing::info!(path, number, entries, "crl.published");
            self.show(entry, &row, finished, previous).await;
        } else {
            spool::remove(&finished.file).await;
        }
        Ok(outcome)
    }

    /// A time after the last CRL's: thisUpdate rises with each (DESIGN §2.5), in whole seconds.
    async fn after(&self, previous: Option<Timestamp>) -> Outcome<Timestamp> {
        loop {
            let now = self.ca.now()?;
            match previous {
                Some(previous) if now <= previous => tokio::time::sleep(SECOND_LOOK).await,
                _ => return Ok(now),
            }
        }
    }

    /// Takes up a CRL that is published and not yet at hand: another signer made it, or this one before it was started
    /// again.
    pub(super) async fn take_up(&self, entry: &Arc<IssuerEntry>, row: &CrlRow) -> Outcome<TakenUp> {
        let path = Kind::of(row).path(entry, row.key.shard.shard);
        if self.objects.revision(&path) >= Some(row.key.number) {
            return Ok(TakenUp::WasAtHand);
        }
        let Some(signature) = row.signature.clone() else { return Ok(TakenUp::Not) };
        if let Some(finished) = self.spool.take_up(entry, row).await? {
            self.show(entry, row, finished, None).await;
            return Ok(TakenUp::WasAtHand);
        }
        let started = Instant::now();
        let mut written = self.write(entry, row).await?;
        if written.digester.sha256() != row.tbs_sha256 && self.previous.forget(&row.key.shard) {
            // What this process remembers is not what is in the database: that counts.
            written = self.write(entry, row).await?;
        }
        if written.digester.sha256() != row.tbs_sha256 {
            // Its URL or issuer has changed since, or the database was.
            tracing::warn!(issuer = entry.id, number = row.key.number, "crl.cannot_be_made_again");
            return Ok(TakenUp::Not);
        }
        let Written { draft, tbs, listed, digester: _ } = written;
        match self.spool.finish(entry, &row.key, (draft, &tbs), &signature).await {
            Ok(finished) => {
                let previous = Previous::new(row, &listed, (&tbs, &signature), finished.file.clone());
                self.show(entry, row, finished, previous).await;
                Ok(TakenUp::Made(started.elapsed()))
            }
            // A signature in the database that is not the issuer's.
            Err(failure @ Failure::Unmakeable { .. }) => {
                self.ca.alarm(&failure);
                Ok(TakenUp::Not)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Hands a published CRL to the status nodes, and keeps it for the next one.
    async fn show(&self, entry: &IssuerEntry, row: &CrlRow, finished: Finished, previous: Option<Previous>) {
        match previous {
            Some(previous) => self.previous.keep(previous),
            // The one before it goes.
            None if row.base.is_none() => drop(self.previous.forget(&row.key.shard)),
            None => {}
        }
        let path = Kind::of(row).path(entry, row.key.shard.shard);
        let file = finished.file.clone();
        let times = (row.this_update, row.next_update);
        let object = Object::crl(row.key.number, times, entry.issuer.certificate(), finished);
        let older: Option<PathBuf> = self.objects.publish(&path, object);
        self.ca.events.announce(Change::Object { path: Arc::from(path.as_str()) });
        if let Some(older) = older.filter(|older| *older != file) {
            spool::remove(&older).await;
        }
    }
}

impl Order<'_> {
    /// Whether the one that is published since is as good.
    fn is_done(&self, draft: &CrlDraft, last: Option<Timestamp>) -> bool {
        let Some(made) = self.kind.drafted_after(draft) else { return false };
        let base = draft.published.as_ref().map(|row| row.key.number);
        Some(made.this_update) > last
            && made.revision >= draft.revision
            && (self.kind == Kind::Complete || made.base == base)
    }
}
