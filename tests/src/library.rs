//! A client library as the tests use it: accounts, orders, certificates.

use std::net::SocketAddr;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy, RevocationReason, RevocationRequest,
};
use testkit::challenge::ChallengeResponder;

use crate::Demo;

/// What a client says of itself.
pub const NEW_ACCOUNT: NewAccount<'_> = NewAccount {
    contact: &["mailto:someone@example.test"],
    terms_of_service_agreed: true,
    only_return_existing: false,
};

/// A new account of the open directory.
///
/// # Panics
///
/// When there is none.
pub async fn account(demo: &Demo) -> Account {
    let builder = Account::builder_with_root(&demo.facts.endpoint_ca).expect("the root");
    builder.create(&NEW_ACCOUNT, demo.facts.directory.clone(), None).await.expect("an account").0
}

/// The account of the demo's EAB key, which has its names by grant.
///
/// # Panics
///
/// When the key is used up.
pub async fn granted_account(demo: &Demo) -> Account {
    let engine = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let key = base64::Engine::decode(engine, &demo.facts.eab_hmac_key).expect("base64url");
    let eab = ExternalAccountKey::new(demo.facts.eab_kid.clone(), &key);
    let builder = Account::builder_with_root(&demo.facts.endpoint_ca).expect("the root");
    builder.create(&NEW_ACCOUNT, demo.facts.eab_directory.clone(), Some(&eab)).await.expect("an account").0
}

/// Who answers http-01 for the demo's validator.
///
/// # Panics
///
/// When the port is taken.
pub async fn responder(demo: &Demo) -> ChallengeResponder {
    let address = SocketAddr::from(([127, 0, 0, 1], demo.http_01_port));
    ChallengeResponder::start_on(address).await.expect("the port is free")
}

/// An order whose challenges were answered.
///
/// # Panics
///
/// When it is refused.
pub async fn answered(account: &Account, responder: &ChallengeResponder, names: &[&str]) -> Order {
    let names: Vec<_> = names.iter().map(|name| Identifier::Dns((*name).to_owned())).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await.expect("an order");
    answer(&mut order, responder).await;
    order
}

/// Answers an order's challenges by http-01.
///
/// # Panics
///
/// When one is refused.
pub async fn answer(order: &mut Order, responder: &ChallengeResponder) {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.expect("an authorization");
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge = authorization.challenge(ChallengeType::Http01).expect("http-01");
        responder.add(&challenge.token, challenge.key_authorization().as_str());
        challenge.set_ready().await.expect("the challenge is accepted");
    }
}

/// A CSR for a key.
///
/// # Panics
///
/// When names are none.
#[must_use]
pub fn request_with(names: &[&str], key: &rcgen::KeyPair) -> Vec<u8> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = rcgen::CertificateParams::new(names).expect("names");
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.serialize_request(key).expect("a request").der().to_vec()
}

/// A CSR with a new key.
///
/// # Panics
///
/// When names are none.
#[must_use]
pub fn request(names: &[&str]) -> Vec<u8> {
    request_with(names, &rcgen::KeyPair::generate().expect("a key"))
}

/// How long is waited for.
#[must_use]
pub fn patience() -> RetryPolicy {
    RetryPolicy::new().initial_delay(Duration::from_millis(50)).backoff(1.3).timeout(Duration::from_secs(60))
}

/// A certificate's chain, PEM.
///
/// # Panics
///
/// When it is not issued.
pub async fn issue(account: &Account, responder: &ChallengeResponder, names: &[&str]) -> String {
    let mut order = answered(account, responder, names).await;
    finalize(&mut order, &request(names)).await
}

/// The chain of an order that is ready or about to be.
///
/// # Panics
///
/// When it is not issued.
pub async fn finalize(order: &mut Order, csr: &[u8]) -> String {
    assert_eq!(order.poll_ready(&patience()).await.expect("polling"), OrderStatus::Ready);
    order.finalize_csr(csr).await.expect("finalize");
    order.poll_certificate(&patience()).await.expect("the certificate")
}

/// A certificate for names that the account has by grant.
///
/// # Panics
///
/// When it is not issued.
pub async fn issue_granted(account: &Account, names: &[&str]) -> pki::Certificate {
    let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns((*name).to_owned())).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.expect("an order");
    leaf(&finalize(&mut order, &request(names)).await)
}

/// The first certificate of a chain.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn leaf(chain: &str) -> pki::Certificate {
    pki::chain::from_pem(chain).expect("a chain").remove(0)
}

/// revokeCert by an account; the words of the refusal.
///
/// # Errors
///
/// What the CA said.
pub async fn revoke(account: &Account, der: &[u8], reason: Option<RevocationReason>) -> Result<(), String> {
    let certificate = der.to_vec().into();
    let payload = RevocationRequest { certificate: &certificate, reason };
    account.revoke(&payload).await.map_err(|error| format!("{error:?}"))
}
