//! Keys that are refused though they are well-formed (BR §6.1.1.3), as certificates' and as accounts'.

use acme::problem::ErrorType;
use serde_json::json;
use signer::{Failure, Reason};
use testkit::weak_keys::{CLOSE, DEBIAN, ROCA};

use crate::support::{Client, OPEN, World, csr_of, reason};

/// The reason and the problem of a refusal.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> (Reason, ErrorType, String) {
    match outcome {
        Err(Failure::Refused(refusal)) => {
            (refusal.reason, refusal.problem.kind, refusal.problem.detail.clone())
        }
        other => panic!("not refused: {other:?}"),
    }
}

impl World {
    /// What becomes of a key: in a CSR, at newAccount, and at keyChange.
    async fn try_key(&self, pkcs8: &[u8]) -> [(Reason, ErrorType, String); 3] {
        let client = self.client().await;
        let weak = Client::with_key(OPEN, pkcs8);
        let mut ready = self.ready(&client, &["example.org"]).await;
        ready.csr = weak.csr_with_account_key(&["example.org"]);
        let in_csr = refused(self.issue(ready.finalized_by(&client)).await);
        let as_new = refused(self.ca.register_account(&weak.new_account()).await);
        let weak = weak.of_account(client.account.unwrap());
        let changed_to = refused(self.ca.change_key(&client.key_change(&weak)).await);
        [in_csr, as_new, changed_to]
    }
}

#[tokio::test]
async fn e5_keys_that_their_numbers_give_away_are_refused() {
    let world = World::start().await;
    for (pkcs8, word) in [(CLOSE, "Fermat"), (ROCA, "ROCA")] {
        let [in_csr, as_new, changed_to] = world.try_key(pkcs8).await;
        for (outcome, reason, kind) in [
            (in_csr, Reason::CsrKeyWeak, ErrorType::BadCsr),
            (as_new, Reason::KeyWeak, ErrorType::BadPublicKey),
            (changed_to, Reason::KeyWeak, ErrorType::BadPublicKey),
        ] {
            assert_eq!((outcome.0, outcome.1), (reason, kind), "{word}");
            assert!(outcome.2.contains(word), "{}", outcome.2);
        }
    }
    assert!(world.journal().await.is_empty());
    assert!(world.issuer_key.signed().is_empty());
}

#[tokio::test]
async fn e5_debian_keys_are_refused_by_an_installed_list() {
    // A record of badkeys' blocklist.dat: 120 bits of the SHA-256 of x, and where it is from.
    let record = [hex::decode("e5a24be7e5cf243b37a7a2f93f39b3").unwrap(), vec![1]].concat();
    let world = World::start().await.with_weak_keys(&record).await;
    let [in_csr, as_new, changed_to] = world.try_key(DEBIAN).await;
    assert_eq!((in_csr.0, in_csr.1), (Reason::CsrKeyWeak, ErrorType::BadCsr));
    assert_eq!((as_new.0, as_new.1), (Reason::KeyWeak, ErrorType::BadPublicKey));
    assert_eq!((changed_to.0, changed_to.1), (Reason::KeyWeak, ErrorType::BadPublicKey));
    assert!(in_csr.2.contains("list"), "{}", in_csr.2);
    // Others are not on it.
    world.client().await;
}

#[tokio::test]
async fn e5_f6_a_key_reported_compromised_is_nobodys_any_more() {
    let world = World::start().await;
    let client = world.client().await;
    let holder = Client::new(OPEN);
    let mut ready = world.ready(&client, &["example.org"]).await;
    ready.csr = holder.csr_with_account_key(&["example.org"]);
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();
    let certificate = acme::base64url::encode(&issued.certificate);
    let report = json!({ "certificate": certificate, "reason": 1 });
    let report = holder.request_with_jwk("revoke-cert", &report);
    world.ca.revoke(&report, Vec::new()).await.unwrap();

    let mut ready = world.ready(&client, &["example.org"]).await;
    ready.csr = holder.csr_with_account_key(&["example.org"]);
    assert_eq!(world.refusal(ready.finalized_by(&client)).await, Reason::CsrKeyBlocked);
    for outcome in [
        refused(world.ca.register_account(&holder.new_account()).await),
        refused(world.ca.change_key(&client.key_change(&holder)).await),
    ] {
        assert_eq!((outcome.0, outcome.1), (Reason::KeyUnacceptable, ErrorType::BadPublicKey));
        assert!(outcome.2.contains("compromised"), "{}", outcome.2);
    }
}

#[tokio::test]
async fn e5_a_weak_key_of_an_order_leaves_the_order_to_a_better_one() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org"]).await;
    let mut weak = ready.clone();
    weak.csr = csr_of(&["example.org"], &rcgen::KeyPair::try_from(ROCA).unwrap());
    assert_eq!(reason(world.ca.issue(weak.finalized_by(&client)).await), Reason::CsrKeyWeak);
    world.issue(ready.finalized_by(&client)).await.unwrap();
}
