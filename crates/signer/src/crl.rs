//! CRLs (DESIGN §6): made of a snapshot of the journal's revocations, journaled by digest, signed, verified, published by
//! compare-and-swap. By event within a second, by timer otherwise.
//!
//! Here is who looks, `due` says when, `make` and `write` how, out of the journal's `pieces` or the `previous` CRL; `spool` is
//! where the files are. `imported` has the CRLs that are
//! made elsewhere.

mod due;
mod imported;
mod list;
mod make;
mod measure;
mod others;
mod pieces;
mod previous;
mod spool;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca_store::{
    CertificateFilter, CertificateQuery, CrlRow, CrlShard, CrlShardRow, IssuerState, JournalKind,
    LeaseOutcome, TimeRange,
};
use hsm::KeyHealth;
use pki::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::due::{Due, Kind, ended_long_ago};
pub use self::imported::ImportedCrls;
pub use self::list::CrlState;
use self::make::{Order, TakenUp};
use self::measure::Late;
use self::others::{Heard, Hearing, LeftToOthers};
use self::previous::PreviousCrls;
pub(crate) use self::spool::Finished;
use self::spool::Spool;
use crate::ca::Ca;
use crate::publication::Objects;
use crate::refusal::{Failure, Outcome};
use crate::registry::IssuerEntry;

/// The timers are looked at, and other signers' work is seen, this often.
const ROUND: Duration = Duration::from_secs(5);
/// A key that cannot sign is looked at this often while a CRL waits for it.
const KEY_LOOK: Duration = Duration::from_secs(1);
/// Building a CRL is one signer's alone; a second one at the same time would be work for nothing, no harm. So the lease is
/// short, and renewed while the CRL is built: one that died holds nobody up.
const BUILD_LEASE: Duration = Duration::from_secs(3);
/// A CRL that is not made after so long is left to others. A million entries take a second.
const LONGEST_LEASE: Duration = Duration::from_secs(60);
/// A CRL that is due, and that another signer builds, is looked at this often: that one may have died.
const LEASE_LOOK: Duration = Duration::from_secs(1);
/// After a failure, the pause doubles from a second up to this: each try takes a number and a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// Certificates that are looked at at once.
const PAGE: u32 = 100;
/// A shard rests for this many times as long as its CRL took to make, so that revocations without end leave time for
/// other shards.
const REST: u32 = 3;

/// Makes CRLs and keeps the published ones at hand.
#[derive(Debug)]
pub struct CrlMaker {
    ca: Arc<Ca>,
    objects: Objects,
    spool: Arc<Spool>,
    previous: PreviousCrls,
    round: Duration,
    longest_lease: Duration,
}

impl CrlMaker {
    /// `folder`: for finished CRLs. Losing it loses nothing: they are made again from the journal.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(ca: Arc<Ca>, objects: Objects, folder: PathBuf) -> std::io::Result<Self> {
        let (spool, previous) = (Arc::new(Spool::open(folder)?), PreviousCrls::default());
        Ok(Self { ca, objects, spool, previous, round: ROUND, longest_lease: LONGEST_LEASE })
    }

    /// Looks at its timers this often instead of every five seconds: for tests of what does not wait for them.
    #[must_use]
    pub fn with_round(self, round: Duration) -> Self {
        Self { round, ..self }
    }

    /// Leaves a CRL to others after so long instead of a minute: for tests of what hangs.
    #[must_use]
    pub fn with_longest_lease(self, longest_lease: Duration) -> Self {
        Self { longest_lease, ..self }
    }

    /// Keeps every shard's CRL current until the signer drains.
    ///
    /// # Errors
    /// Never: what fails is reported and tried again.
    pub async fn keep_current(self, draining: CancellationToken) -> Result<(), std::convert::Infallible> {
        self.sweep().await;
        // Each issuer by itself: one whose token is away does not hold up the others.
        let keepers = self.ca.registry.issuers().map(|entry| Keeper::new(&self, entry).run(&draining));
        let _: Vec<()> = futures::future::join_all(keepers).await;
        Ok(())
    }

    /// Makes and publishes the complete CRL of a shard, whether it is due or not. Answers how long it took from the snapshot
    /// on: for measurements.
    ///
    /// # Errors
    /// When there is no such issuer, or what [`CrlMaker::keep_current`] would report.
    pub async fn make_now(&self, issuer: &str, shard: u32) -> Outcome<Duration> {
        let no_issuer = || Failure::NoIssuer { pool: issuer.to_owned() };
        let entry = self.ca.registry.issuer(issuer).ok_or_else(no_issuer)?;
        let shard = CrlShard { issuer: issuer.to_owned(), shard };
        let rows = self.ca.store.crl_shards(Some(issuer)).await?;
        let row = rows.into_iter().find(|row| row.shard == shard);
        let last = row.as_ref().and_then(due::latest);
        self.make(&Order { entry, shard, kind: Kind::Complete, last_of_all: false }, last).await
    }

    /// Removes what earlier lives left in the spool.
    async fn sweep(&self) {
        let rows = match self.ca.store.crl_shards(None).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "crl.spool_not_swept");
                return;
            }
        };
        let current = rows.iter().flat_map(|row| row.published.iter().chain(&row.published_delta));
        let current: BTreeSet<PathBuf> = current.map(|row| self.spool.file_of(&row.key)).collect();
        if let Err(error) = self.spool.sweep(current).await {
            tracing::warn!(%error, "crl.spool_not_swept");
        }
    }
}

/// Looks after the shards of one issuer.
struct Keeper<'a> {
    maker: &'a CrlMaker,
    entry: &'a Arc<IssuerEntry>,
    hearing: Hearing,
    /// Whether the key could sign at the last look.
    ready: bool,
    /// The operators were told that a CRL waits for the key.
    told: bool,
    /// The issuer's last CRLs are due, or made.
    over: bool,
    paces: BTreeMap<(u32, Kind), Pace>,
    /// Since when revocations of this signer wait for their CRL.
    waiting: BTreeMap<u32, Instant>,
    left: LeftToOthers,
    late: Late,
}

/// When a CRL may be made again.
#[derive(Debug, Default, Clone, Copy)]
struct Pace {
    not_before: Option<Instant>,
    /// Number of the published one that cannot be made again.
    lost: Option<u64>,
    /// How many of them there were one after another.
    losses: u32,
    failures: u32,
}

/// What a shard needs.
enum Need {
    /// Nothing before the next round.
    Nothing,
    /// Nothing: a CRL was made.
    Made,
    /// Another look at that time.
    Look(Instant),
}

impl<'a> Keeper<'a> {
    fn new(maker: &'a CrlMaker, entry: &'a Arc<IssuerEntry>) -> Self {
        Self {
            maker,
            entry,
            hearing: Hearing::of(&entry.id, maker.ca.events.subscribe()),
            ready: false,
            told: false,
            over: false,
            paces: BTreeMap::new(),
            waiting: BTreeMap::new(),
            left: LeftToOthers::default(),
            late: Late::default(),
        }
    }

    async fn run(mut self, draining: &CancellationToken) {
        let mut wanted = BTreeSet::new();
        loop {
            let once = async {
                let wake = self.round(&mut wanted).await;
                self.rest(wake, &mut wanted).await;
            };
            if draining.run_until_cancelled(once).await.is_none() {
                return;
            }
        }
    }

    /// Until that time, or until something is heard that does not wait.
    async fn rest(&mut self, mut wake: Instant, wanted: &mut BTreeSet<u32>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(wake) => break,
                heard = self.hearing.next() => match self.take(heard, wanted) {
                    Some(at) => wake = wake.min(at),
                    None if matches!(heard, Heard::RevokedByOther(_)) => {}
                    None => break,
                },
            }
        }
        // Whatever else was revoked meanwhile goes into the same CRL.
        while let Some(heard) = self.hearing.queued() {
            self.take(heard, wanted);
        }
    }

    /// Takes notice. Answers when to look, if that is neither now nor planned.
    fn take(&mut self, heard: Heard, wanted: &mut BTreeSet<u32>) -> Option<Instant> {
        match heard {
            Heard::Revoked(shard) => {
                wanted.insert(shard);
                self.waiting.entry(shard).or_insert_with(Instant::now);
                None
            }
            Heard::RevokedByOther(shard) => self.left.revoked(shard),
            Heard::Anything => None,
        }
    }

    /// One look at every shard: takes up what was published, makes what is due. Answers when to look again.
    async fn round(&mut self, wanted: &mut BTreeSet<u32>) -> Instant {
        let next = Instant::now() + self.maker.round;
        self.look_at_key();
        self.look_at_end().await;
        let Some(rows) = self.rows().await else { return next };
        let mut wake = next;
        for shard in 0..self.entry.shards {
            let row = rows.iter().find(|row| row.shard.shard == shard);
            match self.look_after_shard(shard, row, wanted.contains(&shard)).await {
                Some(at) => wake = wake.min(at),
                None => {
                    wanted.remove(&shard);
                    self.left.forget(shard);
                    // Another signer's CRL has it, if this one's was not counted already.
                    let since = self.waiting.remove(&shard);
                    if let Some(since) = since.filter(|_| row.is_some_and(due::has_all)) {
                        measure::revocation_is_out(since);
                    }
                }
            }
        }
        let maker = self.maker;
        if let Some(rows) = self.rows().await {
            self.late.look(&maker.ca, &maker.objects, self.entry, &rows, self.over);
        }
        wake
    }

    async fn rows(&self) -> Option<Vec<CrlShardRow>> {
        match self.maker.ca.store.crl_shards(Some(&self.entry.id)).await {
            Ok(rows) => Some(rows),
            Err(error) => {
                tracing::warn!(issuer = self.entry.id, %error, "crl.state_unknown");
                None
            }
        }
    }

    /// A key that has just become usable: whatever waited for it waits no longer.
    fn look_at_key(&mut self) -> bool {
        let ready = self.key_is_ready();
        if ready && !self.ready {
            self.paces.clear();
            self.told = false;
        }
        self.ready = ready;
        ready
    }

    /// What the token said last. It is asked again by itself, not by a signature.
    fn key_is_ready(&self) -> bool {
        let health = self.maker.ca.doors.issuer(&self.entry.id).map(crate::doors::IssuerDoor::health);
        matches!(health, Ok(KeyHealth::Ready(_)))
    }

    /// The last CRLs of a retired issuer are made when the operator says so, or when all its certificates have ended and
    /// every entry has left.
    async fn look_at_end(&mut self) {
        if self.over || self.entry.state != IssuerState::Retired {
            return;
        }
        let Ok(now) = self.maker.ca.now() else { return };
        self.over = self.entry.last_crl || self.has_none_left(now).await;
        if self.over {
            tracing::info!(issuer = self.entry.id, "crl.issuer_is_over");
        }
    }

    /// Its responder's certificates do not count: they are renewed for as long as there is anything to answer.
    async fn has_none_left(&self, now: Timestamp) -> bool {
        let mut query = CertificateQuery::first(CertificateFilter::Issuer(self.entry.id.clone()), PAGE);
        query.expires = Some(TimeRange { from: ended_long_ago(self.entry, now), before: Timestamp::MAX });
        loop {
            let found = match self.maker.ca.store.certificates(&query).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(issuer = self.entry.id, %error, "crl.state_unknown");
                    return false;
                }
            };
            if found.items.iter().any(|entry| entry.row.unverified().kind != JournalKind::Responder) {
                return false;
            }
            match found.next {
                Some(cursor) => query = query.after(cursor),
                None => return true,
            }
        }
    }

    /// The complete CRL, then the delta on it. Answers when to look again; none when nothing is due.
    async fn look_after_shard(
        &mut self,
        shard: u32,
        row: Option<&CrlShardRow>,
        wanted: bool,
    ) -> Option<Instant> {
        let complete = self.look_after(shard, Kind::Complete, row, wanted).await;
        if self.entry.deltas.is_none() {
            return complete.look();
        }
        let fresh = match complete {
            Need::Made => {
                self.rows().await.and_then(|rows| rows.into_iter().find(|row| row.shard.shard == shard))
            }
            _ => None,
        };
        let delta = self.look_after(shard, Kind::Delta, fresh.as_ref().or(row), wanted).await;
        complete.look().into_iter().chain(delta.look()).min()
    }

    async fn look_after(&mut self, shard: u32, kind: Kind, row: Option<&CrlShardRow>, wanted: bool) -> Need {
        let published = row.and_then(|row| kind.published(row));
        let at_hand = match published {
            None => false,
            Some(published) => self.take_up(shard, kind, published).await,
        };
        let now = match self.maker.ca.now() {
            Ok(now) => now,
            Err(failure) => {
                self.report(shard, &failure);
                return Need::Look(Instant::now() + self.maker.round);
            }
        };
        let lost = published.is_some() && !at_hand;
        let due = match kind.is_due(self.entry, row, now, self.over) {
            _ if due::has_ended(self.entry, now) => Due::Not,
            _ if lost => Due::Now,
            due => due,
        };
        if due == Due::Not {
            return Need::Nothing;
        }
        // Neither a lease nor a number for what cannot be signed: another signer may have its key.
        if !self.look_at_key() {
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!(issuer = self.entry.id, shard, "crl.waits_for_key");
            }
            return Need::Look(Instant::now() + KEY_LOOK);
        }
        let pace = self.paces.get(&(shard, kind)).copied().unwrap_or_default();
        if let Some(not_before) = pace.not_before.filter(|at| *at > Instant::now()) {
            return Need::Look(not_before);
        }
        if due == Due::Revoked
            && !wanted
            && let Some(at) = self.left.look(shard, row.and_then(due::latest_number))
        {
            return Need::Look(at);
        }
        match self.make(shard, kind, row.and_then(due::latest), wanted).await {
            Ok(None) => Need::Look(Instant::now() + LEASE_LOOK),
            Ok(Some(took)) => {
                let not_before = Some(Instant::now() + took.saturating_mul(REST));
                self.paces.insert((shard, kind), Pace { not_before, failures: 0, ..pace });
                if let Some(since) = self.waiting.remove(&shard) {
                    measure::revocation_is_out(since);
                }
                Need::Made
            }
            Err(failure) => {
                self.report(shard, &failure);
                let at = Instant::now() + pause(pace.failures);
                let failures = pace.failures.saturating_add(1);
                self.paces.insert((shard, kind), Pace { not_before: Some(at), failures, ..pace });
                // A key that is away may come back before.
                Need::Look(if self.look_at_key() { at } else { at.min(Instant::now() + KEY_LOOK) })
            }
        }
    }

    /// Answers whether a published CRL is at hand, or need not be made anew.
    async fn take_up(&mut self, shard: u32, kind: Kind, published: &CrlRow) -> bool {
        let pace = self.paces.entry((shard, kind)).or_default();
        let number = published.key.number;
        if pace.lost == Some(number) {
            return false;
        }
        match self.maker.take_up(self.entry, published).await {
            Ok(TakenUp::WasAtHand) => true,
            Ok(TakenUp::Made(took)) => {
                // Whoever made it, the shard rests.
                *pace =
                    Pace { not_before: Some(Instant::now() + took.saturating_mul(REST)), ..Pace::default() };
                true
            }
            Ok(TakenUp::Not) => {
                // A signer with another policy cannot make this one's either: they would go on and on.
                let not_before = pace.losses.checked_sub(1).map(|before| Instant::now() + pause(before));
                let losses = pace.losses.saturating_add(1);
                *pace = Pace { not_before, lost: Some(number), losses, ..*pace };
                false
            }
            // What a full disk keeps from being spooled need not be made anew.
            Err(failure) => {
                self.report(shard, &failure);
                true
            }
        }
    }

    /// Makes a shard's CRL, unless another signer does; how long that took.
    async fn make(
        &self,
        shard: u32,
        kind: Kind,
        last: Option<Timestamp>,
        wanted: bool,
    ) -> Outcome<Option<Duration>> {
        let store = &self.maker.ca.store;
        let shard = CrlShard { issuer: self.entry.id.clone(), shard };
        let name = match kind {
            Kind::Complete => format!("crl/{}/{}", shard.issuer, shard.shard),
            Kind::Delta => format!("crl/{}/{}/delta", shard.issuer, shard.shard),
        };
        let held = matches!(store.claim_lease(&name, BUILD_LEASE).await?, LeaseOutcome::Held { .. });
        // An event is this signer's own: another's CRL may have been begun before it. What a timer finds is done once.
        if !held && !wanted {
            return Ok(None);
        }
        let order = Order { entry: self.entry, shard, kind, last_of_all: self.over };
        let until = Instant::now() + self.maker.longest_lease;
        let made = {
            let making = self.maker.make(&order, last);
            tokio::pin!(making);
            loop {
                tokio::select! {
                    made = &mut making => break made,
                    () = tokio::time::sleep(BUILD_LEASE / 3), if held => {
                        // Without it another one builds the same: no harm. A key that is away, or a disk that hangs, holds
                        // nobody up.
                        let is_at_work = self.key_is_ready() && Instant::now() < until;
                        let ttl = if is_at_work { BUILD_LEASE } else { Duration::ZERO };
                        drop(store.claim_lease(&name, ttl).await);
                    }
                }
            }
        };
        if held {
            // Freed at once: the next revocation may be another signer's.
            store.claim_lease(&name, Duration::ZERO).await?;
        }
        made.map(Some)
    }

    fn report(&self, shard: u32, failure: &Failure) {
        metrics::counter!("chancery_crl_failures_total").increment(1);
        tracing::warn!(issuer = self.entry.id, shard, error = %failure, "crl.failed");
        if failure.class() == pki::ErrorClass::Fatal {
            self.maker.ca.alarm(failure);
        }
    }
}

impl Need {
    const fn look(&self) -> Option<Instant> {
        match self {
            Self::Nothing | Self::Made => None,
            Self::Look(at) => Some(*at),
        }
    }
}

/// The pause after so many failures and one.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)).min(LONGEST_PAUSE)
}
