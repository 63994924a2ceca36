//! `make chaos`: kills every process of a CA at every failpoint, again and again, and shows the kill table.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use e2e::chaos::{Campaign, Kind, Plan, Tally};
use indicatif::{ProgressBar, ProgressStyle};

/// Kills every process of a CA at every failpoint, under load, and audits what is left.
#[derive(Parser)]
struct Arguments {
    /// Kills over all failpoints and runs.
    #[arg(long, default_value_t = 5000)]
    kills: u64,
    /// Kills of each failpoint over all runs.
    #[arg(long, default_value_t = 20)]
    each: u64,
    /// Minutes after which it ends in any case; the next run goes on.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// CAs side by side: on SQLite, on PostgreSQL, on PostgreSQL with two signers.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres,postgres-2", value_parser = kind)]
    stacks: Vec<Kind>,
    /// Clients of each.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Kills between two audits of a CA.
    #[arg(long, default_value_t = 60)]
    round: u64,
    /// Keep the folders of the CAs, with their logs.
    #[arg(long)]
    keep: bool,
    /// The choices' seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where counts are kept and added up.
    #[arg(long, default_value = "target/chaos.json")]
    state: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("chaos: not all was done; run it again to go on");
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let tally = Arc::new(Mutex::new(Tally::open(Some(&arguments.state))?));
    let plan = Plan {
        kills: arguments.kills,
        each: arguments.each,
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        stacks: arguments.stacks,
        clients: arguments.clients,
        round: arguments.round,
        keep: arguments.keep,
        // So that a run that goes on does not repeat what the last one did.
        seed: arguments.seed.wrapping_add(with(&tally, |tally| tally.total())),
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("chaos: ends after the next audit");
            let _ = stop.send(true);
        }
        std::future::pending::<()>().await;
    });
    let shown = tokio::spawn(show(Arc::clone(&tally), plan.clone()));
    let outcome = Campaign::new(plan.clone(), Arc::clone(&tally), stopped).run().await;
    shown.abort();
    println!("{}", with(&tally, |tally| tally.table()));
    outcome?;
    Ok(with(&tally, |tally| plan.is_reached(tally)))
}

fn kind(name: &str) -> Result<Kind, String> {
    match name {
        "sqlite" => Ok(Kind::Sqlite),
        "postgres" => Ok(Kind::Postgres { signers: 1 }),
        "postgres-2" => Ok(Kind::Postgres { signers: 2 }),
        _ => Err("sqlite, postgres or postgres-2".to_owned()),
    }
}

async fn show(tally: Arc<Mutex<Tally>>, plan: Plan) {
    let bar = ProgressBar::new(plan.kills);
    let style = "{elapsed_precise} {wide_bar} {pos}/{len} kills, {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    loop {
        let (total, fewest, certificates) =
            with(&tally, |tally| (tally.total(), plan.fewest(tally), tally.certificates));
        bar.set_position(total);
        bar.set_message(format!("the rarest {fewest} of {}, {certificates} certificates", plan.each));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn with<T>(tally: &Mutex<Tally>, look: impl FnOnce(&Tally) -> T) -> T {
    look(&tally.lock().unwrap_or_else(PoisonError::into_inner))
}
