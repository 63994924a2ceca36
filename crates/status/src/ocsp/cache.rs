//! The answers that are kept, by certificate, and the spellings of the requests for them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use metrics::Counter;
use parking_lot::{Mutex, RwLock};
use pki::Serial;
use pki::ocsp::CertId;
use tokio::time::Instant;

use super::answer::{Kept, ShardKey};

/// Bounded in number and bytes; what was not asked for the longest goes first.
#[derive(Debug)]
pub(crate) struct Cache {
    parts: Box<[RwLock<Part>]>,
    /// Requests as they came, text of a GET or DER of a POST, to what answers them. DER begins with `0`, and no text of a GET
    /// that does is a request: they do not mix.
    spellings: Box<[RwLock<Spellings>]>,
    hasher: RandomState,
    /// For each part.
    limit: Limit,
    count: AtomicUsize,
    start: Instant,
    evicted: Counter,
}

type Spellings = HashMap<Spelling, Arc<Slot>>;

/// In the map and in the slot, and once in memory.
type Spelling = Arc<[u8]>;

#[derive(Debug, Clone, Copy)]
struct Limit {
    count: usize,
    bytes: usize,
}

/// A certID has one serial number, and a serial number few certIDs: by either hash, with and without parameters.
#[derive(Debug, Default)]
struct Part {
    slots: HashMap<Serial, Vec<Arc<Slot>>>,
    count: usize,
    /// Answers and spellings.
    bytes: usize,
}

/// The place of a certificate's answer. Emptied when it is removed from the cache, so that nobody who still holds it serves it.
#[derive(Debug)]
pub(crate) struct Slot {
    id: CertId,
    kept: ArcSwapOption<Kept>,
    /// Milliseconds since the cache's start.
    asked: AtomicU64,
    spellings: Mutex<Vec<Spelling>>,
}

impl Slot {
    pub(crate) fn kept(&self) -> Option<Arc<Kept>> {
        self.kept.load_full()
    }
}

/// Spellings of one request that are remembered, and the longest of them: a client has one, and clients have few.
const SPELLINGS: usize = 4;
const SPELLING_BYTES: usize = 400;

/// The structures around a spelling: its counts, its entry in the map, and its place in the slot.
const SPELLING_OVERHEAD: usize = 112;

/// Bytes that a spelling takes in memory, about.
const fn weight(spelling: &[u8]) -> usize {
    spelling.len() + SPELLING_OVERHEAD
}

/// Parts, at most; a part has not fewer than so many answers.
const PARTS: usize = 64;
const PART_COUNT: usize = 64;

impl Cache {
    pub(crate) fn new(count: usize, bytes: usize) -> Self {
        let parts = (count / PART_COUNT).clamp(1, PARTS);
        Self {
            parts: (0..parts).map(|_| RwLock::default()).collect(),
            spellings: (0..parts).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            limit: Limit { count: count.div_ceil(parts), bytes: bytes.div_ceil(parts) },
            count: AtomicUsize::new(0),
            start: Instant::now(),
            evicted: metrics::counter!("chancery_status_ocsp_evicted_total"),
        }
    }

    /// Answers that are kept.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.read().bytes).sum()
    }

    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn part(&self, serial: &Serial) -> Option<&RwLock<Part>> {
        self.parts.get(self.index(serial.as_bytes()))
    }

    fn spelling(&self, request: &[u8]) -> Option<&RwLock<Spellings>> {
        self.spellings.get(self.index(request))
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    fn index(&self, bytes: &[u8]) -> usize {
        self.hasher.hash_one(bytes) as usize % self.parts.len()
    }

    /// What answers a request that was seen before in this spelling.
    pub(crate) fn recall(&self, request: &[u8]) -> Option<Arc<Slot>> {
        let slot = self.spelling(request)?.read().get(request).cloned()?;
        self.touch(&slot);
        Some(slot)
    }

    /// What answers a request about this certificate.
    pub(crate) fn find(&self, id: &CertId) -> Option<Arc<Slot>> {
        let serial = id.serial()?;
        let slot = {
            let part = self.part(&serial)?.read();
            part.slots.get(&serial)?.iter().find(|slot| slot.id == *id).cloned()?
        };
        self.touch(&slot);
        Some(slot)
    }

    fn touch(&self, slot: &Slot) {
        slot.asked.store(self.elapsed(), Ordering::Relaxed);
    }

    /// Remembers a spelling of a request for what is in this slot.
    pub(crate) fn learn(&self, request: &[u8], slot: &Arc<Slot>) {
        if request.len() > SPELLING_BYTES {
            return;
        }
        let Some(map) = self.spelling(request) else { return };
        let Some(part) = slot.id.serial().and_then(|serial| self.part(&serial)) else { return };
        let mut part = part.write();
        let mut known = slot.spellings.lock();
        // Looked at under the locks that the removal takes: no spelling outlives its slot.
        if slot.kept.load().is_none() || known.iter().any(|one| **one == *request) {
            return;
        }
        let forgotten = (known.len() >= SPELLINGS).then(|| known.remove(0));
        let spelling = Spelling::from(request);
        known.push(Arc::clone(&spelling));
        drop(known);
        part.bytes += weight(request);
        map.write().insert(spelling, Arc::clone(slot));
        if let Some(forgotten) = forgotten {
            self.forget(&mut part, &forgotten);
        }
        self.fit(&mut part);
    }

    fn forget(&self, part: &mut Part, spelling: &[u8]) {
        part.bytes = part.bytes.saturating_sub(weight(spelling));
        if let Some(map) = self.spelling(spelling) {
            map.write().remove(spelling);
        }
    }

    /// Keeps an answer, unless the one that is there rests on something newer. Answers with what is kept now. `asked`: somebody
    /// asked for it, and it is not made ahead.
    pub(crate) fn put(&self, kept: Arc<Kept>, asked: bool) -> Arc<Kept> {
        let Some(part) = self.part(&kept.serial) else { return kept };
        let mut part = part.write();
        let slots = part.slots.entry(kept.serial).or_default();
        let weight = kept.weight();
        if let Some(slot) = slots.iter().find(|slot| slot.id == kept.id) {
            let old = slot.kept.load_full();
            if let Some(old) = &old
                && (old.ground.revision, old.this_update) > (kept.ground.revision, kept.this_update)
                && old.ground.shard == kept.ground.shard
            {
                return Arc::clone(old);
            }
            slot.kept.store(Some(Arc::clone(&kept)));
            if asked {
                self.touch(slot);
            }
            part.bytes = (part.bytes + weight).saturating_sub(old.map_or(0, |old| old.weight()));
        } else {
            let slot = Slot {
                id: kept.id.clone(),
                kept: ArcSwapOption::new(Some(Arc::clone(&kept))),
                asked: AtomicU64::new(self.elapsed()),
                spellings: Mutex::default(),
            };
            slots.push(Arc::new(slot));
            part.count += 1;
            part.bytes += weight;
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        self.fit(&mut part);
        kept
    }

    fn fit(&self, part: &mut Part) {
        while part.count > 0 && (part.count > self.limit.count || part.bytes > self.limit.bytes) {
            self.evict(part);
        }
    }

    /// Makes room: a sixteenth of the part, so that it is looked through rarely.
    fn evict(&self, part: &mut Part) {
        let mut all: Vec<_> = part.slots.values().flatten().cloned().collect();
        let surplus = part.count.saturating_sub(self.limit.count).max(part.count / 16).max(1);
        let surplus = surplus.min(all.len());
        if surplus < all.len() {
            all.select_nth_unstable_by_key(surplus - 1, |slot| slot.asked.load(Ordering::Relaxed));
        }
        for slot in all.iter().take(surplus) {
            self.discard(part, slot);
            self.evicted.increment(1);
        }
    }

    fn discard(&self, part: &mut Part, slot: &Arc<Slot>) {
        let Some(kept) = slot.kept.swap(None) else { return };
        if let Some(slots) = part.slots.get_mut(&kept.serial) {
            slots.retain(|other| !Arc::ptr_eq(other, slot));
            if slots.is_empty() {
                part.slots.remove(&kept.serial);
            }
        }
        part.count -= 1;
        part.bytes = part.bytes.saturating_sub(kept.weight());
        self.count.fetch_sub(1, Ordering::Relaxed);
        for spelling in slot.spellings.lock().drain(..) {
            self.forget(part, &spelling);
        }
    }

    /// Removes the answers about a certificate that were made before its shard had this revision. Answers with their certIDs.
    pub(crate) fn remove(&self, shard: &ShardKey, serial: &Serial, before: u64) -> Vec<CertId> {
        let Some(part) = self.part(serial) else { return Vec::new() };
        let older = |kept: &Kept| kept.ground.shard == *shard && kept.ground.revision < before;
        let mut part = part.write();
        let named = part.slots.get(serial).map(Vec::as_slice).unwrap_or_default();
        let named: Vec<_> =
            named.iter().filter(|slot| slot.kept.load().as_deref().is_some_and(older)).cloned().collect();
        named.iter().for_each(|slot| self.discard(&mut part, slot));
        named.iter().map(|slot| slot.id.clone()).collect()
    }

    /// Removes an answer that turned out to be none; not another one that came meanwhile.
    pub(crate) fn reject(&self, kept: &Arc<Kept>) {
        let Some(part) = self.part(&kept.serial) else { return };
        let mut part = part.write();
        let slots = part.slots.get(&kept.serial).map(Vec::as_slice).unwrap_or_default();
        let is_it = |slot: &&Arc<Slot>| slot.kept.load().as_ref().is_some_and(|one| Arc::ptr_eq(one, kept));
        if let Some(slot) = slots.iter().find(is_it).cloned() {
            self.discard(&mut part, &slot);
        }
    }

    /// Removes everything of a shard.
    pub(crate) fn remove_shard(&self, shard: &ShardKey) -> usize {
        self.retain(|kept| kept.ground.shard != *shard)
    }

    fn retain(&self, stays: impl Fn(&Kept) -> bool) -> usize {
        (0..self.parts.len()).map(|index| self.retain_in(index, &stays)).sum()
    }

    fn retain_in(&self, index: usize, stays: impl Fn(&Kept) -> bool) -> usize {
        let Some(part) = self.parts.get(index) else { return 0 };
        let goes = |slot: &&Arc<Slot>| slot.kept.load().as_deref().is_none_or(|kept| !stays(kept));
        let gone: Vec<_> = part.read().slots.values().flatten().filter(goes).cloned().collect();
        if gone.is_empty() {
            return 0;
        }
        let mut part = part.write();
        // What was replaced meanwhile is looked at again.
        let gone: Vec<_> = gone.iter().filter(|slot| goes(slot)).collect();
        gone.iter().for_each(|slot| self.discard(&mut part, slot));
        gone.len()
    }

    /// Looks through a part: removes what is past its `nextUpdate`, and answers with what is to be renewed by now of that
    /// which was asked for within the last `hot` milliseconds, and with how much of it is overdue.
    pub(crate) fn sweep(&self, index: usize, now: i64, hot: u64) -> (Vec<Arc<Kept>>, usize) {
        self.retain_in(index, |kept| kept.next_update > now);
        let Some(part) = self.parts.get(index) else { return (Vec::new(), 0) };
        let since = self.elapsed().saturating_sub(hot);
        let is_hot = |slot: &&Arc<Slot>| hot > 0 && slot.asked.load(Ordering::Relaxed) >= since;
        let part = part.read();
        let hot = part.slots.values().flatten().filter(is_hot).filter_map(|slot| slot.kept());
        let wanted: Vec<_> = hot.filter(|kept| kept.renew_from() <= now).collect();
        let overdue = wanted.iter().filter(|kept| kept.due <= now).count();
        (wanted, overdue)
    }

    /// Everything in a part.
    pub(crate) fn in_part(&self, index: usize) -> Vec<Arc<Kept>> {
        let part = self.parts.get(index).map(|part| part.read());
        part.map(|part| part.slots.values().flatten().filter_map(|slot| slot.kept()).collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use pki::ocsp::{CertIdHash, CertStatus, IssuerHashes, Single, assemble, response_data};
    use pki::{Certificate, SignatureAlgorithm, Timestamp};
    use rcgen::{CertificateParams, KeyPair};

    use super::super::answer::Ground;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    /// Answers about so many certificates, all of one length.
    fn answers(count: u8) -> Vec<Arc<Kept>> {
        let pair = KeyPair::generate().unwrap();
        let issuer = CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap();
        let issuer = Certificate::from_der(issuer.der()).unwrap();
        let hashes = IssuerHashes::of(&issuer);
        let at = Timestamp::from_unix;
        let answer = |number| {
            let id = CertId::new(CertIdHash::Sha1, &hashes, &Serial::from_bytes(&[1, number]).unwrap());
            let (this_update, next_update) = (at(NOW), at(NOW + 86_400));
            let status = CertStatus::Good;
            let single = Single { id: &id, status, this_update, next_update, archive_cutoff: None };
            let data = response_data(issuer.public_key(), at(NOW), &[single], None);
            // No signature: the cache verifies none.
            let body = assemble(&data, SignatureAlgorithm::EcdsaSha256, &[0; 72], &[]);
            let ground = Ground { shard: ShardKey::new("i", 0), revision: 1 };
            Arc::new(Kept::read(body.into(), ground).unwrap().0)
        };
        (0..count).map(answer).collect()
    }

    fn spelling(answer: u8, number: u8) -> Vec<u8> {
        [&[answer, number], [b'a'; SPELLING_BYTES - 2].as_slice()].concat()
    }

    /// What is there, found from outside: answers, and octets of spellings.
    fn held(cache: &Cache, answers: &[Arc<Kept>]) -> (usize, usize) {
        let kept = answers.iter().filter(|kept| cache.find(&kept.id).is_some()).count();
        let all = (0..32).flat_map(|answer| (0..9).map(move |number| spelling(answer, number)));
        (kept, all.filter(|one| cache.recall(one).is_some()).map(|one| one.len()).sum())
    }

    #[test]
    fn spellings_are_within_the_bound_of_bytes() {
        let answers = answers(32);
        let weight = answers[0].weight();
        let limit = 33 * weight;
        let cache = Cache::new(PART_COUNT, limit);
        answers.iter().for_each(|kept| drop(cache.put(Arc::clone(kept), true)));
        assert_eq!(held(&cache, &answers), (32, 0), "the answers alone have room");
        for (index, kept) in (0..).zip(&answers) {
            for number in 0..4 {
                let Some(slot) = cache.find(&kept.id) else { continue };
                cache.learn(&spelling(index, number), &slot);
                let (kept, octets) = held(&cache, &answers);
                assert!(kept * weight + octets <= limit, "{kept} answers and {octets} octets of spellings");
                assert!(cache.bytes() <= limit);
            }
        }
        let (kept, octets) = held(&cache, &answers);
        assert!(kept > 4 && octets > 0, "{kept} answers and {octets} octets of spellings");
    }

    #[test]
    fn bytes_of_spellings_go_with_them() {
        let answers = answers(2);
        let cache = Cache::new(PART_COUNT, 1 << 20);
        for kept in &answers {
            cache.put(Arc::clone(kept), true);
        }
        let alone = cache.bytes();
        let slot = cache.find(&answers[0].id).unwrap();
        for number in 0..9 {
            cache.learn(&spelling(0, number), &slot);
            // Again: it is there.
            cache.learn(&spelling(0, number), &slot);
        }
        assert_eq!(held(&cache, &answers), (2, SPELLINGS * SPELLING_BYTES));
        assert_eq!(cache.bytes(), alone + SPELLINGS * weight(&spelling(0, 0)));
        cache.reject(&answers[0]);
        assert_eq!((held(&cache, &answers), cache.bytes()), ((1, 0), answers[1].weight()));
        cache.learn(&spelling(0, 0), &slot);
        assert_eq!(cache.bytes(), answers[1].weight(), "a spelling of what is not there is learnt");
        assert_eq!((cache.remove_shard(&ShardKey::new("i", 0)), cache.bytes()), (1, 0));
    }
}
