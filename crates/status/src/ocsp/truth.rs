//! What this node has heard of revocations, and so which answers are still true.
//!
//! For each shard there is a revision up to which everything was heard and done: no kept answer contradicts it. Beyond that, the
//! last revocations are remembered by serial number, so that an answer which was on its way while one was announced is seen to be
//! older than it.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use pki::Serial;
use rpc::proto::status::v1::ShardRevision;

use super::answer::{Ground, ShardKey};

/// Every shard's state.
#[derive(Debug)]
pub(crate) struct Truth {
    inner: Mutex<Inner>,
    /// Revocations remembered for each shard.
    recent: usize,
}

#[derive(Debug, Default)]
struct Inner {
    shards: HashMap<ShardKey, Shard>,
    /// Rises with each reset.
    resets: u64,
    /// Shards that the stream of notices does not know of.
    is_strange: bool,
}

#[derive(Debug, Default)]
struct Shard {
    /// Everything up to here was heard, and what was kept of it is gone.
    revision: u64,
    /// Every revocation after this one that was heard is in `recent`.
    floor: u64,
    /// By revision; [`PENDING`] until it is told.
    recent: VecDeque<(u64, Serial)>,
    /// Calls that began before this count of resets do not know of the last one.
    reset: u64,
}

/// The revision of what was named in a piece of a long notice: greater than any until the last piece comes.
const PENDING: u64 = u64::MAX;

/// How an answer stands to what was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing that was heard contradicts it.
    True,
    /// A revocation was announced after it was made, or may have been.
    Outdated,
}

/// How a list of revisions stands to what was heard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Comparison {
    /// Shards that have a revision which was not heard of.
    pub(crate) behind: Vec<(ShardKey, u64)>,
    /// Shards that have an older revision than was heard of: the database was restored.
    pub(crate) rewound: Vec<(ShardKey, u64)>,
}

impl Truth {
    pub(crate) fn new(recent: usize) -> Self {
        Self { inner: Mutex::default(), recent }
    }

    /// What a call has to bring along to have its answer judged.
    pub(crate) fn resets(&self) -> u64 {
        self.inner.lock().resets
    }

    /// Calls `keep` if an answer is true, while no notice can come between.
    pub(crate) fn if_true<T>(
        &self,
        ground: &Ground,
        serial: &Serial,
        resets: u64,
        keep: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut inner = self.inner.lock();
        // Nothing was kept of a shard that is new: what is kept of it is true at this answer's revision.
        let new = !inner.shards.contains_key(&ground.shard);
        if new {
            let shard = Shard { revision: ground.revision, floor: ground.revision, ..Shard::default() };
            inner.shards.insert(ground.shard.clone(), shard);
            inner.is_strange = true;
        }
        let shard = inner.shards.get(&ground.shard)?;
        (shard.standing(ground.revision, serial, resets) == Standing::True).then(keep)
    }

    /// Whether nothing that was heard contradicts an answer that is not kept.
    pub(crate) fn standing(&self, ground: &Ground, serial: &Serial, resets: u64) -> Standing {
        let inner = self.inner.lock();
        inner
            .shards
            .get(&ground.shard)
            .map_or(Standing::True, |shard| shard.standing(ground.revision, serial, resets))
    }

    /// Remembers what a notice names, before it is acted upon. `None`: not the last piece, so that the revision is not known
    /// yet.
    pub(crate) fn hear(&self, key: &ShardKey, revision: Option<u64>, serials: &[Serial]) {
        let mut inner = self.inner.lock();
        if !inner.shards.contains_key(key) {
            // What came before is not known: answers that rest on less are not kept, and a new stream is asked about it.
            inner.is_strange = true;
            let revision = revision.unwrap_or(PENDING);
            inner.shards.insert(key.clone(), Shard { revision, floor: revision, ..Shard::default() });
        }
        let Some(shard) = inner.shards.get_mut(key) else { return };
        if let Some(revision) = revision {
            let known = |(at, _): &(u64, Serial)| *at != PENDING;
            let pending = shard.recent.partition_point(known);
            shard.recent.iter_mut().skip(pending).for_each(|entry| entry.0 = revision);
        }
        shard.recent.extend(serials.iter().map(|serial| (revision.unwrap_or(PENDING), *serial)));
        while shard.recent.len() > self.recent {
            if let Some((at, _)) = shard.recent.pop_front() {
                shard.floor = shard.floor.max(at);
            }
        }
    }

    /// What was heard up to a revision has been acted upon.
    pub(crate) fn settle(&self, key: &ShardKey, revision: u64) {
        if let Some(shard) = self.inner.lock().shards.get_mut(key) {
            shard.revision = if shard.revision == PENDING { revision } else { shard.revision.max(revision) };
            if shard.floor == PENDING {
                shard.floor = revision;
            }
        }
    }

    /// Nothing that was heard of a shard counts any more; answers of calls under way are not kept.
    pub(crate) fn reset(&self, key: &ShardKey, revision: u64) {
        let mut inner = self.inner.lock();
        inner.resets += 1;
        let shard = Shard { revision, floor: revision, recent: VecDeque::new(), reset: inner.resets };
        inner.shards.insert(key.clone(), shard);
    }

    /// Starts to follow a shard at a revision, with nothing kept of it, or with what a spool kept.
    pub(crate) fn begin(&self, key: ShardKey, revision: u64) {
        let shard = Shard { revision, floor: revision, ..Shard::default() };
        self.inner.lock().shards.entry(key).or_insert(shard);
    }

    /// What a signer is told when it is asked for notices. From now on it knows every shard.
    pub(crate) fn known(&self) -> Vec<ShardRevision> {
        let mut inner = self.inner.lock();
        inner.is_strange = false;
        let known = inner.shards.iter().filter(|(_, shard)| shard.revision != PENDING);
        let told = known.map(|(key, shard)| ShardRevision {
            issuer_id: key.issuer.as_ref().to_owned(),
            shard: key.number,
            revision: shard.revision,
        });
        told.collect()
    }

    /// A shard's revision, if it is followed.
    pub(crate) fn revision(&self, key: &ShardKey) -> Option<u64> {
        let inner = self.inner.lock();
        inner.shards.get(key).map(|shard| shard.revision).filter(|revision| *revision != PENDING)
    }

    /// Every shard's revision.
    pub(crate) fn revisions(&self) -> Vec<(ShardKey, u64)> {
        let inner = self.inner.lock();
        let known = inner.shards.iter().filter(|(_, shard)| shard.revision != PENDING);
        known.map(|(key, shard)| (key.clone(), shard.revision)).collect()
    }

    /// Whether there are shards that no open stream was asked about.
    pub(crate) fn is_strange(&self) -> bool {
        self.inner.lock().is_strange
    }

    /// Compares with a signer's list.
    pub(crate) fn compare(&self, listed: &[ShardRevision]) -> Comparison {
        let inner = self.inner.lock();
        let mut comparison = Comparison::default();
        for one in listed {
            let key = ShardKey::new(&one.issuer_id, one.shard);
            let Some(shard) = inner.shards.get(&key) else { continue };
            if shard.revision < one.revision {
                comparison.behind.push((key, one.revision));
            } else if shard.revision > one.revision && shard.revision != PENDING {
                comparison.rewound.push((key, one.revision));
            }
        }
        comparison
    }

    /// Those of `wanted` that still are not reached.
    pub(crate) fn still_behind(&self, wanted: &[(ShardKey, u64)]) -> Vec<(ShardKey, u64)> {
        let inner = self.inner.lock();
        let behind = |(key, revision): &&(ShardKey, u64)| {
            inner.shards.get(key).is_some_and(|shard| shard.revision < *revision)
        };
        wanted.iter().filter(behind).cloned().collect()
    }
}

impl Shard {
    fn standing(&self, revision: u64, serial: &Serial, resets: u64) -> Standing {
        let named_after = || {
            let from = self.recent.partition_point(|(at, _)| *at <= revision);
            self.recent.iter().skip(from).any(|(_, named)| named == serial)
        };
        // Before the floor, nobody remembers what was named.
        if resets < self.reset || revision < self.floor || named_after() {
            Standing::Outdated
        } else {
            Standing::True
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(number: u8) -> Serial {
        Serial::from_bytes(&[1, number]).unwrap()
    }

    fn key() -> ShardKey {
        ShardKey::new("i", 3)
    }

    fn ground(revision: u64) -> Ground {
        Ground { shard: key(), revision }
    }

    fn is_true(truth: &Truth, revision: u64, number: u8) -> bool {
        let kept = truth.if_true(&ground(revision), &serial(number), truth.resets(), || ()).is_some();
        let standing = truth.standing(&ground(revision), &serial(number), truth.resets());
        assert_eq!(kept, standing == Standing::True);
        kept
    }

    #[test]
    fn an_answer_from_before_its_revocation_is_outdated() {
        let truth = Truth::new(10);
        truth.begin(key(), 5);
        assert!(is_true(&truth, 5, 1));
        truth.hear(&key(), Some(6), &[serial(1)]);
        truth.hear(&key(), Some(9), &[serial(2), serial(3)]);
        assert!(!is_true(&truth, 5, 1) && is_true(&truth, 6, 1));
        assert!(!is_true(&truth, 5, 2) && !is_true(&truth, 8, 3) && is_true(&truth, 9, 3));
        assert!(is_true(&truth, 5, 4), "another certificate of the shard");
        assert_eq!(truth.revisions(), [(key(), 5)], "what was not acted upon yet");
        truth.settle(&key(), 9);
        assert_eq!(truth.revisions(), [(key(), 9)]);
        assert!(is_true(&truth, 20, 1), "an answer may know more than this node");
        assert!(!is_true(&truth, 4, 4), "before all that is remembered");
    }

    #[test]
    fn what_a_piece_names_is_outdated_until_the_last_piece_tells_the_revision() {
        let truth = Truth::new(10);
        truth.begin(key(), 5);
        truth.hear(&key(), None, &[serial(1)]);
        assert!(!is_true(&truth, 5, 1) && !is_true(&truth, 1000, 1) && is_true(&truth, 5, 2));
        truth.hear(&key(), Some(8), &[serial(2)]);
        assert!(!is_true(&truth, 7, 1) && is_true(&truth, 8, 1) && !is_true(&truth, 5, 2));
    }

    #[test]
    fn what_is_forgotten_counts_as_named() {
        let truth = Truth::new(2);
        truth.begin(key(), 0);
        for number in 1..=5 {
            truth.hear(&key(), Some(u64::from(number)), &[serial(number)]);
        }
        assert!(!is_true(&truth, 2, 9), "perhaps it was named by one that is forgotten");
        assert!(is_true(&truth, 3, 9) && !is_true(&truth, 3, 5));
    }

    #[test]
    fn a_shard_that_only_a_notice_told_of_begins_there() {
        let truth = Truth::new(10);
        truth.hear(&key(), Some(7), &[serial(1)]);
        truth.settle(&key(), 7);
        assert!(!is_true(&truth, 6, 2) && is_true(&truth, 7, 1));
        let pieces = Truth::new(10);
        pieces.hear(&key(), None, &[serial(1)]);
        assert!(pieces.revisions().is_empty() && pieces.known().is_empty());
        assert!(!is_true(&pieces, 6, 2));
        pieces.hear(&key(), Some(7), &[]);
        pieces.settle(&key(), 7);
        assert!(!is_true(&pieces, 6, 2) && is_true(&pieces, 7, 1));
    }

    #[test]
    fn a_reset_forgets_and_distrusts_calls_that_began_before_it() {
        let truth = Truth::new(10);
        truth.begin(key(), 50);
        truth.hear(&key(), Some(51), &[serial(1)]);
        let before = truth.resets();
        truth.reset(&key(), 20);
        assert_eq!(truth.revisions(), [(key(), 20)]);
        assert_eq!(truth.standing(&ground(52), &serial(2), before), Standing::Outdated);
        assert!(is_true(&truth, 20, 1) && is_true(&truth, 21, 2));
    }

    #[test]
    fn lists_show_what_was_not_heard() {
        let listed = |revision| vec![ShardRevision { issuer_id: "i".to_owned(), shard: 3, revision }];
        let truth = Truth::new(10);
        assert_eq!(truth.compare(&listed(9)), Comparison::default(), "nothing is kept of that shard");
        truth.begin(key(), 5);
        assert_eq!(truth.compare(&listed(5)), Comparison::default());
        let behind = truth.compare(&listed(6)).behind;
        assert_eq!(behind, [(key(), 6)]);
        assert_eq!(truth.still_behind(&behind).len(), 1);
        truth.settle(&key(), 6);
        assert!(truth.still_behind(&behind).is_empty());
        assert_eq!(truth.compare(&listed(4)).rewound, [(key(), 4)]);
    }

    #[test]
    fn a_stream_is_asked_about_every_shard() {
        let truth = Truth::new(10);
        truth.begin(key(), 5);
        assert!(!truth.is_strange());
        let other = Ground { shard: ShardKey::new("i", 4), revision: 2 };
        truth.if_true(&other, &serial(1), 0, || ()).unwrap();
        assert!(truth.is_strange());
        assert_eq!(truth.known().len(), 2);
        assert!(!truth.is_strange());
    }
}
