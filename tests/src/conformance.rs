//! `docs/conformance.md`: which tests show which row of `docs/checklist.md`, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// The heading under which `docs/divergences.md` lists rows that do not hold.
const DIVERGENCES: &str = "## Rows of the checklist";
/// The way there.
const LINK: &str = "[divergence](divergences.md#rows-of-the-checklist)";

/// A row's id: a section and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId(char, u32);

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, self.1)
    }
}

impl FromStr for RowId {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut letters = text.chars();
        match (letters.next(), letters.as_str().parse()) {
            (Some(section @ 'A'..='M'), Ok(number)) => Ok(Self(section, number)),
            _ => bail!("{text} is no row's id"),
        }
    }
}

/// A test, and whether it passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// The binary and the test's path in it, as cargo-nextest names them.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
}

impl TestRun {
    /// The rows that it shows: `d2_d15_wildcards…` shows D2 and D15.
    fn rows(&self) -> BTreeSet<RowId> {
        let function = self.name.rsplit("::").next().unwrap_or_default();
        function.split('_').map_while(|word| word.to_uppercase().parse().ok()).collect()
    }
}

/// The ids at the beginning of a document's table rows, in order.
///
/// # Errors
/// When one is there twice.
pub fn ids(document: &str) -> anyhow::Result<Vec<RowId>> {
    let mut ids = Vec::new();
    for line in document.lines() {
        let cell = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next());
        if let Some(id) = cell.and_then(|cell| cell.parse().ok()) {
            if ids.contains(&id) {
                bail!("{id} is there twice");
            }
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The rows that `docs/divergences.md` says do not hold.
///
/// # Errors
/// When the document has no such section, or one row twice.
pub fn divergences(document: &str) -> anyhow::Result<Vec<RowId>> {
    let (_, after) =
        document.split_once(DIVERGENCES).with_context(|| format!("there is no section {DIVERGENCES:?}"))?;
    ids(after.split("\n## ").next().unwrap_or_default())
}

/// The tests of a run, from cargo-nextest's JUnit report. Skipped ones are not in it.
///
/// # Errors
/// When it is not such a report.
pub fn read_report(xml: &str) -> anyhow::Result<Vec<TestRun>> {
    let mut reader = Reader::from_str(xml);
    let mut runs: Vec<TestRun> = Vec::new();
    loop {
        match reader.read_event().context("the report")? {
            Event::Start(tag) | Event::Empty(tag) => match tag.name().as_ref() {
                b"testcase" => {
                    let name = format!("{}::{}", attribute(&tag, "classname")?, attribute(&tag, "name")?);
                    runs.push(TestRun { name, passed: true });
                }
                b"failure" | b"error" => {
                    runs.last_mut().context("a failure of no test")?.passed = false;
                }
                _ => {}
            },
            Event::Eof => return Ok(runs),
            _ => {}
        }
    }
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> anyhow::Result<String> {
    let found = tag.try_get_attribute(name)?.with_context(|| format!("a test without {name}"))?;
    Ok(String::from_utf8(found.value.into_owned())?)
}

/// The table, and what keeps it from being whole.
#[derive(Debug)]
pub struct Table {
    /// `docs/conformance.md`.
    pub document: String,
    /// Rows that failed, that nothing is said of, or that are said to hold and not to hold.
    pub faults: Vec<String>,
}

/// Makes the table: a line for each of `rows`.
#[must_use]
pub fn table(rows: &[RowId], divergences: &[RowId], runs: &[TestRun]) -> Table {
    let mut shown: BTreeMap<RowId, Vec<&TestRun>> = BTreeMap::new();
    for run in runs {
        for row in run.rows() {
            shown.entry(row).or_default().push(run);
        }
    }
    let strays = shown.iter().filter(|(row, _)| !rows.contains(row));
    let mut faults: Vec<String> =
        strays.map(|(row, runs)| format!("{row}: no such row, but {}", names(runs))).collect();
    faults.extend(
        divergences.iter().filter(|row| !rows.contains(row)).map(|row| format!("{row}: no such divergence")),
    );
    let (mut lines, mut counts) = (String::new(), BTreeMap::<&str, usize>::new());
    for row in rows {
        let runs = shown.get(row).map(Vec::as_slice).unwrap_or_default();
        let failed: Vec<&TestRun> = runs.iter().copied().filter(|run| !run.passed).collect();
        let (word, outcome) = match (runs, divergences.contains(row)) {
            _ if !failed.is_empty() => {
                faults.push(format!("{row}: {} failed", names(&failed)));
                ("fail", "fail")
            }
            (_, true) => ("divergence", LINK),
            ([], false) => {
                faults.push(format!("{row}: no test shows it, and docs/divergences.md does not list it"));
                ("missing", "missing")
            }
            (_, false) => ("pass", "pass"),
        };
        *counts.entry(word).or_default() += 1;
        let tests = if runs.is_empty() { "–".to_owned() } else { names(runs) };
        let _ = writeln!(lines, "| {row} | {tests} | {outcome} |");
    }
    let sum: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let document = format!(
        "# Conformance\n\n\
         Made by `make test` from what its tests are called and what came of them; not to be edited. The statements are in\n\
         [checklist.md](checklist.md). {} rows: {}.\n\n\
         | id | test | result |\n|---|---|---|\n{lines}",
        rows.len(),
        sum.join(", ")
    );
    Table { document, faults }
}

/// The tests' names, without the crate's where the path says enough.
fn names(runs: &[&TestRun]) -> String {
    let names: BTreeSet<String> = runs.iter().map(|run| format!("`{}`", run.name)).collect();
    names.into_iter().collect::<Vec<_>>().join("<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="nextest-run" tests="4" failures="1">
          <testsuite name="front::acme" tests="3">
            <testcase name="orders::d2_d15_wildcards_have_dns_alone" classname="front::acme" time="0.1" />
            <testcase name="orders::d4_times_are_honoured" classname="front::acme" time="0.1">
              <failure message="oh &lt;no&gt;" type="test failure">text</failure>
              <system-out>d4_times</system-out>
            </testcase>
            <testcase name="orders::something_else" classname="front::acme" time="0.1"/>
          </testsuite>
          <testsuite name="signer::it" tests="1">
            <testcase name="crls::k1_numbers_rise" classname="signer::it" time="0.1"/>
          </testsuite>
        </testsuites>"#;

    fn rows(text: &str) -> Vec<RowId> {
        text.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    #[test]
    fn a_report_is_read() {
        let runs = read_report(REPORT).unwrap();
        let outcomes: Vec<(&str, bool)> = runs.iter().map(|run| (run.name.as_str(), run.passed)).collect();
        assert_eq!(outcomes[0], ("front::acme::orders::d2_d15_wildcards_have_dns_alone", true));
        assert_eq!(outcomes[1], ("front::acme::orders::d4_times_are_honoured", false));
        assert_eq!(outcomes.len(), 4);
        assert!(read_report("<testsuites><testcase/></testsuites>").is_err());
        assert!(read_report("<testsuites><failure/></testsuites>").is_err());
    }

    #[test]
    fn every_row_has_its_line() {
        let runs = read_report(REPORT).unwrap();
        let made = table(&rows("D2 D4 D15 E1 K1 L2"), &rows("K1 E1"), &runs);
        let line = |id: &str| {
            made.document.lines().find(|line| line.starts_with(&format!("| {id} |"))).unwrap().to_owned()
        };
        assert_eq!(line("D2"), "| D2 | `front::acme::orders::d2_d15_wildcards_have_dns_alone` | pass |");
        assert!(line("D15").ends_with("| pass |"));
        assert!(line("D4").ends_with("| fail |"));
        assert_eq!(line("E1"), format!("| E1 | – | {LINK} |"));
        assert_eq!(line("K1"), format!("| K1 | `signer::it::crls::k1_numbers_rise` | {LINK} |"));
        assert_eq!(line("L2"), "| L2 | – | missing |");
        assert_eq!(made.faults.len(), 2, "{:?}", made.faults);
        assert!(made.document.contains("6 rows: 2 divergence, 1 fail, 1 missing, 2 pass."));
    }

    #[test]
    fn what_names_no_row_is_a_fault() {
        let runs = read_report(REPORT).unwrap();
        let made = table(&rows("D2 D4"), &rows("D2 M1"), &runs);
        assert_eq!(made.faults.len(), 4, "D15, K1, M1 and D4: {:?}", made.faults);
    }

    #[test]
    fn divergences_are_those_of_one_section() {
        let text = "# D\n| A1 | no |\n\n## Rows of the checklist\n\n| id | why |\n|---|---|\n| G10 | later |\n\n## Next\n| A2 | no |\n";
        assert_eq!(divergences(text).unwrap(), rows("G10"));
        assert!(divergences("# D").is_err());
        assert!(ids("| A1 | x |\n| A1 | y |").is_err());
    }
}
