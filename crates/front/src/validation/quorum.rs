//! How many perspectives must agree: the signer's rule, which a front follows in what it shows to clients.

use std::collections::{BTreeMap, BTreeSet};

use acme::problem::{ErrorType, Problem};
use acme::receipt::{Outcome, Receipt};

const UNSEEN: &str = "the validator looks at nothing, which this directory does not accept";

/// What a directory asks of its perspectives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quorum {
    perspectives: BTreeSet<String>,
    needed: usize,
    /// Said to clients where a perspective has looked at nothing, and that does not count.
    unseen: Option<Problem>,
}

/// What the receipts of one run come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As many as are needed agree.
    Shown,
    /// So many dissent that it cannot be, with the first one's problem.
    Refused(Problem),
    /// Neither: perspectives were silent.
    Open,
}

impl Quorum {
    /// The directory's perspectives, how many of them must agree, and whether they need not look.
    pub(crate) fn new(
        perspectives: impl IntoIterator<Item = String>,
        needed: u32,
        always_valid: bool,
    ) -> Self {
        let needed = usize::try_from(needed).unwrap_or(usize::MAX).max(1);
        let unseen = (!always_valid).then(|| Problem::new(ErrorType::ServerInternal, UNSEEN));
        Self { perspectives: perspectives.into_iter().collect(), needed, unseen }
    }

    /// Whether they are enough.
    pub(crate) fn is_met(&self, receipts: &[Receipt]) -> bool {
        self.count(receipts) == Verdict::Shown
    }

    /// Whoever is not asked for this directory does not count, and whoever said both yes and no said no.
    pub(super) fn count(&self, receipts: &[Receipt]) -> Verdict {
        let mut said: BTreeMap<&str, Option<&Problem>> = BTreeMap::new();
        for receipt in receipts.iter().filter(|one| self.perspectives.contains(one.perspective.as_str())) {
            let no = match &receipt.outcome {
                Outcome::Valid | Outcome::Caa => None,
                // The signer would not count it: better that the client hears of it now than at its finalize.
                Outcome::Assumed => self.unseen.as_ref(),
                Outcome::Invalid(problem) => Some(problem),
            };
            let known = said.entry(receipt.perspective.as_str()).or_insert(no);
            *known = known.or(no);
        }
        let dissent = said.values().flatten().count();
        let agree = said.len() - dissent;
        if agree >= self.needed {
            return Verdict::Shown;
        }
        let bearable = self.perspectives.len().saturating_sub(self.needed);
        match said.values().flatten().next() {
            Some(problem) if dissent > bearable => Verdict::Refused((*problem).clone()),
            _ => Verdict::Open,
        }
    }
}
