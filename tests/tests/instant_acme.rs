//! A client library of another family drives what command-line clients do not: key change, account update, deactivation,
//! polling, several names, and the refusals around them.

use std::time::Duration;

use e2e::Demo;
use e2e::demo::{is_alive, signal};
use e2e::library::{NEW_ACCOUNT, account, answered, granted_account, issue, patience, request, responder};
use instant_acme::{Account, ChallengeType, Identifier, NewOrder, OrderStatus};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_its_whole_life() {
    let demo = Demo::start();
    let responder = responder(&demo).await;
    let mut account = account(&demo).await;
    let chain = issue(&account, &responder, &["a.demo.test", "b.demo.test", "c.demo.test"]).await;
    assert_eq!(
        pki::chain::from_pem(&chain).expect("a chain").len(),
        2,
        "leaf and intermediate, without the root"
    );

    account.update_contacts(&["mailto:else@example.test"]).await.expect("an update");
    let before = account.key_thumbprint().to_owned();
    let _ = account.update_key().await.expect("a key change");
    assert_ne!(account.key_thumbprint(), before);
    let _ = issue(&account, &responder, &["after.demo.test"]).await;

    let id = account.id().to_owned();
    account.deactivate().await.expect("deactivation");
    assert!(id.starts_with("https://"), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_its_answers_never_gets_a_certificate() {
    let demo = Demo::start();
    // Somebody answers, but not with this account's key authorization.
    let responder = responder(&demo).await;
    let account = account(&demo).await;
    let names = [Identifier::Dns("wrong.demo.test".to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await.expect("an order");
    let mut authorizations = order.authorizations();
    let mut authorization = authorizations.next().await.expect("one").expect("an authorization");
    let mut challenge = authorization.challenge(ChallengeType::Http01).expect("http-01");
    responder.add(&challenge.token, &format!("{}.AAAA", challenge.token));
    challenge.set_ready().await.expect("the challenge is accepted");
    let refusal = order.poll_ready(&patience()).await.expect_err("the order is invalid");
    assert!(format!("{refusal:?}").contains("unauthorized"), "{refusal:?}");
    assert_eq!(order.refresh().await.expect("the order").status, OrderStatus::Invalid);
    assert!(order.finalize_csr(&request(&["wrong.demo.test"])).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_for_other_names_is_refused_and_the_order_stays_ready() {
    let demo = Demo::start();
    let responder = responder(&demo).await;
    let account = account(&demo).await;
    let mut order = answered(&account, &responder, &["mine.demo.test"]).await;
    assert_eq!(order.poll_ready(&patience()).await.expect("polling"), OrderStatus::Ready);
    let refusal = order.finalize_csr(&request(&["other.demo.test"])).await.expect_err("another name");
    assert!(
        refusal.to_string().contains("badCSR") || format!("{refusal:?}").contains("badCSR"),
        "{refusal:?}"
    );
    assert_eq!(order.refresh().await.expect("the order").status, OrderStatus::Ready);
    order.finalize_csr(&request(&["mine.demo.test"])).await.expect("the right names");
    let _ = order.poll_certificate(&patience()).await.expect("the certificate");
}

/// One process of the system is killed at each step of one and the same client: after its order was made, after its challenge was
/// answered, and before it finalizes. It is started again each time, at its old address, and the client never notices more
/// than a slow answer.
async fn survives_the_death_of(word: &str) {
    let demo = Demo::start();
    let responder = responder(&demo).await;
    let account = account(&demo).await;
    let kill = || {
        let victim = demo.process_of(word);
        signal(victim, "KILL");
        while is_alive(victim) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let names = ["order.demo.test"];
    let identifiers = names.map(|name| Identifier::Dns(name.to_owned()));
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.expect("an order");
    assert_eq!(order.state().status, OrderStatus::Pending);
    kill();
    // A front takes its connections along; the first request after that finds it out.
    let _ = order.refresh().await;
    {
        let mut authorizations = order.authorizations();
        let mut authorization = authorizations.next().await.expect("one").expect("an authorization");
        let mut challenge = authorization.challenge(ChallengeType::Http01).expect("http-01");
        responder.add(&challenge.token, challenge.key_authorization().as_str());
        challenge.set_ready().await.expect("the challenge is accepted");
    }
    kill();
    let _ = order.refresh().await;
    assert_eq!(order.poll_ready(&patience()).await.expect("polling"), OrderStatus::Ready);
    kill();
    let _ = order.refresh().await;
    order.finalize_csr(&request(&names)).await.expect("finalize");
    let chain = order.poll_certificate(&patience()).await.expect("the certificate");
    assert_eq!(pki::chain::from_pem(&chain).expect("a chain").len(), 2);
    let _ = demo.process_of(word);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_may_die_between_a_clients_steps() {
    survives_the_death_of("front").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signer_may_die_between_a_clients_steps() {
    survives_the_death_of("signer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_may_die_between_a_clients_steps() {
    survives_the_death_of("hsm-worker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_validator_may_die_between_a_clients_steps() {
    survives_the_death_of("validator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_name_is_ready_at_once_wildcards_included() {
    let demo = Demo::start();
    let account = granted_account(&demo).await;
    let names = ["*.managed.test", "deep.below.managed.test"];
    let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns((*name).to_owned())).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.expect("an order");
    assert_eq!(order.state().status, OrderStatus::Ready, "no challenge is needed");
    order.finalize_csr(&request(&names)).await.expect("finalize");
    let _ = order.poll_certificate(&patience()).await.expect("the certificate");

    // What was not granted needs a challenge, and there is no method for a wildcard.
    let other = [Identifier::Dns("elsewhere.demo.test".to_owned())];
    let mut order = account.new_order(&NewOrder::new(&other)).await.expect("an order");
    assert_eq!(order.state().status, OrderStatus::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_external_account_binding_the_managed_directory_takes_nobody() {
    let demo = Demo::start();
    let builder = Account::builder_with_root(&demo.facts.endpoint_ca).expect("the root");
    let refusal =
        builder.create(&NEW_ACCOUNT, demo.facts.eab_directory.clone(), None).await.err().expect("refused");
    assert!(format!("{refusal:?}").contains("externalAccountRequired"), "{refusal:?}");
}
