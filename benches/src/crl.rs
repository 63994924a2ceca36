//! CRLs of any size, through the signer's own code: entries in a real database, the key in SoftHSM, the file on the disk.

mod openssl;
mod signer;

use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};

use self::signer::{Bench, From};
use crate::rounded;

/// What one CRL took.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// Entries.
    pub entries: u64,
    /// From the snapshot to the signed and published file, seconds: the middle of the rounds.
    pub seconds: f64,
    /// Peak memory above the idle process, MiB.
    pub memory: f64,
    /// Octets of the file.
    pub octets: u64,
}

/// Where the entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Database {
    /// A file on this host.
    Sqlite,
    /// A server on this host, fsync on.
    Postgres,
}

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "crl")]
pub struct Arguments {
    /// Entries of the CRLs.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    pub entries: Vec<u64>,
    /// How often each is made.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Where the entries are.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sqlite,postgres")]
    pub databases: Vec<Database>,
    /// OpenSSL is stopped after so many seconds for one CRL.
    #[arg(long, default_value_t = 60)]
    pub openssl_seconds: u64,
}

/// Measures; prints a table and answers the figures.
///
/// # Errors
///
/// When something that is measured does not work.
pub async fn run(arguments: &Arguments) -> anyhow::Result<Map<String, Value>> {
    println!("CRL, snapshot to signed file   entries   seconds   µs an entry   MiB above idle   MiB of file");
    let mut figures = Map::new();
    let (mut wholes, mut editions) = (Vec::new(), Vec::new());
    for database in &arguments.databases {
        let name = match database {
            Database::Sqlite => "sqlite",
            Database::Postgres => "postgres",
        };
        let (mut whole, mut edited) = (Vec::new(), Vec::new());
        for entries in &arguments.entries {
            let mut bench = Bench::start(*database, *entries).await.context(name)?;
            for (from, said, all) in
                [(From::Journal, "all read", &mut whole), (From::Previous, "the one before", &mut edited)]
            {
                let one = bench.make(from, arguments.rounds).await.context(name)?;
                row(&format!("{name}, {said}"), one);
                all.push(Made { entries: *entries, ..one });
            }
            bench.end().await;
        }
        let of = |made: &[Made]| made.iter().copied().map(value).collect::<Value>();
        figures.insert(name.to_owned(), json!({ "whole": of(&whole), "edited": of(&edited) }));
        wholes.push(whole);
        editions.push(edited);
    }
    let mut theirs = Vec::new();
    for entries in &arguments.entries {
        let most = Duration::from_secs(arguments.openssl_seconds);
        match openssl::make(*entries, most)? {
            Some(one) => {
                row("openssl ca -gencrl", one);
                theirs.push(value(one));
            }
            None => {
                println!(
                    "{:28} {entries:>9}   more than {} s",
                    "openssl ca -gencrl", arguments.openssl_seconds
                );
                break;
            }
        }
    }
    figures.insert("openssl".to_owned(), theirs.into());
    // Of two databases the slower one counts. As a signer at work makes them, and as one that has just been started does.
    let of_all = |all: &[Vec<Made>], figure: fn(&[Made]) -> Option<f64>| {
        all.iter()
            .filter_map(|made| figure(made))
            .fold(None, |worst: Option<f64>, one| Some(worst.map_or(one, |worst| worst.max(one))))
    };
    let (seconds, memory) = (
        |made: &[Made]| Some(of(made, 1_000_000)?.seconds),
        |made: &[Made]| Some(of(made, 1_000_000)?.memory),
    );
    let both = [wholes.clone(), editions.clone()].concat();
    let mut summary = Map::new();
    for (name, figure) in [
        ("crl_1m_s", of_all(&editions, seconds)),
        ("crl_1m_whole_s", of_all(&wholes, seconds)),
        ("crl_1m_mb", of_all(&both, memory)),
        ("crl_growth_10k_to_1m", of_all(&both, growth)),
    ] {
        if let Some(figure) = figure {
            summary.insert(name.to_owned(), rounded(figure));
        }
    }
    summary.insert("crl".to_owned(), figures.into());
    Ok(summary)
}

fn of(made: &[Made], entries: u64) -> Option<&Made> {
    made.iter().find(|one| one.entries == entries)
}

/// Time an entry of a million over time an entry of ten thousand: 1 is linear, less is better.
fn growth(made: &[Made]) -> Option<f64> {
    let (small, large) = (of(made, 10_000)?, of(made, 1_000_000)?);
    Some(large.seconds / small.seconds / 100.0)
}

fn value(made: Made) -> Value {
    json!({
        "entries": made.entries,
        "seconds": rounded(made.seconds),
        "memory_mib": rounded(made.memory),
        "octets": made.octets,
    })
}

fn row(name: &str, made: Made) {
    let each = made.seconds * 1e6 / made.entries.max(1) as f64;
    let (entries, seconds, memory) = (made.entries, made.seconds, made.memory);
    let file = made.octets as f64 / f64::from(1 << 20);
    println!("{name:28} {entries:>9}  {seconds:>8.3}  {each:>12.2}  {memory:>15.1}  {file:>12.1}");
}
