//! `chancery ceremony`: keys and certificates of a CA come into being, from a reviewed file, with a transcript.

mod keys;
mod objects;
mod plan;
mod run;
mod transcript;

use std::path::PathBuf;

use clap::Subcommand;

pub(crate) use run::run;

/// What can be done with a ceremony file.
#[derive(Debug, Subcommand)]
pub(crate) enum CeremonyCommand {
    /// Make the keys and certificates that FILE names, and write a transcript.
    ///
    /// Keys are generated inside the tokens, not extractable, and their attributes are read back. To-be-signed bytes stand in
    /// the transcript before a key touches them. Running it again changes nothing; after a crash it goes on where it stopped.
    /// The root's token is not needed again once its certificates and CRL are made.
    Run {
        /// The ceremony file (TOML, `version = 1`).
        file: PathBuf,
        /// Answer with one JSON object, for machines.
        #[arg(long)]
        json: bool,
    },
}

/// `chancery ceremony run`: runs it and says what it did.
///
/// # Errors
///
/// As [`run`].
pub(crate) async fn command(file: PathBuf, json: bool) -> anyhow::Result<()> {
    let worker = hsm::WorkerCommand::this_program([crate::WORKER]);
    let outcome = run(&file, worker, &runtime::SystemClock).await?;
    let files: Vec<_> = outcome.files.iter().map(|file| file.display().to_string()).collect();
    if json {
        let said = serde_json::json!({
            "signed": outcome.signed, "kept": outcome.kept, "files": files, "test_ca": outcome.test_ca,
        });
        println!("{said}");
    } else {
        println!("{} objects signed, {} were there already.", outcome.signed, outcome.kept);
        if outcome.test_ca {
            println!("This is a test CA: its certificates are marked, and are to be trusted by nobody.");
        }
        files.iter().for_each(|file| println!("  {file}"));
    }
    Ok(())
}
