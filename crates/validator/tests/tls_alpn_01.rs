//! tls-alpn-01 against real TLS servers on loopback: which certificates count, and what is said of the others.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test's own world cannot make or find fails the test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pki::Name;
use rcgen::CustomExtension;
use testkit::alpn::{AlpnCertificate, AlpnResponder, PROTOCOL, Shown, alternative_name};
use testkit::dns::DnsServer;
use validator::{
    AddressConfig, AddressPolicy, Ending, Failure, FailureKind, Resolver, Resolvers, TlsAlpn01,
    TlsAlpn01Settings,
};

const KEY_AUTHORIZATION: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const NAME: &str = "www.example.org";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FORBIDDEN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ACME_IDENTIFIER: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 31];

struct World {
    dns: DnsServer,
    server: AlpnResponder,
    method: TlsAlpn01,
}

impl World {
    async fn new() -> Self {
        let dns = DnsServer::start().await.unwrap();
        dns.address_of(NAME, HERE);
        let server = AlpnResponder::start(&right().sign()).await.unwrap();
        let method = method(&dns, server.port(), Duration::from_secs(20));
        Self { dns, server, method }
    }

    async fn look_at(&self, name: &str) -> (Result<(), Ending>, Vec<IpAddr>) {
        let name: Name = name.parse().unwrap();
        let mut contacted = Vec::new();
        let outcome = self.method.observe(&name, KEY_AUTHORIZATION, &mut contacted).await;
        (outcome, contacted)
    }

    async fn look(&self) -> Result<(), Ending> {
        self.look_at(NAME).await.0
    }

    fn show(&self, shown: &Shown) {
        self.server.show(shown, &[PROTOCOL], rustls::ALL_VERSIONS);
    }

    async fn refused(&self, shown: &Shown, says: &str) {
        self.show(shown);
        assert_failure(&failed(self.look().await), FailureKind::Unauthorized, says);
    }
}

fn method(dns: &DnsServer, port: u16, total_timeout: Duration) -> TlsAlpn01 {
    let resolver = Resolver::new(&Resolvers::Servers(vec![dns.address()]), Duration::from_secs(5)).unwrap();
    let allow = vec!["127.0.0.1/32".parse().unwrap(), "::1/128".parse().unwrap()];
    let policy = AddressPolicy::new(AddressConfig { allow, ..AddressConfig::default() });
    let connect_timeout = Duration::from_secs(5);
    let settings = TlsAlpn01Settings { port, connect_timeout, total_timeout, per_address: 8 };
    TlsAlpn01::new(settings, resolver, policy).unwrap()
}

fn digest() -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY_AUTHORIZATION.as_bytes());
    digest.as_ref().try_into().unwrap()
}

fn right() -> AlpnCertificate {
    AlpnCertificate::new(NAME, &digest())
}

/// An acmeIdentifier with these octets as its value.
fn identifier(value: &[u8], critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(ACME_IDENTIFIER, value.to_vec());
    extension.set_criticality(critical);
    extension
}

fn octets(content: &[u8]) -> Vec<u8> {
    [&[4, u8::try_from(content.len()).unwrap()], content].concat()
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
async fn g5_the_right_certificate_is_found_by_its_name_in_every_version_and_algorithm() {
    let world = World::new().await;
    assert_eq!(world.look_at(NAME).await, (Ok(()), vec![HERE]));
    assert_eq!(world.server.asked(), [Some(NAME.to_owned())]);
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ED25519,
    ] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let shown = AlpnCertificate { algorithm, ..right() }.sign();
            world.server.show(&shown, &[b"h2", PROTOCOL], &[version]);
            assert_eq!(world.look().await, Ok(()), "{algorithm:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn g5_the_protocol_must_be_negotiated() {
    let world = World::new().await;
    let shown = right().sign();
    world.server.show(&shown, &[], rustls::ALL_VERSIONS);
    assert_failure(&failed(world.look().await), FailureKind::Unauthorized, "did not negotiate");
    world.server.show(&shown, &[b"http/1.1", b"acme-tls/2"], rustls::ALL_VERSIONS);
    assert_failure(&failed(world.look().await), FailureKind::Tls, "NoApplicationProtocol");
}

#[tokio::test]
async fn g5_the_certificate_is_of_this_name_alone() {
    let world = World::new().await;
    let with = |names: &[&str]| {
        AlpnCertificate { names: names.iter().map(|name| alternative_name(name)).collect(), ..right() }.sign()
    };
    let one = "exactly one subject alternative name";
    world.refused(&with(&[]), one).await;
    world.refused(&with(&[NAME, "other.example.org"]), one).await;
    world.refused(&with(&[NAME, NAME]), one).await;
    world.refused(&with(&["127.0.0.1", NAME]), one).await;
    world.refused(&with(&["other.example.org"]), "is for \"other.example.org\"").await;
    world.refused(&with(&["*.example.org"]), "is for \"*.example.org\"").await;
    world.refused(&with(&["127.0.0.1"]), "is for \"127.0.0.1\"").await;
    let mail = vec![rcgen::SanType::Rfc822Name("a@example.org".try_into().unwrap())];
    world.refused(&AlpnCertificate { names: mail, ..right() }.sign(), one).await;
    // Case is none of a name's.
    world.show(&with(&["WWW.example.ORG"]));
    assert_eq!(world.look().await, Ok(()));
}

#[tokio::test]
async fn g5_the_identifier_is_critical_and_the_digest_in_an_octet_string() {
    let world = World::new().await;
    let with = |extensions: Vec<CustomExtension>| AlpnCertificate { extensions, ..right() }.sign();
    let good = octets(&digest());
    world.refused(&with(Vec::new()), "no acmeIdentifier").await;
    world.refused(&with(vec![identifier(&good, false)]), "not critical").await;
    let long = octets(&[digest().as_slice(), &[0]].concat());
    let trailing = [good.as_slice(), &[0]].concat();
    for value in [digest().to_vec(), octets(&digest()[..31]), long, octets(&good), trailing, Vec::new()] {
        world.refused(&with(vec![identifier(&value, true)]), "OCTET STRING of 32 octets").await;
    }
    let twice = with(vec![identifier(&good, true), identifier(&good, true)]);
    world.show(&twice);
    assert!(matches!(failed(world.look().await).kind, FailureKind::Unauthorized | FailureKind::Tls));
    let mut wrong = digest();
    wrong[31] ^= 1;
    let expected = hex::encode(digest());
    world.refused(&with(vec![identifier(&octets(&wrong), true)]), &format!("{expected} is expected")).await;
}

#[tokio::test]
async fn g5_the_certificate_is_self_signed_and_has_no_critical_extension_of_its_own() {
    let world = World::new().await;
    world.refused(&right().sign_by_another(), "not self-signed").await;
    let mut foreign = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
    let mut extensions = right().extensions;
    extensions.push(foreign.clone());
    // Passed over, as RFC 5280 says.
    world.show(&AlpnCertificate { extensions, ..right() }.sign());
    assert_eq!(world.look().await, Ok(()));
    foreign.set_criticality(true);
    let mut extensions = right().extensions;
    extensions.push(foreign);
    world.refused(&AlpnCertificate { extensions, ..right() }.sign(), "critical extension").await;
}

#[tokio::test]
async fn g5_a_server_without_the_key_does_not_count() {
    let world = World::new().await;
    // Somebody else's certificate, seen in its handshake, and a key of the server's own.
    let shown = Shown { certificate: right().sign().certificate, key: right().sign().key };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        world.server.show(&shown, &[PROTOCOL], &[version]);
        assert_failure(&failed(world.look().await), FailureKind::Tls, "the server breaks the protocol");
    }
}

#[tokio::test]
async fn g6_an_address_is_asked_by_its_reverse_name_and_shows_itself() {
    let world = World::new().await;
    world.show(&AlpnCertificate::new("127.0.0.1", &digest()).sign());
    assert_eq!(world.look_at("127.0.0.1").await, (Ok(()), vec![HERE]));
    assert_eq!(world.server.asked(), [Some("1.0.0.127.in-addr.arpa".to_owned())]);
    let shown = AlpnCertificate::new("::1", &digest()).sign();
    let v6 =
        AlpnResponder::start_on((Ipv6Addr::LOCALHOST, world.server.port()).into(), &shown).await.unwrap();
    assert_eq!(world.look_at("::1").await.0, Ok(()));
    let zeros = "0.".repeat(31);
    assert_eq!(v6.asked(), [Some(format!("1.{zeros}ip6.arpa"))]);
    // The reverse name itself is no name of the address' certificate.
    world.show(&AlpnCertificate::new("1.0.0.127.in-addr.arpa", &digest()).sign());
    assert_failure(&failed(world.look_at("127.0.0.1").await.0), FailureKind::Unauthorized, "in-addr.arpa");
    assert!(world.dns.questions().is_empty());
}

#[tokio::test]
async fn g3_forbidden_addresses_are_never_contacted() {
    let world = World::new().await;
    let inside =
        AlpnResponder::start_on((FORBIDDEN, world.server.port()).into(), &right().sign()).await.unwrap();
    world.dns.address_of("inside.example.org", FORBIDDEN);
    for name in ["inside.example.org", "127.0.0.2"] {
        let (outcome, contacted) = world.look_at(name).await;
        assert_failure(&failed(outcome), FailureKind::Dns, "127.0.0.2 is not permitted: loopback");
        assert!(contacted.is_empty());
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn ipv6_is_preferred_and_ipv4_follows_when_it_does_not_connect() {
    let world = World::new().await;
    world.dns.address_of(NAME, Ipv6Addr::LOCALHOST.into());
    assert_eq!(world.look_at(NAME).await, (Ok(()), vec![Ipv6Addr::LOCALHOST.into(), HERE]));
    let other = AlpnCertificate::new("other.example.org", &digest()).sign();
    let _v6 =
        AlpnResponder::start_on((Ipv6Addr::LOCALHOST, world.server.port()).into(), &other).await.unwrap();
    // A wrong answer over IPv6 is an answer.
    let (outcome, contacted) = world.look_at(NAME).await;
    assert_failure(&failed(outcome), FailureKind::Unauthorized, "[::1]:");
    assert_eq!(contacted, [IpAddr::from(Ipv6Addr::LOCALHOST)]);
}

#[tokio::test]
async fn what_does_not_connect_or_is_no_tls_is_told_apart() {
    let world = World::new().await;
    let plain = tokio::net::TcpListener::bind((HERE, 0)).await.unwrap();
    let port = plain.local_addr().unwrap().port();
    let name: Name = NAME.parse().unwrap();
    let silent = method(&world.dns, port, Duration::from_millis(300));
    let failure = failed(silent.observe(&name, KEY_AUTHORIZATION, &mut Vec::new()).await);
    assert_failure(&failure, FailureKind::Connection, "no complete handshake in time");
    let accept = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        // The one before waits still.
        for _ in 0..2 {
            let (mut stream, _) = plain.accept().await.unwrap();
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
    });
    let patient = method(&world.dns, port, Duration::from_secs(20));
    let failure = failed(patient.observe(&name, KEY_AUTHORIZATION, &mut Vec::new()).await);
    assert_failure(&failure, FailureKind::Tls, "the answer is not TLS");
    accept.await.unwrap();
    let failure = failed(patient.observe(&name, KEY_AUTHORIZATION, &mut Vec::new()).await);
    assert_failure(&failure, FailureKind::Connection, "connection refused");
}
