//! CRLs (DESIGN §6): made of a snapshot of the journal's revocations, journaled by digest, signed, verified, published by
//! compare-and-swap. By event within a second, by timer otherwise.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use ca_store::{
    BeginCrl, CrlEntries, CrlKey, CrlRow, CrlShard, CrlShardRow, LeaseOutcome, PublishCrl, PublishOutcome,
};
use pki::crl::{Crl, CrlParameters, CrlScope, CrlTotals, CrlWriter, Entry};
use pki::{Issuer, Serial, SignatureAlgorithm, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::audit::Event;
use crate::ca::Ca;
use crate::events::Change;
use crate::journal::CrlDigester;
use crate::publication::{Object, Objects};
use crate::refusal::{Failure, Outcome};
use crate::registry::IssuerEntry;

/// The timers are looked at, and other signers' work is seen, this often.
const ROUND: Duration = Duration::from_secs(5);
/// Building a CRL is one signer's alone for so long; a second one at the same time would be work for nothing, no harm.
const BUILD_LEASE: Duration = Duration::from_secs(60);
/// Entries are read in pieces of this many.
const PIECE: u32 = 4096;
/// Keys that sign messages take the whole list into the token's session: more than this would be refused there.
const MESSAGE_CAP: u64 = 4 << 20;
/// The ceremony's first CRL has this number.
const CEREMONY_NUMBER: u64 = 1;

/// Makes CRLs and keeps the published ones at hand.
#[derive(Debug)]
pub struct CrlMaker {
    ca: Arc<Ca>,
    objects: Objects,
    spool: PathBuf,
}

impl CrlMaker {
    /// `spool`: a folder for finished CRLs. Losing it loses nothing: they are made again from the journal.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(ca: Arc<Ca>, objects: Objects, spool: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&spool)?;
        Ok(Self { ca, objects, spool })
    }

    /// Keeps every shard's CRL current until the signer drains.
    ///
    /// # Errors
    /// Never: what fails is reported and tried again.
    pub async fn keep_current(self, draining: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut changes = self.ca.events.subscribe();
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut wanted = BTreeSet::new();
            tokio::select! {
                () = draining.cancelled() => return Ok(()),
                _ = round.tick() => {}
                change = changes.recv() => match change {
                    Ok(Change::Shard { issuer, shard }) => {
                        wanted.insert(CrlShard { issuer: issuer.to_string(), shard });
                    }
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
            }
            // Whatever else was revoked meanwhile goes into the same CRL.
            while let Ok(change) = changes.try_recv() {
                if let Change::Shard { issuer, shard } = change {
                    wanted.insert(CrlShard { issuer: issuer.to_string(), shard });
                }
            }
            tokio::select! {
                () = draining.cancelled() => return Ok(()),
                () = self.round(&wanted) => {}
            }
        }
    }

    /// One look at every shard: makes what is due, and takes up what other signers made.
    async fn round(&self, wanted: &BTreeSet<CrlShard>) {
        let rows = match self.ca.store.crl_shards(None).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "crl.state_unknown");
                return;
            }
        };
        for entry in self.ca.registry.issuers() {
            for shard in 0..entry.shards {
                let key = CrlShard { issuer: entry.id.clone(), shard };
                let row = rows.iter().find(|row| row.shard == key);
                if let Err(failure) = self.look_after(entry, &key, row, wanted.contains(&key)).await {
                    metrics::counter!("chancery_crl_failures_total").increment(1);
                    tracing::warn!(issuer = key.issuer, shard, error = %failure, "crl.failed");
                }
            }
        }
    }

    async fn look_after(
        &self,
        entry: &IssuerEntry,
        shard: &CrlShard,
        row: Option<&CrlShardRow>,
        wanted: bool,
    ) -> Outcome<()> {
        let published = row.and_then(|row| row.published.as_ref());
        if let Some(published) = published {
            self.take_up(entry, published).await?;
        }
        let now = self.ca.now()?;
        if !is_due(entry, row, now) {
            return Ok(());
        }
        // An event is this signer's own; what a timer finds may be another's work already.
        let name = format!("crl/{}/{}", shard.issuer, shard.shard);
        let lease = self.ca.store.claim_lease(&name, BUILD_LEASE).await?;
        if !wanted && !matches!(lease, LeaseOutcome::Held { .. }) {
            return Ok(());
        }
        let made = self.make(entry, shard).await;
        // Freed at once: the next revocation may be another signer's.
        self.ca.store.claim_lease(&name, Duration::ZERO).await?;
        made
    }

    /// Journal, sign, verify, publish.
    async fn make(&self, entry: &IssuerEntry, shard: &CrlShard) -> Outcome<()> {
        let started = tokio::time::Instant::now();
        let mut draft = self.ca.store.begin_crl(BeginCrl { shard: shard.clone() }).await?;
        while draft.number <= CEREMONY_NUMBER {
            draft = self.ca.store.begin_crl(BeginCrl { shard: shard.clone() }).await?;
        }
        let previous = draft.published.as_ref().map(|row| row.this_update);
        let this_update = self.after(previous).await?;
        let path = entry.crl_path(shard.shard);
        let mut row = CrlRow {
            key: CrlKey { shard: shard.clone(), number: draft.number },
            revision: draft.revision,
            base: None,
            base_revision: None,
            this_update,
            next_update: this_update.plus(entry.crl_lifetime),
            // An entry stays until one CRL after its certificate's end (BR §7.2).
            expired_before: previous.unwrap_or(Timestamp::from_unix(0)),
            entries: 0,
            tbs_sha256: [0; 32],
            signature: None,
        };
        let written = self.write(entry, &row).await?;
        row.entries = written.entries;
        let event = Event::CrlIntended { path: &path, number: draft.number, entries: row.entries };
        let journaled =
            self.ca.journal.commit_crl(row.clone(), written.digester, vec![event.at(this_update)]).await?;
        let signature = self.ca.doors.issuer(&entry.id)?.sign(&journaled).await?;
        let file = self.finish(entry, &row, &written.tbs, &signature).await?;
        let event = Event::CrlPublished { path: &path, number: draft.number };
        let publish = PublishCrl {
            key: row.key.clone(),
            signature: signature.clone(),
            audit: vec![event.at(this_update)],
        };
        match self.ca.store.publish_crl(publish).await? {
            PublishOutcome::Published => {
                metrics::histogram!("chancery_crl_build_seconds").record(started.elapsed().as_secs_f64());
                tracing::info!(path, number = draft.number, entries = row.entries, "crl.published");
                self.show(entry, &row, file).await
            }
            // Another signer was faster: its CRL has all that this one would have had.
            PublishOutcome::Superseded(_) | PublishOutcome::Unknown => {
                let _ = tokio::fs::remove_file(&file).await;
                Ok(())
            }
        }
    }

    /// A time after the last CRL's: thisUpdate rises with each (DESIGN §2.5), in whole seconds.
    async fn after(&self, previous: Option<Timestamp>) -> Outcome<Timestamp> {
        loop {
            let now = self.ca.now()?;
            match previous {
                Some(previous) if now <= previous => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => return Ok(now),
            }
        }
    }

    /// Takes up a CRL that is published and not yet at hand: another signer made it, or this one before it was started again.
    async fn take_up(&self, entry: &IssuerEntry, row: &CrlRow) -> Outcome<()> {
        if self.objects.revision(&entry.crl_path(row.key.shard.shard)) >= Some(row.key.number) {
            return Ok(());
        }
        let file = self.file_of(row);
        if file.exists() && self.is_sound(entry, row, &file).await {
            return self.show(entry, row, file).await;
        }
        let Some(signature) = &row.signature else { return Ok(()) };
        let written = self.write(entry, row).await?;
        if written.sha256 != row.tbs_sha256 {
            let detail = format!(
                "CRL {} of shard {} cannot be made again from its revision",
                row.key.number, row.key.shard.shard
            );
            return Err(Failure::Unreadable { table: "crls", detail });
        }
        let file = self.finish(entry, row, &written.tbs, signature).await?;
        self.show(entry, row, file).await
    }

    async fn is_sound(&self, entry: &IssuerEntry, row: &CrlRow, file: &Path) -> bool {
        let Ok(der) = tokio::fs::read(file).await else { return false };
        Crl::from_der(&der).is_ok_and(|crl| {
            crl.number() == row.key.number && crl.verify_issued_by(entry.issuer.certificate()).is_ok()
        })
    }

    /// The to-be-signed bytes, into a file.
    async fn write(&self, entry: &IssuerEntry, row: &CrlRow) -> Outcome<Written> {
        let mut totals = CrlTotals::default();
        let mut cursor = None;
        loop {
            let piece = self.piece(row, cursor).await?;
            piece.iter().for_each(|one| totals.add(one));
            match piece.last() {
                Some(last) if piece.len() == PIECE as usize => cursor = Some(last.serial),
                _ => break,
            }
        }
        let tbs = self.file_of(row).with_extension("tbs");
        let sink = Sink::create(&tbs, entry.issuer.signature()).map_err(|error| unwritable(&tbs, &error))?;
        let mut writer =
            CrlWriter::start(&parameters(&entry.issuer, row), totals, sink).map_err(unmakeable)?;
        cursor = None;
        loop {
            let piece = self.piece(row, cursor).await?;
            for one in &piece {
                writer.entry(one).map_err(unmakeable)?;
            }
            match piece.last() {
                Some(last) if piece.len() == PIECE as usize => cursor = Some(last.serial),
                _ => break,
            }
        }
        let (sink, finished) = writer.finish().map_err(unmakeable)?;
        if entry.issuer.signature() == SignatureAlgorithm::Ed25519 && finished.len > MESSAGE_CAP {
            let detail = format!(
                "{} octets are more than a key that signs messages takes; give the issuer more shards",
                finished.len
            );
            return Err(Failure::Unmakeable { detail });
        }
        let (digester, sha256) = sink.close().map_err(|error| unwritable(&tbs, &error))?;
        Ok(Written { tbs, digester, sha256, entries: finished.entries })
    }

    async fn piece(&self, row: &CrlRow, after: Option<Serial>) -> Outcome<Vec<Entry>> {
        let query = CrlEntries {
            shard: row.key.shard.clone(),
            after_revision: row.base_revision.unwrap_or(0),
            revision: row.revision,
            expired_before: row.expired_before,
            after,
            limit: PIECE,
        };
        let entries = self.ca.store.crl_entries(&query).await?;
        let limit = row.this_update;
        Ok(entries
            .into_iter()
            // Another signer's clock may have been a little ahead when it revoked.
            .map(|one| Entry {
                serial: one.serial,
                revoked_at: one.revoked_at.min(limit),
                reason: one.reason,
            })
            .collect())
    }

    /// The finished CRL in the spool, verified with the issuer's certificate.
    async fn finish(
        &self,
        entry: &IssuerEntry,
        row: &CrlRow,
        tbs: &Path,
        signature: &[u8],
    ) -> Outcome<PathBuf> {
        let file = self.file_of(row);
        let content = tokio::fs::read(tbs).await.map_err(|error| unwritable(tbs, &error))?;
        let der = pki::crl::assemble(&content, entry.issuer.signature(), signature);
        drop(content);
        let crl = Crl::from_der(&der).map_err(|error| Failure::Unmakeable { detail: error.to_string() })?;
        crl.verify_issued_by(entry.issuer.certificate()).map_err(|error| Failure::Unmakeable {
            detail: format!("the finished CRL does not verify: {error}"),
        })?;
        runtime::files::write_atomically(&file, &der, 0o644).map_err(|error| unwritable(&file, &error))?;
        let _ = tokio::fs::remove_file(tbs).await;
        Ok(file)
    }

    /// Hands a published CRL to the status nodes.
    async fn show(&self, entry: &IssuerEntry, row: &CrlRow, file: PathBuf) -> Outcome<()> {
        let path = entry.crl_path(row.key.shard.shard);
        let object = Object::crl(
            row.key.number,
            (row.this_update, row.next_update),
            entry.issuer.certificate(),
            file.clone(),
        )
        .map_err(|error| unwritable(&file, &error))?;
        let older = self.objects.publish(&path, object);
        self.ca.events.announce(Change::Object { path: Arc::from(path.as_str()) });
        if let Some(older) = older.filter(|older| *older != file) {
            let _ = tokio::fs::remove_file(older).await;
        }
        Ok(())
    }

    fn file_of(&self, row: &CrlRow) -> PathBuf {
        self.spool.join(format!("{}-{}-{}.crl", row.key.shard.issuer, row.key.shard.shard, row.key.number))
    }
}

/// Whether a shard needs a new CRL: none yet, revocations since, or time.
fn is_due(entry: &IssuerEntry, row: Option<&CrlShardRow>, now: Timestamp) -> bool {
    let Some((row, published)) = row.and_then(|row| Some((row, row.published.as_ref()?))) else {
        return true;
    };
    row.revision > published.revision || published.this_update.plus(entry.crl_interval) <= now
}

/// To-be-signed bytes in a file, and what was seen going by.
struct Written {
    tbs: PathBuf,
    digester: CrlDigester,
    sha256: [u8; 32],
    entries: u64,
}

/// Writes to the file and to the digests at once.
struct Sink {
    file: BufWriter<File>,
    digester: CrlDigester,
    sha256: digest::Context,
}

impl Sink {
    fn create(path: &Path, algorithm: SignatureAlgorithm) -> std::io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(File::create(path)?),
            digester: CrlDigester::new(algorithm),
            sha256: digest::Context::new(&digest::SHA256),
        })
    }

    fn close(mut self) -> std::io::Result<(CrlDigester, [u8; 32])> {
        self.file.flush()?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sha256.finish().as_ref());
        Ok((self.digester, sha256))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_all(bytes)?;
        self.digester.write_all(bytes)?;
        self.sha256.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
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
    Failure::Unmakeable { detail: error.to_string() }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Spool { path: path.display().to_string(), detail: error.to_string() }
}
