//! Looks of one account at once: a validator's room is for all of them (DESIGN §5, "Limits by trust").

use std::collections::HashMap;
use std::sync::Arc;

use acme::AccountId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Held = Arc<Mutex<HashMap<AccountId, Arc<Semaphore>>>>;

/// So many for each account; one costs memory only while it looks, or waits to.
#[derive(Debug)]
pub(super) struct Turns {
    each: usize,
    held: Held,
}

/// Held while the perspectives look.
#[derive(Debug)]
pub(super) struct Turn {
    account: AccountId,
    held: Held,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new(each: usize) -> Self {
        Self { each, held: Held::default() }
    }

    /// Waits for a turn, first come, first served; the caller bounds the wait.
    pub(super) async fn wait(&self, account: AccountId) -> Turn {
        let semaphore = Arc::clone(
            self.held.lock().entry(account).or_insert_with(|| Arc::new(Semaphore::new(self.each))),
        );
        let mut turn = Turn { account, held: Arc::clone(&self.held), permit: None };
        // The semaphore is never closed.
        turn.permit = semaphore.acquire_owned().await.ok();
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.permit = None;
        let mut held = self.held.lock();
        // One reference is the map's own: nobody else looks or waits, and none can begin to under the lock.
        if held.get(&self.account).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            held.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn an_account_has_so_many_turns_and_at_rest_it_costs_nothing() {
        let account = |number| AccountId::from_bytes(&[number; 24]).unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let turns = Turns::new(2);
        let mut take = |number| match pin!(turns.wait(account(number))).poll(&mut context) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        };
        let (first, second) = (take(1).unwrap(), take(1).unwrap());
        assert!(take(1).is_none());
        // Others have theirs.
        let other = take(2).unwrap();
        drop(first);
        let third = take(1).unwrap();
        assert!(take(1).is_none());
        drop((second, third, other));
        assert!(turns.held.lock().is_empty());
    }
}
