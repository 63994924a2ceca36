//! Limits that signers count (RFC 8555 §6.6): certificates of a domain, of exactly the same names, of an account; and what is
//! exempt, because it renews a certificate at its time (RFC 9773 §5).

use std::time::Duration;

use acme::renewal::CertificateId;
use futures::future::join_all;
use pki::{Period, Timestamp};
use serde_json::{Value, json};
use signer::issue::Issued;
use signer::{Failure, Reason, Refusal};

use crate::renewal::id_of;
use crate::support::{Client, MANAGED, Peek as _, World, reason};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A world whose open directory has these limits.
async fn limited(limits: &str) -> World {
    let world = World::start().await;
    world.with_policy("maximum_names = 5", &format!("maximum_names = 5\nlimits = {{ {limits} }}")).await
}

impl World {
    async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.ca.check_clock().await.unwrap();
    }

    async fn at(&self, time: Timestamp) {
        self.pass(time.since(self.now()).seconds()).await;
    }

    async fn order(&self, client: &Client, names: &[&str], more: Value) -> Result<bool, Failure> {
        let order = self.ca.authorize_order(&client.new_order_with(names, more)).await?;
        Ok(order.limits_exempt)
    }

    /// newOrder is refused; until when, by its Retry-After, and what its client is told.
    async fn limited_order(&self, client: &Client, names: &[&str], more: Value) -> (Timestamp, String) {
        limited_until(self, self.order(client, names, more).await)
    }
}

fn limited_until<T: std::fmt::Debug>(world: &World, outcome: Result<T, Failure>) -> (Timestamp, String) {
    let refusal: Refusal = match outcome {
        Err(Failure::Refused(refusal)) => *refusal,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!((refusal.reason, refusal.problem.status()), (Reason::RateLimited, 429));
    assert_eq!(refusal.problem.kind, acme::ErrorType::RateLimited);
    let left = Period::from_seconds(refusal.retry_after.unwrap().as_secs());
    let until = world.now().plus(left);
    // The text says the same.
    assert!(refusal.problem.detail.ends_with(&format!("retry after {until}")), "{}", refusal.problem.detail);
    (until, refusal.problem.detail)
}

fn replaces(id: &CertificateId) -> Value {
    json!({ "replaces": id.to_string() })
}

#[tokio::test]
async fn a18_a_registered_domain_gets_so_many_certificates() {
    let world = limited("certificates_per_domain = \"3 in 7d\"").await;
    let (client, other) = (world.client().await, world.client().await);
    let first = world.now();
    for name in ["a.example.org", "c.b.example.org", "example.org"] {
        // Whose they are makes no difference.
        let whose = if name == "example.org" { &other } else { &client };
        world.issue_for(whose, &[name, "neutral.example.net"]).await;
        world.pass(HOUR).await;
    }
    let (until, detail) = world.limited_order(&client, &["d.example.org"], json!({})).await;
    assert_eq!(until, first.plus(Period::from_days(7)));
    assert_eq!(
        detail,
        format!(
            "too many certificates for example.org: the limit certificates_per_domain is 3 in 7d; retry after {until}"
        )
    );
    world.limited_order(&other, &["example.com", "d.example.org"], json!({})).await;
    world.limited_order(&other, &["more.example.net"], json!({})).await;
    world.issue_for(&client, &["example.com", "notexample.org"]).await;
    // Retry-After is exact.
    world.at(until.minus(Period::from_seconds(1))).await;
    assert_eq!(world.limited_order(&client, &["d.example.org"], json!({})).await.0, until);
    world.at(until).await;
    world.issue_for(&client, &["d.example.org"]).await;
    let (second, _) = world.limited_order(&client, &["e.example.org"], json!({})).await;
    assert_eq!(second, until.plus(Period::from_seconds(HOUR)));
}

#[tokio::test]
async fn a18_exactly_the_same_names_get_so_many_certificates() {
    let world = limited("duplicate_certificates = \"2 in 7d\", certificates_per_account = \"4 in 1d\"").await;
    let client = world.client().await;
    world.issue_for(&client, &["a.example", "b.example"]).await;
    world.issue_for(&client, &["b.example", "a.example"]).await;
    let (_, detail) = world.limited_order(&client, &["a.example", "b.example"], json!({})).await;
    assert!(detail.starts_with("too many certificates with exactly these names for a.example, b.example: "));
    world.issue_for(&client, &["a.example"]).await;
    world.issue_for(&client, &["a.example", "b.example", "c.example"]).await;
    // The account's own limit is reached by now; of two the one is named that frees later.
    let (until, detail) = world.limited_order(&client, &["d.example"], json!({})).await;
    assert!(
        detail.starts_with(
            "too many certificates of the account: the limit certificates_per_account is 4 in 1d"
        )
    );
    assert_eq!(until, world.now().plus(Period::from_days(1)));
    let (until, _) = world.limited_order(&client, &["a.example", "b.example"], json!({})).await;
    assert_eq!(until, world.now().plus(Period::from_days(7)));
    world.issue_for(&world.client().await, &["d.example"]).await;
}

/// Orders that were made while there was room are finalized at the same moment.
#[tokio::test]
async fn a18_in_a_race_the_journal_has_the_last_word() {
    let world = limited("certificates_per_domain = \"3 in 7d\"").await;
    let client = world.client().await;
    let mut orders = Vec::new();
    for number in 0..7 {
        orders.push(world.ready(&client, &[&format!("n{number}.example.org")]).await);
    }
    let outcomes = join_all(orders.iter().map(|ready| world.issue(ready.finalized_by(&client)))).await;
    let (made, refused): (Vec<_>, Vec<_>) = orders.iter().zip(outcomes).partition(|(_, it)| it.is_ok());
    assert_eq!((made.len(), refused.len()), (3, 4));
    let free_at = world.now().plus(Period::from_days(7));
    let mut waiting = Vec::new();
    for (ready, outcome) in refused {
        assert_eq!(limited_until(&world, outcome).0, free_at);
        waiting.push(ready);
    }
    // Who has his certificate is answered with it all the same.
    for (ready, issued) in made {
        assert_eq!(world.issue(ready.finalized_by(&client)).await.unwrap(), issued.unwrap());
    }
    // The orders are not lost.
    world.at(free_at.minus(Period::from_seconds(1))).await;
    assert_eq!(limited_until(&world, world.issue(waiting[0].finalized_by(&client)).await).0, free_at);
    world.at(free_at).await;
    for ready in &waiting[..3] {
        world.issue(ready.finalized_by(&client)).await.unwrap();
    }
    assert_eq!(world.refusal(waiting[3].finalized_by(&client)).await, Reason::RateLimited);
}

/// A full directory: one certificate of the domain, and its id.
async fn full(world: &World, client: &Client) -> (Issued, CertificateId) {
    let issued = world.issue_for(client, &["a.example.org"]).await;
    let id = id_of(&issued);
    (issued, id)
}

const FULL: &str = "certificates_per_domain = \"1 in 7d\", duplicate_certificates = \"1 in 7d\"";

/// Certificates that nobody has renewed cannot be saved up.
#[tokio::test]
async fn a18_what_has_expired_is_not_renewed() {
    let world = limited("certificates_per_domain = \"1 in 7d\"").await;
    let client = world.client().await;
    let old = world.issue_for(&client, &["a.example.org"]).await;
    let exempt = async || world.order(&client, &["a.example.org"], replaces(&id_of(&old))).await.unwrap();
    let end = pki::Certificate::from_der(&old.certificate).unwrap().not_after();
    world.at(end).await;
    assert!(exempt().await);
    world.pass(1).await;
    assert!(!exempt().await);
}

#[tokio::test]
async fn a18_a_renewal_is_exempt_in_its_window_and_not_before() {
    let world = limited(FULL).await;
    let client = world.client().await;
    let (_, id) = full(&world, &client).await;
    world.limited_order(&client, &["a.example.org"], replaces(&id)).await;
    let begins = world.info(&id).await.window.start();
    world.at(begins.minus(Period::from_seconds(HOUR))).await;
    let filled = world.now();
    world.issue_for(&client, &["filler.example.org"]).await;
    world.at(begins.minus(Period::from_seconds(1))).await;
    world.limited_order(&client, &["a.example.org"], replaces(&id)).await;
    world.at(begins).await;
    world.limited_order(&client, &["a.example.org"], json!({})).await;
    let ready = world.replacing(&client, &["a.example.org", "b.example.org"], &id).await;
    assert!(ready.order.limits_exempt);
    let renewed = world.issue(ready.finalized_by(&client)).await.unwrap();
    let entry = world.store.entry_of_order(&ready.order.id.to_string()).await;
    assert!(!entry.row.unverified().counted);
    // A second one for it is not to be had, and its successor's time has not come.
    assert_eq!(
        reason(world.order(&client, &["a.example.org"], replaces(&id)).await),
        Reason::AlreadyReplaced
    );
    world.limited_order(&client, &["a.example.org"], replaces(&id_of(&renewed))).await;
    // It fills nothing: there is room as soon as the filler has left.
    world.at(filled.plus(Period::from_days(7))).await;
    assert!(!world.order(&client, &["c.example.org"], json!({})).await.unwrap());
}

/// What was ordered before the window begins counts, unless it is finalized after that: the signer looks again.
#[tokio::test]
async fn a18_what_is_exempt_is_decided_when_it_is_issued() {
    let world = limited("duplicate_certificates = \"2 in 7d\"").await;
    let client = world.client().await;
    let (_, id) = full(&world, &client).await;
    world.at(world.info(&id).await.window.start().minus(Period::from_seconds(HOUR))).await;
    let early = world.replacing(&client, &["a.example.org"], &id).await;
    assert!(!early.order.limits_exempt);
    world.pass(HOUR).await;
    world.issue(early.finalized_by(&client)).await.unwrap();
    let entry = world.store.entry_of_order(&early.order.id.to_string()).await;
    assert!(!entry.row.unverified().counted);
}

#[tokio::test]
async fn a18_a_chain_of_replacements_is_counted() {
    let world = limited("certificates_per_domain = \"3 in 7d\"").await;
    let client = world.client().await;
    let mut id = full(&world, &client).await.1;
    for _ in 0..2 {
        let ready = world.replacing(&client, &["a.example.org"], &id).await;
        assert!(!ready.order.limits_exempt);
        id = id_of(&world.issue(ready.finalized_by(&client)).await.unwrap());
    }
    world.limited_order(&client, &["a.example.org"], replaces(&id)).await;
}

/// A client can bring it about that renewal information says "at once", as often as it likes.
#[tokio::test]
async fn a18_what_its_client_revokes_is_not_exempt() {
    let world = limited(FULL).await;
    let client = world.client().await;
    let (issued, id) = full(&world, &client).await;
    let revocation = json!({ "certificate": acme::base64url::encode(&issued.certificate), "reason": 4 });
    world.ca.revoke(&client.request("revoke-cert", &revocation), Vec::new()).await.unwrap();
    assert!(world.info(&id).await.window.start() < world.now());
    world.limited_order(&client, &["a.example.org"], replaces(&id)).await;
    // By the CA's own decision it is.
    world.pass(7 * DAY).await;
    let (issued, id) = full(&world, &client).await;
    world.ca.revoke_by_operator("alice", issued.serial, pki::Reason::Superseded).await.unwrap();
    assert!(world.order(&client, &["a.example.org"], replaces(&id)).await.unwrap());
    let ready = world.replacing(&client, &["a.example.org"], &id).await;
    world.issue(ready.finalized_by(&client)).await.unwrap();
}

/// A client may ask for a certificate of an hour, and its window begins within that.
#[tokio::test]
async fn a18_a_life_that_its_client_made_short_is_not_exempt() {
    let world = limited(FULL).await;
    let client = world.client().await;
    let until = world.now().plus(Period::from_seconds(HOUR));
    let new_order = client.new_order_with(&["a.example.org"], json!({ "notAfter": until.to_string() }));
    let ready = world.ready_with(&client, new_order).await;
    let id = id_of(&world.issue(ready.finalized_by(&client)).await.unwrap());
    world.pass(HOUR - 60).await;
    assert!(world.info(&id).await.window.start() <= world.now());
    world.limited_order(&client, &["a.example.org"], replaces(&id)).await;
}

/// Accounts of one registration share its limit; other registrations are not concerned.
#[tokio::test]
async fn a18_a_registration_gets_so_many_certificates() {
    let world = World::start().await;
    let world = world
        .with_policy(
            "external_account_required = true",
            "external_account_required = true\nlimits = { certificates_per_registration = \"2 in 1d\" }",
        )
        .await;
    let mut clients = Vec::new();
    for (id, uses) in [("one", 2), ("two", 1)] {
        let (kid, secret) = world.registration(id, Some(uses)).await;
        for _ in 0..uses {
            let client = Client::new(MANAGED);
            let request = client.new_account_with_eab(&kid, &secret);
            let account = world.ca.register_account(&request).await.unwrap().account;
            clients.push(client.of_account(account.id));
        }
    }
    for (client, name) in clients.iter().zip(["a.example.org", "b.example.net", "c.example.com"]) {
        world.issue_for(client, &[name]).await;
    }
    for client in &clients[..2] {
        let (_, detail) = world.limited_order(client, &["d.example"], json!({})).await;
        assert!(
            detail.starts_with("too many certificates of the account's registration: the limit"),
            "{detail}"
        );
    }
    world.issue_for(&clients[2], &["d.example"]).await;
}
