//! What fronts see on the wire.

use acme::problem::ErrorType;
use futures::StreamExt as _;
use pki::ErrorClass;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::authority_server::Authority;
use signer::AuthorityService;
use testkit::store::StoreFault;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::support::{Client, MANAGED, OPEN, OTHER, World};

fn service(world: &World) -> (AuthorityService, CancellationToken) {
    let draining = CancellationToken::new();
    (AuthorityService::new(world.ca.clone(), draining.clone()), draining)
}

#[tokio::test]
async fn a_certificate_over_the_wire() {
    let world = World::start().await;
    let (service, _) = service(&world);
    let client = Client::new(OPEN);
    let request = wire::RegisterAccountRequest { new_account_jws: client.new_account().into() };
    let registered = service.register_account(Request::new(request)).await.unwrap().into_inner();
    assert!(registered.created);
    let account: rpc::Account = registered.account.unwrap().try_into().unwrap();
    let client = client.of_account(account.id);

    let new_order = client.new_order(&["example.org"]);
    let request = wire::AuthorizeOrderRequest { new_order_jws: new_order.clone().into() };
    let answer = service.authorize_order(Request::new(request)).await.unwrap().into_inner();
    let order: rpc::AuthorizedOrder = answer.try_into().unwrap();
    assert_eq!((order.account, order.names.len()), (account.id, 1));

    let ready = world.ready_with(&client, new_order).await;
    let finalized = ready.finalized_by(&client);
    let request = wire::IssueRequest {
        new_order_jws: finalized.new_order_jws,
        finalize_jws: finalized.finalize_jws,
        authorizations: finalized.authorizations.into_iter().map(Into::into).collect(),
        profile: finalized.profile,
    };
    let answer = service.issue(Request::new(request)).await.unwrap().into_inner();
    let Some(wire::issue_response::Outcome::Certificate(issued)) = answer.outcome else {
        panic!("{answer:?}")
    };

    let request =
        wire::DownloadCertificateRequest { directory: OPEN.to_owned(), serial: issued.serial.clone() };
    let download = service.download_certificate(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(download.account_id, account.id.to_string());
    assert_eq!(download.chain, issued.chain);
}

#[tokio::test]
async fn refusals_arrive_as_problems_and_are_counted() {
    let world = World::start().await;
    let (service, _) = service(&world);
    let client = world.client().await;
    let request = wire::AuthorizeOrderRequest { new_order_jws: client.new_order(&["denied.test"]).into() };
    let status = service.authorize_order(Request::new(request)).await.unwrap_err();
    let refusal = rpc::refusal(&status).unwrap();
    assert_eq!(refusal.problem.kind, ErrorType::RejectedIdentifier);
    assert_eq!(refusal.problem.subproblems.len(), 1);
    assert_eq!(rpc::status_class(&status), ErrorClass::Client);

    let other = world.client().await;
    let request = wire::ChangeKeyRequest { key_change_jws: client.key_change(&other).into() };
    let status = service.change_key(Request::new(request)).await.unwrap_err();
    let refusal = rpc::refusal(&status).unwrap();
    assert_eq!(
        (refusal.problem.status(), refusal.account_id),
        (409, Some(other.account.unwrap().to_string()))
    );

    world.ca.flush_refusals().await.unwrap();
    let mut counted: Vec<_> = world.refusals().await;
    counted.sort();
    let expected = [("key-in-use", OPEN, 1), ("name-rejected", OPEN, 1)];
    assert_eq!(
        counted,
        expected.map(|(reason, directory, count)| (reason.to_owned(), directory.to_owned(), count))
    );
}

#[tokio::test]
async fn what_will_pass_is_no_refusal() {
    let world = World::start().await;
    let (service, _) = service(&world);
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    world.store.fail_next("commit_intents", StoreFault::Failed);
    let finalized = ready.finalized_by(&client);
    let request = wire::IssueRequest {
        new_order_jws: finalized.new_order_jws,
        finalize_jws: finalized.finalize_jws,
        authorizations: finalized.authorizations.into_iter().map(Into::into).collect(),
        profile: finalized.profile,
    };
    let status = service.issue(Request::new(request.clone())).await.unwrap_err();
    assert!(rpc::refusal(&status).is_none());
    assert_eq!(rpc::status_class(&status), ErrorClass::Transient);
    assert!(rpc::retry_after(&status).is_some());

    // Evidence that cannot be read is the front's lie about a client, and a refusal.
    let mut malformed = request;
    malformed.authorizations[0].authorization_id = "x".to_owned();
    let status = service.issue(Request::new(malformed)).await.unwrap_err();
    assert_eq!(rpc::refusal(&status).unwrap().problem.kind, ErrorType::Unauthorized);
}

#[tokio::test]
async fn accounts_are_looked_up_by_id_and_by_the_key_in_force() {
    use wire::look_up_account_request::Selector;
    let world = World::start().await;
    let (service, _) = service(&world);
    let client = world.client().await;
    let renewed = Client::new(OPEN).of_account(client.account.unwrap());
    let look_up = |directory: &str, selector| {
        let request =
            wire::LookUpAccountRequest { directory: directory.to_owned(), selector: Some(selector) };
        let service = service.clone();
        async move { service.look_up_account(Request::new(request)).await.unwrap().into_inner().account }
    };
    let id = Selector::AccountId(client.account.unwrap().to_string());
    let old = Selector::KeyThumbprint(client.thumbprint().to_string());
    assert!(look_up(OPEN, id.clone()).await.is_some());
    assert!(look_up(OPEN, old.clone()).await.is_some());
    world.ca.change_key(&client.key_change(&renewed)).await.unwrap();
    assert!(look_up(OPEN, old).await.is_none());
    let account = look_up(OPEN, Selector::KeyThumbprint(renewed.thumbprint().to_string())).await.unwrap();
    assert_eq!(account.version, 2);
    assert!(look_up(OTHER, id).await.is_none());
    assert!(look_up(OPEN, Selector::AccountId("x".to_owned())).await.is_none());
}

#[tokio::test]
async fn fronts_hear_of_changed_accounts_until_the_drain() {
    let world = World::start().await;
    let (service, draining) = service(&world);
    let client = world.client().await;
    let mut stream =
        service.watch_accounts(Request::new(wire::WatchAccountsRequest {})).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap(), wire::AccountsChanged::default());
    let update = client.update(&serde_json::json!({ "contact": [] }));
    world.ca.update_account(&update).await.unwrap();
    let changed = stream.next().await.unwrap().unwrap();
    assert_eq!(changed.account_ids, [client.account.unwrap().to_string()]);
    draining.cancel();
    while stream.next().await.is_some() {}
}

#[tokio::test]
async fn directories_are_told_as_the_policy_has_them() {
    let world = World::start().await;
    let (service, _) = service(&world);
    let answer = service.list_directories(Request::new(wire::ListDirectoriesRequest {})).await.unwrap();
    let directories = answer.into_inner().directories;
    let names: Vec<_> = directories.iter().map(|directory| directory.name.as_str()).collect();
    assert_eq!(names, [MANAGED, OPEN, OTHER, "strict"]);
    assert!(directories[0].external_account_required);
    assert_eq!(directories[1].base_urls, ["https://ca.test", "https://other-base.test"]);
    assert_eq!(directories[1].methods, ["http-01"]);
    assert_eq!(directories[1].validation_reuse_seconds, 10 * 86_400);
    assert_eq!(directories[2].terms_of_service, "https://ca.test/terms");
}
