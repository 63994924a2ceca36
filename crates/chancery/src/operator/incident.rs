//! `chancery incident`: certificates that are to be replaced by a deadline, in waves, and are revoked after it. Signers do the
//! work; opening one is three steps, of which an interrupted one is taken up with `--resume`.

mod report;

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rpc::proto::admin::v1 as admin;
use runtime::Clock as _;
use serde_json::{Value, json};

use super::revoke::run::{Runner, Tally, patiently};
use super::revoke::{ReasonWord, SelectionArgs, selector};
use super::{Connection, OperatorArgs, connect, explain, show};

/// Incidents.
#[derive(Debug, Subcommand)]
pub(crate) enum IncidentCommand {
    /// Select certificates, move their renewal windows in waves, and have signers revoke what is left at the deadline.
    Open(Box<OpenArgs>),
    /// List incidents, newest first.
    List {
        /// Those that are done or closed, too.
        #[arg(long)]
        all: bool,
        /// Go on after a page, as the page before says.
        #[arg(long, default_value = "", value_name = "TOKEN")]
        page: String,
    },
    /// Show an incident with its numbers, as signers last noted them (they look every half minute).
    Show {
        /// The incident's id.
        id: String,
    },
    /// Look what has become of every certificate, and report it: by wave and, if asked for, by account.
    Report {
        /// The incident's id.
        id: String,
        /// By account as well.
        #[arg(long)]
        accounts: bool,
    },
    /// Give an incident up: windows are as before, and nothing is revoked any more. What was revoked stays so.
    Close {
        /// The incident's id.
        id: String,
    },
    /// Give an incident another deadline, later or earlier; the waves stay where they are.
    Extend {
        /// The incident's id.
        id: String,
        /// The deadline: 2026-12-05T08:00:00Z, a day, or from now: +48h, +5d.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        deadline: i64,
    },
}

/// What an incident is to be.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct OpenArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// What it is about, for people.
    #[arg(long)]
    title: String,
    /// A page that says why, which clients show to their operators.
    #[arg(long)]
    url: String,
    /// When what is left is revoked: 2026-12-05T08:00:00Z, a day, or from now: +24h, +5d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    deadline: i64,
    /// The reason of the revocations. With keyCompromise the keys are blocked at the deadline, too.
    #[arg(long, value_enum, default_value_t = ReasonWord::Superseded, value_name = "REASON", ignore_case = true)]
    reason: ReasonWord,
    /// How many waves; each certificate's is its serial's for ever.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=366))]
    waves: u32,
    /// As many waves as make each some so many certificates.
    #[arg(long, value_name = "N", conflicts_with = "waves", value_parser = clap::value_parser!(u64).range(1..))]
    wave_size: Option<u64>,
    /// When the first wave's window begins; without it now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    begins: Option<i64>,
    /// How long each wave's window is, minutes; without it as long as leaves one more before the deadline.
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..))]
    wave_minutes: Option<u64>,
    /// Count and show, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask. Needed when nobody sits at a terminal.
    #[arg(long)]
    yes: bool,
    /// Go on with an incident that is still collecting, with the same selection.
    #[arg(long, value_name = "ID")]
    resume: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  What one profile made wrong on one day: look, then have it replaced within five days:
    chancery incident open --profile tls --issued-after 2026-11-30 --issued-before 2026-12-01 \\
        --title 'wrong policy OID' --url https://ca.example/incidents/7 --deadline +5d --dry-run
  The same without --dry-run, in waves of some 5,000:
        … --deadline +5d --wave-size 5000
  How it goes, for a spreadsheet:
    chancery incident report ID --accounts --json";

/// `chancery incident …`.
pub(crate) async fn incident(args: &OperatorArgs, command: IncidentCommand) -> anyhow::Result<()> {
    let mut signer = connect(&args.operator)?;
    match command {
        IncidentCommand::Open(open) => Opening { signer, json: args.json, args: *open }.run().await,
        IncidentCommand::List { all, page } => {
            let request = admin::ListIncidentsRequest { current: !all, page_token: page, page_size: 0 };
            let answer = signer.list_incidents(request).await.map_err(explain)?.into_inner();
            let rows: Vec<_> = answer.incidents.iter().map(row).collect();
            show::list(args.json, &COLUMNS, &rows, &answer.next_page_token)
        }
        IncidentCommand::Show { id } => {
            let request = admin::IncidentRequest { incident: id };
            let incident = signer.show_incident(request).await.map_err(explain)?.into_inner();
            report::show(args.json, &incident, None)
        }
        IncidentCommand::Report { id, accounts } => {
            report::report(&mut signer, args.json, id, accounts).await
        }
        IncidentCommand::Close { id } => {
            let request = admin::IncidentRequest { incident: id };
            let incident = signer.close_incident(request).await.map_err(explain)?.into_inner();
            show::object(args.json, &members(&incident))
        }
        IncidentCommand::Extend { id, deadline } => {
            let request = admin::ExtendIncidentRequest { incident: id, deadline };
            let incident = signer.extend_incident(request).await.map_err(explain)?.into_inner();
            show::object(args.json, &members(&incident))
        }
    }
}

struct Opening {
    signer: Connection,
    json: bool,
    args: OpenArgs,
}

impl Opening {
    async fn run(mut self) -> anyhow::Result<()> {
        let selectors = selector::read(&self.args.selection)?;
        let mut runner = Runner {
            signer: self.signer.clone(),
            selectors: selectors.clone(),
            reason: self.args.reason.reason(),
            page_size: 0,
            json: self.json,
        };
        let told = runner.look(false).await.context("no incident was opened")?;
        told.complete()?;
        let waves = match self.args.wave_size {
            Some(size) => u32::try_from(told.count() as u64 / size).unwrap_or(u32::MAX).clamp(1, 366),
            None => self.args.waves,
        };
        if self.args.dry_run {
            return self.plan(&told, waves);
        }
        self.confirm(&told, waves)?;
        let id = match &self.args.resume {
            Some(id) => id.clone(),
            None => self.open(waves).await?,
        };
        let collected = self.collect(&id, selectors, told.count() as u64).await;
        collected.with_context(|| {
            format!(
                "incident {id} is not complete, and nothing follows from it yet: go on with --resume {id}"
            )
        })?;
        let request = admin::IncidentRequest { incident: id.clone() };
        let started = patiently(|| {
            let (mut signer, request) = (self.signer.clone(), request.clone());
            async move { signer.start_incident(request).await }
        });
        started.await.with_context(|| format!("incident {id} has not started: go on with --resume {id}"))?;
        let incident = self.signer.show_incident(request).await.map_err(explain)?.into_inner();
        report::show(self.json, &incident, None)
    }

    /// What would be, and nothing else.
    fn plan(&self, told: &Tally, waves: u32) -> anyhow::Result<()> {
        let begins = self.args.begins.unwrap_or_else(now);
        let share = (self.args.deadline - begins) / (i64::from(waves) + 1);
        let wave =
            self.args.wave_minutes.map_or(share, |minutes| i64::try_from(minutes * 60).unwrap_or(i64::MAX));
        show::object(
            self.json,
            &[
                ("would_be_selected", json!(told.count())),
                ("already_revoked", json!(told.already.len())),
                ("expired", json!(told.expired.len())),
                ("waves", json!(waves)),
                ("certificates_per_wave", json!(told.count() as u64 / u64::from(waves))),
                ("first_wave_begins", show::time(begins)),
                ("last_wave_ends", show::time(begins.saturating_add(wave.saturating_mul(waves.into())))),
                ("deadline", show::time(self.args.deadline)),
            ],
        )
    }

    fn confirm(&self, told: &Tally, waves: u32) -> anyhow::Result<()> {
        if told.count() == 0 {
            bail!("no certificate is to be replaced; no incident was opened");
        }
        if self.args.yes {
            return Ok(());
        }
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            bail!("nobody can be asked: look with --dry-run, then say --yes");
        }
        let deadline = show::time(self.args.deadline);
        eprint!(
            "Have {} certificates replaced in {waves} waves, and revoke what is left at {}, reason {}? Type \"yes\": ",
            told.count(),
            deadline.as_str().unwrap_or_default(),
            self.args.reason.reason(),
        );
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            bail!("no incident was opened");
        }
        Ok(())
    }

    async fn open(&mut self, waves: u32) -> anyhow::Result<String> {
        let request = admin::OpenIncidentRequest {
            title: self.args.title.clone(),
            url: self.args.url.clone(),
            reason: u32::from(self.args.reason.reason().code()),
            deadline: self.args.deadline,
            begins_at: self.args.begins.unwrap_or_default(),
            waves,
            wave_seconds: self.args.wave_minutes.map_or(0, |minutes| minutes * 60),
        };
        Ok(self.signer.open_incident(request).await.map_err(explain)?.into_inner().id)
    }

    async fn collect(
        &mut self,
        id: &str,
        selectors: Vec<admin::CertificateSelector>,
        count: u64,
    ) -> anyhow::Result<()> {
        let bar = progress(self.json, count, "selected");
        for selector in selectors {
            let mut page_token = String::new();
            loop {
                let request = admin::CollectIncidentRequest {
                    incident: id.to_owned(),
                    selector: Some(selector.clone()),
                    page_token,
                    page_size: 0,
                };
                let page = patiently(|| {
                    let (mut signer, request) = (self.signer.clone(), request.clone());
                    async move { signer.collect_incident(request).await }
                })
                .await?;
                bar.inc(page.left);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}

fn progress(json: bool, count: u64, verb: &str) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count);
    let template = format!("{{bar:40}} {{pos}}/{{len}} {verb}, {{per_sec}}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

const COLUMNS: [&str; 6] = ["id", "state", "title", "deadline", "waves", "created_at"];

fn row(incident: &admin::Incident) -> Vec<Value> {
    vec![
        incident.id.clone().into(),
        incident.state.clone().into(),
        incident.title.clone().into(),
        show::time(incident.deadline),
        incident.waves.into(),
        show::time(incident.created_at),
    ]
}

/// An incident without its numbers.
fn members(incident: &admin::Incident) -> Vec<(&'static str, Value)> {
    vec![
        ("id", incident.id.clone().into()),
        ("state", incident.state.clone().into()),
        ("title", incident.title.clone().into()),
        ("url", incident.url.clone().into()),
        ("reason", incident.reason.into()),
        ("deadline", show::time(incident.deadline)),
        ("waves", incident.waves.into()),
        ("wave_seconds", incident.wave_seconds.into()),
        ("begins_at", show::time(incident.begins_at)),
        ("created_at", show::time(incident.created_at)),
        ("ended_at", show::time(incident.ended_at)),
    ]
}

fn now() -> i64 {
    runtime::SystemClock.now().unix_timestamp()
}

/// A moment, a day, or from now on: `+90m`, `+48h`, `+5d`.
fn moment(text: &str) -> Result<i64, String> {
    let Some(rest) = text.strip_prefix('+') else {
        return selector::time(text)
            .map_err(|_| "write it as 2026-12-05, 2026-12-05T08:00:00Z, +48h or +5d".to_owned());
    };
    let seconds = [('m', 60), ('h', 3600), ('d', 86_400)].into_iter().find_map(|(unit, seconds)| {
        let count: i64 = rest.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(seconds).filter(|seconds| *seconds > 0)
    });
    let seconds = seconds.ok_or_else(|| "write it as +90m, +48h or +5d".to_owned())?;
    now().checked_add(seconds).ok_or_else(|| "that is too far away".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_moments_or_from_now() {
        assert_eq!(moment("1970-01-02T00:00:01Z"), Ok(86_401));
        let (from, until) = (now() + 2 * 86_400, now() + 2 * 86_400 + 60);
        assert!((from..=until).contains(&moment("+2d").unwrap()));
        assert!((from..=until).contains(&moment("+48h").unwrap()));
        for text in ["", "+", "+d", "+2", "+2w", "+-2d", "+0h", "soon", "+9223372036854775807d"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
