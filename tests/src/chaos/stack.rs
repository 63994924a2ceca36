//! A whole CA under the harness: made by `chancery demo`, run by the harness' own supervisor.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use benches::connection::Server;
use benches::responder::Responder;
use tempfile::TempDir;
use testkit::Cluster;
use testkit::dns::{DnsServer, Record};
use tokio::task::JoinHandle;

use super::director::{Director, Victim};
use super::ledger::Database;
use super::points::Role;
use super::roles::{Running, Spec};
use crate::demo::{Demo, Facts, is_alive};

mod postgres;

/// The domain whose names all lead to this host.
pub const DOMAIN: &str = "chaos.test";
/// The domain that the demo's registration was granted.
pub const GRANTED: &str = "managed.test";

/// Which CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On SQLite, with one signer.
    Sqlite,
    /// On PostgreSQL, with so many signers.
    Postgres {
        /// One or two.
        signers: u8,
    },
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sqlite, Self::Postgres { signers: 1 }, Self::Postgres { signers: 2 }];

    /// As the kill table calls it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres { signers: 1 } => "postgres",
            Self::Postgres { .. } => "postgres, two signers",
        }
    }
}

/// Roles that run, and what clients need.
pub struct Stack {
    /// As `demo.json` says, with the addresses of now.
    pub facts: Facts,
    /// The way to the front.
    pub server: Server,
    /// The clients' http-01 answers.
    pub responder: Responder,
    /// Where it keeps what it has.
    pub database: Database,
    roles: Vec<(String, Running)>,
    folder: TempDir,
    arming: Vec<JoinHandle<()>>,
    _names: DnsServer,
}

impl Stack {
    /// Makes a CA, and starts its roles.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start(kind: Kind, director: &Arc<Director>) -> anyhow::Result<Self> {
        let made = tokio::task::spawn_blocking(|| {
            let demo = Demo::start();
            let facts = demo.facts.clone();
            (demo.stop(), facts)
        });
        let (folder, mut facts) = made.await?;
        let state = folder.path().join("state");
        let names = DnsServer::start().await?;
        names.add(&format!("*.{DOMAIN}"), Record::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let (responder, http_01_port) = responder().await?;
        let sockets = Sockets::bind(&state)?;
        sockets.configure(&state, names.address(), http_01_port)?;
        for url in [&mut facts.directory, &mut facts.eab_directory] {
            *url = url.replace(&sockets.old_authority, &sockets.front.1.to_string());
        }
        let server = Server::new(sockets.front.1, &facts.root)?;
        let Sockets { signer, enrollment, validator, front, status, .. } = sockets;
        let mut roles = Roles { director, state: &state, running: Vec::new(), arming: Vec::new() };
        let (signer_address, enrollment_address) = (signer.1, enrollment.1);
        let database = match kind {
            Kind::Sqlite => {
                roles.signer("signer", vec![signer.0, enrollment.0]);
                Database::Sqlite { ca: state.join("signer/ca.db"), acme: state.join("front/acme.db") }
            }
            Kind::Postgres { signers } => {
                let cluster = tokio::task::spawn_blocking(Cluster::start).await?;
                postgres::configure(&state, &cluster)?;
                roles.signer("signer", vec![signer.0, enrollment.0]);
                let (state, authority) = (state.clone(), front.1.ip().to_string());
                let populate = move || {
                    postgres::populate(&state, enrollment_address, &authority, signers, signer_address)
                };
                let made = tokio::task::spawn_blocking(populate).await??;
                (facts.eab_kid, facts.eab_hmac_key) = made.eab;
                if let Some(second) = made.second {
                    roles.signer("signer-2", vec![second]);
                }
                Database::Postgres(Box::new(cluster))
            }
        };
        roles.start("validator", vec![validator.0], Some(Role::Validator));
        roles.start("front", vec![front.0], Some(Role::Front));
        roles.start("status", vec![status], None);
        let Roles { running, arming, .. } = roles;
        Ok(Self { facts, server, responder, database, roles: running, folder, arming, _names: names })
    }

    /// Where the object of a URL of the status node's is published, too.
    ///
    /// # Errors
    ///
    /// When the URL is none.
    pub fn published(&self, url: &str) -> anyhow::Result<PathBuf> {
        let path = url.splitn(4, '/').nth(3).context("a URL without a path")?;
        Ok(self.folder.path().join("state/web").join(path))
    }

    /// How often a role has said something, as far back as is remembered.
    #[must_use]
    pub fn said(&self, role: &str, words: &str) -> usize {
        let of_role = self.roles.iter().filter(|(name, _)| name == role);
        of_role.map(|(_, running)| running.log().matches(words).count()).sum()
    }

    /// The worker process.
    #[must_use]
    pub fn worker(&self) -> Option<u32> {
        let below = crate::demo::descendants(std::process::id());
        let is_worker = |command: &str| command.split_whitespace().nth(1) == Some("hsm-worker");
        below.into_iter().find(|(id, command)| is_worker(command) && is_alive(*id)).map(|(id, _)| id)
    }

    /// What the roles said last.
    #[must_use]
    pub fn logs(&self) -> String {
        self.roles.iter().map(|(name, role)| format!("--- {name}\n{}\n", role.log())).collect()
    }

    /// Ends everything. The folder goes, unless somebody is to look at it.
    pub async fn stop(self, keep: bool) {
        self.arming.iter().for_each(JoinHandle::abort);
        for (_, role) in self.roles {
            role.stop().await;
        }
        // Workers follow their signers' deaths by the kernel's hand.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if keep {
            eprintln!("kept: {}", self.folder.keep().display());
        }
    }
}

/// Roles that are being started.
struct Roles<'a> {
    director: &'a Arc<Director>,
    state: &'a Path,
    running: Vec<(String, Running)>,
    arming: Vec<JoinHandle<()>>,
}

impl Roles<'_> {
    fn signer(&mut self, name: &str, sockets: Vec<TcpListener>) {
        self.arming.push(self.director.arm_workers(arm_file(self.state, name)));
        self.start(name, sockets, Some(Role::Signer));
    }

    fn start(&mut self, name: &str, sockets: Vec<TcpListener>, victim: Option<Role>) {
        let role = match name {
            "validator" => "validator",
            "front" => "front",
            "status" => "status",
            _ => "signer",
        };
        let spec = Spec {
            role,
            name: name.to_owned(),
            config: self.state.join(format!("{name}.toml")),
            log: self.state.join(format!("log/{name}.log")),
            sockets,
            victim: victim.map(|role| Victim { role }),
        };
        self.running.push((name.to_owned(), Running::start(spec, Arc::clone(self.director))));
    }
}

fn arm_file(state: &Path, signer: &str) -> PathBuf {
    state.join(format!("{signer}.arm"))
}

async fn responder() -> anyhow::Result<(Responder, u16)> {
    let mut last = None;
    // The port may be taken between the question and the bind.
    for _ in 0..8 {
        let port = crate::program::free_port();
        match Responder::start(port).await {
            Ok(responder) => return Ok((responder, port)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no port")))
}

type Bound = (TcpListener, SocketAddr);

/// The roles' sockets, on other ports than the demo's: those may be somebody else's by now. Only the status node's port
/// stands in certificates.
struct Sockets {
    signer: Bound,
    enrollment: Bound,
    validator: Bound,
    front: Bound,
    status: TcpListener,
    old_authority: String,
}

impl Sockets {
    fn bind(state: &Path) -> anyhow::Result<Self> {
        let front = std::fs::read_to_string(state.join("front.toml"))?;
        let policy = std::fs::read_to_string(state.join("policy.toml"))?;
        let status: SocketAddr = between(&policy, "crl_url_base = \"http://", "/")?.parse()?;
        Ok(Self {
            signer: listen(0)?,
            enrollment: listen(0)?,
            validator: listen(0)?,
            front: listen(0)?,
            status: listen(status.port())?.0,
            old_authority: between(&front, "base_urls = [\"https://", "\"")?.to_owned(),
        })
    }

    /// Writes the demo's configurations again: with these addresses, and with leases that suit processes that die every
    /// second.
    fn configure(&self, state: &Path, names: SocketAddr, http_01_port: u16) -> anyhow::Result<()> {
        let front = std::fs::read_to_string(state.join("front.toml"))?;
        let old_signer = between(&front, "[signer]\naddresses = [\"", "\"")?;
        std::fs::create_dir(state.join("web"))?;
        let old_validator = between(&front, "[validator]\naddresses = [\"", "\"")?;
        for (name, more) in [
            ("signer", SIGNER),
            ("policy", ""),
            ("validator", ""),
            ("front", FRONT),
            ("status", STATUS),
            ("operator", ""),
        ] {
            let path = state.join(format!("{name}.toml"));
            let mut text = std::fs::read_to_string(&path)?
                .replace(old_signer, &self.signer.1.to_string())
                .replace(old_validator, &self.validator.1.to_string())
                .replace(&self.old_authority, &self.front.1.to_string());
            if name == "front" {
                text = text.replace("[limits]\n", FRONT_LIMITS);
            }
            if name == "validator" {
                let resolver = between(&text, "resolver = \"", "\"")?.to_owned();
                let port = between(&text, "[http_01]\nport = ", "\n")?.to_owned();
                text = text
                    .replace(&resolver, &names.to_string())
                    .replace(&format!("port = {port}"), &format!("port = {http_01_port}"));
            }
            let armed = format!(
                "hang_timeout_milliseconds = 2000\nrespawn_max_milliseconds = 50\nenvironment = {{ CHANCERY_FAILPOINTS = \"@{}\",",
                arm_file(state, "signer").display()
            );
            text = text.replace("environment = {", &armed) + more;
            std::fs::write(path, text)?;
        }
        Ok(())
    }
}

/// The folder is every signer's.
const SIGNER: &str = "
[limits]
lease_seconds = 1
issue_wait_milliseconds = 500

[[publish]]
name = \"web\"
folder = \"web\"
compare_seconds = 5
retry_max_seconds = 1
";

/// All clients and audits are one peer.
const STATUS: &str = "
[limits]
live_per_second = 100000
live_burst = 100000
";

/// In the table that the demo's front has.
const FRONT_LIMITS: &str = "[limits]
processing_lease_seconds = 1
finalize_wait_milliseconds = 500
";

const FRONT: &str = "
[validation]
attempt_seconds = 1
retry_milliseconds = [100, 200]
";

fn listen(port: u16) -> anyhow::Result<Bound> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> anyhow::Result<&'a str> {
    let (_, rest) = text.split_once(before).with_context(|| format!("no {before:?} in the demo's files"))?;
    rest.split_once(after).map(|(found, _)| found).with_context(|| format!("no end of {before:?}"))
}
