//! What ACME clients send: JWSs, keys, identifiers, CSRs.

use acme::identifier::Identifier;
use acme::jws::{Jws, KeyReference};
use acme::{AccountUrl, Jwk};
use pki::{Csr, Name, PublicKey};

/// What is read as a JWS is written as one that says the same, and gives nothing out before its signature is verified;
/// one that verifies with the key in its header verifies again.
pub fn jws(octets: &[u8]) {
    let Ok(jws) = Jws::from_slice(octets) else { return };
    let again = Jws::from_slice(jws.to_json().as_bytes()).expect("what was written is not read");
    assert_eq!(again.digest(), jws.digest());
    assert_eq!(again.header().url, jws.header().url);
    match &jws.header().key {
        KeyReference::Jwk(key) => {
            assert_eq!(key.algorithm(), jws.header().algorithm, "an algorithm that is not the key's");
            let verified = jws.verify_embedded();
            assert_eq!(verified.is_ok(), again.verify_embedded().is_ok());
            if let Ok(verified) = verified {
                let remembered = verified.remember();
                assert!(again.verify_again(key, &remembered).is_ok());
                let _ = verified.payload_json::<serde_json::Value>();
            }
        }
        KeyReference::Kid(kid) => {
            let _ = kid.parse::<AccountUrl>();
            assert!(jws.verify_embedded().is_err(), "verified by no key");
        }
    }
}

/// What is read as a JWK has one form (RFC 7638), which is read as the same key.
pub fn jwk(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let Ok(key) = Jwk::from_json(text) else { return };
    let again = Jwk::from_json(&key.to_json()).expect("what was written is not read");
    assert_eq!((again.thumbprint(), again.to_json()), (key.thumbprint(), key.to_json()));
    assert_eq!(again.public_key().spki_der(), key.public_key().spki_der());
    assert!(
        PublicKey::from_spki_der(key.public_key().spki_der()).is_ok(),
        "a key of a kind that no certificate has"
    );
}

/// What is read as a CSR has names that an order can have, and a key that is encoded in one way.
pub fn csr(octets: &[u8]) {
    let Ok(csr) = Csr::from_der(octets) else { return };
    assert!(!csr.names().as_slice().is_empty());
    for name in csr.names() {
        assert_eq!(Identifier::in_order(name).to_name().as_ref(), Ok(name));
    }
    let key = PublicKey::from_spki_der(csr.public_key().spki_der()).expect("a key that cannot be written");
    assert_eq!(key.spki_der(), csr.public_key().spki_der());
    // One octet less is no request.
    let shorter = octets.split_last().map(|(_, rest)| rest).unwrap_or_default();
    assert!(Csr::from_der(shorter).is_err());
}

/// What is read as an identifier is a name in its one spelling, within its bounds.
pub fn identifier(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Ok(identifier) = serde_json::from_str::<Identifier>(text) {
        judge(&identifier);
    }
    judge(&Identifier::dns(text));
    judge(&Identifier::ip(text));
}

fn judge(identifier: &Identifier) {
    let Ok(name) = identifier.to_name() else { return };
    assert_eq!(Identifier::in_order(&name).to_name().as_ref(), Ok(&name));
    match &name {
        Name::Dns(base) | Name::Wildcard(base) => {
            let text = base.as_str();
            assert!(text.len() <= 253 && text.is_ascii() && text == text.to_ascii_lowercase(), "{text}");
            assert!(base.labels().all(|label| (1..=63).contains(&label.len())), "{text}");
            assert!(text.parse::<std::net::IpAddr>().is_err(), "{text} is an address");
            assert_eq!(Name::parse_dns(&name.to_string()).as_ref(), Ok(&name));
        }
        Name::Ip(address) => assert_eq!(address.to_string(), name.to_string()),
    }
}
