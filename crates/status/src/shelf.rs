//! The verified objects in memory, from which requests are answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use pki::Certificate;

use crate::object::{Content, Object, ObjectPath, Revision, Sha256};
use crate::readers::Replaced;

/// What is served. Readers never wait for a fetch or a disk.
#[derive(Debug, Default)]
pub struct Shelf {
    objects: RwLock<HashMap<ObjectPath, Arc<Object>>>,
    /// Rises after each change of what may be an issuer's certificate.
    generation: AtomicU64,
    /// What was served, as long as somebody reads it.
    replaced: Replaced,
}

/// How an offered revision relates to the one that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is served there, or something older.
    Newer,
    /// The same is served.
    Same,
    /// Something newer is served.
    Older,
    /// The same revision with other bytes.
    Conflict,
}

/// What readiness asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// Objects served.
    pub objects: usize,
    /// CRLs among them whose `nextUpdate` is past.
    pub expired: usize,
    /// Seconds until the next `nextUpdate` of those that are not expired.
    pub next_expiry: Option<i64>,
}

impl Shelf {
    /// What is served at a path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Arc<Object>> {
        self.objects.read().get(path).cloned()
    }

    /// A certificate by the digest of its DER.
    pub(crate) fn certificate(&self, sha256: &Sha256) -> Option<Certificate> {
        self.objects.read().values().find_map(|object| object.certificate(sha256))
    }

    /// Every certificate.
    pub(crate) fn certificates(&self) -> Vec<Certificate> {
        let objects = self.objects.read();
        let certificate = |object: &Arc<Object>| match &object.content {
            Content::Certificate(certificate) => Some(certificate.clone()),
            Content::Crl { .. } => None,
        };
        objects.values().filter_map(certificate).collect()
    }

    /// Another number when [`certificates`](Self::certificates) has others.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn standing(&self, offered: &Revision) -> Standing {
        let objects = self.objects.read();
        let Some(served) = objects.get(&offered.path).map(|object| &object.revision) else {
            return Standing::Newer;
        };
        if served.sha256 == offered.sha256 && served.revision == offered.revision {
            Standing::Same
        } else if offered.revision < served.revision || offered.this_update < served.this_update {
            Standing::Older
        } else if offered.revision == served.revision {
            Standing::Conflict
        } else {
            Standing::Newer
        }
    }

    /// Serves an object from now on. Answers false, and changes nothing, when what is served is newer: by what a signer
    /// says of it and by the signed content itself.
    pub(crate) fn put(&self, object: Object) -> bool {
        let mut objects = self.objects.write();
        if objects.get(object.path()).is_some_and(|served| !follows(served, &object)) {
            return false;
        }
        let is_certificate = matches!(object.content, Content::Certificate(_));
        if let Some(replaced) = objects.insert(object.path().clone(), Arc::new(object)) {
            self.replaced.add(&replaced);
        }
        if is_certificate {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        true
    }

    /// Whether [`put`](Self::put) would take it.
    pub(crate) fn takes(&self, object: &Object) -> bool {
        self.objects.read().get(object.path()).is_none_or(|served| follows(served, object))
    }

    /// Stops serving objects that a signer no longer has and that are past their `nextUpdate`; answers with their number.
    pub(crate) fn forget_expired(&self, still_published: &[Revision], now: i64) -> usize {
        let mut objects = self.objects.write();
        let before = objects.len();
        objects.retain(|path, object| {
            let stays = object.next_update().is_none_or(|next| next > now)
                || still_published.iter().any(|revision| revision.path == *path);
            if !stays {
                self.replaced.add(object);
            }
            stays
        });
        before - objects.len()
    }

    /// Everything that is served.
    pub(crate) fn objects(&self) -> Vec<Arc<Object>> {
        self.objects.read().values().cloned().collect()
    }

    /// All revisions, in the manifest's order.
    pub(crate) fn revisions(&self) -> Vec<Revision> {
        let mut all: Vec<_> = self.objects.read().values().map(|object| object.revision.clone()).collect();
        all.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        all
    }

    /// Bytes held, those at `path` not counted.
    pub(crate) fn bytes_beside(&self, path: &ObjectPath) -> u64 {
        let objects = self.objects.read();
        objects.values().filter(|object| object.path() != path).map(|object| object.revision.size).sum()
    }

    /// Octets in memory of what is no longer served, because somebody still reads it.
    #[must_use]
    pub fn replaced_bytes(&self) -> u64 {
        self.replaced.bytes()
    }

    /// Keeps what is served, what is replaced and still read, and `more` octets beside these within `total`: by ending the
    /// connections of those who read replaced revisions, the oldest first.
    pub(crate) fn cut_off_readers(&self, total: u64, more: u64) {
        let served: u64 = self.objects.read().values().map(|object| object.revision.size).sum();
        self.replaced.limit(total.saturating_sub(served.saturating_add(more)));
    }

    /// The CRLs, expired ones among them, that have less than so many hundredths of their time left.
    #[must_use]
    pub fn ending(&self, percent: u8, now: i64) -> Vec<Revision> {
        let ends = |revision: &Revision| {
            let life = i128::from(revision.next_update) - i128::from(revision.this_update);
            (i128::from(revision.next_update) - i128::from(now)) * 100 < life * i128::from(percent)
        };
        let objects = self.objects.read();
        let crls = objects.values().filter(|object| object.next_update().is_some());
        let mut ending: Vec<_> =
            crls.map(|object| &object.revision).filter(|one| ends(one)).cloned().collect();
        ending.sort_by(|a, b| (a.next_update, &a.path).cmp(&(b.next_update, &b.path)));
        ending
    }

    /// Counts what is there.
    #[must_use]
    pub fn stock(&self, now: i64) -> Stock {
        let objects = self.objects.read();
        let mut stock = Stock { objects: objects.len(), ..Stock::default() };
        for next in objects.values().filter_map(|object| object.next_update()) {
            if next <= now {
                stock.expired += 1;
            } else {
                let left = next - now;
                stock.next_expiry = Some(stock.next_expiry.map_or(left, |soonest: i64| soonest.min(left)));
            }
        }
        stock
    }
}

fn follows(served: &Object, offered: &Object) -> bool {
    let content = match (&served.content, &offered.content) {
        (Content::Crl { number: old }, Content::Crl { number: new }) => old < new,
        (Content::Certificate(_), Content::Certificate(_)) => true,
        _ => false,
    };
    content
        && offered.revision.revision > served.revision.revision
        && offered.revision.this_update >= served.revision.this_update
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::object::tests::crl;
    use crate::readers::lend;

    fn shelf() -> Shelf {
        let shelf = Shelf::default();
        assert!(shelf.put(crl(5, 5, 100, 1)));
        shelf
    }

    #[test]
    fn what_is_offered_stands_to_what_is_served() {
        let standing =
            |revision, this_update, digest| shelf().standing(&crl(0, revision, this_update, digest).revision);
        assert_eq!(standing(5, 100, 1), Standing::Same);
        assert_eq!(standing(6, 100, 2), Standing::Newer);
        assert_eq!(standing(6, 100, 1), Standing::Newer);
        assert_eq!(standing(5, 100, 2), Standing::Conflict);
        assert_eq!(standing(4, 200, 2), Standing::Older);
        assert_eq!(standing(6, 99, 2), Standing::Older);
    }

    #[test]
    fn only_what_is_newer_in_every_way_replaces() {
        for (number, revision, this_update, taken) in
            [(6, 6, 100, true), (6, 6, 101, true), (5, 6, 101, false), (6, 5, 101, false), (6, 6, 99, false)]
        {
            let shelf = shelf();
            let offered = crl(number, revision, this_update, 2);
            assert_eq!(shelf.takes(&offered), taken);
            assert_eq!(shelf.put(offered), taken);
            let served = shelf.find("crl/00/0.crl").unwrap();
            assert_eq!(served.revision.sha256 == Sha256([2; 32]), taken);
        }
    }

    #[test]
    fn a_crl_near_its_end_is_named() {
        let shelf = shelf();
        // From 100 to 110: a fifth is left at 108.
        assert!(shelf.ending(20, 108).is_empty());
        assert_eq!(shelf.ending(20, 109).len(), 1);
        assert_eq!(shelf.ending(20, 500).len(), 1);
        assert!(shelf.ending(0, 110).is_empty());
    }

    #[test]
    fn what_is_withdrawn_goes_when_it_is_expired_and_not_before() {
        let shelf = shelf();
        let revisions = shelf.revisions();
        assert_eq!(shelf.forget_expired(&revisions, 1000), 0);
        assert_eq!(shelf.forget_expired(&[], 109), 0);
        assert_eq!(shelf.stock(109), Stock { objects: 1, expired: 0, next_expiry: Some(1) });
        assert_eq!(shelf.stock(110), Stock { objects: 1, expired: 1, next_expiry: None });
        assert_eq!(shelf.forget_expired(&[], 110), 1);
    }

    #[test]
    fn what_is_replaced_counts_while_it_is_read() {
        let shelf = Shelf::default();
        let sized = |number| {
            let mut object = crl(number, number, 100, 1);
            object.revision.size = 100;
            object.bytes = Bytes::from_static(&[0; 100]);
            object
        };
        let read = |end: &CancellationToken| lend(&shelf.find("crl/00/0.crl").unwrap(), end);
        let ends = [(); 3].map(|()| CancellationToken::new());
        shelf.put(sized(1));
        let first = read(&ends[0]);
        assert_eq!(shelf.replaced_bytes(), 0);
        shelf.put(sized(2));
        let second = read(&ends[1]);
        shelf.put(sized(3));
        let third = read(&ends[2]);
        assert_eq!(shelf.replaced_bytes(), 200);
        let ended = || ends.each_ref().map(CancellationToken::is_cancelled);
        shelf.cut_off_readers(300, 0);
        assert_eq!(ended(), [false, false, false]);
        shelf.cut_off_readers(300, 1);
        assert_eq!(ended(), [true, false, false]);
        drop((first, second));
        assert_eq!(shelf.replaced_bytes(), 0);
        // What is served is nobody's fault; what is withdrawn is like what is replaced.
        shelf.cut_off_readers(0, 0);
        assert!(!ends[2].is_cancelled());
        shelf.forget_expired(&[], 1000);
        assert_eq!(shelf.replaced_bytes(), 100);
        shelf.cut_off_readers(99, 0);
        assert!(ends[2].is_cancelled());
        drop(third);
    }
}
