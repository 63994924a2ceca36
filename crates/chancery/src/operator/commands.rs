//! The commands themselves.

use anyhow::Context;
use clap::{Args, Subcommand};
use rpc::proto::admin::v1 as admin;
use serde_json::{Value, json};

use super::connection::explain;
use super::{OperatorArgs, connect, show};

/// Registrations: who may have what, made by an operator, activated by an EAB key.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistrationCommand {
    /// Make a registration in a directory.
    Create {
        /// Its name, unique in the directory.
        name: String,
        /// The directory.
        #[arg(long)]
        directory: String,
        /// A profile that its accounts may ask for, of the directory's; repeat for several. Without it: all.
        #[arg(long = "profile", value_name = "PROFILE")]
        profiles: Vec<String>,
    },
    /// Say which profiles a registration's accounts may ask for, in place of what was said before.
    Profiles {
        /// The registration's id.
        registration: String,
        /// The profiles, of the directory's; none: all.
        profiles: Vec<String>,
    },
    /// Show the limits that hold for a registration's accounts, or set some.
    ///
    /// Without NAME=RATE it shows all: what holds, and whether it is the registration's own or its directory's
    /// (`[directory.limits]` of policy.toml). With some it sets these, in place of the directory's, and shows all.
    ///
    /// RATE is so many in so long ("200 in 7d", "1000 in 1h"), "none" for no limit, or "default" for the directory's again.
    /// NAME is one of:
    ///
    ///   certificates_per_domain        with a name at or under one registered domain
    ///   duplicate_certificates         with exactly the same names
    ///   certificates_per_account       of one account
    ///   certificates_per_registration  of all accounts of the registration
    ///   orders_per_account             orders, and authorizations without one
    ///   failed_validations             of one account for one name
    ///   failures_until_paused          the same in a row, none successful in between: the name rests
    ///
    /// A renewal that comes when renewal information (ARI) says is not counted in those of certificates and orders. New limits
    /// hold at once; a front may refuse an account that had reached the former ones for another minute.
    ///
    /// Examples:
    ///
    ///   chancery registration limits ID certificates_per_domain='500 in 7d' duplicate_certificates=none
    ///
    ///   chancery registration limits ID failures_until_paused=none     # its paused names may try again
    ///
    ///   chancery registration limits ID failures_until_paused=default  # when they have succeeded
    #[command(verbatim_doc_comment)]
    Limits {
        /// The registration's id.
        registration: String,
        /// A limit to be set.
        #[arg(value_name = "NAME=RATE", value_parser = limit_setting)]
        limits: Vec<(String, String)>,
    },
    /// List the registrations of a directory.
    List {
        /// The directory; all when left out.
        #[arg(long, default_value = "")]
        directory: String,
        #[command(flatten)]
        page: Page,
    },
}

/// Grants: names that a registration's accounts get without a challenge.
#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Grant a name to a registration.
    Add {
        /// The name, without `*.`, or with --ip-range a range such as 10.1.0.0/16.
        name: String,
        /// The registration's id.
        #[arg(long)]
        registration: String,
        #[command(flatten)]
        kind: Kind,
    },
    /// Take a grant back; certificates that were issued on it stay.
    Remove {
        /// The grant's id.
        id: String,
    },
    /// List a registration's grants.
    List {
        /// The registration's id.
        #[arg(long)]
        registration: String,
    },
}

/// What a grant covers.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Kind {
    /// This very name.
    #[arg(long)]
    exact: bool,
    /// The wildcard below the name (`*.name`), and nothing else.
    #[arg(long)]
    wildcard: bool,
    /// The name and everything below it, wildcards included.
    #[arg(long)]
    subtree: bool,
    /// A range of addresses in CIDR notation.
    #[arg(long)]
    ip_range: bool,
}

/// EAB keys: with one, a client's account becomes its registration's (RFC 8555 §7.3.4).
#[derive(Debug, Subcommand)]
pub(crate) enum EabCommand {
    /// Make a key. Its secret is shown once and stored nowhere.
    Create {
        /// The registration's id.
        #[arg(long)]
        registration: String,
        /// How many accounts may register with it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// Days until it expires.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
        days: u32,
    },
    /// Revoke a key; accounts that registered with it stay.
    Revoke {
        /// The key's id.
        kid: String,
    },
}

/// Certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// List certificates, newest last.
    List {
        /// Of this account only.
        #[arg(long, default_value = "")]
        account: String,
        /// With this name only.
        #[arg(long, default_value = "")]
        name: String,
        /// Of this issuer only.
        #[arg(long, default_value = "")]
        issuer: String,
        #[command(flatten)]
        page: Page,
    },
    /// Show one certificate: its state, since when and why it is revoked, and its PEM.
    Show {
        /// Its serial number, hexadecimal.
        serial: String,
    },
    /// Revoke one certificate.
    Revoke {
        /// Its serial number, hexadecimal.
        serial: String,
        /// CRLReason: 0 unspecified, 1 keyCompromise, 3 affiliationChanged, 4 superseded, 5 cessationOfOperation,
        /// 9 privilegeWithdrawn (RFC 5280 §5.3.1).
        #[arg(long, default_value_t = 0)]
        reason: u32,
    },
}

/// Nodes: fronts, validators, signers, status nodes, operators.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Make a single-use token with which a node joins.
    Token {
        /// front, validator, signer, status or operator.
        #[arg(long)]
        role: String,
        /// The node's name, unique in its role.
        #[arg(long)]
        name: String,
        /// A DNS name or address under which the node serves; repeat for several. A front's HTTPS certificate in mode
        /// `self` is for these.
        #[arg(long = "server-name", value_name = "NAME")]
        server_names: Vec<String>,
        /// Minutes until the token expires.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        minutes: u32,
    },
    /// List the nodes.
    List,
    /// Revoke a node: its certificate is refused and its connections are closed.
    Revoke {
        /// Its role.
        role: String,
        /// Its name.
        name: String,
    },
}

/// Which page of a list.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// Where to go on, as the page before said.
    #[arg(long, default_value = "")]
    page: String,
    /// Rows a page, at most 1000.
    #[arg(long, default_value_t = 100)]
    page_size: u32,
}

/// `chancery overview`.
pub(crate) async fn overview(args: &OperatorArgs) -> anyhow::Result<()> {
    let answer =
        connect(&args.operator)?.overview(admin::OverviewRequest {}).await.map_err(explain)?.into_inner();
    let issuers: Vec<Value> = answer
        .issuers
        .iter()
        .map(|issuer| {
            json!({
                "id": issuer.id, "subject": issuer.subject, "pool": issuer.pool,
                "not_after": show::time(issuer.not_after), "healthy": issuer.healthy, "shards": issuer.shards,
                "test_ca": issuer.test_ca,
            })
        })
        .collect();
    let tokens: Vec<Value> = answer
        .tokens
        .iter()
        .map(|token| {
            json!({
                "name": token.name, "healthy": token.healthy, "detail": token.detail,
            })
        })
        .collect();
    show::object(
        args.json,
        &[
            ("signer", answer.signer.into()),
            ("epoch", answer.epoch.into()),
            ("directories", answer.directories.into()),
            ("always_valid", answer.always_valid.into()),
            ("issuers", issuers.into()),
            ("tokens", tokens.into()),
        ],
    )
}

fn show_registration(args: &OperatorArgs, row: admin::Registration) -> anyhow::Result<()> {
    let profiles = profiles(&row.profiles);
    show::object(
        args.json,
        &[
            ("id", row.id.into()),
            ("directory", row.directory.into()),
            ("name", row.name.into()),
            ("profiles", profiles.into()),
        ],
    )
}

/// `NAME=RATE`; the signer knows which there are.
fn limit_setting(text: &str) -> Result<(String, String), &'static str> {
    let (name, rate) =
        text.split_once('=').ok_or("a limit is set by NAME=RATE, such as orders_per_account='500 in 3h'")?;
    Ok((name.trim().to_owned(), rate.trim().to_owned()))
}

/// The profiles of a registration, for people.
fn profiles(profiles: &[String]) -> String {
    if profiles.is_empty() { "all".to_owned() } else { profiles.join(" ") }
}

/// `chancery registration …`.
pub(crate) async fn registration(args: &OperatorArgs, command: RegistrationCommand) -> anyhow::Result<()> {
    let mut signer = connect(&args.operator)?;
    match command {
        RegistrationCommand::Create { name, directory, profiles } => {
            let request = admin::CreateRegistrationRequest { directory, name, profiles };
            let made = signer.create_registration(request).await.map_err(explain)?.into_inner();
            show_registration(args, made)
        }
        RegistrationCommand::Profiles { registration, profiles } => {
            let request = admin::SetProfilesRequest { registration_id: registration, profiles };
            let set = signer.set_profiles(request).await.map_err(explain)?.into_inner();
            show_registration(args, set)
        }
        RegistrationCommand::Limits { registration, limits } => {
            let answer = if limits.is_empty() {
                let request = admin::ListLimitsRequest { registration_id: registration };
                signer.list_limits(request).await
            } else {
                let limits =
                    limits.into_iter().map(|(name, rate)| admin::LimitSetting { name, rate }).collect();
                signer.set_limits(admin::SetLimitsRequest { registration_id: registration, limits }).await
            };
            let limits = answer.map_err(explain)?.into_inner().limits;
            let of = |own| if own { "registration" } else { "directory" };
            let rows: Vec<_> = limits
                .into_iter()
                .map(|limit| vec![limit.name.into(), limit.rate.into(), of(limit.own).into()])
                .collect();
            show::list(args.json, &["name", "rate", "of"], &rows, "")
        }
        RegistrationCommand::List { directory, page } => {
            let request = admin::ListRegistrationsRequest {
                directory,
                page_token: page.page,
                page_size: page.page_size,
            };
            let answer = signer.list_registrations(request).await.map_err(explain)?.into_inner();
            let rows: Vec<_> = answer
                .registrations
                .into_iter()
                .map(|row| {
                    vec![
                        row.id.into(),
                        row.directory.into(),
                        row.name.into(),
                        row.state.into(),
                        profiles(&row.profiles).into(),
                        show::time(row.created_at),
                        row.created_by.into(),
                    ]
                })
                .collect();
            let columns = ["id", "directory", "name", "state", "profiles", "created", "by"];
            show::list(args.json, &columns, &rows, &answer.next_page_token)
        }
    }
}

/// `chancery grant …`.
pub(crate) async fn grant(args: &OperatorArgs, command: GrantCommand) -> anyhow::Result<()> {
    let mut signer = connect(&args.operator)?;
    match command {
        GrantCommand::Add { name, registration, kind } => {
            let request = admin::AddGrantRequest {
                registration_id: registration,
                kind: kind.code().into(),
                value: name,
            };
            let made = signer.add_grant(request).await.map_err(explain)?.into_inner();
            show::object(args.json, &[("id", made.id.into()), ("value", made.value.into())])
        }
        GrantCommand::Remove { id } => {
            let request = admin::RemoveGrantRequest { grant_id: id };
            let gone = signer.remove_grant(request).await.map_err(explain)?.into_inner();
            show::object(args.json, &[("id", gone.id.into()), ("in_force", gone.in_force.into())])
        }
        GrantCommand::List { registration } => {
            let request = admin::ListGrantsRequest { registration_id: registration };
            let answer = signer.list_grants(request).await.map_err(explain)?.into_inner();
            let rows: Vec<_> = answer
                .grants
                .into_iter()
                .map(|row| {
                    let kind = row.kind().as_str_name().trim_start_matches("GRANT_KIND_").to_lowercase();
                    vec![
                        row.id.into(),
                        kind.into(),
                        row.value.into(),
                        show::time(row.created_at),
                        row.in_force.into(),
                    ]
                })
                .collect();
            show::list(args.json, &["id", "kind", "value", "created", "in_force"], &rows, "")
        }
    }
}

impl Kind {
    fn code(&self) -> admin::GrantKind {
        match (self.exact, self.wildcard, self.subtree) {
            (true, ..) => admin::GrantKind::Exact,
            (_, true, _) => admin::GrantKind::Wildcard,
            (.., true) => admin::GrantKind::Subtree,
            _ => admin::GrantKind::IpRange,
        }
    }
}

/// `chancery eab …`.
pub(crate) async fn eab(args: &OperatorArgs, command: EabCommand) -> anyhow::Result<()> {
    let mut signer = connect(&args.operator)?;
    match command {
        EabCommand::Create { registration, uses, days } => {
            let request = admin::CreateEabKeyRequest {
                registration_id: registration,
                uses,
                lifetime_seconds: u64::from(days) * 86_400,
            };
            let made = signer.create_eab_key(request).await.map_err(explain)?.into_inner();
            show::object(
                args.json,
                &[
                    ("kid", made.kid.into()),
                    ("hmac_key", made.hmac_key.into()),
                    ("expires", show::time(made.expires_at)),
                ],
            )
        }
        EabCommand::Revoke { kid } => {
            signer.revoke_eab_key(admin::RevokeEabKeyRequest { kid: kid.clone() }).await.map_err(explain)?;
            show::object(args.json, &[("revoked", kid.into())])
        }
    }
}

/// `chancery certificate …`.
pub(crate) async fn certificate(args: &OperatorArgs, command: CertificateCommand) -> anyhow::Result<()> {
    let mut signer = connect(&args.operator)?;
    match command {
        CertificateCommand::List { account, name, issuer, page } => {
            let request = admin::ListCertificatesRequest {
                account_id: account,
                name,
                issuer_id: issuer,
                page_token: page.page,
                page_size: page.page_size,
            };
            let answer = signer.list_certificates(request).await.map_err(explain)?.into_inner();
            let rows: Vec<_> = answer
                .certificates
                .into_iter()
                .map(|row| {
                    vec![
                        row.serial.into(),
                        row.state.into(),
                        show::time(row.not_after),
                        row.account_id.into(),
                        row.names.into(),
                    ]
                })
                .collect();
            let columns = ["serial", "state", "not_after", "account", "names"];
            show::list(args.json, &columns, &rows, &answer.next_page_token)
        }
        CertificateCommand::Show { serial } => {
            let request = admin::ShowCertificateRequest { serial };
            let answer = signer.show_certificate(request).await.map_err(explain)?.into_inner();
            let pem = if answer.certificate.is_empty() {
                String::new()
            } else {
                pki::chain::pem_block("CERTIFICATE", &answer.certificate)
            };
            let row = answer.state.unwrap_or_default();
            let reason = if answer.revoked_at == 0 { Value::Null } else { answer.reason.into() };
            show::object(
                args.json,
                &[
                    ("serial", row.serial.into()),
                    ("state", row.state.into()),
                    ("not_before", show::time(row.not_before)),
                    ("not_after", show::time(row.not_after)),
                    ("account", row.account_id.into()),
                    ("names", row.names.into()),
                    ("revoked_at", show::time(answer.revoked_at)),
                    ("reason", reason),
                    ("certificate", pem.into()),
                ],
            )
        }
        CertificateCommand::Revoke { serial, reason } => {
            let request = admin::RevokeCertificateRequest { serial: serial.clone(), reason };
            let answer = signer.revoke_certificate(request).await.map_err(explain)?.into_inner();
            show::object(
                args.json,
                &[("serial", serial.into()), ("revoked_at", show::time(answer.revoked_at))],
            )
        }
    }
}

/// `chancery node token|list|revoke`.
pub(crate) async fn node(args: &OperatorArgs, command: NodeCommand) -> anyhow::Result<()> {
    let mut signer = connect(&args.operator)?;
    match command {
        NodeCommand::Token { role, name, server_names, minutes } => {
            let request = admin::CreateJoinTokenRequest {
                role,
                name,
                server_names,
                lifetime_seconds: u64::from(minutes) * 60,
            };
            let made = signer.create_join_token(request).await.map_err(explain)?.into_inner();
            show::object(args.json, &[("token", made.token.into()), ("expires", show::time(made.expires_at))])
        }
        NodeCommand::List => {
            let answer = signer.list_nodes(admin::ListNodesRequest {}).await.map_err(explain)?.into_inner();
            let rows: Vec<_> = answer
                .nodes
                .into_iter()
                .map(|row| {
                    vec![
                        row.role.into(),
                        row.name.into(),
                        row.state.into(),
                        show::time(row.joined_at),
                        show::time(row.not_after),
                        row.server_names.into(),
                    ]
                })
                .collect();
            let columns = ["role", "name", "state", "joined", "not_after", "server_names"];
            show::list(args.json, &columns, &rows, "")
        }
        NodeCommand::Revoke { role, name } => {
            let request = admin::RevokeNodeRequest { role, name };
            let node = signer.revoke_node(request).await.map_err(explain)?.into_inner();
            show::object(
                args.json,
                &[("role", node.role.into()), ("name", node.name.into()), ("state", node.state.into())],
            )
        }
    }
    .context("the signer did not do it")
}
