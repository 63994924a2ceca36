//! Makes `docs/conformance.md` from the report of a whole test run: the end of `make test`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use e2e::conformance::{divergences, ids, read_report, table};

/// Says of each row of the checklist which tests show it, and what came of them.
#[derive(Parser)]
struct Arguments {
    /// cargo-nextest's JUnit report of the whole suite.
    #[arg(long, default_value = "target/nextest/default/junit.xml")]
    report: PathBuf,
    /// The folder of checklist.md, divergences.md and conformance.md.
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let rows = ids(&read(arguments.docs.join("checklist.md"))?)?;
    let divergences = divergences(&read(arguments.docs.join("divergences.md"))?)?;
    let runs = read_report(&read(arguments.report.clone())?)?;
    let made = table(&rows, &divergences, &runs);
    let path = arguments.docs.join("conformance.md");
    // Absent, or of an older run: in both cases it is written anew.
    let renewed = std::fs::read_to_string(&path).ok().as_ref() != Some(&made.document);
    if renewed {
        std::fs::write(&path, &made.document)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    for fault in &made.faults {
        eprintln!("conformance: {fault}");
    }
    if renewed {
        eprintln!("conformance: {} was not what this run shows; it is now, commit it", path.display());
    }
    Ok(made.faults.is_empty() && !renewed)
}
