//! A snapshot's entries, read ahead: while a piece is encoded, the next ones are being read.

use std::collections::VecDeque;
use std::sync::Arc;

use ca_store::{CaStore, CrlEntries, CrlPiece, CrlRow, StoreError};
use pki::Timestamp;
use pki::crl::Entry;
use tokio::task::JoinHandle;

use crate::refusal::{Failure, Outcome};

/// A piece spans this many revisions: long enough that a statement's cost does not show, short enough that several are no
/// memory to speak of.
const SPAN: u32 = 16 * 1024;
/// So many pieces are read at the same time.
const AHEAD: usize = 2;

/// The entries of a journaled CRL, or of one that will be.
pub(super) struct Pieces {
    store: Arc<dyn CaStore>,
    query: CrlEntries,
    this_update: Timestamp,
    /// What is being read, and after which revision it begins.
    ahead: VecDeque<(u64, JoinHandle<Result<CrlPiece, StoreError>>)>,
    most: usize,
    /// A time was after this CRL's.
    clamped: bool,
}

impl Pieces {
    pub(super) fn of(store: &Arc<dyn CaStore>, row: &CrlRow) -> Self {
        let query = CrlEntries {
            shard: row.key.shard.clone(),
            after_revision: row.base_revision.unwrap_or(0),
            revision: row.revision,
            expired_before: row.expired_before,
            after: 0,
            span: SPAN,
        };
        // A delta begins behind a gap: what would be read ahead is not what comes next.
        let most = if row.base_revision.is_some() { 1 } else { AHEAD };
        let store = Arc::clone(store);
        Self { store, query, this_update: row.this_update, ahead: VecDeque::new(), most, clamped: false }
    }

    /// Only what was revoked first after a revision.
    pub(super) fn after(mut self, revision: u64) -> Self {
        self.query.after = revision;
        self
    }

    /// Whether an entry would be another one in a later CRL, since its time was after this one's.
    pub(super) const fn clamped(&self) -> bool {
        self.clamped
    }

    /// The next piece; none after the last.
    pub(super) async fn next(&mut self) -> Outcome<Option<Vec<Entry>>> {
        self.read_ahead();
        let Some((_, reading)) = self.ahead.pop_front() else { return Ok(None) };
        let piece = reading.await.map_err(|_| Failure::Stopping)??;
        // Behind a gap the next one begins elsewhere than it was thought to.
        if self.ahead.front().is_some_and(|(after, _)| *after != piece.reached) {
            self.ahead.clear();
        }
        self.query.after = piece.reached;
        self.read_ahead();
        let entry = |one: ca_store::CrlEntry| Entry {
            serial: one.serial,
            // Another signer's clock may have been a little ahead when it revoked.
            revoked_at: one.revoked_at.min(self.this_update),
            reason: one.reason,
        };
        self.clamped |= piece.entries.iter().any(|one| one.revoked_at > self.this_update);
        Ok(Some(piece.entries.into_iter().map(entry).collect()))
    }

    fn read_ahead(&mut self) {
        let span = u64::from(SPAN);
        let mut after = self.ahead.back().map_or(self.query.after, |(after, _)| after.saturating_add(span));
        while self.ahead.len() < self.most && after < self.query.revision {
            let (store, query) = (Arc::clone(&self.store), CrlEntries { after, ..self.query.clone() });
            // Given up, it ends by itself.
            let reading = tokio::spawn(async move { store.crl_entries(&query).await });
            self.ahead.push_back((after, reading));
            after = after.saturating_add(span);
        }
    }
}
