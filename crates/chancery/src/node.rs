//! `chancery node join`: a new node redeems its token.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use rpc::NodeFiles;
use rpc::enroll::JoinToken;
use serde_json::json;

/// What joining needs.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The token, as `chancery node token` showed it: `chancery-join-v1.…`; `-` reads it from standard input, so that it
    /// stands in no process list.
    token: String,
    /// The signer's enrolment port, host:port; repeat for several signers.
    #[arg(long = "signer", required = true, value_name = "ADDRESS")]
    signers: Vec<String>,
    /// The folder for the node's key (`node.key`), its certificate (`node.pem`) and the node CA (`node-ca.pem`).
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Make a receipt key (`receipt.key`) as well and register it, for the validator of this name.
    #[arg(long, value_name = "NODE NAME")]
    receipt_key: Option<rpc::NodeName>,
}

/// The files of a node in its folder.
pub(crate) fn files(folder: &std::path::Path) -> NodeFiles {
    NodeFiles {
        certificate: folder.join("node.pem"),
        key: folder.join("node.key"),
        authority: folder.join("node-ca.pem"),
    }
}

/// Joins and says who the node is now.
///
/// # Errors
///
/// When the token is malformed, used or expired, no signer answers, or the node has joined already.
pub(crate) async fn join(args: JoinArgs, json: bool) -> anyhow::Result<()> {
    let text = match args.token.as_str() {
        "-" => {
            std::io::read_to_string(std::io::stdin()).context("cannot read the token from standard input")?
        }
        token => token.to_owned(),
    };
    let token: JoinToken = text.trim().parse().context("this is no join token")?;
    std::fs::create_dir_all(&args.folder)
        .with_context(|| format!("cannot make the folder {}", args.folder.display()))?;
    let receipt_key = match &args.receipt_key {
        Some(name) => Some(validator::receipt_key::create(&args.folder.join("receipt.key"), name)?),
        None => None,
    };
    let identity = rpc::enroll::join(args.signers, &token, receipt_key, &files(&args.folder)).await?;
    if json {
        println!("{}", json!({ "role": identity.role.as_str(), "name": identity.name.as_str() }));
    } else {
        println!("This node is {identity}; its files are in {}.", args.folder.display());
    }
    Ok(())
}
