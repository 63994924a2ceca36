//! Whole validators over mutual TLS: receipts, perspectives, who may ask what, and what happens under load.

#![expect(clippy::unwrap_used, reason = "what a test's own world cannot make or find fails the test")]

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use acme::challenge::Method;
use acme::id::IdKeys;
use acme::receipt::{Outcome, Receipt, ReceiptVerifier};
use acme::{AccountId, ErrorType, Thumbprint, TierSecret, TierSecrets};
use pki::{ErrorClass, Timestamp};
use rpc::proto::validator::v1 as wire;
use rpc::proto::validator::v1::perspective_client::PerspectiveClient;
use rpc::proto::validator::v1::validator_client::ValidatorClient;
use rpc::{Channel, NodeFiles, Role, Target};
use runtime::{Failure, Lifecycle};
use testkit::TestClock;
use testkit::challenge::{ChallengeResponder, Reply, challenge_path};
use testkit::dns::{DnsServer, Mood};
use testkit::nodes::NodeAuthority;
use testkit::unbound::{Unbound, Zones};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::{Code, Request};
use validator::{Config, RunError, receipt_key};

const NAME: &str = "www.example.org";
const ACCOUNT_URL: &str = "https://ca.example/acme/default/account/1";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct World {
    nodes: NodeAuthority,
    dns: DnsServer,
    web: ChallengeResponder,
    clock: TestClock,
}

struct Node {
    address: SocketAddr,
    lifecycle: Lifecycle,
    key: ReceiptVerifier,
    task: JoinHandle<Result<(), RunError>>,
}

impl World {
    async fn new() -> Self {
        let world = Self {
            nodes: NodeAuthority::new(),
            dns: DnsServer::start().await.unwrap(),
            web: ChallengeResponder::start().await.unwrap(),
            clock: TestClock::default(),
        };
        world.dns.address_of(NAME, HERE);
        world
    }

    /// A configuration for this name, with a receipt key; `more` are lines before the tables.
    fn config(
        &self,
        name: &str,
        listen: SocketAddr,
        dns: SocketAddr,
        more: &str,
        tables: &str,
    ) -> (Config, [u8; 32]) {
        let NodeFiles { certificate, key, authority } = self.nodes.files(Role::Validator, name);
        let receipts = self.nodes.folder().join(format!("{name}.receipt"));
        let public = receipt_key::create(&receipts, &name.parse().unwrap()).unwrap();
        let port = self.web.port();
        let text = format!(
            "version = 1\nlisten = \"{listen}\"\nreceipt_key = {receipts:?}\nsigners = [\"127.0.0.1:1\"]\n\
             resolver = \"{dns}\"\n{more}\n\
             [node]\ncertificate = {certificate:?}\nkey = {key:?}\nauthority = {authority:?}\n\
             [http_01]\nport = {port}\n[addresses]\nallow = [\"127.0.0.1/32\"]\n{tables}"
        );
        let config: Config = runtime::config::parse(&text, "validator.toml".as_ref()).unwrap();
        runtime::RoleConfig::check(&config).unwrap();
        (config, public)
    }

    async fn start(&self, name: &str, more: &str, tables: &str) -> Node {
        self.start_with(name, self.dns.address(), more, tables).await
    }

    async fn start_with(&self, name: &str, dns: SocketAddr, more: &str, tables: &str) -> Node {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (config, public) = self.config(name, address, dns, more, tables);
        self.run(name, address, config, public).await
    }

    async fn run(&self, name: &str, address: SocketAddr, config: Config, public: [u8; 32]) -> Node {
        let lifecycle = Lifecycle::new(self.clock.shared());
        let task = tokio::spawn(validator::run(config, lifecycle.clone()));
        while TcpStream::connect(address).await.is_err() {
            assert!(!task.is_finished(), "{:?}", task.await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let key = ReceiptVerifier::new(name.parse().unwrap(), &public).unwrap();
        Node { address, lifecycle, key, task }
    }

    fn channel(&self, node: &Node, role: Role) -> Channel {
        let credentials = self.nodes.node(role, "caller");
        Channel::connect_lazy(vec![node.address.to_string()], Role::Validator, credentials).unwrap()
    }

    fn front(&self, node: &Node) -> ValidatorClient<Channel> {
        ValidatorClient::new(self.channel(node, Role::Front))
    }

    async fn validate(&self, node: &Node, target: &Target) -> Result<wire::ValidateResponse, tonic::Status> {
        let request = wire::ValidateRequest { target: Some(target.into()) };
        Ok(self.front(node).validate(request).await?.into_inner())
    }

    /// Answers the challenge of this target.
    fn answer(&self, target: &Target) {
        let token = acme::id::token(&target.authorization);
        self.web.add(&token, &acme::challenge::key_authorization(&token, &target.thumbprint));
    }
}

impl Node {
    async fn stop(self) {
        self.lifecycle.drain();
        self.task.await.unwrap().unwrap();
        let finished: Result<(), Failure> = self.lifecycle.finished().await;
        finished.unwrap();
    }
}

fn target(name: &str) -> Target {
    let secrets =
        TierSecrets::new(vec![TierSecret::new(1, *b"0123456789abcdef0123456789abcdef").unwrap()]).unwrap();
    let directory = "default".parse().unwrap();
    let thumbprint = Thumbprint::from_bytes([7; 32]);
    let account = AccountId::derive(&directory, &thumbprint);
    let name = name.parse().unwrap();
    let now = Timestamp::from_unix(1_780_272_000);
    let keys = IdKeys::new(&secrets);
    let authorization = keys.mint_authorization(&directory, &account, &name, &[1; 32], now, [9; 16]);
    let account_url = ACCOUNT_URL.parse().unwrap();
    let method = Method::Http01;
    Target {
        authorization,
        directory,
        account,
        account_url,
        thumbprint,
        name,
        method,
        attempt: 1,
        caa_identities: Vec::new(),
        caa_only: false,
    }
}

fn remote(name: &str, address: SocketAddr) -> String {
    format!("[[remotes]]\nname = \"{name}\"\naddresses = [\"{address}\"]\n")
}

fn kind(receipt: &Receipt) -> Option<ErrorType> {
    match &receipt.outcome {
        Outcome::Valid | Outcome::Caa | Outcome::Assumed => None,
        Outcome::Invalid(problem) => Some(problem.kind),
    }
}

#[tokio::test]
async fn a_receipt_says_who_saw_what_of_whom_and_when() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let mut target = target(NAME);
    target.attempt = 3;
    world.answer(&target);
    let response = world.validate(&node, &target).await.unwrap();
    assert_eq!((response.receipts.len(), response.silent.len()), (1, 0));
    let receipt = node.key.verify(&response.receipts[0]).unwrap();
    let now = Timestamp::from(runtime::Clock::now(&world.clock));
    let expected = Receipt {
        authorization: target.authorization,
        directory: target.directory.clone(),
        account: target.account,
        account_url: target.account_url.clone(),
        thumbprint: target.thumbprint,
        name: target.name.clone(),
        method: Method::Http01,
        requirement: "BR 2.2.6 3.2.2.4.19".to_owned(),
        token: acme::id::token(&target.authorization),
        attempt: 3,
        run: receipt.run,
        perspective: "v-1".parse().unwrap(),
        addresses: vec![HERE],
        caa: None,
        persisted: None,
        dnssec: false,
        started: now,
        finished: now,
        outcome: Outcome::Valid,
    };
    assert_eq!(receipt, expected);
    node.stop().await;
}

/// For test CAs: it signs that it assumes, and there is nothing in it that could look.
#[tokio::test]
async fn who_is_told_to_assume_looks_at_nothing_and_says_so() {
    let world = World::new().await;
    let node = world.start("v-1", "always_valid = true", "").await;
    let now = Timestamp::from(runtime::Clock::now(&world.clock));
    let mut asked =
        vec![(NAME, Method::Http01), ("127.0.0.1", Method::Http01), ("127.0.0.1", Method::TlsAlpn01)];
    asked.extend(
        [Method::TlsAlpn01, Method::Dns01, Method::DnsAccount01, Method::DnsPersist01].map(|one| (NAME, one)),
    );
    asked.push(("*.example.org", Method::Dns01));
    for (name, method) in asked {
        let caa_identities = vec!["ca.example".parse().unwrap()];
        let target = Target { method, caa_identities, ..target(name) };
        let response = world.validate(&node, &target).await.unwrap();
        let receipt = node.key.verify(&response.receipts[0]).unwrap();
        let expected = Receipt {
            authorization: target.authorization,
            directory: target.directory.clone(),
            account: target.account,
            account_url: target.account_url.clone(),
            thumbprint: target.thumbprint,
            name: target.name.clone(),
            method,
            requirement: "none".to_owned(),
            token: acme::id::token(&target.authorization),
            attempt: 1,
            run: receipt.run,
            perspective: "v-1".parse().unwrap(),
            addresses: Vec::new(),
            caa: None,
            persisted: None,
            dnssec: false,
            started: now,
            finished: now,
            outcome: Outcome::Assumed,
        };
        assert_eq!(receipt, expected);
    }
    // What no method can show, it does not assume either.
    let unfit = world.validate(&node, &target("*.example.org")).await.unwrap_err();
    assert_eq!(unfit.code(), Code::InvalidArgument, "{unfit}");
    assert!(node.lifecycle.readiness().report(false).is_ready());
    // Not even whether there is a resolver.
    assert_eq!((world.web.requests().len(), world.dns.questions().len()), (0, 0));
    node.stop().await;
}

/// Each perspective signs for itself: one that looks goes on looking beside one that does not.
#[tokio::test]
async fn a_primary_that_assumes_says_nothing_for_its_remotes() {
    let world = World::new().await;
    let second = world.start("v-2", "", "").await;
    let first = world.start("v-1", "always_valid = true", &remote("v-2", second.address)).await;
    let response = world.validate(&first, &target(NAME)).await.unwrap();
    let [own, other] = response.receipts.as_slice() else { unreachable!("{response:?}") };
    assert_eq!(first.key.verify(own).unwrap().outcome, Outcome::Assumed);
    assert_eq!(kind(&second.key.verify(other).unwrap()), Some(ErrorType::Unauthorized));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_failure_is_signed_as_well() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let missing = world.validate(&node, &target(NAME)).await.unwrap();
    let receipt = node.key.verify(&missing.receipts[0]).unwrap();
    assert_eq!((kind(&receipt), receipt.addresses), (Some(ErrorType::Unauthorized), vec![HERE]));
    let nowhere = world.validate(&node, &target("nowhere.example.org")).await.unwrap();
    let receipt = node.key.verify(&nowhere.receipts[0]).unwrap();
    assert_eq!((kind(&receipt), receipt.addresses.len()), (Some(ErrorType::Dns), 0));
    node.stop().await;
}

#[tokio::test]
async fn an_ip_identifier_is_validated_at_itself() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let target = target("127.0.0.1");
    world.answer(&target);
    let response = world.validate(&node, &target).await.unwrap();
    assert_eq!(kind(&node.key.verify(&response.receipts[0]).unwrap()), None);
    node.stop().await;
}

#[tokio::test]
async fn g4_a_wildcard_is_validated_by_dns_alone() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let mut target = target("*.example.org");
    let status = world.validate(&node, &target).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    target.method = Method::Dns01;
    let token = acme::id::token(&target.authorization);
    let expected = acme::challenge::key_authorization(&token, &target.thumbprint);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, expected.as_bytes());
    world.dns.text_of("_acme-challenge.example.org", acme::base64url::encode(digest));
    let response = world.validate(&node, &target).await.unwrap();
    let receipt = node.key.verify(&response.receipts[0]).unwrap();
    assert_eq!((kind(&receipt), receipt.requirement.as_str()), (None, "BR 2.2.6 3.2.2.4.7"));
    assert_eq!((receipt.method, receipt.addresses), (Method::Dns01, Vec::new()));
    // No address is ever one for DNS.
    target.name = "127.0.0.1".parse().unwrap();
    assert_eq!(world.validate(&node, &target).await.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn every_perspective_signs_its_own_dissent_included() {
    let world = World::new().await;
    // To v-3, the name is something else.
    let elsewhere = DnsServer::start().await.unwrap();
    let second = world.start("v-2", "", "").await;
    let third = world.start_with("v-3", elsewhere.address(), "", "").await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let remotes = remote("v-2", second.address) + &remote("v-3", third.address) + &remote("v-4", nobody);
    let first = world.start("v-1", "", &remotes).await;
    let target = target(NAME);
    world.answer(&target);
    let response = world.validate(&first, &target).await.unwrap();
    assert_eq!(response.silent, ["v-4"]);
    let [own, agree, dissent] = response.receipts.as_slice() else { unreachable!("{response:?}") };
    let runs = [(&first, own), (&second, agree), (&third, dissent)]
        .map(|(node, receipt)| node.key.verify(receipt).unwrap().run);
    assert!(runs.iter().all(|run| *run == runs[0]), "one run: {runs:?}");
    let later = world.validate(&first, &target).await.unwrap();
    assert_ne!(first.key.verify(&later.receipts[0]).unwrap().run, runs[0], "another look, another run");
    assert_eq!(kind(&first.key.verify(own).unwrap()), None);
    assert_eq!(kind(&second.key.verify(agree).unwrap()), None);
    assert_eq!(kind(&third.key.verify(dissent).unwrap()), Some(ErrorType::Dns));
    assert!(first.key.verify(agree).is_err(), "one key signs for two perspectives");
    for node in [first, second, third] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_remote_that_answers_under_another_name_is_silent() {
    let world = World::new().await;
    let second = world.start("v-2", "", "").await;
    let first = world.start("v-1", "", &remote("v-9", second.address)).await;
    let target = target(NAME);
    world.answer(&target);
    let response = world.validate(&first, &target).await.unwrap();
    assert_eq!((response.receipts.len(), response.silent), (1, vec!["v-9".to_owned()]));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn each_rpc_is_for_one_role() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let target = target(NAME);
    world.answer(&target);
    for role in Role::ALL {
        let channel = world.channel(&node, role);
        let request = wire::ValidateRequest { target: Some((&target).into()) };
        let validate = ValidatorClient::new(channel.clone()).validate(request).await;
        let run = vec![4; 16].into();
        let request = wire::ObserveRequest { target: Some((&target).into()), run };
        let observe = PerspectiveClient::new(channel).observe(request).await;
        let codes = (validate.err().map(|status| status.code()), observe.err().map(|status| status.code()));
        let denied = Some(Code::PermissionDenied);
        let expected = match role {
            Role::Front => (None, denied),
            Role::Validator => (denied, None),
            _ => (denied, denied),
        };
        assert_eq!(codes, expected, "{role}");
    }
    assert_eq!(world.web.requests().len(), 2);
    node.stop().await;
}

#[tokio::test]
async fn a_target_that_makes_no_sense_is_refused_before_anybody_is_asked() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let good = wire::Target::from(&target(NAME));
    let with = |change: fn(&mut wire::Target)| {
        let mut changed = good.clone();
        change(&mut changed);
        Some(changed)
    };
    for bad in [
        None,
        with(|target| target.wildcard = true),
        with(|target| target.method = "dns-02".to_owned()),
        with(|target| target.account_url.clear()),
        with(|target| target.caa_identities.push("CA.example".to_owned())),
        with(|target| target.caa_identities = vec!["ca.example".to_owned(); 11]),
        with(|target| target.authorization_id.push('A')),
        with(|target| target.identifier_value = "WWW.example.org".to_owned()),
        with(|target| target.identifier_value = "www.example.org/x@y".to_owned()),
        with(|target| target.identifier_type = "ip".to_owned()),
        with(|target| target.key_thumbprint.clear()),
        with(|target| target.attempt = 0),
    ] {
        let status =
            world.front(&node).validate(wire::ValidateRequest { target: bad.clone() }).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}: {status}");
    }
    assert!(world.web.requests().is_empty() && world.dns.questions().iter().all(|(name, _)| name.is_empty()));
    node.stop().await;
}

#[tokio::test]
async fn load_is_shed_with_a_hint_and_without_a_receipt() {
    let world = World::new().await;
    let tables = "[limits]\nat_once = 2\nper_identifier = 1\nattempt_seconds = 2\n";
    let node = world.start("v-1", "", tables).await;
    let first = target(NAME);
    world.web.set(&challenge_path(&acme::id::token(&first.authorization)), Reply::Silence);
    world.dns.address_of("two.example.org", HERE);
    world.dns.address_of("three.example.org", HERE);
    let second = target("two.example.org");
    world.web.set(&challenge_path(&acme::id::token(&second.authorization)), Reply::Silence);
    let shed = async {
        while world.web.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The same name once more; then, with another name under way as well, a third.
        let same = world.validate(&node, &first).await.unwrap_err();
        let others = tokio::join!(world.validate(&node, &second), async {
            while world.web.requests().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            world.validate(&node, &target("three.example.org")).await.unwrap_err()
        });
        [same, others.1]
    };
    let (slow, refused) = tokio::join!(world.validate(&node, &first), shed);
    for status in refused {
        assert_eq!(
            (status.code(), rpc::status_class(&status)),
            (Code::ResourceExhausted, ErrorClass::Transient)
        );
        assert!(rpc::retry_after(&status).is_some());
    }
    let receipt = node.key.verify(&slow.unwrap().receipts[0]).unwrap();
    assert_eq!(kind(&receipt), Some(ErrorType::Connection));
    node.stop().await;
}

#[tokio::test]
async fn a_dead_resolver_fails_no_clients_and_shows() {
    let world = World::new().await;
    let gone = DnsServer::start().await.unwrap();
    let node = world.start_with("v-1", gone.address(), "", "[limits]\nquery_seconds = 1\n").await;
    while !node.lifecycle.readiness().report(false).is_ready() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gone.mood("", 0, Mood::Silence);
    gone.mood(NAME, 0, Mood::Silence);
    let status = world.validate(&node, &target(NAME)).await.unwrap_err();
    assert_eq!((status.code(), rpc::status_class(&status)), (Code::Unavailable, ErrorClass::Transient));
    while node.lifecycle.readiness().report(false).is_ready() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_primary_that_cannot_look_still_brings_what_others_saw() {
    let world = World::new().await;
    let gone = DnsServer::start().await.unwrap();
    gone.mood("", 0, Mood::Silence);
    gone.mood(NAME, 0, Mood::Silence);
    let second = world.start("v-2", "", "").await;
    let tables = format!("[limits]\nquery_seconds = 1\n{}", remote("v-2", second.address));
    let first = world.start_with("v-1", gone.address(), "", &tables).await;
    let target = target(NAME);
    world.answer(&target);
    let response = world.validate(&first, &target).await.unwrap();
    assert_eq!(response.silent, ["v-1"]);
    assert_eq!(kind(&second.key.verify(&response.receipts[0]).unwrap()), None);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_drain_lets_an_attempt_finish() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let target = target(NAME);
    let token = acme::id::token(&target.authorization);
    let body = acme::challenge::key_authorization(&token, &target.thumbprint).into_bytes();
    world.web.set(&challenge_path(&token), Reply::Drip { pause: Duration::from_millis(2), body });
    let drain = async {
        while world.web.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.lifecycle.drain();
    };
    let (response, ()) = tokio::join!(world.validate(&node, &target), drain);
    assert_eq!(kind(&node.key.verify(&response.unwrap().receipts[0]).unwrap()), None);
    node.stop().await;
}

#[tokio::test]
async fn an_attempt_whose_caller_is_gone_ends() {
    let world = World::new().await;
    let tables = "[limits]\nat_once = 1\nattempt_seconds = 600\n";
    let node = world.start("v-1", "", tables).await;
    let hanging = target(NAME);
    let path = challenge_path(&acme::id::token(&hanging.authorization));
    world.web.set(&path, Reply::Silence);
    let mut request = Request::new(wire::ValidateRequest { target: Some((&hanging).into()) });
    request.set_timeout(Duration::from_millis(300));
    assert!(world.front(&node).validate(request).await.is_err());
    world.answer(&hanging);
    // Its place is free again.
    let mut outcome = world.validate(&node, &hanging).await;
    while outcome.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        outcome = world.validate(&node, &hanging).await;
    }
    assert_eq!(kind(&node.key.verify(&outcome.unwrap().receipts[0]).unwrap()), None);
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_work_does_not_start() {
    let world = World::new().await;
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let lifecycle = || Lifecycle::new(world.clock.shared());
    let (mut config, _) = world.config("v-1", free, world.dns.address(), "", "");
    config.receipt_key = world.nodes.folder().join("missing").as_path().into();
    assert!(matches!(validator::run(config, lifecycle()).await, Err(RunError::ReceiptKey(_))));
    let (mut config, _) = world.config("v-2", free, world.dns.address(), "", "");
    let front = world.nodes.files(Role::Front, "f-1");
    (config.node.certificate, config.node.key) = (front.certificate.into(), front.key.into());
    assert!(matches!(validator::run(config, lifecycle()).await, Err(RunError::Role(_))));
    let (config, _) = world.config("v-3", free, world.dns.address(), "", &remote("v-3", free));
    assert!(matches!(validator::run(config, lifecycle()).await, Err(RunError::Itself(_))));
}

#[test]
fn the_configuration_says_what_is_wrong_with_it() {
    let base = "version = 1\nlisten = \"127.0.0.1:1\"\nreceipt_key = \"k\"\nsigners = [\"a:1\"]\n";
    let node = "[node]\ncertificate = \"c\"\nkey = \"k\"\nauthority = \"a\"\n";
    let parse = |more: &str, tables: &str| {
        let mut text = base.to_owned();
        write!(text, "{more}\n{node}{tables}").unwrap();
        runtime::config::parse::<Config>(&text, "v.toml".as_ref())
            .map_err(|error| error.to_string())
            .and_then(|config| runtime::RoleConfig::check(&config).map_err(|error| error.to_string()))
    };
    assert_eq!(parse("", ""), Ok(()));
    assert_eq!(parse("resolver = \"system\"", ""), Ok(()));
    assert_eq!(parse("resolver = [\"127.0.0.1:53\", \"[::1]:53\"]", ""), Ok(()));
    assert_eq!(parse("", "[resolver]\nservers = \"127.0.0.1:53\"\ndnssec = true\n"), Ok(()));
    assert_eq!(parse("", "[resolver]\ndnssec = true\n[tls_alpn_01]\nport = 1\n[dns]\nrecords = 5\n"), Ok(()));
    for (more, tables, says) in [
        ("resolver = \"8.8.8.8\"", "", "neither \"system\" nor ADDR:PORT"),
        ("resolver = []", "", "no resolver"),
        ("resolver = 5", "", "\"system\", \"ADDR:PORT\" or a list"),
        ("hosts = {}", "", "unknown field"),
        ("", "[resolver]\nserver = \"127.0.0.1:53\"\n", "unknown field"),
        ("", "[dns]\nrecords = 0\n", "nonzero"),
        ("", "[addresses]\nallow = [\"10.0.0.0\"]\n", "invalid IP address syntax"),
        ("", "[http_01]\nport = 0\n", "nonzero"),
        ("", "[http_01]\nheader_bytes = 100\n", "at least 8192"),
        ("", "[[remotes]]\nname = \"V 2\"\naddresses = []\n", "name"),
        ("", "[[remotes]]\nname = \"v-2\"\naddresses = []\n", "v-2 has no address"),
    ] {
        let error = parse(more, tables).unwrap_err();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}

#[tokio::test]
async fn h1_caa_is_asked_with_every_validation_and_comes_first() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let mut target = target(NAME);
    target.caa_identities = vec!["ca.example".parse().unwrap()];
    world.dns.caa_of("example.org", 0, "issue", "ca.example");
    world.answer(&target);
    let look = async |target: &Target| {
        let response = world.validate(&node, target).await.unwrap();
        node.key.verify(&response.receipts[0]).unwrap()
    };
    let receipt = look(&target).await;
    assert_eq!((kind(&receipt), &receipt.outcome), (None, &Outcome::Valid));
    let caa = receipt.caa.unwrap();
    assert_eq!((caa.permitted, caa.found_at.as_deref()), (true, Some("example.org")));
    assert_eq!(caa.identities, target.caa_identities);
    // What CAA forbids is the problem, whatever the web server answers.
    world.web.remove(&acme::id::token(&target.authorization));
    assert_eq!(kind(&look(&target).await), Some(ErrorType::Unauthorized));
    world.dns.caa_of(NAME, 0, "issue", ";");
    let receipt = look(&target).await;
    assert_eq!((kind(&receipt), receipt.caa.map(|caa| caa.permitted)), (Some(ErrorType::Caa), Some(false)));
    world.answer(&target);
    assert_eq!(kind(&look(&target).await), Some(ErrorType::Caa));
    // What cannot be looked up fails the validation.
    world.dns.remove(NAME);
    world.dns.address_of(NAME, HERE);
    world.dns.mood(NAME, testkit::dns::CAA, Mood::Servfail);
    let receipt = look(&target).await;
    assert_eq!((kind(&receipt), receipt.caa), (Some(ErrorType::Dns), None));
    node.stop().await;
}

#[tokio::test]
async fn h6_a_look_at_caa_alone_contacts_nobody_and_shows_no_control() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let mut target = target(NAME);
    target.caa_only = true;
    let status = world.validate(&node, &target).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "nothing to ask: {status}");
    target.caa_identities = vec!["ca.example".parse().unwrap()];
    let response = world.validate(&node, &target).await.unwrap();
    let receipt = node.key.verify(&response.receipts[0]).unwrap();
    assert_eq!(receipt.outcome, Outcome::Caa);
    assert!(receipt.caa.unwrap().permitted && receipt.addresses.is_empty());
    world.dns.caa_of(NAME, 0, "issue", "other.example");
    let response = world.validate(&node, &target).await.unwrap();
    assert_eq!(kind(&node.key.verify(&response.receipts[0]).unwrap()), Some(ErrorType::Caa));
    assert_eq!(world.web.connections(), 0);
    target.name = "127.0.0.1".parse().unwrap();
    assert_eq!(world.validate(&node, &target).await.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn g11_receipts_say_whether_the_resolver_validates_and_none_is_made_while_it_does_not() {
    let world = World::new().await;
    let zones =
        Zones { secure: "_acme-challenge.secure.test. 60 IN TXT \"other\"\n".to_owned(), ..Zones::default() };
    let start = async |name: &str, dns: SocketAddr| {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (mut config, public) = world.config(name, address, dns, "", "");
        config.resolver.dnssec = true;
        world.run(name, address, config, public).await
    };
    let mut target = target("secure.test");
    target.method = Method::Dns01;
    let unbound = Unbound::start(&zones, true).unwrap();
    let node = start("v-1", unbound.address()).await;
    let response = world.validate(&node, &target).await.unwrap();
    let receipt = node.key.verify(&response.receipts[0]).unwrap();
    assert_eq!((receipt.dnssec, kind(&receipt)), (true, Some(ErrorType::Unauthorized)));
    node.stop().await;
    // The test's own name server knows nothing of DNSSEC.
    let node = start("v-2", world.dns.address()).await;
    let status = world.validate(&node, &target).await.unwrap_err();
    assert_eq!((status.code(), rpc::status_class(&status)), (Code::Unavailable, ErrorClass::Transient));
    assert!(!node.lifecycle.readiness().report(false).is_ready());
    node.stop().await;
}

#[tokio::test]
async fn g8_a_persistent_record_is_in_the_receipt_with_its_ttl() {
    let world = World::new().await;
    let node = world.start("v-1", "", "").await;
    let mut target = target("*.example.org");
    target.method = Method::DnsPersist01;
    target.caa_identities = vec!["ca.example".parse().unwrap()];
    let place = "_validation-persist.example.org";
    let value = format!("ca.example; accounturi={ACCOUNT_URL}; policy=wildcard");
    let look = async || {
        let response = world.validate(&node, &target).await.unwrap();
        node.key.verify(&response.receipts[0]).unwrap()
    };
    world.dns.text_of(place, "other.example; accounturi=https://other.example/1");
    let receipt = look().await;
    assert_eq!((kind(&receipt), receipt.persisted), (Some(ErrorType::Unauthorized), None));
    world.dns.text_of(place, value);
    world.dns.ttl_of(place, 7200);
    let receipt = look().await;
    let persisted = Some(acme::receipt::Persisted { ttl_seconds: 7200 });
    assert_eq!((kind(&receipt), receipt.persisted), (None, persisted));
    assert_eq!(receipt.requirement, "BR 2.2.6 3.2.2.4.22");
    node.stop().await;
}
