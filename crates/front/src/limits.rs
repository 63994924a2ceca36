//! Limits that fronts count (RFC 8555 §6.6; DESIGN §5, "Limits by trust"): accounts of an address, orders of an account,
//! failed validations.
//!
//! A counter counts what happened in one slot of time; a limit looks at as many slots as cover its period and one more, so
//! that never more than the limit happens in any period of its length, whatever the clock's position in a slot.

use std::net::IpAddr;
use std::time::Duration;

use acme::limit::{LimitName, Limits, Rate, Reached};
use acme::{AccountId, DirectoryName};
use acme_store::{AcmeStore, FailureNote, FailureRow, Hit, HitCount, StoreError, ValidationEnd};
use moka::sync::Cache;
use pki::{Name, Period, Timestamp};

use crate::refusal::Refusal;
use crate::service::Front;
use crate::stored;

/// Slots of a period.
const SLOTS: u64 = 6;
/// How long it is remembered which limits an account has: so long after an operator has set others, an account that had
/// reached the former ones may be refused still.
const LEARNED_FOR: Duration = Duration::from_secs(60);

/// Something that is limited, and whose it is.
pub(crate) struct Counted {
    limit: LimitName,
    rate: Rate,
    /// In the store.
    key: String,
    /// For the client; empty for its account.
    of: String,
}

impl Counted {
    /// An account that an address registers.
    pub(crate) fn account_of(rate: Rate, directory: &DirectoryName, address: IpAddr) -> Self {
        let limit = LimitName::accounts_per_address();
        Self { limit, rate, key: format!("accounts {directory} {address}"), of: address.to_string() }
    }

    /// An order of an account, or an authorization without one.
    pub(crate) fn order_of(rate: Rate, account: &AccountId) -> Self {
        let limit = LimitName::orders_per_account();
        Self { limit, rate, key: format!("orders {account}"), of: String::new() }
    }

    fn slot(&self) -> u64 {
        (self.rate.period.seconds() / SLOTS).max(1)
    }

    /// A hit now, and questions for the slots before: latest first.
    fn hits(&self, now: Timestamp, count: i32) -> Vec<Hit> {
        let slot = self.slot();
        let current = now.unix() - now.unix() % slot;
        let starts = (0..=SLOTS).map_while(|back| current.checked_sub(back.checked_mul(slot)?));
        starts
            .enumerate()
            .map(|(back, start)| Hit {
                key: self.key.clone(),
                window: Timestamp::from_unix(start),
                expires_at: Timestamp::from_unix(start).plus(Period::from_seconds(slot * (SLOTS + 2))),
                count: if back == 0 { count } else { 0 },
            })
            .collect()
    }

    /// When so much of what was counted is out of the period that there is room again.
    fn free_at(&self, hits: &[Hit], counts: &[HitCount]) -> Timestamp {
        let mut left: u64 = counts.iter().map(|count| count.0).sum();
        let life = Period::from_seconds(self.slot() * (SLOTS + 1));
        let mut free_at = hits.first().map_or(Timestamp::from_unix(0), |hit| hit.window.plus(life));
        for (hit, count) in hits.iter().zip(counts).rev() {
            left -= count.0;
            if left < u64::from(self.rate.most) {
                free_at = hit.window.plus(life);
                break;
            }
        }
        free_at
    }
}

/// The limits of accounts, as signers have said a moment ago: who has reached his is refused without asking one.
pub(crate) struct Learned(Cache<AccountId, Limits>);

impl Learned {
    /// Remembers those of up to so many accounts.
    pub(crate) fn new(accounts: u64) -> Self {
        Self(Cache::builder().max_capacity(accounts).time_to_live(LEARNED_FOR).build())
    }
}

/// Room that was taken for something. What comes to nothing gives it back; a crash in between costs its owner one.
#[derive(Debug)]
#[must_use]
pub(crate) struct Room(Option<Hit>);

impl Room {
    /// Where there is no limit.
    pub(crate) const UNLIMITED: Self = Self(None);

    /// Gives it back: nothing came of it.
    pub(crate) async fn give_back(self, front: &Front) -> Result<(), Refusal> {
        if let Some(hit) = self.0 {
            front.store.count(vec![Hit { count: -1, ..hit }]).await?;
        }
        Ok(())
    }

    /// It was used.
    pub(crate) fn keep(self) {}
}

impl Front {
    /// Takes room for one more.
    ///
    /// # Errors
    /// [`Refusal::Limited`] when the limit is reached.
    pub(crate) async fn take_room(&self, counted: Counted) -> Result<Room, Refusal> {
        let now = self.now();
        let hits = counted.hits(now, 1);
        let mut counts = self.store.count(hits.clone()).await?;
        let room = Room(hits.first().cloned());
        let sum: u64 = counts.iter().map(|count| count.0).sum();
        if sum <= u64::from(counted.rate.most) {
            return Ok(room);
        }
        room.give_back(self).await?;
        if let Some(current) = counts.first_mut() {
            current.0 = current.0.saturating_sub(1);
        }
        let free_at = counted.free_at(&hits, &counts);
        let Counted { limit, rate, of, .. } = counted;
        Err(Refusal::Limited { reached: Box::new(Reached { limit, rate, of, free_at }), now })
    }

    /// Takes room for an order before a signer is asked, if the account's limit is known. One that may be exempt, as it names a
    /// certificate that it replaces, is not counted before the signer has said whether it is.
    ///
    /// # Errors
    /// [`Refusal::Limited`] when the limit is reached.
    pub(crate) async fn take_order_room_early(
        &self,
        account: &AccountId,
        may_be_exempt: bool,
    ) -> Result<Option<Room>, Refusal> {
        match self.learned.0.get(account) {
            Some(limits) if !may_be_exempt => self.take_order_room(&limits, account).await,
            _ => Ok(None),
        }
    }

    /// Takes room for an order where there is a limit.
    ///
    /// # Errors
    /// [`Refusal::Limited`] when the limit is reached.
    pub(crate) async fn take_order_room(
        &self,
        limits: &Limits,
        account: &AccountId,
    ) -> Result<Option<Room>, Refusal> {
        match limits.orders_per_account {
            Some(rate) => self.take_room(Counted::order_of(rate, account)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Remembers what a signer has said.
    pub(crate) fn learn(&self, account: AccountId, limits: Limits) {
        self.learned.0.insert(account, limits);
    }

    /// Whether the account may ask for these names again after its failures. What renews a certificate at its time is held only
    /// to the failures that are one after another without end.
    ///
    /// # Errors
    /// [`Refusal::Limited`], for the name that is free again last.
    pub(crate) async fn check_failures<'a>(
        &self,
        limits: &Limits,
        exempt: bool,
        account: &AccountId,
        names: impl Iterator<Item = &'a Name>,
    ) -> Result<(), Refusal> {
        let now = self.now();
        let failed_validations = limits.failed_validations.filter(|_| !exempt);
        let limits = &Limits { failed_validations, ..*limits };
        let most = [limits.failed_validations, limits.failures_until_paused].into_iter().flatten();
        let Some(most) = most.map(|rate| rate.most).max() else { return Ok(()) };
        let names: Vec<&Name> = names.collect();
        if names.is_empty() {
            return Ok(());
        }
        let identifiers: Vec<_> = names.iter().copied().map(stored::identifier).collect();
        let rows = most.saturating_mul(u32::try_from(identifiers.len()).unwrap_or(u32::MAX));
        let failures = self.store.failures(&account.to_string(), &identifiers, rows).await?;
        let reached = names
            .into_iter()
            .zip(&identifiers)
            .filter_map(|(name, identifier)| {
                let times: Vec<Timestamp> = failures
                    .iter()
                    .filter(|failure| failure.identifier == *identifier)
                    .map(|failure: &FailureRow| failure.at)
                    .collect();
                worst(limits, name, &times, now)
            })
            .max_by_key(|reached| reached.free_at);
        match reached {
            Some(reached) => Err(Refusal::Limited { reached: Box::new(reached), now }),
            None => Ok(()),
        }
    }

    /// Remembers how the last try of a challenge ended, where that is limited.
    pub(crate) async fn note_validation(
        &self,
        limits: &Limits,
        account: &AccountId,
        name: &Name,
        valid: bool,
    ) -> Result<(), Refusal> {
        let periods = [limits.failed_validations, limits.failures_until_paused].into_iter().flatten();
        let Some(longest) = periods.map(|rate| rate.period).max() else { return Ok(()) };
        let at = self.now();
        let failure = (!valid).then(|| FailureNote { at, expires_at: at.plus(longest) });
        let identifier = stored::identifier(name);
        let end = ValidationEnd { account: account.to_string(), identifier, failure };
        Ok(self.store.end_validations(vec![end]).await?)
    }
}

/// Forgets the failed validations of an account for these names: it may try them again at once, as after a success.
///
/// # Errors
/// By the store.
pub async fn unpause(store: &dyn AcmeStore, account: &AccountId, names: &[Name]) -> Result<(), StoreError> {
    let forgotten = |name| {
        let identifier = stored::identifier(name);
        ValidationEnd { account: account.to_string(), identifier, failure: None }
    };
    store.end_validations(names.iter().map(forgotten).collect()).await
}

/// The limit that keeps a name longest, from the times of its failures, latest first.
fn worst(limits: &Limits, name: &Name, times: &[Timestamp], now: Timestamp) -> Option<Reached> {
    let reached = |limit, rate: Rate, from: Timestamp| {
        let free_at = from.plus(rate.period);
        (free_at > now).then(|| Reached { limit, rate, of: name.to_string(), free_at })
    };
    let last_of = |rate: Rate| times.get(usize::try_from(rate.most).ok()?.checked_sub(1)?).copied();
    // Free when the first of the last `most` is out of the period.
    let failed = limits
        .failed_validations
        .and_then(|rate| reached(LimitName::failed_validations(), rate, last_of(rate)?));
    // Free so long after the last one.
    let paused = limits.failures_until_paused.and_then(|rate| {
        last_of(rate)?;
        reached(LimitName::failures_until_paused(), rate, *times.first()?)
    });
    failed.into_iter().chain(paused).max_by_key(|reached| reached.free_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_000_000 + seconds)
    }

    fn rate(text: &str) -> Option<Rate> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn every_moment_of_a_period_is_in_a_slot() {
        let counted = Counted::order_of(rate("3 in 1h").unwrap(), &AccountId::from_bytes(&[1; 24]).unwrap());
        for now in [at(0), at(1), at(599), at(600), at(12_345)] {
            let hits = counted.hits(now, 1);
            assert_eq!(hits.iter().map(|hit| hit.count).collect::<Vec<_>>(), [1, 0, 0, 0, 0, 0, 0]);
            let oldest = hits.last().unwrap();
            assert!(now.since(oldest.window) >= rate("1 in 1h").unwrap().period);
            assert!(hits[0].window <= now && now.since(hits[0].window) < Period::from_seconds(600));
            // A counter is there as long as somebody looks at it.
            assert!(hits[0].expires_at > hits[0].window.plus(Period::from_seconds(600 * 7)));
        }
    }

    #[test]
    fn it_is_free_when_enough_has_left() {
        let counted = Counted::order_of(rate("3 in 1h").unwrap(), &AccountId::from_bytes(&[1; 24]).unwrap());
        let hits = counted.hits(at(0), 1);
        let free = |counts: [u64; 7]| {
            counted.free_at(&hits, &counts.map(HitCount)).since(hits[0].window).seconds() / 600
        };
        assert_eq!(free([3, 0, 0, 0, 0, 0, 0]), 7);
        assert_eq!(free([1, 0, 0, 2, 0, 0, 0]), 4);
        assert_eq!(free([0, 0, 0, 0, 0, 0, 3]), 1);
        assert_eq!(free([0, 1, 0, 0, 0, 1, 1]), 1);
        assert_eq!(free([0, 2, 0, 0, 0, 1, 2]), 2);
    }

    #[test]
    fn failures_keep_a_name_for_their_time() {
        let limits = Limits {
            failed_validations: rate("2 in 1h"),
            failures_until_paused: rate("4 in 1d"),
            ..Limits::default()
        };
        let name = Name::parse_dns("www.example.org").unwrap();
        let worst = |times: &[u64], now| {
            let times: Vec<_> = times.iter().map(|time| at(*time)).collect();
            worst(&limits, &name, &times, at(now))
                .map(|it| (it.limit.as_str(), it.free_at.since(at(0)).seconds()))
        };
        assert_eq!(worst(&[], 10), None);
        assert_eq!(worst(&[10], 10), None);
        assert_eq!(worst(&[20, 10], 30), Some(("failed_validations", 3_610)));
        assert_eq!(worst(&[20, 10], 3_609), Some(("failed_validations", 3_610)));
        assert_eq!(worst(&[20, 10], 3_610), None);
        assert_eq!(worst(&[30, 20, 10], 3_615), Some(("failed_validations", 3_620)));
        let paused = Some(("failures_until_paused", 9_000 + 86_400));
        assert_eq!(worst(&[9_000, 4_000, 20, 10], 9_100), paused);
        assert_eq!(worst(&[9_000, 4_000, 20, 10], 9_000 + 86_399), paused);
        assert_eq!(worst(&[9_000, 4_000, 20, 10], 9_000 + 86_400), None);
    }
}
