//! dns-01 against a real resolver and a name server on loopback: what it finds, follows, refuses and reports.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test's own world cannot make or find fails the test"
)]

use std::time::Duration;

use pki::DnsName;
use testkit::dns::{DnsServer, Mood, Record, TXT};
use validator::{Dns01, DnsSettings, Ending, Failure, FailureKind, LocalFault, Resolver, Resolvers};

const KEY_AUTHORIZATION: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// Its SHA-256, computed elsewhere (`printf %s … | openssl dgst -sha256 -binary | basenc --base64url`).
const DIGEST: &str = "lCM7cZyQXcVHK2nnW3jjAhNT3Fvm18UN-kWZZknKoYM";
const PLACE: &str = "_acme-challenge.www.example.org";

struct World {
    dns: DnsServer,
    method: Dns01,
}

impl World {
    async fn new() -> Self {
        Self::with(Duration::from_secs(20), Duration::from_secs(5)).await
    }

    async fn with(total_timeout: Duration, query: Duration) -> Self {
        let dns = DnsServer::start().await.unwrap();
        let resolver = Resolver::new(&Resolvers::Servers(vec![dns.address()]), query).unwrap();
        let method = Dns01::new(DnsSettings { records: 20, total_timeout }, resolver);
        Self { dns, method }
    }

    async fn look(&self) -> Result<(), Ending> {
        self.method.observe(&name("www.example.org"), KEY_AUTHORIZATION).await
    }

    async fn failure(&self) -> Failure {
        match self.look().await {
            Err(Ending::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }
}

fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

#[track_caller]
fn assert_failure(failure: &Failure, kind: FailureKind, says: &str) {
    assert_eq!(failure.kind, kind, "{}", failure.detail);
    assert!(failure.detail.contains(says), "{:?} does not say {says:?}", failure.detail);
}

#[tokio::test]
async fn g4_the_digest_is_found_among_several_values() {
    let world = World::new().await;
    for value in ["", "v=spf1 -all", "_OLDvalue", DIGEST, "another"] {
        world.dns.text_of(PLACE, value);
    }
    assert_eq!(world.look().await, Ok(()));
    assert!(world.dns.questions().iter().all(|(asked, kind)| (asked.as_str(), *kind) == (PLACE, TXT)));
}

#[tokio::test]
async fn g4_nothing_but_the_digest_itself_counts() {
    for wrong in [
        format!("{DIGEST}="),
        format!(" {DIGEST}"),
        format!("{DIGEST}\n"),
        format!("\"{DIGEST}\""),
        DIGEST.to_ascii_lowercase(),
        DIGEST[1..].to_owned(),
        KEY_AUTHORIZATION.to_owned(),
        DIGEST.replace('-', "+").replace('_', "/") + "=",
    ] {
        let world = World::new().await;
        world.dns.text_of(PLACE, wrong.clone());
        let failure = world.failure().await;
        assert_failure(&failure, FailureKind::Unauthorized, &format!("is \"{DIGEST}\", but \""));
        assert!(failure.detail.contains(PLACE), "{}", failure.detail);
    }
}

#[tokio::test]
async fn g4_a_value_in_several_strings_is_one_value() {
    let world = World::new().await;
    let mut data = vec![3];
    data.extend(&DIGEST.as_bytes()[..3]);
    data.push(40);
    data.extend(&DIGEST.as_bytes()[3..]);
    world.dns.add(PLACE, Record::Other(TXT, data));
    assert_eq!(world.look().await, Ok(()));
}

#[tokio::test]
async fn g4_aliases_are_followed_also_several_of_them() {
    let world = World::new().await;
    world.dns.add(PLACE, Record::Cname("www.acme-dns.example.net".to_owned()));
    world.dns.add("www.acme-dns.example.net", Record::Cname("zone.example.com".to_owned()));
    world.dns.text_of("zone.example.com", DIGEST);
    assert_eq!(world.look().await, Ok(()));
    // The record of the alias' own name, were there one, would not be what it points to.
    world.dns.remove("zone.example.com");
    world.dns.text_of("zone.example.com", "old");
    assert_failure(&world.failure().await, FailureKind::Unauthorized, "but \"old\"");
}

#[tokio::test]
async fn an_alias_that_leads_nowhere_or_to_itself_is_a_dns_problem() {
    let world = World::new().await;
    world.dns.add(PLACE, Record::Cname("nowhere.example.net".to_owned()));
    let nowhere = world.failure().await;
    assert!(matches!(nowhere.kind, FailureKind::Dns | FailureKind::Unauthorized), "{nowhere:?}");
    world.dns.remove(PLACE);
    world.dns.add(PLACE, Record::Cname("loop.example.net".to_owned()));
    world.dns.add("loop.example.net", Record::Cname(PLACE.to_owned()));
    let looped = world.failure().await;
    assert!(matches!(looped.kind, FailureKind::Dns | FailureKind::Unauthorized), "{looped:?}");
}

#[tokio::test]
async fn what_is_missing_is_told_apart() {
    let world = World::new().await;
    assert_failure(&world.failure().await, FailureKind::Dns, &format!("{PLACE} does not exist (NXDOMAIN)"));
    world.dns.mood(PLACE, 99, Mood::Refused);
    let says = format!("{PLACE} has no TXT record; \"{DIGEST}\" is expected");
    assert_failure(&world.failure().await, FailureKind::Unauthorized, &says);
    world.dns.mood(PLACE, TXT, Mood::Servfail);
    assert_failure(&world.failure().await, FailureKind::Dns, "SERVFAIL");
    world.dns.mood(PLACE, TXT, Mood::Refused);
    assert_failure(&world.failure().await, FailureKind::Dns, "Refused");
}

#[tokio::test]
async fn foreign_values_are_shown_in_part_and_safely() {
    let world = World::new().await;
    for value in ["a\x1b[2J\"", "b", "c", "d", "e"] {
        world.dns.text_of(PLACE, value);
    }
    let failure = world.failure().await;
    assert_failure(&failure, FailureKind::Unauthorized, r#""a\x1b[2J\"", "b", "c" and 2 more"#);
}

#[tokio::test]
async fn answers_are_bounded() {
    let world = World::new().await;
    // Large ones come by TCP.
    for _ in 0..19 {
        world.dns.text_of(PLACE, vec![b'x'; 2000]);
    }
    world.dns.text_of(PLACE, DIGEST);
    assert_eq!(world.look().await, Ok(()));
    world.dns.text_of(PLACE, "one more");
    assert_failure(
        &world.failure().await,
        FailureKind::IncorrectResponse,
        "has 21 TXT records, more than 20",
    );
}

#[tokio::test]
async fn a_name_too_long_for_its_label_is_a_dns_problem() {
    let world = World::new().await;
    let long = format!("{}example.org", "a23456789.".repeat(24));
    match world.method.observe(&name(&long), KEY_AUTHORIZATION).await {
        Err(Ending::Failed(failure)) => assert_failure(&failure, FailureKind::Dns, "DNS can hold"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_zone_that_does_not_answer_is_the_clients_and_a_dead_resolver_is_not() {
    for (total, query) in [(20_000, 200), (100, 5_000)] {
        let world = World::with(Duration::from_millis(total), Duration::from_millis(query)).await;
        world.dns.mood(PLACE, 0, Mood::Silence);
        assert_eq!(world.failure().await.kind, FailureKind::Dns);
        world.dns.mood("", 0, Mood::Silence);
        if query < 1_000 {
            assert_eq!(world.look().await, Err(Ending::Local(LocalFault::Resolver)));
        }
    }
}

#[tokio::test]
async fn nothing_is_cached() {
    let world = World::new().await;
    assert_eq!(world.failure().await.kind, FailureKind::Dns);
    world.dns.text_of(PLACE, DIGEST);
    assert_eq!(world.look().await, Ok(()));
    world.dns.remove(PLACE);
    assert_eq!(world.failure().await.kind, FailureKind::Dns);
}
