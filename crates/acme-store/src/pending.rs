//! Bounds on what accounts have pending, decided for a batch of new orders: the same in both backends.

use std::collections::{BTreeMap, BTreeSet};

use pki::Timestamp;

use crate::{AuthorizationStatus, NewOrder};

/// What accounts have pending, while the orders of a batch are decided one after another.
#[derive(Debug, Default)]
pub struct PendingTally<'a> {
    accounts: BTreeMap<&'a str, Pending>,
    decided: BTreeSet<&'a str>,
}

#[derive(Debug)]
struct Pending {
    now: Timestamp,
    count: u64,
    /// When the first of them expires.
    first: Option<Timestamp>,
}

impl<'a> PendingTally<'a> {
    /// Of the accounts that have a bound in this batch, and as yet nothing.
    pub fn of(orders: impl Iterator<Item = &'a NewOrder>) -> Self {
        let bounded = orders.filter_map(|new| {
            let bound = new.bound.filter(|_| new.authorizations.iter().any(is_pending))?;
            Some((new.order.account.as_str(), Pending { now: bound.now, count: 0, first: None }))
        });
        Self { accounts: bounded.collect(), decided: BTreeSet::new() }
    }

    /// Whose pending authorizations are to be counted, and at which time.
    pub fn accounts(&self) -> impl Iterator<Item = (&'a str, Timestamp)> {
        self.accounts.iter().map(|(account, pending)| (*account, pending.now))
    }

    /// What the database has of an account.
    pub fn found(&mut self, account: &str, count: u64, first: Option<Timestamp>) {
        if let Some(pending) = self.accounts.get_mut(account) {
            (pending.count, pending.first) = (count, first);
        }
    }

    /// Counts an order's authorizations.
    ///
    /// # Errors
    /// When they are more than the bound allows; with the time at which the first of the account's others expires.
    pub fn admit(&mut self, new: &'a NewOrder) -> Result<(), Option<Timestamp>> {
        let Some(pending) = self.accounts.get_mut(new.order.account.as_str()) else { return Ok(()) };
        let own = new.authorizations.iter().filter(|row| is_pending(row) && row.expires_at > pending.now);
        let ends: Vec<Timestamp> = own.map(|row| row.expires_at).collect();
        // The second of two that are the same is decided with the first.
        if ends.is_empty() || !self.decided.insert(new.order.id.as_str()) {
            return Ok(());
        }
        let count = pending.count.saturating_add(ends.len() as u64);
        if new.bound.is_some_and(|bound| count > bound.most) {
            return Err(pending.first);
        }
        pending.count = count;
        pending.first = pending.first.into_iter().chain(ends).min();
        Ok(())
    }
}

fn is_pending(row: &crate::AuthorizationRow) -> bool {
    row.status == AuthorizationStatus::Pending
}
