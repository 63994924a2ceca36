//! Chooses who dies where, and keeps count.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::points::{POINTS, Pace, Point, Role};
use super::tally::Tally;

/// A process that may be killed.
#[derive(Debug, Clone)]
pub struct Victim {
    /// What it is.
    pub role: Role,
}

/// Of one stack.
pub struct Director {
    database: String,
    tally: Arc<Mutex<Tally>>,
    raging: watch::Sender<bool>,
    random: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Kills since the last audit.
    recent: BTreeMap<String, u64>,
    /// Kills after which no certificate was issued yet.
    waiting: Vec<(String, Instant)>,
    gaps: BTreeMap<String, Duration>,
    faults: Vec<String>,
    /// Requests that clients had to make again.
    retries: u64,
}

/// The failpoint that is none: a process that did not come by its own in time is killed where it is.
pub const ANYWHERE: &str = "anywhere";

impl Director {
    /// For a stack on this database.
    #[must_use]
    pub fn new(database: &str, tally: Arc<Mutex<Tally>>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            database: database.to_owned(),
            tally,
            raging: watch::Sender::new(false),
            random: AtomicU64::new(seed | 1),
            state: Mutex::default(),
        })
    }

    /// From now on processes are armed, or not.
    pub fn rage(&self, on: bool) {
        self.raging.send_replace(on);
    }

    /// Whether they are.
    #[must_use]
    pub fn is_raging(&self) -> bool {
        *self.raging.borrow()
    }

    /// Comes when they are.
    pub async fn raging(&self) {
        let _ = self.raging.subscribe().wait_for(|raging| *raging).await;
    }

    /// What a process that is started now is armed with.
    #[must_use]
    pub fn arm(&self, victim: &Victim) -> String {
        if !self.is_raging() {
            return String::new();
        }
        let mut arms = Vec::new();
        let least = |pace: &dyn Fn(Pace) -> bool| {
            let points: Vec<&Point> =
                POINTS.iter().filter(|point| point.role == victim.role && pace(point.pace)).collect();
            let fewest = points.iter().map(|point| self.kills(point)).min()?;
            // Among those that are about the last: always the very last would wait for what does not come.
            let last: Vec<_> = points.into_iter().filter(|point| self.kills(point) <= fewest + 2).collect();
            let pick = self.chance(last.len() as u64);
            last.get(usize::try_from(pick).ok()?).map(|point| (**point, fewest))
        };
        let often = least(&|pace| pace == Pace::Often);
        let seldom = least(&|pace| pace != Pace::Often);
        if let Some((point, _)) = seldom {
            arms.push(format!("{}=1", point.name));
        }
        // Whoever lags behind is waited for.
        let lagging =
            matches!((&often, &seldom), (Some((_, often)), Some((_, seldom))) if seldom + 3 < *often);
        if let Some((point, _)) = often.filter(|_| !lagging) {
            arms.push(format!("{}={}", point.name, 1 + self.chance(12)));
        }
        arms.join(";")
    }

    /// Keeps a file with the worker's next failpoint: the worker is started by its signer, and takes it.
    #[must_use]
    pub fn arm_workers(self: &Arc<Self>, file: PathBuf) -> JoinHandle<()> {
        let director = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if !director.is_raging() {
                    let _ = std::fs::remove_file(&file);
                } else if !file.exists() {
                    let draft = file.with_extension("draft");
                    let arms = director.arm(&Victim { role: Role::Worker });
                    if std::fs::write(&draft, arms).is_ok() {
                        let _ = std::fs::rename(&draft, &file);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    fn kills(&self, point: &Point) -> u64 {
        let recent = self.state().recent.get(point.name).copied().unwrap_or(0);
        self.tally().clean(&self.database, point.name) + recent
    }

    /// A process has killed itself at this failpoint.
    pub fn killed(&self, name: &str) {
        let mut state = self.state();
        *state.recent.entry(name.to_owned()).or_default() += 1;
        state.waiting.push((name.to_owned(), Instant::now()));
    }

    /// A process was killed by the harness.
    pub fn killed_anywhere(&self, role: &str) {
        self.killed(&format!("{ANYWHERE} ({role})"));
    }

    /// A client got its certificate, after so many requests that had to be made again.
    pub fn issued(&self, retries: u64) {
        let mut state = self.state();
        state.retries += retries;
        for (name, at) in std::mem::take(&mut state.waiting) {
            let gap = state.gaps.entry(name).or_default();
            *gap = (*gap).max(at.elapsed());
        }
    }

    /// Something that must not be.
    pub fn fault(&self, words: String) {
        self.state().faults.push(words);
    }

    /// Requests that clients had to make again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.state().retries
    }

    /// Kills since the last audit.
    #[must_use]
    pub fn recent(&self) -> u64 {
        self.state().recent.values().sum()
    }

    /// Faults so far; there should be none.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// An audit has ended: what was killed since the last one is clean, or suspect. Returns the faults.
    pub fn settle(&self, found: Vec<String>, certificates: u64) -> Vec<String> {
        let (recent, gaps, mut faults) = {
            let mut state = self.state();
            (
                std::mem::take(&mut state.recent),
                std::mem::take(&mut state.gaps),
                std::mem::take(&mut state.faults),
            )
        };
        faults.extend(found);
        let mut tally = self.tally();
        for (name, kills) in recent {
            let count = tally.count(&self.database, &name);
            if faults.is_empty() {
                count.clean += kills
            } else {
                count.suspect += kills
            }
            let gap = gaps.get(&name).map_or(0, Duration::as_millis);
            count.longest_gap_ms = count.longest_gap_ms.max(u64::try_from(gap).unwrap_or(u64::MAX));
        }
        tally.certificates += certificates;
        tally.faults.extend(faults.iter().map(|fault| format!("{}: {fault}", self.database)));
        faults
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Below `bound`; xorshift, so that a seed makes the same choices.
    fn chance(&self, bound: u64) -> u64 {
        let mut next = self.random.load(Ordering::Relaxed);
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        self.random.store(next, Ordering::Relaxed);
        (next >> 11) % bound.max(1)
    }
}
