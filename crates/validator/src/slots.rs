//! Bounded concurrency by key: how many attempts run at once for one identifier, or against one address.

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

#[cfg(test)]
mod tests {
    use super::*;

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
