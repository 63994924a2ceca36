//! The command line.

use std::future::Future;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::ceremony::{self, CeremonyCommand};
use crate::database::{self, DatabaseCommand};
use crate::demo::{self, DemoArgs};
use crate::node::{self, JoinArgs};
use crate::operator::{
    self, CertificateCommand, CrlCommand, EabCommand, GrantCommand, IncidentCommand, NodeCommand,
    OperatorArgs, RegistrationCommand, RevokeArgs,
};
use crate::roles;

/// A hardware-backed ACME certificate authority.
///
/// Fronts speak ACME and are not trusted with issuance; signers hold the keys in a PKCS#11 token and sign; validators look
/// at the outside world; status nodes serve CRLs and issuer certificates. Begin with `chancery demo`.
#[derive(Debug, Parser)]
#[command(name = "chancery", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole CA on this host, on SoftHSM and SQLite, and get certificates with real clients.
    Demo(DemoArgs),
    /// Run a signer: the CA itself, with its keys in PKCS#11 tokens.
    Signer(RoleCommand),
    /// Run a front: the ACME service.
    Front(RoleCommand),
    /// Run a validator: it looks at the outside world and signs what it saw.
    Validator(RoleCommand),
    /// Run a status node: CRLs and issuer certificates over HTTP.
    Status(RoleCommand),
    /// Make keys and certificates of a CA from a reviewed file.
    #[command(subcommand)]
    Ceremony(CeremonyCommand),
    /// A PostgreSQL server's schemas; pauses in the fronts' database.
    #[command(subcommand)]
    Database(DatabaseCommand),
    /// Join a node with a token; list and revoke nodes.
    Node(NodeArgs),
    /// Registrations: who may have what.
    Registration(OperatorCommand<RegistrationCommand>),
    /// Grants: names without a challenge.
    Grant(OperatorCommand<GrantCommand>),
    /// Keys for external account binding.
    Eab(OperatorCommand<EabCommand>),
    /// Certificates: list, revoke.
    Certificate(OperatorCommand<CertificateCommand>),
    /// CRLs: list; import an offline root's.
    Crl(OperatorCommand<CrlCommand>),
    /// Signer, issuers and tokens at a glance.
    Overview(OperatorArgs),
    /// Revoke certificates: by serial, key, account, name, profile, time or issuer.
    Revoke(RevokeCommand),
    /// Incidents: certificates that are to be replaced by a deadline, and are revoked after it.
    Incident(OperatorCommand<IncidentCommand>),
}

/// A role with its configuration file.
#[derive(Debug, Args)]
struct RoleCommand {
    #[command(flatten)]
    role: runtime::RoleArgs,
    /// End when the process that started this one ends. For supervisors that may be killed, such as the demo.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// An operator's command.
#[derive(Debug, Args)]
struct OperatorCommand<C: Subcommand> {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: C,
}

#[derive(Debug, Args)]
struct RevokeCommand {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    revoke: RevokeArgs,
}

#[derive(Debug, Args)]
struct NodeArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: NodeSubcommand,
}

#[derive(Debug, Subcommand)]
enum NodeSubcommand {
    /// Redeem a token: make this node's key and get its certificate.
    Join(JoinArgs),
    #[command(flatten)]
    Operator(NodeCommand),
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Signer(command) => command.run(roles::signer),
            Command::Front(command) => command.run(roles::front),
            Command::Validator(command) => command.run(roles::validator),
            Command::Status(command) => command.run(roles::status),
            Command::Demo(args) => block_on(demo::run(args)),
            Command::Ceremony(CeremonyCommand::Run { file, json }) => block_on(ceremony::command(file, json)),
            Command::Database(DatabaseCommand::Migrate(args)) => block_on(database::migrate(args)),
            Command::Database(DatabaseCommand::Unpause(args)) => block_on(database::unpause(args)),
            Command::Node(NodeArgs { operator, command }) => match command {
                NodeSubcommand::Join(args) => block_on(node::join(args, operator.json)),
                NodeSubcommand::Operator(command) => {
                    block_on(async move { operator::node(&operator, command).await })
                }
            },
            Command::Registration(OperatorCommand { operator, command }) => {
                block_on(async move { operator::registration(&operator, command).await })
            }
            Command::Grant(OperatorCommand { operator, command }) => {
                block_on(async move { operator::grant(&operator, command).await })
            }
            Command::Eab(OperatorCommand { operator, command }) => {
                block_on(async move { operator::eab(&operator, command).await })
            }
            Command::Certificate(OperatorCommand { operator, command }) => {
                block_on(async move { operator::certificate(&operator, command).await })
            }
            Command::Crl(OperatorCommand { operator, command }) => {
                block_on(async move { operator::crl(&operator, command).await })
            }
            Command::Overview(operator) => block_on(async move { operator::overview(&operator).await }),
            Command::Revoke(RevokeCommand { operator, revoke }) => {
                block_on(async move { operator::revoke(&operator, revoke).await })
            }
            Command::Incident(OperatorCommand { operator, command }) => {
                block_on(async move { operator::incident(&operator, command).await })
            }
        }
    }
}

impl RoleCommand {
    fn run(self, role: impl FnOnce(&runtime::RoleArgs) -> ExitCode) -> ExitCode {
        if self.exit_with_parent
            && let Err(error) = set_parent_process_death_signal(Some(Signal::TERM))
        {
            eprintln!("chancery: cannot follow the parent process: {error}");
        }
        role(&self.role)
    }
}

/// Runs a command of the program itself; its error is the last thing it says.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    runtime::install_crypto_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chancery: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chancery: {error:#}");
            ExitCode::FAILURE
        }
    }
}
