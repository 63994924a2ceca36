//! CAA against a real resolver and a name server on loopback: the climb, the record sets, and what cannot be looked up.

#![expect(clippy::unwrap_used, reason = "what a test's own world cannot make or find fails the test")]

use std::time::Duration;

use acme::AccountUrl;
use acme::challenge::Method;
use acme::receipt::Caa as Said;
use pki::{DnsName, Name};
use testkit::TestClock;
use testkit::dns::{CAA, DnsServer, Mood, Record};
use validator::{Caa, CaaQuestion, Ending, Failure, FailureKind, LocalFault, Resolver, Resolvers};

const OWN: &str = "ca.example.net";

struct World {
    dns: DnsServer,
    caa: Caa,
    clock: TestClock,
    account_url: AccountUrl,
}

impl World {
    async fn new() -> Self {
        Self::with(Duration::from_secs(20), Duration::from_secs(5)).await
    }

    async fn with(total: Duration, query: Duration) -> Self {
        let dns = DnsServer::start().await.unwrap();
        let clock = TestClock::default();
        let resolver = Resolver::new(&Resolvers::Servers(vec![dns.address()]), query).unwrap();
        let caa = Caa::new(resolver, clock.shared(), total);
        Self { dns, caa, clock, account_url: "https://ca.example.net/acme/open/account/1".parse().unwrap() }
    }

    async fn try_ask(&self, name: &str) -> Result<Option<(Said, Option<Failure>)>, Ending> {
        let identities = [DnsName::parse(OWN).unwrap()];
        let name: Name = name.parse().unwrap();
        let question = CaaQuestion {
            name: &name,
            identities: &identities,
            account_url: &self.account_url,
            method: Method::Dns01,
        };
        self.caa.ask(&question).await
    }

    async fn ask(&self, name: &str) -> (Said, Option<Failure>) {
        self.try_ask(name).await.unwrap().unwrap()
    }

    async fn permits(&self, name: &str) -> bool {
        let (said, failure) = self.ask(name).await;
        assert_eq!(said.permitted, failure.is_none());
        said.permitted
    }

    fn asked(&self) -> Vec<String> {
        self.dns.questions().into_iter().filter(|(_, kind)| *kind == CAA).map(|(name, _)| name).collect()
    }
}

#[tokio::test]
async fn h1_the_climb_begins_at_the_name_and_ends_at_the_top() {
    let world = World::new().await;
    let (said, failure) = world.ask("a.b.example.org").await;
    let now = runtime::Clock::now(&world.clock).into();
    let identities = vec![DnsName::parse(OWN).unwrap()];
    let expected = Said { permitted: true, identities, found_at: None, ttl_seconds: 0, checked: now };
    assert_eq!((said, failure), (expected, None));
    assert_eq!(world.asked(), ["a.b.example.org", "b.example.org", "example.org", "org"]);
}

#[tokio::test]
async fn h1_the_first_set_that_is_found_decides() {
    let world = World::new().await;
    world.dns.caa_of("org", 0, "issue", ";");
    assert!(!world.permits("a.example.org").await);
    world.dns.caa_of("example.org", 0, "issue", OWN);
    world.dns.ttl_of("example.org", 7200);
    let (said, _) = world.ask("a.example.org").await;
    assert_eq!(
        (said.found_at.as_deref(), said.ttl_seconds, said.permitted),
        (Some("example.org"), 7200, true)
    );
    world.dns.caa_of("a.example.org", 0, "issue", "other.example");
    let (said, failure) = world.ask("a.example.org").await;
    assert_eq!((said.found_at.as_deref(), said.permitted), (Some("a.example.org"), false));
    let failure = failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Caa);
    for says in ["at a.example.org", "for a.example.org", "another CA is named", "\"other.example\""] {
        assert!(failure.detail.contains(says), "{}", failure.detail);
    }
    // A set that restricts nothing is a set as well.
    world.dns.remove("a.example.org");
    world.dns.remove("example.org");
    world.dns.caa_of("example.org", 0, "iodef", "mailto:x@example.org");
    assert!(world.permits("a.example.org").await);
}

#[tokio::test]
async fn h1_aliases_are_the_resolvers_and_the_climb_is_of_the_name_itself() {
    let world = World::new().await;
    world.dns.add("www.example.org", Record::Cname("host.example.com".to_owned()));
    world.dns.caa_of("host.example.com", 0, "issue", ";");
    world.dns.caa_of("example.org", 0, "issue", OWN);
    assert!(!world.permits("www.example.org").await, "what the alias leads to");
    world.dns.remove("host.example.com");
    world.dns.mood("host.example.com", 99, Mood::Refused);
    world.dns.caa_of("example.com", 0, "issue", ";");
    assert!(world.permits("www.example.org").await, "not above what the alias leads to");
    assert!(world.asked().iter().all(|name| name != "example.com"));
}

#[tokio::test]
async fn h2_a_wildcard_is_asked_at_its_base() {
    let world = World::new().await;
    world.dns.caa_of("example.org", 0, "issue", OWN);
    world.dns.caa_of("example.org", 0, "issuewild", ";");
    assert!(world.permits("example.org").await);
    assert!(!world.permits("*.example.org").await);
    assert!(world.asked().iter().all(|name| name == "example.org"));
}

#[tokio::test]
async fn h3_an_unknown_critical_property_forbids() {
    let world = World::new().await;
    world.dns.caa_of("example.org", 0, "issue", OWN);
    world.dns.caa_of("example.org", 0, "future", "x");
    assert!(world.permits("example.org").await);
    world.dns.caa_of("example.org", 128, "future", "x");
    assert!(!world.permits("example.org").await);
}

#[tokio::test]
async fn h4_what_cannot_be_looked_up_is_no_permission() {
    let world = World::with(Duration::from_secs(20), Duration::from_millis(200)).await;
    for (place, mood, says) in [
        ("example.org", Mood::Servfail, "CAA of example.org: SERVFAIL"),
        ("a.example.org", Mood::Silence, "CAA of a.example.org: timeout"),
        ("org", Mood::Refused, "CAA of org: "),
    ] {
        world.dns.mood(place, CAA, mood);
        match world.try_ask("a.example.org").await {
            Err(Ending::Failed(failure)) => {
                assert_eq!(failure.kind, FailureKind::Dns);
                assert!(failure.detail.contains(says), "{}", failure.detail);
            }
            other => panic!("{other:?}"),
        }
        world.dns.remove(place);
    }
    // A record set below is found before the one that cannot be looked up: it decides.
    world.dns.mood("org", CAA, Mood::Servfail);
    world.dns.caa_of("example.org", 0, "issue", OWN);
    assert!(world.permits("a.example.org").await);
    // A record that cannot be read is none that permits.
    world.dns.add("b.example.org", Record::Other(CAA, vec![0, 9, b'i']));
    assert!(world.try_ask("b.example.org").await.is_err());
    // Nobody answers at all: that is no fault of the name's.
    world.dns.mood("a.example.org", CAA, Mood::Silence);
    world.dns.mood("", 0, Mood::Silence);
    assert_eq!(world.try_ask("a.example.org").await, Err(Ending::Local(LocalFault::Resolver)));
}

#[tokio::test]
async fn h4_a_climb_that_takes_too_long_is_no_permission() {
    let world = World::with(Duration::from_millis(100), Duration::from_secs(5)).await;
    world.dns.mood("example.org", CAA, Mood::Silence);
    match world.try_ask("example.org").await {
        Err(Ending::Failed(failure)) => assert_eq!(failure.kind, FailureKind::Dns),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn h5_account_and_method_are_this_questions() {
    let world = World::new().await;
    world.dns.caa_of("a.example.org", 0, "issue", format!("{OWN}; accounturi={}", world.account_url));
    assert!(world.permits("a.example.org").await);
    world.dns.caa_of("b.example.org", 0, "issue", format!("{OWN}; accounturi={}/", world.account_url));
    assert!(!world.permits("b.example.org").await);
    world.dns.caa_of("c.example.org", 0, "issue", format!("{OWN}; validationmethods=http-01"));
    assert!(!world.permits("c.example.org").await);
    world.dns.caa_of("c.example.org", 0, "issue", format!("{OWN}; validationmethods=dns-01"));
    assert!(world.permits("c.example.org").await);
}

#[tokio::test]
async fn addresses_have_no_caa_and_nobody_asks_without_a_name_for_this_ca() {
    let world = World::new().await;
    assert_eq!(world.try_ask("192.0.2.1").await, Ok(None));
    let name: Name = "example.org".parse().unwrap();
    let question =
        CaaQuestion { name: &name, identities: &[], account_url: &world.account_url, method: Method::Dns01 };
    assert_eq!(world.caa.ask(&question).await, Ok(None));
    assert!(world.dns.questions().is_empty());
}
