//! DNSSEC by a real unbound with a trust anchor of its own: what is secure, bogus and insecure, to control and to CAA.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test's own world cannot make or find fails the test"
)]

use std::net::SocketAddr;
use std::time::Duration;

use acme::challenge::Method;
use pki::{DnsName, Name};
use testkit::TestClock;
use testkit::dns::DnsServer;
use testkit::unbound::{Unbound, Zones};
use validator::{
    Caa, CaaQuestion, Dns01, DnsSettings, Ending, FailureKind, LocalFault, Resolver, Resolvers, TextLookUp,
};

const KEY_AUTHORIZATION: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const DIGEST: &str = "lCM7cZyQXcVHK2nnW3jjAhNT3Fvm18UN-kWZZknKoYM";
const PATIENCE: Duration = Duration::from_secs(20);

fn zones() -> Zones {
    Zones {
        secure: format!(
            "_acme-challenge.secure.test. 60 IN TXT \"{DIGEST}\"\nsecure.test. 60 IN CAA 0 issue \"ca.test\"\n\
             test. 60 IN TXT \"the absence of names below is proven from here\"\n\
             other.test. 60 IN CAA 0 issue \"other-ca.test\"\n"
        ),
        // The digest is there, and so is the permission; but somebody has changed what stands beside them.
        bogus: format!(
            "_acme-challenge.bogus.test. 60 IN TXT \"{DIGEST}\"\n_acme-challenge.bogus.test. 60 IN TXT \"TAMPER\"\n\
             bogus.test. 60 IN CAA 0 issue \"ca.test\"\nbogus.test. 60 IN CAA 0 iodef \"mailto:TAMPER@example.org\"\n"
        ),
        insecure: (
            "insecure.test".to_owned(),
            format!(
                "_acme-challenge.insecure.test. 60 IN TXT \"{DIGEST}\"\ninsecure.test. 60 IN CAA 0 issue \"ca.test\"\n"
            ),
        ),
    }
}

fn resolver(address: SocketAddr) -> Resolver {
    Resolver::new(&Resolvers::Servers(vec![address]), Duration::from_secs(5)).unwrap()
}

async fn control(resolver: &Resolver, name: &str) -> Result<(), Ending> {
    let settings = DnsSettings { records: 20, total_timeout: PATIENCE };
    let method = Dns01::new(TextLookUp::new(settings, resolver.clone()));
    method.observe(&DnsName::parse(name).unwrap(), None, KEY_AUTHORIZATION).await
}

async fn permitted(resolver: &Resolver, name: &str) -> Result<bool, Ending> {
    let identities = [DnsName::parse("ca.test").unwrap()];
    let (name, account_url): (Name, _) =
        (name.parse().unwrap(), "https://ca.test/acme/open/account/1".parse().unwrap());
    let question = CaaQuestion {
        name: &name,
        identities: &identities,
        account_url: &account_url,
        method: Method::Dns01,
    };
    let caa = Caa::new(resolver.clone(), TestClock::default().shared(), PATIENCE);
    Ok(caa.ask(&question).await?.unwrap().0.permitted)
}

#[track_caller]
fn assert_servfail<T: std::fmt::Debug>(outcome: Result<T, Ending>) {
    match outcome {
        Err(Ending::Failed(failure)) => {
            assert_eq!(failure.kind, FailureKind::Dns);
            assert!(failure.detail.contains("SERVFAIL"), "{}", failure.detail);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn g11_what_is_bogus_shows_no_control_and_permits_nothing() {
    let unbound = Unbound::start(&zones(), true).unwrap();
    let resolver = resolver(unbound.address()).validating();
    assert!(resolver.validates() && !resolver.is_to_be_trusted(), "nobody has looked yet");
    assert_eq!(resolver.is_well().await, Ok(()));
    assert!(resolver.is_to_be_trusted());
    for name in ["secure.test", "insecure.test"] {
        assert_eq!(control(&resolver, name).await, Ok(()), "{name}");
        assert_eq!(permitted(&resolver, name).await, Ok(true), "{name}");
    }
    assert_eq!(permitted(&resolver, "other.test").await, Ok(false));
    assert_servfail(control(&resolver, "bogus.test").await);
    assert_servfail(permitted(&resolver, "bogus.test").await);
    assert_servfail(permitted(&resolver, "below.bogus.test").await);
    // The absence of records is proven, too.
    assert_eq!(permitted(&resolver, "nothing.test").await, Ok(true));
}

#[tokio::test]
async fn g11_a_resolver_that_does_not_validate_is_found_out() {
    let unbound = Unbound::start(&zones(), false).unwrap();
    let plain = resolver(unbound.address());
    assert_eq!((plain.is_well().await, plain.validates(), plain.is_to_be_trusted()), (Ok(()), false, true));
    // It would take what is bogus for true.
    assert_eq!(control(&plain, "bogus.test").await, Ok(()));
    let demanded = plain.validating();
    assert_eq!(demanded.is_well().await, Err(LocalFault::Unvalidated));
    assert!(!demanded.is_to_be_trusted());
    // One that validates does not make up for another that does not.
    let good = Unbound::start(&zones(), true).unwrap();
    let both = Resolvers::Servers(vec![good.address(), unbound.address()]);
    let both = Resolver::new(&both, Duration::from_secs(5)).unwrap().validating();
    assert_eq!(both.is_well().await, Err(LocalFault::Unvalidated));
    drop(unbound);
    assert_eq!(both.is_well().await, Ok(()), "the other one has gone");
    drop(good);
    assert_eq!(both.is_well().await, Err(LocalFault::Resolver));
    assert!(!both.is_to_be_trusted());
}

#[tokio::test]
async fn g11_a_server_without_dnssec_at_all_is_found_out() {
    let dns = DnsServer::start().await.unwrap();
    let resolver = resolver(dns.address()).validating();
    assert_eq!(resolver.is_well().await, Err(LocalFault::Unvalidated));
}
