//! http-01 against real sockets and a real resolver on loopback: what it accepts, follows, refuses and reports.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test's own world cannot make or find fails the test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use testkit::challenge::{ChallengeResponder, Reply, challenge_path};
use testkit::dns::{self, AAAA, DnsServer, Mood};
use tokio::io::AsyncWriteExt;
use url::Host;
use validator::{
    AddressConfig, AddressPolicy, Ending, Failure, FailureKind, Http01, Http01Attempt, Http01Settings,
    LocalFault, Resolver, Resolvers,
};

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const KEY_AUTHORIZATION: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const NAME: &str = "www.example.org";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Loopback, but on no allow list.
const FORBIDDEN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A target, its DNS and a validator that may contact 127.0.0.1 and ::1 only.
struct World {
    dns: DnsServer,
    web: ChallengeResponder,
    method: Http01,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Http01Settings)) -> Self {
        let dns = DnsServer::start().await.unwrap();
        let web = ChallengeResponder::start().await.unwrap();
        dns.address_of(NAME, HERE);
        let mut settings = settings(web.port());
        change(&mut settings);
        let method = Http01::new(settings, resolver(dns.address()), policy()).unwrap();
        Self { dns, web, method }
    }

    async fn look(&self) -> (Result<(), Ending>, Vec<IpAddr>) {
        self.look_at(Host::Domain(NAME)).await
    }

    async fn look_at(&self, host: Host<&str>) -> (Result<(), Ending>, Vec<IpAddr>) {
        let mut contacted = Vec::new();
        let attempt = Http01Attempt { host, token: TOKEN, key_authorization: KEY_AUTHORIZATION };
        let outcome = self.method.observe(&attempt, &mut contacted).await;
        (outcome, contacted)
    }

    async fn failure(&self) -> Failure {
        failed(self.look().await.0)
    }

    /// The challenge's answer.
    fn reply(&self, reply: Reply) {
        self.web.set(&challenge_path(TOKEN), reply);
    }

    fn url(&self, name: &str, path: &str) -> String {
        format!("http://{name}:{}{path}", self.web.port())
    }
}

fn settings(port: u16) -> Http01Settings {
    Http01Settings {
        port,
        redirect_ports: Vec::new(),
        redirects: 10,
        connect_timeout: Duration::from_secs(5),
        total_timeout: Duration::from_secs(20),
        body_bytes: 1024,
        header_bytes: 65_536,
        per_address: 8,
    }
}

fn resolver(address: SocketAddr) -> Resolver {
    Resolver::new(&Resolvers::Servers(vec![address]), Duration::from_secs(5)).unwrap()
}

fn policy() -> AddressPolicy {
    let allow = vec!["127.0.0.1/32".parse().unwrap(), "::1/128".parse().unwrap()];
    AddressPolicy::new(AddressConfig { allow, ..AddressConfig::default() })
}

fn failed(outcome: Result<(), Ending>) -> Failure {
    match outcome {
        Err(Ending::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_failure(failure: &Failure, kind: FailureKind, says: &str) {
    assert_eq!(failure.kind, kind, "{}", failure.detail);
    assert!(failure.detail.contains(says), "{:?} does not say {says:?}", failure.detail);
}

#[tokio::test]
async fn g1_the_right_answer_is_found_and_the_request_is_right() {
    let world = World::new().await;
    world.web.add(TOKEN, KEY_AUTHORIZATION);
    assert_eq!(world.look().await, (Ok(()), vec![HERE]));
    let seen = world.web.requests();
    let [request] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", challenge_path(TOKEN).as_str()));
    assert_eq!(request.header("host"), Some(format!("{NAME}:{}", world.web.port()).as_str()));
    assert_eq!(request.header("user-agent"), Some(concat!("Chancery/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.header("connection"), Some("close"));
}

#[tokio::test]
async fn g1_white_space_after_the_answer_is_ignored_and_nothing_else() {
    let world = World::new().await;
    for good in [format!("{KEY_AUTHORIZATION}\r\n"), format!("{KEY_AUTHORIZATION}\n\n \t\n")] {
        world.reply(Reply::ok(good));
        assert_eq!(world.look().await.0, Ok(()));
    }
    for bad in [
        format!(" {KEY_AUTHORIZATION}"),
        format!("{KEY_AUTHORIZATION}x"),
        format!("{KEY_AUTHORIZATION}\0"),
        format!("{KEY_AUTHORIZATION}\n{KEY_AUTHORIZATION}"),
        format!("\u{feff}{KEY_AUTHORIZATION}"),
        KEY_AUTHORIZATION.to_ascii_lowercase(),
        TOKEN.to_owned(),
        String::new(),
    ] {
        world.reply(Reply::ok(bad));
        assert_failure(&world.failure().await, FailureKind::Unauthorized, "is not the key authorization");
    }
}

#[tokio::test]
async fn a_wrong_answer_is_reported_with_address_url_and_a_safe_excerpt() {
    let world = World::new().await;
    world.reply(Reply::ok("<html>\x1b[31m\u{2028}no"));
    let failure = world.failure().await;
    let url = world.url(NAME, &challenge_path(TOKEN));
    assert_failure(&failure, FailureKind::Unauthorized, &format!("127.0.0.1: fetching {url}: "));
    assert_failure(&failure, FailureKind::Unauthorized, r#""<html>\x1b[31m\xe2\x80\xa8no""#);
}

#[tokio::test]
async fn g1_only_2xx_counts() {
    let world = World::new().await;
    assert_failure(
        &world.failure().await,
        FailureKind::Unauthorized,
        "status 404, body \"no such challenge\"",
    );
    for status in [400, 401, 403, 500, 503] {
        world.reply(Reply::Body { status, headers: Vec::new(), body: KEY_AUTHORIZATION.into() });
        assert_failure(&world.failure().await, FailureKind::Unauthorized, &format!("status {status}"));
    }
}

#[tokio::test]
async fn g2_permitted_redirects_are_followed_to_other_names_and_resolved_there() {
    let world = World::new().await;
    world.dns.address_of("other.example.net", HERE);
    for status in [301, 302, 307, 308] {
        world.reply(Reply::redirect(status, &world.url("other.example.net", "/elsewhere?a=b")));
        world.web.set("/elsewhere?a=b", Reply::ok(KEY_AUTHORIZATION));
        assert_eq!(world.look().await, (Ok(()), vec![HERE, HERE]));
    }
    let host = format!("other.example.net:{}", world.web.port());
    assert_eq!(world.web.requests().last().unwrap().header("host"), Some(host.as_str()));
    assert!(world.dns.questions().contains(&("other.example.net".to_owned(), AAAA)));
}

#[tokio::test]
async fn g2_other_redirects_are_not_followed() {
    let world = World::new().await;
    world.web.set("/x", Reply::ok(KEY_AUTHORIZATION));
    for status in [300, 303, 305] {
        world.reply(Reply::redirect(status, "/x"));
        assert_failure(&world.failure().await, FailureKind::IncorrectResponse, &format!("status {status}"));
    }
    for (location, says) in [
        ("ftp://www.example.org/x".to_owned(), "only http and https"),
        ("http://www.example.org:1/x".to_owned(), "port 1 is not permitted"),
        ("http://www.example.org/x".to_owned(), "port 80 is not permitted"),
        (world.url("user:secret@www.example.org", "/x"), "a user or a password"),
        ("http://[::1".to_owned(), "is not a URL"),
    ] {
        world.reply(Reply::redirect(302, &location));
        let failure = world.failure().await;
        assert_failure(&failure, FailureKind::IncorrectResponse, says);
        assert!(!failure.detail.contains("secret"), "{}", failure.detail);
    }
    assert!(world.web.requests().iter().all(|request| request.target != "/x"));
}

#[tokio::test]
async fn g2_loops_and_long_chains_are_cut() {
    let world = World::with(|settings| settings.redirects = 3).await;
    world.reply(Reply::redirect(302, "/a"));
    world.web.set("/a", Reply::redirect(302, &challenge_path(TOKEN)));
    assert_failure(&world.failure().await, FailureKind::IncorrectResponse, "closes a loop");
    for hop in 0..9 {
        world.web.set(&format!("/{hop}"), Reply::redirect(302, &format!("/{}", hop + 1)));
    }
    world.reply(Reply::redirect(302, "/0"));
    let before = world.web.requests().len();
    assert_failure(&world.failure().await, FailureKind::IncorrectResponse, "more than 3 redirects");
    assert_eq!(world.web.requests().len() - before, 4);
}

#[tokio::test]
async fn g2_a_redirect_to_https_does_not_need_a_trusted_certificate() {
    let secure = ChallengeResponder::start_tls((HERE, 0).into(), "whatever.example").await.unwrap();
    let world = World::with(|settings| settings.redirect_ports = vec![secure.port()]).await;
    secure.set("/s", Reply::ok(KEY_AUTHORIZATION));
    world.reply(Reply::redirect(301, &format!("https://{NAME}:{}/s", secure.port())));
    assert_eq!(world.look().await, (Ok(()), vec![HERE, HERE]));
    assert_eq!(secure.requests().len(), 1);
    // By address: no SNI, and none needed.
    world.reply(Reply::redirect(301, &format!("https://127.0.0.1:{}/s", secure.port())));
    assert_eq!(world.look().await.0, Ok(()));
}

#[tokio::test]
async fn a_broken_handshake_is_a_tls_problem() {
    let plain = tokio::net::TcpListener::bind((HERE, 0)).await.unwrap();
    let port = plain.local_addr().unwrap().port();
    let world = World::with(|settings| settings.redirect_ports = vec![port]).await;
    world.reply(Reply::redirect(302, &format!("https://{NAME}:{port}/s")));
    let answer = async {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 This is not TLS\r\n\r\n").await.unwrap();
        stream
    };
    let (failure, _open) = tokio::join!(world.failure(), answer);
    assert_failure(&failure, FailureKind::Tls, "TLS handshake failed: the answer is not TLS");
}

#[tokio::test]
async fn forbidden_addresses_are_never_contacted() {
    let world = World::new().await;
    let inside = ChallengeResponder::start_on((FORBIDDEN, world.web.port()).into()).await.unwrap();
    inside.add(TOKEN, KEY_AUTHORIZATION);
    inside.set("/x", Reply::ok(KEY_AUTHORIZATION));
    // As the identifier's own address.
    world.dns.address_of("inside.example.org", FORBIDDEN);
    let (outcome, contacted) = world.look_at(Host::Domain("inside.example.org")).await;
    assert_failure(&failed(outcome), FailureKind::Dns, "127.0.0.2 is not permitted: loopback");
    assert!(contacted.is_empty());
    // As the identifier itself.
    let outcome = world.look_at(Host::Ipv4(Ipv4Addr::new(127, 0, 0, 2))).await.0;
    assert_failure(&failed(outcome), FailureKind::Dns, "127.0.0.2 is not permitted");
    // Behind a redirect: by name, by address, by the other ways to write an address.
    for host in
        ["inside.example.org", "127.0.0.2", "2130706434", "0x7f.2", "[::ffff:127.0.0.2]", "[::127.0.0.2]"]
    {
        world.reply(Reply::redirect(302, &world.url(host, "/x")));
        assert_failure(&world.failure().await, FailureKind::Dns, "may be contacted");
    }
    for host in ["169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "localhost", "x.localhost"] {
        world.reply(Reply::redirect(302, &world.url(host, "/x")));
        let outcome = world.look().await;
        // What is called localhost is this machine's 127.0.0.1, which this world's policy permits: only not found.
        let kind = if host.ends_with("localhost") { FailureKind::Unauthorized } else { FailureKind::Dns };
        assert_eq!(failed(outcome.0).kind, kind, "{host}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn an_address_that_turns_forbidden_between_two_hops_is_not_contacted() {
    let world = World::new().await;
    let inside = ChallengeResponder::start_on((FORBIDDEN, world.web.port()).into()).await.unwrap();
    inside.set("/x", Reply::ok(KEY_AUTHORIZATION));
    world.dns.address_of("rebind.example.org", FORBIDDEN);
    world.dns.address_of("rebind.example.org", HERE);
    world.reply(Reply::redirect(302, &world.url("rebind.example.org", "/x")));
    world.web.set("/x", Reply::redirect(302, &world.url("rebind.example.org", "/y")));
    // The permitted one of a mixed answer is used ...
    let (outcome, contacted) = world.look().await;
    assert_eq!((failed(outcome).kind, contacted), (FailureKind::Unauthorized, vec![HERE; 3]));
    // ... and never the other, whatever the order of the answer.
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn ipv6_is_preferred() {
    let world = World::new().await;
    let v6 = ChallengeResponder::start_on((Ipv6Addr::LOCALHOST, world.web.port()).into()).await.unwrap();
    v6.add(TOKEN, KEY_AUTHORIZATION);
    world.dns.address_of(NAME, Ipv6Addr::LOCALHOST.into());
    assert_eq!(world.look().await, (Ok(()), vec![Ipv6Addr::LOCALHOST.into()]));
    assert_eq!(world.web.connections(), 0);
    // A wrong answer over IPv6 is an answer: IPv4 is not asked for a better one.
    world.web.add(TOKEN, KEY_AUTHORIZATION);
    v6.remove(TOKEN);
    assert_failure(&world.failure().await, FailureKind::Unauthorized, "::1: fetching");
    assert_eq!(world.web.connections(), 0);
}

#[tokio::test]
async fn ipv4_is_tried_when_ipv6_does_not_connect() {
    let world = World::new().await;
    world.web.add(TOKEN, KEY_AUTHORIZATION);
    world.dns.address_of(NAME, Ipv6Addr::LOCALHOST.into());
    assert_eq!(world.look().await, (Ok(()), vec![Ipv6Addr::LOCALHOST.into(), HERE]));
}

#[tokio::test]
async fn no_connection_at_all_names_every_address_that_was_tried() {
    let free = ChallengeResponder::start().await.unwrap();
    let port = free.port();
    drop(free);
    let world = World::with(|settings| settings.port = port).await;
    world.dns.address_of(NAME, Ipv6Addr::LOCALHOST.into());
    // The port is free again once the responder's task has gone.
    while tokio::net::TcpStream::connect((HERE, port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let failure = world.failure().await;
    assert_failure(
        &failure,
        FailureKind::Connection,
        "::1: connection refused; 127.0.0.1: connection refused",
    );
}

#[tokio::test]
async fn g6_an_ip_identifier_is_asked_by_its_literal() {
    let world = World::new().await;
    world.web.add(TOKEN, KEY_AUTHORIZATION);
    assert_eq!(world.look_at(Host::Ipv4(Ipv4Addr::LOCALHOST)).await, (Ok(()), vec![HERE]));
    let host = format!("127.0.0.1:{}", world.web.port());
    assert_eq!(world.web.requests().last().unwrap().header("host"), Some(host.as_str()));
    let v6 = ChallengeResponder::start_on((Ipv6Addr::LOCALHOST, world.web.port()).into()).await.unwrap();
    v6.add(TOKEN, KEY_AUTHORIZATION);
    assert_eq!(world.look_at(Host::Ipv6(Ipv6Addr::LOCALHOST)).await.0, Ok(()));
    let host = format!("[::1]:{}", world.web.port());
    assert_eq!(v6.requests().last().unwrap().header("host"), Some(host.as_str()));
    assert!(world.dns.questions().is_empty());
}

#[tokio::test]
async fn g1_oversized_answers_are_cut_off() {
    let world = World::new().await;
    world.reply(Reply::Huge { bytes: 1 << 40 });
    assert_failure(&world.failure().await, FailureKind::IncorrectResponse, "longer than 1024 bytes");
    // White space beyond the limit as well: it would be kept in memory before it is ignored.
    world.reply(Reply::ok(format!("{KEY_AUTHORIZATION}{}", " ".repeat(2000))));
    assert_failure(&world.failure().await, FailureKind::IncorrectResponse, "longer than 1024 bytes");
    let header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n{KEY_AUTHORIZATION}", "x".repeat(200_000));
    world.reply(Reply::Raw(header.into_bytes()));
    assert_failure(&world.failure().await, FailureKind::Connection, "header is too large");
}

#[tokio::test]
async fn slow_and_silent_servers_end_with_the_attempt() {
    let world = World::with(|settings| settings.total_timeout = Duration::from_millis(300)).await;
    world.reply(Reply::Silence);
    assert_failure(&world.failure().await, FailureKind::Connection, "no complete answer in time");
    world.reply(Reply::Drip { pause: Duration::from_millis(20), body: KEY_AUTHORIZATION.into() });
    assert_failure(&world.failure().await, FailureKind::Connection, "no complete answer in time");
}

#[tokio::test]
async fn a_slow_but_complete_answer_counts() {
    let world = World::new().await;
    world.reply(Reply::Drip { pause: Duration::from_millis(1), body: KEY_AUTHORIZATION.into() });
    assert_eq!(world.look().await.0, Ok(()));
}

#[tokio::test]
async fn what_is_not_http_is_said_to_be_so() {
    let world = World::new().await;
    world.reply(Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()));
    assert_failure(&world.failure().await, FailureKind::Connection, "not HTTP");
    world.reply(Reply::Close);
    assert_failure(&world.failure().await, FailureKind::Connection, "closed before the answer was complete");
    world.reply(Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort".to_vec()));
    assert_eq!(world.failure().await.kind, FailureKind::Connection);
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let world = World::new().await;
    let headers = vec![("Content-Encoding".to_owned(), "gzip".to_owned())];
    world.reply(Reply::Body { status: 200, headers, body: KEY_AUTHORIZATION.into() });
    assert_failure(&world.failure().await, FailureKind::IncorrectResponse, "the body is encoded (\"gzip\")");
}

#[tokio::test]
async fn dns_failures_are_told_apart() {
    let world = World::new().await;
    world.dns.mood("empty.example.org", 99, Mood::Refused);
    world.dns.mood("bogus.example.org", 0, Mood::Servfail);
    for (name, says) in [
        ("missing.example.org", "missing.example.org does not exist (NXDOMAIN)"),
        ("empty.example.org", "neither an A nor an AAAA record"),
        ("bogus.example.org", "A: SERVFAIL"),
    ] {
        assert_failure(&failed(world.look_at(Host::Domain(name)).await.0), FailureKind::Dns, says);
    }
    assert_eq!(world.web.connections(), 0);
}

#[tokio::test]
async fn one_family_that_fails_does_not_hide_the_other() {
    let world = World::new().await;
    world.web.add(TOKEN, KEY_AUTHORIZATION);
    world.dns.mood(NAME, AAAA, Mood::Servfail);
    assert_eq!(world.look().await.0, Ok(()));
}

#[tokio::test]
async fn aliases_are_followed_and_nothing_is_cached() {
    let world = World::new().await;
    world.web.add(TOKEN, KEY_AUTHORIZATION);
    world.dns.add("alias.example.org", dns::Record::Cname(NAME.to_owned()));
    assert_eq!(world.look_at(Host::Domain("alias.example.org")).await.0, Ok(()));
    world.dns.remove(NAME);
    assert_failure(&failed(world.look_at(Host::Domain("alias.example.org")).await.0), FailureKind::Dns, "");
}

#[tokio::test]
async fn a_resolver_that_is_not_there_is_no_fault_of_the_clients() {
    let gone = DnsServer::start().await.unwrap();
    let address = gone.address();
    drop(gone);
    let web = ChallengeResponder::start().await.unwrap();
    let resolver = Resolver::new(&Resolvers::Servers(vec![address]), Duration::from_millis(200)).unwrap();
    let attempt =
        Http01Attempt { host: Host::Domain(NAME), token: TOKEN, key_authorization: KEY_AUTHORIZATION };
    // Whether the queries or the attempt run out of time first.
    for total_timeout in [Duration::from_secs(20), Duration::from_millis(100)] {
        let settings = Http01Settings { total_timeout, ..settings(web.port()) };
        let method = Http01::new(settings, resolver.clone(), policy()).unwrap();
        assert_eq!(method.observe(&attempt, &mut Vec::new()).await, Err(Ending::Local(LocalFault::Resolver)));
    }
}

#[tokio::test]
async fn a_zone_that_does_not_answer_is_the_clients() {
    let world = World::new().await;
    world.dns.mood(NAME, 0, Mood::Silence);
    let resolver =
        Resolver::new(&Resolvers::Servers(vec![world.dns.address()]), Duration::from_millis(200)).unwrap();
    let attempt =
        Http01Attempt { host: Host::Domain(NAME), token: TOKEN, key_authorization: KEY_AUTHORIZATION };
    for (total_timeout, says) in [(20_000, "A: timeout; AAAA: timeout"), (100, "no answer in time")] {
        let total_timeout = Duration::from_millis(total_timeout);
        let settings = Http01Settings { total_timeout, ..settings(world.web.port()) };
        let method = Http01::new(settings, resolver.clone(), policy()).unwrap();
        assert_failure(&failed(method.observe(&attempt, &mut Vec::new()).await), FailureKind::Dns, says);
    }
}

#[tokio::test]
async fn connections_to_one_address_are_bounded() {
    let world = World::with(|settings| {
        settings.per_address = 1;
        settings.total_timeout = Duration::from_millis(400);
    })
    .await;
    world.reply(Reply::Silence);
    let (one, two) = tokio::join!(world.look(), world.look());
    let outcomes = [one.0.unwrap_err(), two.0.unwrap_err()];
    assert!(outcomes.contains(&Ending::Local(LocalFault::Busy)), "{outcomes:?}");
    assert_eq!(world.web.connections(), 1);
}

#[tokio::test]
async fn many_at_once_do_not_disturb_each_other() {
    let world = World::with(|settings| settings.per_address = 32).await;
    world.web.add(TOKEN, KEY_AUTHORIZATION);
    world.dns.address_of("*.example.net", HERE);
    let names: Vec<_> = (0..400).map(|number| format!("n{number}.example.net")).collect();
    let looks = names.iter().map(|name| world.look_at(Host::Domain(name)));
    for (name, (outcome, _)) in names.iter().zip(futures::future::join_all(looks).await) {
        assert_eq!(outcome, Ok(()), "{name}");
    }
}
