//! A complete CRL is the one before it with few changes: its entries are copied from that one's file. What is copied is
//! checked by the journal's digest, and every other signer makes the same octets from the journal alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use ca_store::{CrlRow, CrlShard, CrlSince, EPOCH_JUMP};
use parking_lot::Mutex;
use pki::crl::{CrlEdits, CrlError, CrlTbs};

use super::CrlMaker;
use super::pieces::Pieces;
use super::spool::{Listed, Listing, blocking};
use super::write::unmakeable;
use crate::refusal::Outcome;

/// If more entries than so many have left or were raised, all are read again.
const MOST_EDITS: u32 = 64 * 1024;
/// The file is read in pieces of this many octets.
const PIECE: usize = 256 * 1024;

/// The complete CRLs that this process wrote last.
#[derive(Debug, Default)]
pub(super) struct PreviousCrls(Mutex<BTreeMap<CrlShard, Previous>>);

/// A finished complete CRL, and where in its file the entries are.
#[derive(Debug, Clone)]
pub(super) struct Previous {
    row: CrlRow,
    file: PathBuf,
    tbs_at: u64,
    tbs_len: u64,
    entries_at: u64,
    entries_len: u64,
}

impl PreviousCrls {
    pub(super) fn keep(&self, previous: Previous) {
        self.0.lock().insert(previous.row.key.shard.clone(), previous);
    }

    /// Answers whether there was one.
    pub(super) fn forget(&self, shard: &CrlShard) -> bool {
        self.0.lock().remove(shard).is_some()
    }

    /// The one whose entries a CRL begins with.
    fn of(&self, row: &CrlRow) -> Option<Previous> {
        let previous = self.0.lock().get(&row.key.shard).cloned()?;
        let earlier = &previous.row;
        let follows = row.base.is_none()
            && row.revision >= earlier.revision
            && row.expired_before >= earlier.expired_before
            && row.this_update >= earlier.this_update
            // Of a database that went back to a backup, nothing from before it is believed.
            && row.revision / EPOCH_JUMP == earlier.revision / EPOCH_JUMP;
        follows.then_some(previous)
    }
}

impl Previous {
    /// None of a CRL whose entries the next one may have with other times, or that is a delta.
    pub(super) fn new(
        row: &CrlRow,
        listed: &Listed,
        (tbs, signature): (&CrlTbs, &[u8]),
        file: PathBuf,
    ) -> Option<Self> {
        if listed.clamped || row.base.is_some() {
            return None;
        }
        Some(Self {
            row: row.clone(),
            file,
            tbs_at: pki::crl::envelope(tbs.len, tbs.algorithm, signature).0.len() as u64,
            tbs_len: tbs.len,
            entries_at: tbs.entries_at,
            entries_len: listed.totals.octets(),
        })
    }

    fn since(&self, row: &CrlRow) -> CrlSince {
        CrlSince {
            earlier: self.row.key.clone(),
            earlier_tbs_sha256: self.row.tbs_sha256,
            earlier_revision: self.row.revision,
            earlier_expired_before: self.row.expired_before,
            revision: row.revision,
            expired_before: row.expired_before,
            limit: MOST_EDITS,
        }
    }

    /// Answers whether the file is what it was; if it is not, what was copied is worth nothing. Fails when it cannot be
    /// copied to its new place.
    fn copy_to(&self, listing: &mut Listing, edits: &mut CrlEdits) -> Outcome<bool> {
        let Ok(mut tbs) = Digested::open(&self.file, self.tbs_at, self.tbs_len) else { return Ok(false) };
        if io::copy(&mut (&mut tbs).take(self.entries_at), &mut io::sink()).is_err() {
            return Ok(false);
        }
        let mut entries = (&mut tbs).take(self.entries_len);
        let (mut piece, mut there) = (vec![0; PIECE], 0);
        loop {
            let Ok(read) = entries.read(piece.get_mut(there..).unwrap_or_default()) else { return Ok(false) };
            there = there.saturating_add(read);
            let copied = match listing.copy(piece.get(..there).unwrap_or_default(), edits) {
                Err(CrlError::Totals) => return Ok(false),
                copied => copied.map_err(unmakeable)?,
            };
            if read == 0 {
                // The copy ends where an entry does.
                if copied != there {
                    return Ok(false);
                }
                break;
            }
            piece.copy_within(copied..there, 0);
            there = there.saturating_sub(copied);
        }
        let is_read = io::copy(&mut tbs, &mut io::sink()).is_ok() && tbs.file.limit() == 0;
        Ok(is_read && tbs.sha256.finish().as_ref() == self.row.tbs_sha256 && edits.are_made())
    }
}

impl CrlMaker {
    /// A CRL's entries as far as the one before it has them, and those that are still to be read; `None` when all are to be
    /// read.
    pub(super) async fn copied(&self, row: &CrlRow) -> Outcome<Option<(Listing, Pieces)>> {
        let Some(previous) = self.previous.of(row) else { return Ok(None) };
        let shard = &row.key.shard;
        let edits = match self.ca.store.crl_edits(&previous.since(row)).await {
            Ok(Some(edits)) => edits,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(issuer = shard.issuer, shard = shard.shard, %error, "crl.edits_unknown");
                return Ok(None);
            }
        };
        let revision = previous.row.revision;
        let mut listing = self.spool.listing(&row.key, row.this_update).await?;
        let copied = blocking(move || {
            let mut edits = CrlEdits::new(edits.left, edits.raised);
            Ok(previous.copy_to(&mut listing, &mut edits)?.then_some(listing))
        })
        .await?;
        if let Some(listing) = copied {
            return Ok(Some((listing, Pieces::of(&self.ca.store, row).after(revision))));
        }
        tracing::warn!(issuer = shard.issuer, shard = shard.shard, "crl.previous_is_unusable");
        self.previous.forget(shard);
        Ok(None)
    }
}

/// A file whose octets are digested as they are read.
struct Digested {
    file: io::Take<File>,
    sha256: digest::Context,
}

impl Digested {
    fn open(path: &Path, from: u64, len: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Self { file: file.take(len), sha256: digest::Context::new(&digest::SHA256) })
    }
}

impl Read for Digested {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.sha256.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
