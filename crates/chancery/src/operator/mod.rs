//! The operators' commands: registrations, grants, EAB keys, nodes, certificates. Each is one call to a signer's admin
//! service, shown for people or, with `--json`, for machines.

mod commands;
mod connection;
mod crl;
mod incident;
mod revoke;
mod show;

use std::path::PathBuf;

use clap::Args;

pub(crate) use commands::{CertificateCommand, EabCommand, GrantCommand, NodeCommand, RegistrationCommand};
pub(crate) use commands::{certificate, eab, grant, node, overview, registration};
pub(crate) use connection::{Access, Connection, access, connect, explain};
pub(crate) use crl::{CrlCommand, crl};
pub(crate) use incident::{IncidentCommand, incident};
pub(crate) use revoke::{RevokeArgs, revoke};

/// Where the signer is, and how answers are shown.
#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    /// The operator's configuration: signers' addresses and the operator's certificate.
    #[arg(
        long,
        value_name = "FILE",
        env = "CHANCERY_OPERATOR",
        default_value = "operator.toml",
        global = true
    )]
    pub(crate) operator: PathBuf,
    /// Answer with one JSON object, for machines.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}
