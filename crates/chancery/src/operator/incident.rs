//! `chancery incident`: certificates that are to be replaced by a deadline, in waves, and are revoked after it. Signers do the
//! work; opening one is three steps, of which an interrupted one is taken up with `--resume`.

mod open;
mod report;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rpc::proto::admin::v1 as admin;
use runtime::Clock as _;
use serde_json::Value;

use super::revoke::{ReasonWord, SelectionArgs, selector};
use super::{OperatorArgs, connect, explain, show};
use open::Opening;

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
    #[arg(long, required_unless_present = "resume", conflicts_with = "resume")]
    title: Option<String>,
    /// A page that says why, which clients show to their operators.
    #[arg(long, required_unless_present = "resume", conflicts_with = "resume")]
    url: Option<String>,
    /// When what is left is revoked: 2026-12-05T08:00:00Z, a day, or from now: +24h, +5d.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = moment,
        required_unless_present = "resume",
        conflicts_with = "resume"
    )]
    deadline: Option<i64>,
    /// The reason of the revocations. With keyCompromise the keys are blocked at the deadline, too, and every certificate is
    /// revoked, whatever has replaced it.
    #[arg(
        long,
        value_enum,
        default_value_t = ReasonWord::Superseded,
        value_name = "REASON",
        ignore_case = true,
        conflicts_with = "resume"
    )]
    reason: ReasonWord,
    /// How many waves; each certificate's is its serial's for ever.
    #[arg(
        long,
        default_value_t = 4,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=366),
        conflicts_with = "resume"
    )]
    waves: u32,
    /// As many waves as make each some so many certificates.
    #[arg(
        long,
        value_name = "N",
        conflicts_with_all = ["waves", "resume"],
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    wave_size: Option<u64>,
    /// When the first wave's window begins; without it now.
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "resume")]
    begins: Option<i64>,
    /// How long each wave's window is, minutes; without it as long as leaves one more before the deadline.
    #[arg(
        long,
        value_name = "MINUTES",
        value_parser = clap::value_parser!(u64).range(1..),
        conflicts_with = "resume"
    )]
    wave_minutes: Option<u64>,
    /// Count and show, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask. Needed when nobody sits at a terminal.
    #[arg(long)]
    yes: bool,
    /// Go on with an incident that is still collecting, with the same selection; all else is as it was opened.
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
  It was cut off before it started: the same conditions, and its id:
    chancery incident open --profile tls --issued-after 2026-11-30 --issued-before 2026-12-01 --resume ID
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
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        open: OpenArgs,
    }

    #[test]
    fn what_is_resumed_is_not_told_anew() {
        let parse = |line: &str| Line::try_parse_from(format!("open {line}").split_whitespace());
        let whole = "--name example.org --title t --url https://ca.test --deadline +1d";
        assert!(parse(whole).is_ok());
        for missing in ["--title t", "--url https://ca.test", "--deadline +1d"] {
            assert!(parse(&whole.replace(missing, "")).is_err(), "{missing}");
        }
        assert!(parse("--name example.org --resume id --dry-run").is_ok());
        let fixed = [
            "--title t",
            "--url https://ca.test",
            "--deadline +1d",
            "--reason superseded",
            "--waves 4",
            "--wave-size 4",
            "--begins +1h",
            "--wave-minutes 4",
        ];
        for fixed in fixed {
            let error = parse(&format!("--name example.org --resume id {fixed}")).unwrap_err().to_string();
            assert!(error.contains("cannot be used with"), "{fixed}: {error}");
        }
    }

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
