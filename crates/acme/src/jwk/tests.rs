use proptest::prelude::*;

use super::*;
use crate::base64url::encode;
use crate::testing::ClientKey;

fn error(json: &str) -> JwkError {
    Jwk::from_json(json).unwrap_err()
}

/// The text of one member of a key's JSON.
fn member<'a>(json: &'a str, name: &str) -> &'a str {
    json.split(&format!(r#""{name}":""#)).nth(1).unwrap().split('"').next().unwrap()
}

#[test]
fn the_example_of_rfc_7638() {
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi\
             FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9\
             c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1\
             jF44-csFCur-kEgU8awapJzKnqDKgw";
    let key =
        Jwk::from_json(&format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","alg":"RS256","kid":"2011-04-29"}}"#));
    assert_eq!(key.unwrap().thumbprint().to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn the_example_of_rfc_8037() {
    let json = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let key = Jwk::from_json(json).unwrap();
    assert_eq!(key.thumbprint().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(key.public_key().algorithm(), pki::KeyAlgorithm::Ed25519);
}

#[test]
fn order_and_ornament_do_not_change_a_key() {
    for client in ClientKey::all() {
        let json = client.jwk_json();
        let key = client.jwk();
        let ornate = json.replacen('{', r#"{ "use": "sig", "key_ops": ["verify"], "kid": "1","#, 1);
        let again = Jwk::from_json(&ornate).unwrap();
        assert_eq!((&again, again.thumbprint()), (&key, key.thumbprint()));
        assert_eq!(Jwk::from_json(&key.to_json()).unwrap(), key);
        assert_eq!(key.algorithm(), client.algorithm());
        assert_eq!(serde_json::from_str::<Jwk>(&json).unwrap(), key);
        assert_eq!(key.thumbprint().to_string().parse(), Ok(key.thumbprint()));
        // josekit's opinion of the thumbprint's input: the same members.
        let theirs: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&key.to_json()).unwrap(), theirs);
    }
}

#[test]
fn the_public_key_is_the_one_of_certificates() {
    for client in ClientKey::all() {
        let key = client.jwk();
        let again = pki::PublicKey::from_spki_der(key.public_key().spki_der()).unwrap();
        assert_eq!(&again, key.public_key());
    }
}

#[test]
fn coordinates_have_their_full_length_and_are_on_the_curve() {
    let json = ClientKey::one().jwk_json();
    let (x, y) = (member(&json, "x").to_owned(), member(&json, "y").to_owned());
    let point = |x: &[u8], y: &[u8]| {
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, encode(x), encode(y))
    };
    let (x, y) = (base64url::decode(&x).unwrap(), base64url::decode(&y).unwrap());
    assert!(Jwk::from_json(&point(&x, &y)).is_ok());
    // The same 64 octets cut elsewhere are the same point to josekit, and a second thumbprint.
    let both = [&x[..], &y].concat();
    assert!(matches!(error(&point(&both[..31], &both[31..])), JwkError::Length("x")));
    assert!(matches!(error(&point(&both[..33], &both[33..])), JwkError::Length("x")));
    assert!(matches!(error(&point(&[&[0][..], &x].concat(), &y)), JwkError::Length("x")));
    assert!(matches!(error(&point(&x, &y[1..])), JwkError::Length("y")));
    let mut off = y.clone();
    off[31] ^= 1;
    assert!(matches!(error(&point(&x, &off)), JwkError::InvalidKey));
    assert!(matches!(error(&point(&[0; 32], &[0; 32])), JwkError::InvalidKey));
    // x + p is the same point where it fits; it must not be a second name for it.
    assert!(matches!(error(&point(&[0xff; 32], &y)), JwkError::InvalidKey));
    assert!(matches!(error(&point(&x, &y).replace("P-256", "P-384")), JwkError::Length("x")));
    for curve in ["P-224", "secp256k1", "p-256", ""] {
        let error = error(&point(&x, &y).replace("P-256", curve));
        assert!(matches!(error, JwkError::UnsupportedKey), "{curve}");
        assert_eq!(error.error_type(), ErrorType::BadPublicKey);
    }
}

#[test]
fn rsa_is_neither_weak_nor_a_burden() {
    let good = ClientKey::all()[3].jwk_json();
    let n = base64url::decode(member(&good, "n")).unwrap();
    let key = |n: &[u8], e: &[u8]| format!(r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#, encode(n), encode(e));
    assert!(Jwk::from_json(&key(&n, &[1, 0, 1])).is_ok());
    let odd = |bytes: usize| {
        let mut n = vec![0xff; bytes];
        n[0] = 0xc3;
        n
    };
    assert!(Jwk::from_json(&key(&odd(1024), &[1, 0, 1])).is_ok(), "8192 bits");
    for (what, n, e) in [
        ("1024 bits", odd(128), vec![1, 0, 1]),
        ("2047 bits", [&[0x7f][..], &odd(256)[1..]].concat(), vec![1, 0, 1]),
        ("8200 bits", odd(1025), vec![1, 0, 1]),
        ("16384 bits", odd(2048), vec![1, 0, 1]),
        ("an even modulus", [&n[..255], &[0]].concat(), vec![1, 0, 1]),
        ("e = 1", n.clone(), vec![1]),
        ("e = 3", n.clone(), vec![3]),
        ("e = 65535", n.clone(), vec![0xff, 0xff]),
        ("e = 65536", n.clone(), vec![1, 0, 0]),
        ("e = 65538", n.clone(), vec![1, 0, 2]),
        ("e of 33 bits", n.clone(), vec![1, 0, 0, 0, 1]),
        ("e of 2048 bits", n.clone(), vec![0xff; 256]),
    ] {
        assert!(matches!(error(&key(&n, &e)), JwkError::WeakKey), "{what}");
    }
    for (name, n, e) in [
        ("n", [&[0][..], &n].concat(), vec![1, 0, 1]),
        ("e", n.clone(), vec![0, 1, 0, 1]),
        ("e", n.clone(), vec![]),
        ("n", vec![], vec![1, 0, 1]),
    ] {
        assert!(matches!(error(&key(&n, &e)), JwkError::Length(member) if member == name));
    }
}

#[test]
fn ed25519_only_and_no_key_that_proves_nothing() {
    let key = |x: &[u8]| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, encode(x));
    assert!(matches!(error(&key(&[1; 31])), JwkError::Length("x")));
    assert!(matches!(error(&key(&[1; 57])), JwkError::Length("x")));
    let mut identity = [0; 32];
    identity[0] = 1;
    assert!(matches!(error(&key(&identity)), JwkError::InvalidKey));
    assert!(matches!(error(&key(&[0; 32])), JwkError::InvalidKey));
    for curve in ["Ed448", "X25519", "ed25519"] {
        let json = ClientKey::all()[4].jwk_json().replace("Ed25519", curve);
        assert!(matches!(error(&json), JwkError::UnsupportedKey), "{curve}");
    }
}

#[test]
fn private_and_symmetric_keys_are_refused() {
    let json = ClientKey::one().jwk_json();
    for name in PRIVATE_MEMBERS {
        let error = error(&json.replacen('{', &format!(r#"{{"{name}":"AA","#), 1));
        assert!(matches!(error, JwkError::PrivateKey), "{name}");
        assert_eq!(error.error_type(), ErrorType::BadPublicKey);
    }
    assert!(matches!(error(r#"{"kty":"oct"}"#), JwkError::UnsupportedKey));
    assert!(matches!(error(r#"{"kty":"ec"}"#), JwkError::UnsupportedKey));
}

#[test]
fn text_is_strict() {
    for client in ClientKey::all() {
        let json = client.jwk_json();
        for name in ["kty", "crv", "x", "y", "n", "e"] {
            if json.contains(&format!(r#""{name}":""#)) {
                let twice = json.replacen('{', &format!(r#"{{"{name}":"AA","#), 1);
                assert!(matches!(error(&twice), JwkError::Json(JsonError::Duplicate(_))), "{name}");
                let renamed = json.replacen(&format!(r#""{name}":"#), r#""other":"#, 1);
                assert!(matches!(error(&renamed), JwkError::Missing(missing) if missing == name), "{name}");
                let value = member(&json, name);
                let number = json.replacen(&format!(r#""{name}":"{value}""#), &format!(r#""{name}":1"#), 1);
                assert!(matches!(error(&number), JwkError::Json(JsonError::WrongType { .. })), "{name}");
                if !["kty", "crv"].contains(&name) {
                    let padded = json.replacen(
                        &format!(r#""{name}":"{value}""#),
                        &format!(r#""{name}":"{value}=""#),
                        1,
                    );
                    assert!(matches!(error(&padded), JwkError::Base64(member) if member == name), "{name}");
                }
            }
        }
    }
    assert!(matches!(error("[]"), JwkError::Json(JsonError::NotAnObject)));
}

proptest! {
    /// One key, one text: whatever is read from 64 octets prints just those, whichever way they are written.
    #[test]
    fn a_key_has_one_text(bytes in proptest::collection::vec(any::<u8>(), 32..=32)) {
        let x = encode(&bytes);
        if let Ok(key) = Jwk::from_json(&format!(r#"{{"x":"{x}","crv":"Ed25519","kty":"OKP"}}"#)) {
            prop_assert_eq!(key.to_json(), format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
            prop_assert_eq!(key.public_key().raw(), &bytes[..]);
        }
    }
}
