//! One CRL: snapshot, bytes, journal, signature, publication.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca_store::{BeginCrl, CrlDraft, CrlEntries, CrlKey, CrlRow, CrlShard, PublishCrl, PublishOutcome};
use pki::crl::{CrlParameters, CrlScope, CrlTotals, CrlWriter, Entry};
use pki::{Issuer, Serial, SignatureAlgorithm, Timestamp, lint};
use tokio::time::Instant;

use super::CrlMaker;
use super::spool::{self, Finished, Written, blocking};
use crate::audit::Event;
use crate::events::Change;
use crate::publication::Object;
use crate::refusal::{Failure, Outcome};
use crate::registry::IssuerEntry;

/// Entries are read in pieces of this many.
const PIECE: u32 = 4096;
/// Keys that sign messages take the whole list into the token's session: more than this would be refused there.
const MESSAGE_CAP: u64 = 4 << 20;
/// Lists up to this length are linted whole: some 400,000 entries.
const LINT_CAP: u64 = 16 << 20;
/// The ceremony's first CRL has this number.
const CEREMONY_NUMBER: u64 = 1;
/// Other signers may be faster this many times.
const TRIES: usize = 3;
/// thisUpdate has whole seconds: this often it is asked whether the next one has come.
const SECOND_LOOK: Duration = Duration::from_millis(50);

impl CrlMaker {
    /// Journals, signs, verifies, publishes. `last`: thisUpdate of the CRL that is published. Answers how long it took.
    pub(super) async fn make(
        &self,
        entry: &Arc<IssuerEntry>,
        shard: &CrlShard,
        mut last: Option<Timestamp>,
    ) -> Outcome<Duration> {
        for _ in 0..TRIES {
            // Waits before the snapshot, so that what is revoked in between is in it.
            self.after(last).await?;
            let started = Instant::now();
            let draft = self.begin(shard).await?;
            if draft
                .published
                .as_ref()
                .is_some_and(|made| Some(made.this_update) > last && made.revision >= draft.revision)
            {
                // Another signer made it since this one looked.
                return Ok(started.elapsed());
            }
            let (row, written) = self.draft(entry, draft).await?;
            match self.finish(entry, row.clone(), written).await? {
                PublishOutcome::Published => {
                    metrics::histogram!("chancery_crl_build_seconds").record(started.elapsed().as_secs_f64());
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
    async fn draft(&self, entry: &Arc<IssuerEntry>, draft: CrlDraft) -> Outcome<(CrlRow, Written)> {
        let previous = draft.published.as_ref().map(|row| row.this_update);
        let this_update = self.after(previous).await?;
        let mut row = CrlRow {
            key: CrlKey { shard: draft.shard.clone(), number: draft.number },
            revision: draft.revision,
            base: None,
            base_revision: None,
            this_update,
            next_update: this_update.plus(entry.crl_lifetime),
            expired_before: expired_before(previous, this_update, entry),
            entries: 0,
            tbs_sha256: [0; 32],
            signature: None,
        };
        let written = self.write(entry, &row).await?;
        row.entries = written.tbs.entries;
        self.lint(entry, &row, draft.published.as_ref().map(|row| row.key.number), &written).await?;
        Ok((row, written))
    }

    /// An independent parse of the very bytes, before they are journaled. Of a list that is too long to be held in memory: of
    /// one that is the same but for its entries, which are all of one kind.
    async fn lint(
        &self,
        entry: &Arc<IssuerEntry>,
        row: &CrlRow,
        previous_number: Option<u64>,
        written: &Written,
    ) -> Outcome<()> {
        let (entry, row, len) = (Arc::clone(entry), row.clone(), written.tbs.len);
        let file = written.file.clone();
        blocking(move || {
            let bytes = if len <= LINT_CAP {
                spool::read(&file)?
            } else {
                let totals = CrlTotals::default();
                let writer = CrlWriter::start(&parameters(&entry.issuer, &row), totals, Vec::new());
                writer.and_then(CrlWriter::finish).map_err(unmakeable)?.0
            };
            let url = entry.issuer.crl_url(row.key.shard.shard);
            let delta_url = entry.issuer.delta_crl_url(row.key.shard.shard);
            let findings = lint::check_crl(
                &bytes,
                &lint::CrlLintContext {
                    issuer: entry.issuer.certificate(),
                    signed_at: row.this_update,
                    url: url.as_deref(),
                    delta_url: delta_url.as_deref(),
                    previous_number,
                    publicly_trusted: false,
                },
            );
            if lint::stops(&findings) {
                let said: Vec<_> = findings.iter().map(|found| found.lint).collect();
                return Err(Failure::Unmakeable { detail: format!("CRL: {}", said.join(", ")) });
            }
            Ok(())
        })
        .await
    }

    /// Journal, signature, file, publication.
    async fn finish(
        &self,
        entry: &Arc<IssuerEntry>,
        row: CrlRow,
        written: Written,
    ) -> Outcome<PublishOutcome> {
        let path = entry.crl_path(row.key.shard.shard);
        let (number, entries) = (row.key.number, row.entries);
        let event = Event::CrlIntended { path: &path, number, entries };
        let Written { file: tbs_file, tbs, digester, sha256: _ } = written;
        fail::fail_point!("signer.crl.before-journal");
        let journaled =
            self.ca.journal.commit_crl(row.clone(), digester, vec![event.at(row.this_update)]).await?;
        fail::fail_point!("signer.crl.after-journal");
        let signature = self.ca.doors.issuer(&entry.id)?.sign(&journaled).await?;
        fail::fail_point!("signer.crl.after-sign");
        // Never published without having been verified with the issuer's certificate.
        let finished = self.spool.finish(entry, &row.key, (tbs_file, tbs), signature.clone()).await?;
        let event = Event::CrlPublished { path: &path, number };
        let publish = PublishCrl { key: row.key.clone(), signature, audit: vec![event.at(row.this_update)] };
        fail::fail_point!("signer.crl.before-publish");
        let outcome = self.ca.store.publish_crl(publish).await?;
        fail::fail_point!("signer.crl.after-publish");
        if outcome == PublishOutcome::Published {
            tracing::info!(path, number, entries, "crl.published");
            self.show(entry, &row, finished).await;
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
    /// again. Answers whether it is at hand now; if not, a new one must be made.
    pub(super) async fn take_up(&self, entry: &Arc<IssuerEntry>, row: &CrlRow) -> Outcome<bool> {
        if self.objects.revision(&entry.crl_path(row.key.shard.shard)) >= Some(row.key.number) {
            return Ok(true);
        }
        let Some(signature) = row.signature.clone() else { return Ok(false) };
        if let Some(finished) = self.spool.take_up(entry, row).await? {
            self.show(entry, row, finished).await;
            return Ok(true);
        }
        let written = self.write(entry, row).await?;
        if written.sha256 != row.tbs_sha256 {
            spool::remove(&written.file).await;
            // Its URL or issuer has changed since, or the database was.
            tracing::warn!(issuer = entry.id, number = row.key.number, "crl.cannot_be_made_again");
            return Ok(false);
        }
        match self.spool.finish(entry, &row.key, (written.file, written.tbs), signature).await {
            Ok(finished) => {
                self.show(entry, row, finished).await;
                Ok(true)
            }
            // A signature in the database that is not the issuer's.
            Err(failure @ Failure::Unmakeable { .. }) => {
                self.ca.alarm(&failure);
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The to-be-signed bytes, into a file: entries are read twice, so that memory stays flat.
    async fn write(&self, entry: &Arc<IssuerEntry>, row: &CrlRow) -> Outcome<Written> {
        let mut totals = CrlTotals::default();
        let mut pieces = Pieces::of(row);
        while let Some(piece) = self.next(&mut pieces).await? {
            piece.iter().for_each(|one| totals.add(one));
        }
        let algorithm = entry.issuer.signature();
        let cap = if algorithm == SignatureAlgorithm::Ed25519 { MESSAGE_CAP } else { u64::MAX };
        let sink = self.spool.sink(&row.key, algorithm, cap).await?;
        let mut writer =
            CrlWriter::start(&parameters(&entry.issuer, row), totals, sink).map_err(unmakeable)?;
        let mut pieces = Pieces::of(row);
        while let Some(piece) = self.next(&mut pieces).await? {
            writer = blocking(move || {
                piece.iter().try_for_each(|one| writer.entry(one)).map_err(unmakeable)?;
                Ok(writer)
            })
            .await?;
        }
        blocking(move || {
            let (sink, tbs) = writer.finish().map_err(unmakeable)?;
            sink.close(tbs)
        })
        .await
    }

    async fn next(&self, pieces: &mut Pieces<'_>) -> Outcome<Option<Vec<Entry>>> {
        let row = pieces.row;
        if pieces.ended {
            return Ok(None);
        }
        let query = CrlEntries {
            shard: row.key.shard.clone(),
            after_revision: row.base_revision.unwrap_or(0),
            revision: row.revision,
            expired_before: row.expired_before,
            after: pieces.after,
            limit: PIECE,
        };
        let entries = self.ca.store.crl_entries(&query).await?;
        pieces.after = entries.last().map(|last| last.serial);
        pieces.ended = entries.len() < PIECE as usize;
        let entry = |one: ca_store::CrlEntry| Entry {
            serial: one.serial,
            // Another signer's clock may have been a little ahead when it revoked.
            revoked_at: one.revoked_at.min(row.this_update),
            reason: one.reason,
        };
        Ok(Some(entries.into_iter().map(entry).collect()))
    }

    /// Hands a published CRL to the status nodes.
    async fn show(&self, entry: &IssuerEntry, row: &CrlRow, finished: Finished) {
        let path = entry.crl_path(row.key.shard.shard);
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

/// A reading of a snapshot's entries, piece by piece.
struct Pieces<'a> {
    row: &'a CrlRow,
    after: Option<Serial>,
    ended: bool,
}

impl<'a> Pieces<'a> {
    const fn of(row: &'a CrlRow) -> Self {
        Self { row, after: None, ended: false }
    }
}

/// Certificates that ended before this are left out. An entry stays until it was in a *scheduled* CRL after its
/// certificate's end (BR §7.2): that is not the next one, which an event may make a second later, but comes within two
/// intervals, since an event sets the timer back by one at most.
fn expired_before(previous: Option<Timestamp>, this_update: Timestamp, entry: &IssuerEntry) -> Timestamp {
    let scheduled = this_update.minus(entry.crl_interval).minus(entry.crl_interval);
    previous.unwrap_or(Timestamp::from_unix(0)).min(scheduled)
}

fn parameters<'a>(issuer: &'a Issuer, row: &CrlRow) -> CrlParameters<'a> {
    CrlParameters {
        issuer,
        number: row.key.number,
        this_update: row.this_update,
        next_update: row.next_update,
        scope: CrlScope::Shard(row.key.shard.shard),
        delta_base: row.base,
    }
}

fn unmakeable(error: pki::crl::CrlError) -> Failure {
    match error {
        pki::crl::CrlError::Io(error) if error.kind() != std::io::ErrorKind::FileTooLarge => {
            Failure::Spool { path: "crl".to_owned(), detail: error.to_string() }
        }
        error => Failure::Unmakeable { detail: error.to_string() },
    }
}
