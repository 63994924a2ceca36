//! Two signers and two fronts on one PostgreSQL server: it does not matter to a client which of them it meets, nor that one
//! of them dies.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::cluster::Cluster;
use instant_acme::{
    Account, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use testkit::challenge::ChallengeResponder;
use testkit::dns::DnsServer;

const NEW_ACCOUNT: NewAccount<'_> =
    NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };

struct Client {
    account: Account,
    responder: ChallengeResponder,
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().initial_delay(Duration::from_millis(50)).timeout(Duration::from_secs(60))
}

impl Client {
    /// An order whose challenges were answered.
    async fn ready(&self, name: &str) -> Order {
        let names = [Identifier::Dns(name.to_owned())];
        let mut order = self.account.new_order(&NewOrder::new(&names)).await.expect("an order");
        let mut authorizations = order.authorizations();
        let mut authorization = authorizations.next().await.expect("one").expect("an authorization");
        let mut challenge = authorization.challenge(ChallengeType::Http01).expect("http-01");
        self.responder.add(&challenge.token, challenge.key_authorization().as_str());
        challenge.set_ready().await.expect("the challenge is accepted");
        assert_eq!(order.poll_ready(&patience()).await.expect("polling"), OrderStatus::Ready);
        order
    }

    async fn issue(&self, name: &str) -> String {
        let order = self.ready(name).await;
        finish(order, name).await
    }
}

async fn finish(mut order: Order, name: &str) -> String {
    let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = parameters.serialize_request(&key).expect("a request").der().to_vec();
    order.finalize_csr(&request).await.expect("finalize");
    order.poll_certificate(&patience()).await.expect("the certificate")
}

#[tokio::test(flavor = "multi_thread")]
async fn any_front_and_any_signer_will_do() {
    let names = DnsServer::start().await.expect("a name server");
    names.address_of("*.cluster.test", [127, 0, 0, 1].into());
    let resolver = names.address();
    let mut cluster =
        tokio::task::spawn_blocking(move || Cluster::start(resolver)).await.expect("the cluster");
    let address = SocketAddr::from(([127, 0, 0, 1], cluster.http_01_port));
    let responder = ChallengeResponder::start_on(address).await.expect("the port is free");
    let builder = || Account::builder_with_root(&cluster.facts.endpoint_ca).expect("the root");

    cluster.lead_to(0);
    let (account, credentials) =
        builder().create(&NEW_ACCOUNT, cluster.facts.directory.clone(), None).await.expect("an account");
    let mut client = Client { account, responder };

    // Made at the first front, finalized at the second, with a nonce of the first.
    let order = client.ready("a.cluster.test").await;
    cluster.lead_to(1);
    let elsewhere = "chancery_front_nonces_total{outcome=\"fresh_elsewhere\"}";
    let before = cluster.metric("front-2", elsewhere);
    let chain = finish(order, "a.cluster.test").await;
    assert_eq!(pki::chain::from_pem(&chain).expect("a chain").len(), 2);
    assert!(
        cluster.metric("front-2", elsewhere) > before,
        "the first front's nonce was redeemed at the second"
    );

    // A key that was changed by way of the first signer is refused by way of the second, though both fronts and both
    // signers knew the account with its former key.
    let former = builder().from_credentials(credentials).await.expect("the account with its first key");
    former.update_contacts(&["mailto:before@example.test"]).await.expect("it is good still");
    cluster.lead_to(0);
    let credentials = client.account.update_key().await.expect("a key change");
    let twin = builder().from_credentials(credentials).await.expect("the account with its second key");
    cluster.lead_to(1);
    let refused = former.update_contacts(&["mailto:after@example.test"]).await;
    assert!(refused.is_err(), "the former key is worth nothing at the other front");
    let _ = client.issue("b.cluster.test").await;

    // The first signer dies: its front turns to the other one, and both fronts serve on.
    cluster.kill("signer-1");
    cluster.lead_to(0);
    let _ = client.issue("c.cluster.test").await;
    cluster.lead_to(1);
    let _ = client.issue("d.cluster.test").await;

    // It comes back while the other one dies.
    cluster.revive("signer-1");
    cluster.kill("signer-2");
    cluster.lead_to(1);
    let _ = client.issue("e.cluster.test").await;
    cluster.revive("signer-2");

    // The server is restarted under all of them.
    cluster.server.restart();
    for (front, name) in ["f.cluster.test", "g.cluster.test"].into_iter().enumerate() {
        cluster.lead_to(front);
        let _ = client.issue(name).await;
    }

    // Deactivated at the one, it orders nothing at the other.
    twin.update_contacts(&["mailto:twin@example.test"]).await.expect("it is good still, at the second front");
    cluster.lead_to(0);
    client.account.deactivate().await.expect("a deactivation");
    cluster.lead_to(1);
    assert!(twin.update_contacts(&[]).await.is_err(), "it is known there, and not believed any more");
    let in_force = cluster.server.sql("postgres", "SELECT count(*) FROM ca.accounts WHERE status = 'valid'");
    assert_eq!(in_force, "0");
    let kinds = cluster.server.sql("postgres", "SELECT count(*) FROM ca.journal WHERE kind = 'final'");
    assert_eq!(kinds, "7", "one certificate an order");
    assert_eq!(
        cluster.server.sql("postgres", "SELECT count(*) FROM ca.pending"),
        "0",
        "nothing is left half done"
    );
}
