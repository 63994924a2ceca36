//! Rounds of kills, each followed by an audit, until enough were made.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::audit::Auditor;
use super::director::Director;
use super::load::Load;
use super::stack::{Kind, Stack};
use super::tally::Tally;

/// How much is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Kills over all failpoints, those of earlier runs included.
    pub kills: u64,
    /// Kills of each failpoint, those of earlier runs included.
    pub each: u64,
    /// Ends after this time, whatever was done.
    pub time: Duration,
    /// CAs side by side: which.
    pub stacks: Vec<Kind>,
    /// Clients of each.
    pub clients: usize,
    /// Kills between two audits of a stack.
    pub round: u64,
    /// Whether the folders of the CAs are kept for somebody to look at; after a fault they always are.
    pub keep: bool,
    /// The choices' seed.
    pub seed: u64,
}

impl Plan {
    /// Enough was killed: in all, and at each failpoint on each database.
    #[must_use]
    pub fn is_reached(&self, tally: &Tally) -> bool {
        tally.total() >= self.kills && self.fewest(tally) >= self.each
    }

    /// The kills of the failpoint that was hit least.
    #[must_use]
    pub fn fewest(&self, tally: &Tally) -> u64 {
        self.stacks.iter().map(|kind| tally.fewest(kind.label())).min().unwrap_or(0)
    }
}

/// A plan that is carried out.
#[derive(Clone)]
pub struct Campaign {
    plan: Plan,
    tally: Arc<Mutex<Tally>>,
    started: Instant,
    stop: tokio::sync::watch::Receiver<bool>,
}

/// A round that has not its kills by then is audited anyway.
const ROUND: Duration = Duration::from_secs(20);
/// For clients to finish what they have begun.
const QUIET: Duration = Duration::from_secs(90);

impl Campaign {
    /// Ready to run; it stops, after an audit, when `stop` becomes true.
    #[must_use]
    pub fn new(plan: Plan, tally: Arc<Mutex<Tally>>, stop: tokio::sync::watch::Receiver<bool>) -> Self {
        Self { plan, tally, started: Instant::now(), stop }
    }

    /// Runs all stacks to the end, or to the first fault of any.
    ///
    /// # Errors
    ///
    /// With what is wrong: a fault of the CA, or something that kept the harness from looking.
    pub async fn run(&self) -> anyhow::Result<()> {
        let mut stacks = tokio::task::JoinSet::new();
        for (number, kind) in self.plan.stacks.iter().copied().enumerate() {
            let campaign = self.clone();
            stacks.spawn(async move { campaign.run_stack(kind, number as u64).await });
        }
        while let Some(ended) = stacks.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn run_stack(&self, kind: Kind, number: u64) -> anyhow::Result<()> {
        let seed = self.plan.seed.wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let director = Director::new(kind.label(), Arc::clone(&self.tally), seed);
        let stack = Stack::start(kind, &director).await?;
        let load = Load::start(&stack, &director, self.plan.clients);
        let mut auditor = Auditor::default();
        let mut outcome = Ok(());
        while outcome.is_ok() && !self.is_done() {
            outcome = self.round(&stack, &load, &director, &mut auditor).await;
        }
        if outcome.is_ok() {
            let faults = auditor.integrity(&stack).await?;
            outcome = if faults.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(faults.join("\n"))) };
        }
        drop(load);
        if outcome.is_err() {
            eprintln!("{}", stack.logs());
        }
        stack.stop(outcome.is_err() || self.plan.keep).await;
        outcome
    }

    /// Kills, then quiet, then an audit.
    async fn round(
        &self,
        stack: &Stack,
        load: &Load,
        director: &Director,
        auditor: &mut Auditor,
    ) -> anyhow::Result<()> {
        director.rage(true);
        let end = Instant::now() + ROUND;
        while director.recent() < self.plan.round
            && Instant::now() < end
            && director.faults().is_empty()
            && !self.is_over()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        director.rage(false);
        let quiet = load.pause(QUIET).await;
        let mut found = Vec::new();
        let mut certificates = 0;
        match &quiet {
            None => found.push(format!("clients do not come to an end within {QUIET:?}")),
            Some(_) => {
                let mut held = std::mem::take(&mut *load.held.lock().unwrap_or_else(PoisonError::into_inner));
                certificates = held.fresh.len() as u64;
                found.extend(auditor.audit(stack, &mut held).await?);
                *load.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
            }
        }
        let faults = director.settle(found, certificates);
        self.tally().keep()?;
        anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }

    /// Enough was killed, or it is over.
    fn is_done(&self) -> bool {
        let tally = self.tally();
        self.plan.is_reached(&tally) || self.is_over()
    }

    fn is_over(&self) -> bool {
        self.started.elapsed() > self.plan.time || *self.stop.borrow()
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
