//! Validation through the whole stack: what a client shows in DNS, and the certificate that it gets.

use e2e::Demo;
use e2e::library::{finalize, request};
use instant_acme::{Account, ChallengeType, Identifier, NewAccount, NewOrder};

/// A wildcard and its base, each with a record of its own at the same name, one of them behind an alias.
#[tokio::test]
async fn g4_a_wildcard_and_its_base_by_dns_01() {
    let demo = Demo::start();
    let contact = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_root(&demo.facts.endpoint_ca).expect("the root");
    let (account, _) =
        builder.create(&contact, demo.facts.directory.clone(), None).await.expect("an account");
    let names = ["*.wild.test", "wild.test", "aliased.test"];
    let identifiers = names.map(|name| Identifier::Dns(name.to_owned()));
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.expect("an order");
    std::fs::write(demo.facts.names.join("_acme-challenge.aliased.test"), "CNAME records.elsewhere.test\n")
        .expect("a record");
    let mut records = String::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.expect("an authorization");
        let challenge = authorization.challenge(ChallengeType::Dns01).expect("dns-01");
        records += &format!("TXT {}\n", challenge.key_authorization().dns_value());
    }
    for place in ["_acme-challenge.wild.test", "records.elsewhere.test"] {
        std::fs::write(demo.facts.names.join(place), format!("TXT something else\n{records}"))
            .expect("the records");
    }
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.expect("an authorization");
        let mut challenge = authorization.challenge(ChallengeType::Dns01).expect("dns-01");
        challenge.set_ready().await.expect("the challenge is accepted");
    }
    let chain = finalize(&mut order, &request(&names)).await;
    let leaf = &pki::chain::from_pem(&chain).expect("a chain")[0];
    let issued: Vec<_> = leaf.names().expect("names").iter().map(ToString::to_string).collect();
    assert_eq!(issued.len(), 3);
    assert!(names.iter().all(|name| issued.iter().any(|one| one == name)), "{issued:?}");
}
