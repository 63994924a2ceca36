//! What was killed how often, and what came of it; kept in a file, so that runs add up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::points::POINTS;

/// Counts by database (`sqlite`, `postgres`, `postgres, two signers`) and failpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    counts: BTreeMap<String, BTreeMap<String, Count>>,
    /// Certificates that clients got.
    #[serde(default)]
    pub certificates: u64,
    /// Faults that audits found, in words. Nothing takes them out but a person.
    #[serde(default)]
    pub faults: Vec<String>,
    #[serde(skip)]
    file: Option<PathBuf>,
}

/// Of one failpoint.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Count {
    /// Kills whose audit found nothing.
    pub clean: u64,
    /// Kills whose audit found a fault: any kill since the last clean audit may be the cause.
    pub suspect: u64,
    /// Kills that were not audited yet when the run ended. Counted for nothing.
    #[serde(default)]
    pub unaudited: u64,
    /// The longest time from a kill to the next certificate, in milliseconds.
    pub longest_gap_ms: u64,
}

impl Tally {
    /// From a file that an earlier run may have left.
    ///
    /// # Errors
    ///
    /// When there is one that cannot be understood.
    pub fn open(file: Option<&Path>) -> anyhow::Result<Self> {
        let earlier = file.filter(|file| file.exists()).map(std::fs::read).transpose()?;
        let mut tally: Self = match earlier {
            Some(json) => serde_json::from_slice(&json).context("the counts of an earlier run")?,
            None => Self::default(),
        };
        tally.file = file.map(Path::to_owned);
        Ok(tally)
    }

    /// The count of a point.
    pub fn count(&mut self, database: &str, point: &str) -> &mut Count {
        self.counts.entry(database.to_owned()).or_default().entry(point.to_owned()).or_default()
    }

    /// Clean kills of a point so far.
    #[must_use]
    pub fn clean(&self, database: &str, point: &str) -> u64 {
        self.counts.get(database).and_then(|points| points.get(point)).map_or(0, |count| count.clean)
    }

    /// All clean kills.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().flat_map(BTreeMap::values).map(|count| count.clean).sum()
    }

    /// All suspect kills.
    #[must_use]
    pub fn suspect(&self) -> u64 {
        self.counts.values().flat_map(BTreeMap::values).map(|count| count.suspect).sum()
    }

    /// The fewest clean kills of any failpoint on a database.
    #[must_use]
    pub fn fewest(&self, database: &str) -> u64 {
        POINTS.iter().map(|point| self.clean(database, point.name)).min().unwrap_or(0)
    }

    /// Writes the file, if there is one.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep(&self) -> anyhow::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let draft = file.with_extension("draft");
        std::fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        Ok(std::fs::rename(draft, file)?)
    }

    /// The kill table, for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| failpoint | database | kills, clean | kills, suspect | longest gap |\n|---|---|---|---|---|\n",
        );
        for (database, points) in &self.counts {
            let known = POINTS.iter().map(|point| point.name).filter(|name| points.contains_key(*name));
            let others =
                points.keys().map(String::as_str).filter(|name| POINTS.iter().all(|p| p.name != *name));
            for name in known.chain(others) {
                let count = points.get(name).copied().unwrap_or_default();
                let seconds = count.longest_gap_ms as f64 / 1000.0;
                let _ = writeln!(
                    text,
                    "| `{name}` | {database} | {} | {} | {seconds:.1} s |",
                    count.clean, count.suspect
                );
            }
        }
        let _ = writeln!(
            text,
            "\n{} kills, all audited, {} of them suspect; {} certificates; {} faults",
            self.total() + self.suspect(),
            self.suspect(),
            self.certificates,
            self.faults.len()
        );
        text
    }
}
