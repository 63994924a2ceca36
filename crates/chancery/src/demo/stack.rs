//! The demo's whole stack: from an empty folder to a CA that answers.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rpc::enroll::JoinToken;
use rpc::proto::admin::v1 as admin;

use super::DemoArgs;
use super::dns::{NameServer, Zone};
use super::fetch;
use super::kit::{self, Clock, Kit};
use super::layout::{Addresses, Layout};
use super::show::Steps;
use super::supervisor::{Role, Supervisor, listen};
use crate::operator::{Access, Connection, access, explain};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long a role may take to come up. A loaded CI machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names that the demo's registration holds: granted, no challenge.
pub(crate) const GRANTED: &str = "managed.test";

/// A running demo.
pub(crate) struct Stack {
    pub(crate) supervisor: Supervisor,
    pub(crate) layout: Layout,
    pub(crate) facts: Facts,
    /// The calls for tests of clients.
    pub(crate) kit: Option<Kit>,
    _names: Option<NameServer>,
}

/// What a client needs to know; `demo.json` holds the same.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) directory: String,
    pub(crate) eab_directory: String,
    pub(crate) root: PathBuf,
    pub(crate) issuer: PathBuf,
    pub(crate) crl: String,
    /// URL of the OCSP responder.
    pub(crate) ocsp: String,
    pub(crate) eab_kid: String,
    pub(crate) eab_hmac_key: String,
    pub(crate) http_01_port: u16,
    pub(crate) tls_alpn_01_port: u16,
    pub(crate) enrollment: SocketAddr,
}

impl Stack {
    /// Brings everything up, in the order in which an operator would.
    ///
    /// # Errors
    ///
    /// When something is not installed or does not come up. What was started ends with the stack's drop.
    pub(crate) async fn start(
        args: &DemoArgs,
        folder: &Path,
        clock: Option<Clock>,
        steps: &Steps,
    ) -> anyhow::Result<Self> {
        let layout = Layout::new(folder)?;
        kit::plug_if_unplugged(&layout)?;
        kit::same_hosts(&layout, &args.kit)?;
        let step = steps.begin("two SoftHSM tokens: root, signer");
        layout.secrets()?;
        layout.tokens().await?;
        step.done("ready");

        let names = match args.resolver {
            Some(_) => None,
            None => {
                let zone = Arc::new(Zone::new(layout.path("names"), args.kit.default_ipv4()));
                Some(NameServer::start(args.kit.names_listen(), zone).await?)
            }
        };
        let ports = kit::Ports::take(&args.kit, names.is_some())?;
        let (sockets, addresses) = Sockets::bind(args, &layout, names.as_ref())?;

        let step = steps.begin("ceremony: root, intermediate, node CA, CRLs");
        let program = std::env::current_exe()?;
        let worker = hsm::WorkerCommand::this_program([crate::WORKER]);
        let plan = layout.ceremony(addresses.status, &args.responder_algorithm)?;
        let outcome = crate::ceremony::run(&plan, worker, &runtime::SystemClock).await?;
        step.done(&format!("{} signed, {} kept", outcome.signed, outcome.kept));

        layout.configurations(&addresses)?;
        let first_faults = args.kit.first_faults();
        if let Some(faults) = &first_faults {
            faults.write(&layout)?;
        }
        let mut supervisor = Supervisor::new(program, layout.path("log"));
        let operator = start_roles(&mut supervisor, &layout, &addresses, sockets, steps).await?;

        let facts = facts(&layout, &addresses, operator.connection.clone()).await?;
        let step = steps.begin("ACME directory and CRL answer");
        let directory = facts.directory.as_str();
        let ready =
            Ready { layout: layout.clone(), facts: facts.clone(), operator: operator.connection.clone() };
        ready.wait("front").await?;
        ready.wait("status").await?;
        step.done(directory);
        let kit = match (ports, first_faults) {
            (Some(ports), Some(faults)) => {
                let mover = clock.map(|clock| (clock, operator));
                let zone = names.as_ref().map(NameServer::zone);
                Some(Kit::start(ports, &ready, supervisor.running(), zone, mover, faults)?)
            }
            _ => None,
        };
        let stack = Self { supervisor, layout, facts, kit, _names: names };
        stack.write_json()?;
        Ok(stack)
    }

    /// `demo.json`, for scripts.
    fn write_json(&self) -> anyhow::Result<()> {
        let facts = &self.facts;
        let mut json = serde_json::json!({
            "directory": facts.directory,
            "endpoint_ca": facts.root,
            "root": facts.root,
            "issuer": facts.issuer,
            "crl": facts.crl,
            "ocsp": facts.ocsp,
            "eab_directory": facts.eab_directory,
            "eab_kid": facts.eab_kid,
            "eab_hmac_key": facts.eab_hmac_key,
            "names": self.layout.path("names"),
        });
        if let (Some(kit), Some(members)) = (&self.kit, json.as_object_mut()) {
            members.insert("management".to_owned(), kit.management.clone().into());
            members.insert("dns_management".to_owned(), kit.names.clone().into());
        }
        let text = serde_json::to_string_pretty(&json)? + "\n";
        // The EAB key is a secret.
        Ok(runtime::files::write_atomically(&self.layout.path("demo.json"), text.as_bytes(), 0o600)?)
    }

    pub(crate) async fn stop(self) {
        self.supervisor.stop().await;
    }
}

/// The roles' sockets.
struct Sockets {
    signer: Vec<std::net::TcpListener>,
    validator: Vec<std::net::TcpListener>,
    front: Vec<std::net::TcpListener>,
    status: Vec<std::net::TcpListener>,
}

/// Everybody is on this host, and what an operator opens is shown at once.
const UNLIMITED_FRONT: &str = "
[limits]
cached_renewal_infos = 0
connections_per_peer = 10000
handshakes_per_second = 1000000
handshake_burst = 1000000
work_per_second = 1000000
work_burst = 1000000
";

impl Sockets {
    fn bind(
        args: &DemoArgs,
        layout: &Layout,
        names: Option<&NameServer>,
    ) -> anyhow::Result<(Self, Addresses)> {
        let (signer, signer_address) = listen(LOOPBACK, 0)?;
        let (enrollment, enrollment_address) = listen(LOOPBACK, 0)?;
        let (validator, validator_address) = listen(LOOPBACK, 0)?;
        let (status, status_address) = match layout.status_port() {
            Some(port) => listen(LOOPBACK, port).context(
                "the port that stands in this folder's certificates is taken; another demo may run on the same folder",
            )?,
            None => listen(LOOPBACK, 0)?,
        };
        let listen_at = args.listen.unwrap_or(args.kit.default_listen());
        let port = match listen_at.port() {
            0 => layout.front_port().unwrap_or(0),
            port => port,
        };
        let (front, front_address) = listen(listen_at.ip(), port)?;
        layout.keep_front_port(front_address.port())?;
        let resolver = args.resolver.or(names.map(NameServer::address)).context("no resolver")?;
        // Clients reach an unspecified address by loopback.
        let host = if front_address.ip().is_unspecified() { LOOPBACK } else { front_address.ip() };
        let addresses = Addresses {
            signer: signer_address,
            enrollment: enrollment_address,
            validator: validator_address,
            status: status_address,
            authorities: args.kit.authorities(SocketAddr::new(host, front_address.port())),
            hosts: [host.to_string(), "localhost".to_owned()].into_iter().chain(args.kit.hosts()).collect(),
            resolver,
            signer_database: args.signer_database.clone(),
            front_database: args.front_database.clone(),
            http_01_port: args.http_01_port,
            tls_alpn_01_port: args.tls_alpn_01_port,
            front_limits: if args.front_limits { "" } else { UNLIMITED_FRONT },
            always_valid: args.always_valid,
            trusted_proxies: if args.unlimited_status { "\"127.0.0.0/8\"" } else { "" },
            pebble: args.kit.pebble,
            faults: args.kit.first_faults().is_some(),
        };
        let sockets = Self {
            signer: vec![signer, enrollment],
            validator: vec![validator],
            front: vec![front],
            status: vec![status],
        };
        Ok((sockets, addresses))
    }
}

/// Signer first; the others join it and are started then.
async fn start_roles(
    supervisor: &mut Supervisor,
    layout: &Layout,
    addresses: &Addresses,
    sockets: Sockets,
    steps: &Steps,
) -> anyhow::Result<Access> {
    let role = |name: &'static str, sockets| Role {
        name,
        config: layout.path(&format!("{name}.toml")),
        sockets,
        environment: Vec::new(),
    };
    let step = steps.begin("signer, with the token in a worker process");
    let running = supervisor.start(role("signer", sockets.signer))?;
    let operator = access(&layout.path("operator.toml"))?;
    patiently(layout, "signer", || healthy(operator.connection.clone())).await?;
    step.done(&format!("process {}", running.process_id()));

    let step = steps.begin("validator, front and status node join");
    for (name, node, server_names) in [
        ("validator", "validator-1", Vec::new()),
        ("front", "front-1", addresses.hosts.clone()),
        ("status", "status-1", Vec::new()),
    ] {
        join(layout, addresses, operator.connection.clone(), name, node, server_names)
            .await
            .with_context(|| format!("{name} could not join"))?;
    }
    let running = [
        supervisor.start(role("validator", sockets.validator))?,
        supervisor.start(role("status", sockets.status))?,
        supervisor.start(role("front", sockets.front))?,
    ];
    let processes: Vec<_> = running.iter().map(|role| role.process_id().to_string()).collect();
    step.done(&format!("processes {}", processes.join(", ")));
    Ok(operator)
}

/// What `chancery node token` and `chancery node join` do.
async fn join(
    layout: &Layout,
    addresses: &Addresses,
    mut operator: Connection,
    role: &str,
    name: &str,
    server_names: Vec<String>,
) -> anyhow::Result<()> {
    let folder = layout.path(role);
    let files = crate::node::files(&folder);
    if files.certificate.exists() {
        return Ok(());
    }
    let request = admin::CreateJoinTokenRequest {
        role: role.to_owned(),
        name: name.to_owned(),
        server_names,
        lifetime_seconds: 0,
    };
    let token: JoinToken =
        operator.create_join_token(request).await.map_err(explain)?.into_inner().token.parse()?;
    let receipt_key = match role {
        "validator" => Some(validator::receipt_key::create(&folder.join("receipt.key"), &name.parse()?)?),
        _ => None,
    };
    rpc::enroll::join(vec![addresses.enrollment.to_string()], &token, receipt_key, &files).await?;
    Ok(())
}

/// URLs, files, and a fresh EAB key of the demo's registration.
async fn facts(layout: &Layout, addresses: &Addresses, mut operator: Connection) -> anyhow::Result<Facts> {
    let list = admin::ListRegistrationsRequest {
        directory: "managed".into(),
        page_token: String::new(),
        page_size: 1000,
    };
    let known = operator.list_registrations(list).await.map_err(explain)?.into_inner().registrations;
    let registration = match known.into_iter().find(|registration| registration.name == "demo") {
        Some(registration) => registration.id,
        None => {
            let request = admin::CreateRegistrationRequest {
                directory: "managed".into(),
                name: "demo".into(),
                profiles: Vec::new(),
            };
            let made = operator.create_registration(request).await.map_err(explain)?.into_inner();
            let grant = admin::AddGrantRequest {
                registration_id: made.id.clone(),
                kind: admin::GrantKind::Subtree.into(),
                value: GRANTED.into(),
            };
            operator.add_grant(grant).await.map_err(explain)?;
            made.id
        }
    };
    // Many uses: people's own clients register as often as they like while the demo runs.
    let request =
        admin::CreateEabKeyRequest { registration_id: registration, uses: 1000, lifetime_seconds: 0 };
    let key = operator.create_eab_key(request).await.map_err(explain)?.into_inner();
    let issuer = layout.path("ca/tls-1.pem");
    let certificate = pki::chain::from_pem(&std::fs::read_to_string(&issuer)?)?;
    let key_id = certificate.first().and_then(|one| one.key_id()).context("the issuer has no key id")?;
    Ok(Facts {
        directory: format!("https://{}/acme/open/directory", addresses.authority()),
        eab_directory: format!("https://{}/acme/managed/directory", addresses.authority()),
        root: layout.path("ca/root.pem"),
        issuer,
        crl: pki::crl_url(&format!("http://{}/crl", addresses.status), key_id, 0),
        ocsp: format!("http://{}/ocsp", addresses.status),
        eab_kid: key.kid,
        eab_hmac_key: key.hmac_key,
        http_01_port: addresses.http_01_port,
        tls_alpn_01_port: addresses.tls_alpn_01_port,
        enrollment: addresses.enrollment,
    })
}

/// Whether the demo's roles answer.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) layout: Layout,
    pub(crate) facts: Facts,
    pub(crate) operator: Connection,
}

impl Ready {
    /// Waits until a role answers as it should. A validator cannot be asked by anybody but a front: its socket takes what comes
    /// until it is there.
    ///
    /// # Errors
    ///
    /// When it does not within [`PATIENCE`]; the end of its log is in the error.
    pub(crate) async fn wait(&self, role: &str) -> anyhow::Result<()> {
        let facts = &self.facts;
        match role {
            "signer" => patiently(&self.layout, role, || healthy(self.operator.clone())).await,
            "front" => {
                patiently(&self.layout, role, || fetch::get(&facts.directory, &facts.root)).await.map(drop)
            }
            "status" => patiently(&self.layout, role, || fetch::get(&facts.crl, &facts.root)).await.map(drop),
            _ => Ok(()),
        }
    }
}

/// A signer that answers, and has its tokens.
async fn healthy(mut operator: Connection) -> anyhow::Result<()> {
    let overview = operator.overview(admin::OverviewRequest {}).await.map_err(explain)?.into_inner();
    match overview.tokens.iter().find(|token| !token.healthy) {
        None => Ok(()),
        Some(token) => bail!("token {}: {}", token.name, token.detail),
    }
}

/// Tries until it works; gives up after [`PATIENCE`] with the last error and the end of the role's log.
async fn patiently<T, F>(layout: &Layout, role: &str, attempt: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut last = anyhow::anyhow!("no attempt was made");
    while tokio::time::Instant::now() < deadline {
        match tokio::time::timeout(Duration::from_secs(10), attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => last = error,
            Err(_) => last = anyhow::anyhow!("no answer in ten seconds"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = std::fs::read_to_string(layout.path(&format!("log/{role}.log"))).unwrap_or_default();
    let end: Vec<_> = log.lines().rev().take(20).collect();
    let end: Vec<_> = end.into_iter().rev().collect();
    bail!("{role} did not come up: {last:#}\nThe end of its log:\n{}", end.join("\n"))
}
