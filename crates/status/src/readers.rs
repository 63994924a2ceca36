//! Who is reading an object. A reader holds its octets in memory for as long as he reads: those of a revision that was
//! replaced, too, and as many of these as he finds patience for. So he is known, and can be sent away.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use metrics::{Counter, counter};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::object::Object;

/// The readers of one revision. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<Reading>>);

#[derive(Debug, Default)]
struct Reading {
    next: u64,
    /// What ends each one's connection.
    ends: HashMap<u64, CancellationToken>,
    /// Nobody may read it any more.
    closed: bool,
}

/// The octets in a response, wherever it is held: the reader counts until the last of them is given up.
struct Lent {
    object: Arc<Object>,
    reader: u64,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.object.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.object.readers.0.lock().ends.remove(&self.reader);
    }
}

/// An object's octets for a response on a connection that `end` ends. Nothing is copied.
pub(crate) fn lend(object: &Arc<Object>, end: &CancellationToken) -> Bytes {
    let mut reading = object.readers.0.lock();
    if reading.closed {
        // Replaced and closed since it was found.
        end.cancel();
    }
    let reader = reading.next;
    reading.next += 1;
    reading.ends.insert(reader, end.clone());
    drop(reading);
    Bytes::from_owner(Lent { object: Arc::clone(object), reader })
}

impl Readers {
    /// Ends the connections of all of them, and of those who come late; answers with their number.
    fn close(&self) -> u64 {
        let mut reading = self.0.lock();
        reading.closed = true;
        let mut ended = 0;
        for end in reading.ends.values().filter(|end| !end.is_cancelled()) {
            end.cancel();
            ended += 1;
        }
        ended
    }

    fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

/// Revisions that are served no more and may still be read, the oldest first.
#[derive(Debug)]
pub(crate) struct Replaced {
    revisions: Mutex<VecDeque<Weak<Object>>>,
    cut_off: Counter,
}

impl Default for Replaced {
    fn default() -> Self {
        Self { revisions: Mutex::default(), cut_off: counter!("chancery_status_readers_cut_off_total") }
    }
}

impl Replaced {
    pub(crate) fn add(&self, object: &Arc<Object>) {
        let mut revisions = self.revisions.lock();
        revisions.retain(|revision| revision.strong_count() > 0);
        revisions.push_back(Arc::downgrade(object));
    }

    /// Octets that are in memory for their readers alone, those with whom it is over still among them.
    pub(crate) fn bytes(&self) -> u64 {
        let revisions = self.revisions.lock();
        revisions.iter().filter_map(Weak::upgrade).map(|object| object.revision.size).sum()
    }

    /// Sends the readers of the oldest revisions away, until the others take no more than so many octets.
    pub(crate) fn limit(&self, bytes: u64) {
        let mut revisions = self.revisions.lock();
        revisions.retain(|revision| revision.strong_count() > 0);
        let open = revisions.iter().rev().filter_map(Weak::upgrade).filter(|it| !it.readers.is_closed());
        let mut held = 0_u64;
        for object in open {
            held = held.saturating_add(object.revision.size);
            if held > bytes {
                self.cut_off.increment(object.readers.close());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tests::crl;

    /// A revision of so many octets that was replaced, and one reader of it.
    fn read(replaced: &Replaced, size: usize) -> (Bytes, CancellationToken) {
        let mut object = crl(1, 1, 100, 1);
        object.bytes = vec![0; size].into();
        object.revision.size = size as u64;
        let (object, end) = (Arc::new(object), CancellationToken::new());
        let lent = lend(&object, &end);
        replaced.add(&object);
        (lent, end)
    }

    #[test]
    fn readers_of_the_oldest_revisions_go_first_and_no_more_than_need_be() {
        let replaced = Replaced::default();
        let held = [100, 50, 30].map(|size| read(&replaced, size));
        let ended = || held.each_ref().map(|(_, end)| end.is_cancelled());
        assert_eq!(replaced.bytes(), 180);
        replaced.limit(180);
        assert_eq!(ended(), [false, false, false]);
        replaced.limit(80);
        assert_eq!(ended(), [true, false, false]);
        // The first is in memory until its connection has ended, and for this nobody else has to go.
        assert_eq!(replaced.bytes(), 180);
        replaced.limit(80);
        assert_eq!(ended(), [true, false, false]);
        replaced.limit(29);
        assert_eq!(ended(), [true, true, true]);
        drop(held);
        assert_eq!(replaced.bytes(), 0);
    }

    #[test]
    fn a_revision_is_held_as_long_as_a_piece_of_it() {
        let replaced = Replaced::default();
        let (lent, _end) = read(&replaced, 100);
        let piece = lent.slice(90..);
        drop(lent);
        assert_eq!(replaced.bytes(), 100);
        drop(piece);
        assert_eq!(replaced.bytes(), 0);
        // Nobody read it.
        replaced.add(&Arc::new(crl(1, 1, 100, 1)));
        replaced.limit(0);
        assert!(replaced.revisions.lock().is_empty());
    }

    #[test]
    fn who_comes_late_is_sent_away_as_well() {
        let object = Arc::new(crl(1, 1, 100, 1));
        assert_eq!(object.readers.close(), 0);
        let end = CancellationToken::new();
        let _lent = lend(&object, &end);
        assert!(end.is_cancelled());
    }

    #[test]
    fn a_reader_who_is_done_is_forgotten() {
        let object = Arc::new(crl(1, 1, 100, 1));
        let end = CancellationToken::new();
        drop(lend(&object, &end));
        assert!(object.readers.0.lock().ends.is_empty());
        assert_eq!(object.readers.close(), 0);
        assert!(!end.is_cancelled());
    }
}
