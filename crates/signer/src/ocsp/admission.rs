//! How many answers are made at once. Whoever finds no place is told to try later, at once: nobody waits here, and what waits
//! for the token is bounded by it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;

/// The places.
#[derive(Debug)]
pub(super) struct Admission {
    all: Arc<Semaphore>,
    /// For answers that nobody waits for.
    ahead: Arc<Semaphore>,
    /// For serials that were never assigned.
    unassigned: Arc<Semaphore>,
    most: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _places: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
    all: Arc<Semaphore>,
    most: usize,
}

/// A share of a place, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _share: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            all: places(limits.ocsp_in_flight),
            ahead: places(limits.ocsp_ahead_in_flight),
            unassigned: places(limits.ocsp_unassigned_in_flight),
            most: limits.ocsp_in_flight,
        }
    }

    /// For an answer.
    pub(super) fn enter(&self, ahead: bool) -> Option<Place> {
        let share = if ahead { Some(Arc::clone(&self.ahead).try_acquire_owned().ok()?) } else { None };
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let place = Place { _places: (place, share), all: Arc::clone(&self.all), most: self.most };
        place.show(0);
        Some(place)
    }

    /// Answers that are being made.
    pub(super) fn taken(&self) -> usize {
        self.most.saturating_sub(self.all.available_permits())
    }

    /// For an answer about a serial that was never assigned, which has its place already.
    pub(super) fn enter_unassigned(&self) -> Option<Share> {
        Some(Share { _share: Arc::clone(&self.unassigned).try_acquire_owned().ok()? })
    }
}

impl Place {
    fn show(&self, leaving: usize) {
        let taken = self.most.saturating_sub(self.all.available_permits()).saturating_sub(leaving);
        metrics::gauge!("chancery_ocsp_answers_in_flight").set(taken as f64);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The place itself is given back after this.
        self.show(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_the_others() {
        let limits = Limits {
            ocsp_in_flight: 4,
            ocsp_ahead_in_flight: 2,
            ocsp_unassigned_in_flight: 1,
            ..Limits::default()
        };
        let admission = Admission::new(&limits);
        let ahead: Vec<_> = (0..3).filter_map(|_| admission.enter(true)).collect();
        assert_eq!(ahead.len(), 2, "the share of those that nobody waits for");
        let asked: Vec<_> = (0..3).filter_map(|_| admission.enter(false)).collect();
        assert_eq!(asked.len(), 2);
        let share = admission.enter_unassigned().unwrap();
        assert!(admission.enter_unassigned().is_none(), "the share of those who guess");
        drop(share);
        assert!(admission.enter_unassigned().is_some());
        drop(ahead);
        assert_eq!((0..3).filter_map(|_| admission.enter(false)).count(), 3, "one after the other");
        assert!(admission.enter(false).is_some());
    }
}
