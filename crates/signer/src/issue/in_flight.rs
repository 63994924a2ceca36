//! What this process is issuing now: one flight for each order, and a bound for all of them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use acme::OrderId;
use parking_lot::Mutex;
use pki::Serial;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::refusal::{Failure, Outcome};

/// All flights.
#[derive(Debug)]
pub(crate) struct InFlight {
    orders: Arc<Mutex<HashMap<OrderId, Ahead>>>,
    capacity: usize,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Ahead {
    landed: watch::Receiver<()>,
    serial: Option<Serial>,
}

/// How an order was entered.
pub(crate) enum Entry {
    /// Nobody is before us.
    First(Flight),
    /// Somebody is.
    Behind(Waiter),
}

/// The right to work on an order, until it is dropped.
pub(crate) struct Flight {
    order: OrderId,
    orders: Arc<Mutex<HashMap<OrderId, Ahead>>>,
    _landed: watch::Sender<()>,
}

/// Waits for somebody else's flight.
pub(crate) struct Waiter(watch::Receiver<()>);

impl InFlight {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { orders: Arc::default(), capacity, tasks: TaskTracker::new() }
    }

    /// Begins to work on an order, or says who does.
    pub(crate) fn enter(&self, order: OrderId) -> Outcome<Entry> {
        let mut orders = self.orders.lock();
        if let Some(ahead) = orders.get(&order) {
            return Ok(Entry::Behind(Waiter(ahead.landed.clone())));
        }
        if orders.len() >= self.capacity {
            return Err(Failure::Busy { retry_after: Duration::from_secs(1) });
        }
        let (sender, landed) = watch::channel(());
        orders.insert(order, Ahead { landed, serial: None });
        metrics::gauge!("chancery_issuances_in_flight").set(orders.len() as f64);
        Ok(Entry::First(Flight { order, orders: Arc::clone(&self.orders), _landed: sender }))
    }

    /// Runs something to its end whether or not anybody waits for it.
    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(work)
    }

    /// The journaled ones, whose leases are to be kept.
    pub(crate) fn serials(&self) -> Vec<Serial> {
        self.orders.lock().values().filter_map(|ahead| ahead.serial).collect()
    }

    /// Waits until everything that was begun has ended.
    pub(crate) async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Flight {
    /// The order has an intent now.
    pub(crate) fn journaled(&self, serial: Serial) {
        if let Some(ahead) = self.orders.lock().get_mut(&self.order) {
            ahead.serial = Some(serial);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Out of the map first: whoever wakes by the sender's end must not find this flight again.
        self.orders.lock().remove(&self.order);
    }
}

impl Waiter {
    /// Returns when the flight has ended, well or not.
    pub(crate) async fn landed(mut self) {
        // Nothing is ever sent: the error is the sender's end.
        while self.0.changed().await.is_ok() {}
    }
}
