//! Bounded concurrency: how many attempts run at once, for one identifier, or against one address.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many permits for each key; a key costs memory only while a permit of it is held or awaited.
#[derive(Debug)]
pub(crate) struct Slots<K: Eq + Hash + Clone> {
    each: usize,
    held: Arc<Mutex<HashMap<K, Arc<Semaphore>>>>,
}

/// Held while the work runs.
#[derive(Debug)]
pub(crate) struct Slot<K: Eq + Hash + Clone> {
    key: K,
    held: Arc<Mutex<HashMap<K, Arc<Semaphore>>>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<K: Eq + Hash + Clone> Slots<K> {
    pub(crate) fn new(each: usize) -> Self {
        Self { each, held: Arc::default() }
    }

    /// Answers at once: `None` when all permits of the key are taken.
    pub(crate) fn claim(&self, key: K) -> Option<Slot<K>> {
        let (mut slot, semaphore) = self.enter(key);
        slot._permit = Some(semaphore.try_acquire_owned().ok()?);
        Some(slot)
    }

    /// Waits for its turn; the caller bounds the wait.
    pub(crate) async fn wait(&self, key: K) -> Slot<K> {
        let (mut slot, semaphore) = self.enter(key);
        // The semaphore is never closed.
        slot._permit = semaphore.acquire_owned().await.ok();
        slot
    }

    fn enter(&self, key: K) -> (Slot<K>, Arc<Semaphore>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let semaphore =
            held.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone();
        drop(held);
        (Slot { key, held: Arc::clone(&self.held), _permit: None }, semaphore)
    }
}

impl<K: Eq + Hash + Clone> Drop for Slot<K> {
    fn drop(&mut self) {
        drop(self._permit.take());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // One reference is the map's own: nobody else holds or awaits a permit, and none can begin under the lock.
        if held.get(&self.key).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            held.remove(&self.key);
        }
    }
}

/// Room for so many attempts at once. The last quarter is kept for those who hold next to nothing: one account with a thousand
/// names whose servers do not answer leaves room to everybody else.
#[derive(Debug)]
pub(crate) struct Room<K: Eq + Hash + Clone> {
    most: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    by_key: HashMap<K, usize>,
}

/// One place in a [`Room`], free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash + Clone> {
    key: K,
    taken: Arc<Mutex<Taken<K>>>,
}

/// Places that a key may hold when room is scarce.
const WHEN_SCARCE: usize = 2;

impl<K: Eq + Hash + Clone> Room<K> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Arc::new(Mutex::new(Taken { all: 0, by_key: HashMap::new() })) }
    }

    /// Answers at once: `None` when there is no room, or none for one who holds as much already.
    pub(crate) fn claim(&self, key: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = taken.by_key.get(&key).copied().unwrap_or_default();
        let scarce = taken.all >= self.most - self.most / 4;
        if taken.all >= self.most || (scarce && holds >= WHEN_SCARCE) {
            return None;
        }
        taken.all += 1;
        taken.by_key.insert(key.clone(), holds + 1);
        Some(Place { key, taken: Arc::clone(&self.taken) })
    }
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(holds) = taken.by_key.get_mut(&self.key) {
            *holds -= 1;
            if *holds == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_is_for_those_who_hold_next_to_nothing() {
        let room = Room::new(8);
        let mut greedy: Vec<_> = (0..6).map(|_| room.claim("greedy").unwrap()).collect();
        assert!(room.claim("greedy").is_none(), "room is scarce");
        let first = room.claim("other").unwrap();
        let _second = room.claim("other").unwrap();
        assert!(room.claim("third").is_none(), "there is no room at all");
        drop(first);
        let third = room.claim("third").unwrap();
        drop(third);
        greedy.truncate(3);
        assert!(room.claim("greedy").is_some(), "there is room again");
        drop((greedy, _second));
        let taken = room.taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by_key.is_empty(), "{taken:?}");
    }

    #[test]
    fn a_room_of_one_is_one() {
        let room = Room::new(1);
        let _held = room.claim("a").unwrap();
        assert!(room.claim("b").is_none());
    }

    #[tokio::test]
    async fn a_key_has_so_many_permits_and_leaves_nothing_behind() {
        let slots = Slots::new(2);
        let first = slots.claim("a").unwrap();
        let _second = slots.claim("a").unwrap();
        assert!(slots.claim("a").is_none());
        assert!(slots.claim("b").is_some());
        let waiting = slots.wait("a");
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(first);
        let third = waiting.await;
        assert!(slots.claim("a").is_none());
        drop((third, _second));
        assert!(slots.held.lock().unwrap().is_empty());
    }
}
