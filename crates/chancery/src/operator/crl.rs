//! CRLs: those that signers make, and the offline roots'.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use rpc::proto::admin::v1 as admin;
use runtime::Clock as _;
use serde_json::{Value, json};

use super::{OperatorArgs, connect, explain, show};

/// CRLs.
#[derive(Debug, Subcommand)]
pub(crate) enum CrlCommand {
    /// Import the CRL of an offline root: signers and status nodes publish it at once.
    Import {
        /// The CRL, DER or PEM. It must be newer than the one that is published.
        file: PathBuf,
        /// Certificates that the published CRL lists, and this one does not, have ended and may leave.
        #[arg(long)]
        allow_removals: bool,
    },
    /// List the CRLs that are published.
    List,
}

/// `chancery crl …`.
pub(crate) async fn crl(args: &OperatorArgs, command: CrlCommand) -> anyhow::Result<()> {
    let mut signer = connect(&args.operator)?;
    match command {
        CrlCommand::Import { file, allow_removals } => {
            let crl = std::fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            let request = admin::ImportCrlRequest { crl: crl.into(), allow_removals };
            let done = signer.import_crl(request).await.map_err(explain)?.into_inner();
            show::object(
                args.json,
                &[
                    ("root", done.root.into()),
                    ("number", done.number.into()),
                    ("this_update", show::time(done.this_update)),
                    ("next_update", show::time(done.next_update)),
                ],
            )
        }
        CrlCommand::List => {
            let answer = signer.list_crls(admin::ListCrlsRequest {}).await.map_err(explain)?.into_inner();
            let now = runtime::SystemClock.now().unix_timestamp();
            let rows: Vec<_> = answer.crls.iter().map(|crl| row(crl, now)).collect();
            show::list(args.json, &COLUMNS, &rows, "")
        }
    }
}

const COLUMNS: [&str; 11] = [
    "authority",
    "shard",
    "kind",
    "number",
    "base",
    "revision",
    "behind",
    "entries",
    "octets",
    "age_seconds",
    "next_update",
];

fn row(crl: &admin::CrlState, now: i64) -> Vec<Value> {
    let known = |number: u64| if number == 0 { Value::Null } else { number.into() };
    vec![
        crl.authority.clone().into(),
        crl.shard.into(),
        crl.kind.clone().into(),
        crl.number.into(),
        known(crl.base),
        crl.revision.into(),
        json!(crl.shard_revision.saturating_sub(crl.revision)),
        crl.entries.into(),
        known(crl.size),
        json!(now.saturating_sub(crl.this_update)),
        show::time(crl.next_update),
    ]
}
