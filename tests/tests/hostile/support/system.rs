//! The system: a demo that served honest clients and ended, then its signer alone, with more directories and three
//! perspectives whose keys the test has, because the test is what they see.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acme::receipt::ReceiptKey;
use e2e::Demo;
use e2e::program::{free_port, ours, succeed};
use instant_acme::{Account, ChallengeType, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy};
use rpc::proto::admin::v1 as admin;
use rpc::proto::admin::v1::admin_client::AdminClient;
use rpc::{Channel, NodeCredentials, NodeFiles, Role};
use tempfile::TempDir;
use testkit::challenge::ChallengeResponder;

use super::Database;

/// The perspectives of the directories; two of them must agree.
const PERSPECTIVES: [&str; 3] = ["p-1", "p-2", "p-3"];

const PATIENCE: Duration = Duration::from_secs(120);

/// A name that an honest client of the demo has shown control of, for an order that it has not finalized.
const COPIED: &str = "copied.demo.test";

pub(crate) struct System {
    folder: TempDir,
    signer: Option<Child>,
    pub(crate) address: String,
    pub(crate) enrollment: String,
    /// The base URL of the directories.
    pub(crate) base: String,
    pub(crate) perspectives: Vec<ReceiptKey>,
    pub(crate) honest: Honest,
}

/// What a front has in its database of a client that never did anything wrong.
pub(crate) struct Honest {
    pub(crate) order: String,
    pub(crate) account: String,
    pub(crate) new_order: String,
    pub(crate) authorization: String,
    pub(crate) receipts: Vec<String>,
}

impl System {
    pub(crate) async fn start() -> Self {
        let demo = Demo::start();
        honest_client(&demo).await;
        let base = demo.facts.directory.trim_end_matches("/acme/open/directory").to_owned();
        let folder = demo.stop();
        let state = folder.path().join("state");
        let honest = copied(&state.join("front/acme.db")).await;
        let address = |()| SocketAddr::from(([127, 0, 0, 1], free_port())).to_string();
        let (address, enrollment) = (address(()), address(()));
        let key = |(at, name): (usize, &&str)| {
            ReceiptKey::from_seed(name.parse().expect("a name"), &[at as u8 + 1; 32]).expect("a key")
        };
        let perspectives: Vec<_> = PERSPECTIVES.iter().enumerate().map(key).collect();
        let mut system = Self { folder, signer: None, address, enrollment, base, perspectives, honest };
        system.configure();
        system.start_signer();
        system.until_it_answers().await;
        for (name, key) in PERSPECTIVES.iter().zip(system.perspectives.clone()) {
            system.join("validator", name, Some(*key.public_key())).await;
        }
        system
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn configure(&self) {
        let file = self.state().join("signer.toml");
        let text = std::fs::read_to_string(&file).expect("signer.toml");
        let text = text.replace("\"inherited:0\"", &format!("{:?}", self.address));
        let text = text.replace("\"inherited:1\"", &format!("{:?}", self.enrollment));
        // A second of skew, so that tests need not wait for a minute; orphans are taken over at once.
        let text =
            text + "\n[limits]\nclock_skew_seconds = 1\nlease_seconds = 1\ncached_account_seconds = 1\n";
        std::fs::write(&file, text).expect("signer.toml");
        let file = self.state().join("policy.toml");
        let text = std::fs::read_to_string(&file).expect("policy.toml");
        let url =
            text.lines().find(|line| line.starts_with("crl_url_base")).expect("where CRLs are").to_owned();
        let more = POLICY.replace("{base}", &self.base).replace("{crl_url_base}", &url);
        std::fs::write(&file, text + &more).expect("policy.toml");
        self.public_issuer();
    }

    /// The demo's CA is marked as a test CA, and is not for public trust: another ceremony with its tokens makes one that is.
    fn public_issuer(&self) {
        let demo = std::fs::read_to_string(self.state().join("ceremony.toml")).expect("the demo's ceremony");
        let (cas, _) = demo.split_once("[[responder_key]]").expect("its CAs");
        let plan = cas
            .replace("test_ca = true\n", "")
            .replace("output = \"ca\"", "output = \"ca-public\"")
            .replace("id = \"01\"", "id = \"02\"")
            .replace("id = \"11\"", "id = \"12\"")
            .replace("name = \"tls-1\"", "name = \"public-1\"")
            .replace("Demo", "Public");
        let file = self.state().join("public.toml");
        std::fs::write(&file, plan).expect("public.toml");
        succeed(Command::new(ours("chancery")).args(["ceremony", "run"]).arg(&file));
    }

    pub(crate) fn start_signer(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("its log");
        let child = Command::new(ours("chancery"))
            .args(["signer", "--config"])
            .arg(self.state().join("signer.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn();
        self.signer = Some(child.expect("chancery signer"));
    }

    fn log(&self) -> PathBuf {
        self.state().join("log/hostile.log")
    }

    /// What the signer has logged since the test began.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) async fn until_it_answers(&mut self) {
        let started = Instant::now();
        loop {
            let overview = self.operator().overview(admin::OverviewRequest {}).await;
            if overview.is_ok_and(|overview| overview.get_ref().tokens.iter().all(|token| token.healthy)) {
                return;
            }
            let ended = self.signer.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "no signer:\n{}", self.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a signer that will not start; whether it ended by itself.
    pub(crate) fn ends_by_itself(&mut self) -> bool {
        let mut child = self.signer.take().expect("a signer");
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match child.try_wait().expect("its end") {
                Some(status) => return !status.success(),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// Ends the signer as a service manager would: what it counted is written.
    pub(crate) fn stop_signer(&mut self) {
        let Some(mut child) = self.signer.take() else { return };
        e2e::demo::signal(child.id(), "TERM");
        let status = child.wait().expect("the signer's end");
        assert!(status.success(), "the signer ended with {status}:\n{}", self.logged());
    }

    pub(crate) async fn database(&self) -> Database {
        Database::open(&self.state().join("signer/ca.db")).await
    }

    /// The operator of the demo.
    pub(crate) fn operator(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel(&NodeFiles {
            certificate: self.state().join("ca/operator-demo.pem"),
            key: self.state().join("ca/operator-demo.key"),
            authority: self.state().join("ca/node-ca.pem"),
        }))
    }

    /// A channel to the signer with somebody's certificate and key.
    pub(crate) fn channel(&self, files: &NodeFiles) -> Channel {
        let credentials = NodeCredentials::load(files.clone()).expect("its files");
        Channel::connect_lazy(vec![self.address.clone()], Role::Signer, Arc::clone(&credentials))
            .expect("an address")
    }

    /// A node of the demo, by its folder.
    pub(crate) fn node(&self, folder: &str) -> NodeFiles {
        files(&self.state().join(folder))
    }

    pub(crate) async fn join(&self, role: &str, name: &str, receipt_key: Option<[u8; 32]>) -> NodeFiles {
        let request = admin::CreateJoinTokenRequest {
            role: role.to_owned(),
            name: name.to_owned(),
            ..admin::CreateJoinTokenRequest::default()
        };
        let token = self.operator().create_join_token(request).await.expect("a token").into_inner().token;
        let folder = self.state().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let (addresses, token) = (vec![self.enrollment.clone()], token.parse().expect("a token"));
        rpc::enroll::join(addresses, &token, receipt_key, &files(&folder)).await.expect("it joins");
        files(&folder)
    }

    /// A registration with an EAB key: its id, the key's id, the key.
    pub(crate) async fn registration(
        &self,
        directory: &str,
        name: &str,
        uses: u32,
    ) -> (String, String, Vec<u8>) {
        let request = admin::CreateRegistrationRequest {
            directory: directory.to_owned(),
            name: name.to_owned(),
            profiles: Vec::new(),
        };
        let id = self.operator().create_registration(request).await.expect("a registration").into_inner().id;
        let request = admin::CreateEabKeyRequest { registration_id: id.clone(), uses, lifetime_seconds: 0 };
        let key = self.operator().create_eab_key(request).await.expect("an EAB key").into_inner();
        (id, key.kid, acme::base64url::decode(&key.hmac_key).expect("base64url"))
    }

    pub(crate) async fn grant(&self, registration: &str, name: &str) -> String {
        let request = admin::AddGrantRequest {
            registration_id: registration.to_owned(),
            kind: admin::GrantKind::Exact.into(),
            value: name.to_owned(),
        };
        self.operator().add_grant(request).await.expect("a grant").into_inner().id
    }

    pub(crate) async fn permit(&self, registration: &str, name: &str) {
        let request = admin::AddPermitRequest {
            registration_id: registration.to_owned(),
            kind: admin::GrantKind::Subtree.into(),
            value: name.to_owned(),
        };
        self.operator().add_permit(request).await.expect("a permit");
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(mut child) = self.signer.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let logged = self.logged();
            let lines: Vec<_> = logged.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

fn files(folder: &Path) -> NodeFiles {
    NodeFiles {
        certificate: folder.join("node.pem"),
        key: folder.join("node.key"),
        authority: folder.join("node-ca.pem"),
    }
}

/// An order of the demo that is ready: its name was validated by the real validator, and nothing was finalized yet.
async fn honest_client(demo: &Demo) {
    let responder = ChallengeResponder::start_on(SocketAddr::from(([127, 0, 0, 1], demo.http_01_port)));
    let responder = responder.await.expect("the port is free");
    let new = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_root(&demo.facts.endpoint_ca).expect("the root");
    let (account, _) = builder.create(&new, demo.facts.directory.clone(), None).await.expect("an account");
    let names = [Identifier::Dns(COPIED.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await.expect("an order");
    let mut authorizations = order.authorizations();
    let mut authorization = authorizations.next().await.expect("one").expect("an authorization");
    let mut challenge = authorization.challenge(ChallengeType::Http01).expect("http-01");
    responder.add(&challenge.token, challenge.key_authorization().as_str());
    challenge.set_ready().await.expect("the challenge is accepted");
    let patience =
        RetryPolicy::new().initial_delay(Duration::from_millis(50)).timeout(Duration::from_secs(60));
    assert_eq!(order.poll_ready(&patience).await.expect("polling"), OrderStatus::Ready);
}

/// The copy of `acme` that a hostile front has, read as its own front wrote it.
async fn copied(file: &Path) -> Honest {
    let database = Database::open(file).await;
    let text = async |sql: &str| database.texts(sql.to_owned()).await.pop().expect("a row");
    let state =
        text("SELECT coalesce(state, (SELECT state FROM order_states WHERE order_row = row)) FROM orders")
            .await;
    let state: serde_json::Value = serde_json::from_str(&state).expect("an order");
    let basis: serde_json::Value =
        serde_json::from_str(&text("SELECT state FROM authorizations").await).expect("an authorization");
    let mut receipts = Vec::new();
    collect_receipts(&basis, &mut receipts);
    assert!(!receipts.is_empty(), "{basis}");
    let honest = Honest {
        order: text("SELECT id FROM orders").await,
        account: text("SELECT account FROM orders").await,
        new_order: state["new_order"].as_str().expect("the newOrder JWS").to_owned(),
        authorization: text("SELECT id FROM authorizations").await,
        receipts,
    };
    database.close().await;
    honest
}

fn collect_receipts(value: &serde_json::Value, found: &mut Vec<String>) {
    let Some(members) = value.as_object() else { return };
    for (name, member) in members {
        match member.as_array() {
            Some(list) if name == "receipts" => {
                found.extend(list.iter().filter_map(|receipt| receipt.as_str().map(str::to_owned)));
            }
            _ => collect_receipts(member, found),
        }
    }
}

const POLICY: &str = r#"
[[profile]]
name = "day"
validity = "1d"
key_algorithms = ["ecdsa-p256"]

[[directory]]
name = "strict"
tenant = "demo"
base_urls = ["{base}"]
pool = "tls"
profiles = ["tls"]
quorum = { perspectives = ["p-1", "p-2", "p-3"], maximum_dissent = 1 }

[[directory]]
name = "other"
tenant = "demo"
base_urls = ["{base}"]
pool = "tls"
profiles = ["day", "tls"]
quorum = { perspectives = ["p-1", "p-2", "p-3"], maximum_dissent = 1 }

[[profile]]
name = "public"
kind = "public-dv"
validity = "90d"

[[issuer]]
name = "public-1"
certificate = "ca-public/public-1.pem"
token = "signer"
key_id = "12"
pool = "public"
{crl_url_base}

[server_certificates]
profile = "front"
pool = "tls"

[[directory]]
name = "public"
tenant = "demo"
base_urls = ["{base}"]
pool = "public"
profiles = ["public"]
methods = ["http-01", "dns-01", "dns-account-01"]
caa_identities = ["ca.test"]
public_trust = true
quorum = { perspectives = ["p-1", "p-2", "p-3"], maximum_dissent = 1 }

[[directory]]
name = "limited"
tenant = "demo"
base_urls = ["{base}"]
pool = "tls"
profiles = ["tls"]
limits = { certificates_per_domain = "2 in 7d" }
quorum = { perspectives = ["p-1", "p-2", "p-3"], maximum_dissent = 1 }

[[directory]]
name = "managed-2"
tenant = "demo"
base_urls = ["{base}"]
pool = "tls"
profiles = ["tls"]
external_account_required = true
quorum = { perspectives = ["p-1", "p-2", "p-3"], maximum_dissent = 1 }
"#;
