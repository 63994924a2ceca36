//! `chancery revoke`: certificates that are selected by what is known of them are revoked, page by page. The selector travels;
//! the signer looks for them. Nothing is kept of a run: it is begun again with the same words, and goes on where it was.

pub(super) mod run;
pub(super) mod selector;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::{OperatorArgs, connect};
use run::{Runner, Tally};

/// Revoke certificates, chosen by whatever is known of them.
///
/// All conditions that are given must hold. Expired certificates and those that are revoked already are left out and counted.
/// A revocation cannot be undone: look with --dry-run first. A run that was cut off is begun again with the same words; it goes
/// on where it was.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Why (RFC 5280 §5.3.1; BR §7.2.2 leaves these). keyCompromise also blocks the keys for ever, and revokes every other
    /// certificate that has one of them, of whatever account and directory.
    #[arg(long, value_enum, default_value_t = ReasonWord::Unspecified, value_name = "REASON", ignore_case = true)]
    reason: ReasonWord,
    /// Show what would be revoked, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask. Needed for more than one certificate when nobody sits at a terminal.
    #[arg(long)]
    yes: bool,
    /// Certificates that a call looks at; 0, or too many: as many as the signer allows.
    #[arg(long, default_value_t = 0, value_name = "N")]
    page_size: u32,
}

/// Which certificates: all conditions that are given must hold.
#[derive(Debug, Args)]
pub(super) struct SelectionArgs {
    /// Serial numbers, hexadecimal; colons and upper case are taken as well.
    #[arg(value_name = "SERIAL", help_heading = "Which certificates")]
    serials: Vec<String>,
    /// A file with a serial number a line; `-` is the standard input. Empty lines and those that begin with # are skipped.
    #[arg(long, value_name = "FILE", help_heading = "Which certificates")]
    serials_file: Option<PathBuf>,
    /// The certificate in this file, PEM (the first one of a chain) or DER; repeat for several.
    #[arg(long = "certificate", value_name = "FILE", help_heading = "Which certificates")]
    certificates: Vec<PathBuf>,
    /// With the public key in this file: a public key, a certificate or a CSR, PEM or DER. Not a private key.
    #[arg(long, value_name = "FILE", conflicts_with = "key_sha256", help_heading = "Which certificates")]
    key: Option<PathBuf>,
    /// With the key of this SHA-256 (of the SubjectPublicKeyInfo), hexadecimal.
    #[arg(long, value_name = "HEX", help_heading = "Which certificates")]
    key_sha256: Option<String>,
    /// Of this account: its id, or its URL.
    #[arg(long, value_name = "ID", help_heading = "Which certificates")]
    account: Option<String>,
    /// With this very name: a DNS name, a wildcard (*.example.org) or an IP address.
    #[arg(long, value_name = "NAME", help_heading = "Which certificates")]
    name: Option<String>,
    /// With a name that is this domain or below it.
    #[arg(long, value_name = "DOMAIN", help_heading = "Which certificates")]
    under: Option<String>,
    /// Of this profile.
    #[arg(long, value_name = "NAME", help_heading = "Which certificates")]
    profile: Option<String>,
    /// Of this issuer, by its name in the policy.
    #[arg(long, value_name = "NAME", help_heading = "Which certificates")]
    issuer: Option<String>,
    /// Issued at this time or later: 2026-11-30 (UTC) or 2026-11-30T08:00:00Z.
    #[arg(long, value_name = "TIME", help_heading = "Which certificates", value_parser = selector::time)]
    issued_after: Option<i64>,
    /// Issued before this time.
    #[arg(long, value_name = "TIME", help_heading = "Which certificates", value_parser = selector::time)]
    issued_before: Option<i64>,
}

const EXAMPLES: &str = "\
Examples:
  One certificate, by its file or its serial number:
    chancery revoke --certificate cert.pem --reason superseded
    chancery revoke 5f0c3aa1b2c3d4e5f60718293a4b5c6d

  A leaked key: every certificate that has it, and no new one ever:
    chancery revoke --key leaked.pub.pem --reason keyCompromise

  A customer who left: look first, then do it:
    chancery revoke --account ACCOUNT --reason cessationOfOperation --dry-run
    chancery revoke --account ACCOUNT --reason cessationOfOperation

  What one profile made wrong on one day, from a script:
    chancery revoke --profile tls --issued-after 2026-11-30 --issued-before 2026-12-01 \\
        --reason superseded --yes --json > revoked.jsonl

  A list of serial numbers from somewhere else:
    chancery revoke --serials-file - --reason superseded --yes < serials.txt

With --json every certificate is an object on a line of its own; the last line has the member \"summary\".
Exit code 0: all that was selected is revoked. 1: something is left; it is said what.";

/// The reasons that operators may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
pub(super) enum ReasonWord {
    /// No reason is published.
    Unspecified,
    /// The private key is known, or suspected to be known, to others.
    KeyCompromise,
    /// What the certificate says of its subject is true no more.
    AffiliationChanged,
    /// It was replaced, or should never have been what it is.
    Superseded,
    /// The names are used or owned no more.
    CessationOfOperation,
    /// The subscriber broke the rules.
    PrivilegeWithdrawn,
}

impl ReasonWord {
    pub(super) const fn reason(self) -> pki::Reason {
        match self {
            Self::Unspecified => pki::Reason::Unspecified,
            Self::KeyCompromise => pki::Reason::KeyCompromise,
            Self::AffiliationChanged => pki::Reason::AffiliationChanged,
            Self::Superseded => pki::Reason::Superseded,
            Self::CessationOfOperation => pki::Reason::CessationOfOperation,
            Self::PrivilegeWithdrawn => pki::Reason::PrivilegeWithdrawn,
        }
    }
}

/// `chancery revoke`.
pub(crate) async fn revoke(operator: &OperatorArgs, args: RevokeArgs) -> anyhow::Result<()> {
    let selectors = selector::read(&args.selection)?;
    let mut runner = Runner {
        signer: connect(&operator.operator)?,
        selectors,
        reason: args.reason.reason(),
        page_size: args.page_size,
        json: operator.json,
    };
    let told = runner.look(args.dry_run).await.context("nothing was revoked")?;
    if args.dry_run {
        runner.summarize(&told, true);
        return told.complete();
    }
    confirm(&args, &told)?;
    // With keyCompromise there may be a key to block without a certificate to revoke.
    if told.is_empty() && args.reason != ReasonWord::KeyCompromise {
        runner.summarize(&told, false);
        return told.complete();
    }
    let mut done = Tally::default();
    let outcome = tokio::select! {
        outcome = runner.revoke(&told, &mut done) => outcome,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    runner.summarize(&done, false);
    match outcome {
        Ok(()) => done.complete(),
        Err(error) => Err(error.context(format!(
            "not everything is revoked: {} of {} certificates are for sure. Run the same command again: it goes on where this \
             one stopped",
            done.count(),
            told.count()
        ))),
    }
}

/// Asks before more than one certificate is revoked.
fn confirm(args: &RevokeArgs, told: &Tally) -> anyhow::Result<()> {
    if args.yes || told.count() <= 1 {
        return Ok(());
    }
    let (count, reason) = (told.count(), args.reason.reason());
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        bail!(
            "{count} certificates would be revoked and nobody can be asked: look with --dry-run, then say --yes"
        );
    }
    if told.sharing > 0 {
        eprintln!("{} of them are selected only because they share a key with one that is.", told.sharing);
    }
    eprint!("Revoke {count} certificates, reason {reason}? This cannot be undone. Type \"yes\": ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        bail!("nothing was revoked");
    }
    Ok(())
}

/// Ctrl-C, or what a service manager sends.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
