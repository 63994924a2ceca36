use super::*;
use crate::jws::Algorithm;
use crate::testing::ClientKey;

const URL: &str = "https://ca.example/acme/default/key-change";
const ACCOUNT: &str = "https://ca.example/acme/default/account/x";

/// A key change as a test wants it; each member as it should be unless it says otherwise.
struct Change<'k> {
    old: &'k ClientKey,
    new: &'k ClientKey,
    inner_header: String,
    inner_payload: String,
}

impl<'k> Change<'k> {
    fn new(old: &'k ClientKey, new: &'k ClientKey) -> Self {
        let inner_header =
            format!(r#"{{"alg":"{}","url":"{URL}","jwk":{}}}"#, new.algorithm().name(), new.jwk_json());
        let inner_payload = format!(r#"{{"account":"{ACCOUNT}","oldKey":{}}}"#, old.jwk_json());
        Self { old, new, inner_header, inner_payload }
    }

    fn parse(&self) -> Result<KeyChange, KeyChangeError> {
        self.parse_with(
            &self.old.kid_header(URL, ACCOUNT),
            &self.new.body(&self.inner_header, &self.inner_payload),
        )
    }

    fn parse_with(&self, outer_header: &str, inner: &str) -> Result<KeyChange, KeyChangeError> {
        let outer = Jws::from_slice(self.old.body(outer_header, inner).as_bytes()).unwrap();
        KeyChange::from_verified(&outer.verify(&self.old.jwk()).unwrap())
    }
}

#[test]
fn from_every_kind_of_key_to_every_kind() {
    for old in ClientKey::all() {
        for algorithm in Algorithm::ALL {
            let fresh = ClientKey::generate(algorithm);
            let change = Change::new(old, &fresh).parse().unwrap();
            assert_eq!(change.new_key, fresh.jwk());
        }
    }
}

#[test]
fn each_check_refuses() {
    let [old, new, other, ..] = ClientKey::all() else { panic!("three keys") };
    let with = |change: &dyn Fn(&mut Change<'_>)| {
        let mut it = Change::new(old, new);
        change(&mut it);
        it.parse().unwrap_err()
    };
    let nonce = with(&|c| c.inner_header = c.inner_header.replacen('{', r#"{"nonce":"AAAA","#, 1));
    assert!(matches!(nonce, KeyChangeError::Nonce));
    let url = with(&|c| c.inner_header = c.inner_header.replace("key-change", "new-order"));
    assert!(matches!(url, KeyChangeError::Url));
    let account = with(&|c| c.inner_payload = c.inner_payload.replace("account/x", "account/y"));
    assert!(matches!(account, KeyChangeError::Account));
    let old_key =
        with(&|c| c.inner_payload = format!(r#"{{"account":"{ACCOUNT}","oldKey":{}}}"#, other.jwk_json()));
    assert!(matches!(old_key, KeyChangeError::OldKey));
    let missing = with(&|c| c.inner_payload = format!(r#"{{"account":"{ACCOUNT}"}}"#));
    assert!(matches!(missing, KeyChangeError::Inner(JwsError::Payload(_))));
    let twice = with(&|c| c.inner_payload = c.inner_payload.replacen('{', r#"{"account":"x","#, 1));
    assert!(matches!(twice, KeyChangeError::Inner(JwsError::Payload(_))));
    let kid = with(&|c| c.inner_header = format!(r#"{{"alg":"ES384","url":"{URL}","kid":"{ACCOUNT}"}}"#));
    assert!(matches!(kid, KeyChangeError::Inner(JwsError::KeyReference)));
    assert!(matches!(Change::new(old, old).parse(), Err(KeyChangeError::SameKey)));
}

#[test]
fn the_new_key_must_sign() {
    let [old, new, ..] = ClientKey::all() else { panic!("two keys") };
    let change = Change::new(old, new);
    // The header names the new key, and somebody else signs.
    let stranger = ClientKey::generate(Algorithm::Es384);
    let inner = stranger.body(&change.inner_header, &change.inner_payload);
    let refused = change.parse_with(&old.kid_header(URL, ACCOUNT), &inner).unwrap_err();
    assert!(matches!(refused, KeyChangeError::Inner(JwsError::Signature)));
    assert!(refused.problem().detail.starts_with("the inner JWS"));
    for inner in ["", "{}", "null"] {
        let refused = change.parse_with(&old.kid_header(URL, ACCOUNT), inner).unwrap_err();
        assert!(matches!(refused, KeyChangeError::Inner(_)), "{inner}");
    }
}

#[test]
fn the_outer_jws_names_an_account() {
    let [old, new, ..] = ClientKey::all() else { panic!("two keys") };
    let change = Change::new(old, new);
    let inner = new.body(&change.inner_header, &change.inner_payload);
    let refused = change.parse_with(&old.jwk_header(URL), &inner).unwrap_err();
    assert!(matches!(refused, KeyChangeError::Outer(JwsError::KeyReference)));
}
