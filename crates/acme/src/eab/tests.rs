use super::*;
use crate::base64url::encode;
use crate::testing::{ClientKey, flattened};

const URL: &str = "https://ca.example/acme/default/new-account";
const KEY: &[u8] = &[9; 32];

fn kid() -> EabKeyId {
    EabKeyId::new(1, 2, [3; 16])
}

fn header() -> String {
    format!(r#"{{"alg":"HS256","kid":"{}","url":"{URL}"}}"#, kid())
}

fn bind(header: &str, payload: &str, algorithm: hmac::Algorithm, key: &[u8]) -> String {
    let (protected, payload) = (encode(header), encode(payload));
    let mac = hmac::sign(&hmac::Key::new(algorithm, key), format!("{protected}.{payload}").as_bytes());
    flattened(&protected, &payload, &encode(mac))
}

fn good() -> String {
    bind(&header(), &ClientKey::one().jwk_json(), hmac::HMAC_SHA256, KEY)
}

fn verify(json: &str) -> Result<(), EabError> {
    Binding::from_json(json)?.verify(&ClientKey::one().jwk(), URL, KEY)
}

#[test]
fn a_good_binding_is_good_with_every_mac() {
    let binding = Binding::from_json(&good()).unwrap();
    assert_eq!(binding.kid().parse::<EabKeyId>().unwrap(), kid());
    for (name, algorithm) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        let json = bind(&header().replace("HS256", name), &ClientKey::one().jwk_json(), algorithm, KEY);
        verify(&json).unwrap();
        let other = bind(&header().replace("HS256", name), &ClientKey::one().jwk_json(), algorithm, &[8; 32]);
        assert!(matches!(verify(&other), Err(EabError::Mac)), "{name}");
    }
    // The key's own member order does not matter.
    let reordered = ClientKey::one().jwk().to_json();
    verify(&bind(&header(), &reordered, hmac::HMAC_SHA256, KEY)).unwrap();
}

#[test]
fn each_check_refuses() {
    let key = ClientKey::one();
    let jwk = key.jwk_json();
    let sign =
        |header: &str, payload: &str| verify(&bind(header, payload, hmac::HMAC_SHA256, KEY)).unwrap_err();
    for name in ["ES256", "none", "hs256", "HS1", ""] {
        assert!(matches!(sign(&header().replace("HS256", name), &jwk), EabError::Algorithm(_)), "{name}");
    }
    assert!(matches!(sign(&header().replacen('{', r#"{"nonce":"AAAA","#, 1), &jwk), EabError::Nonce));
    assert!(matches!(
        sign(&header().replacen('{', r#"{"crit":[],"#, 1), &jwk),
        EabError::Jws(JwsError::Critical)
    ));
    assert!(matches!(
        sign(&header().replacen('{', &format!(r#"{{"jwk":{jwk},"#), 1), &jwk),
        EabError::Jws(JwsError::KeyReference)
    ));
    assert!(matches!(sign(&header().replace("kid", "other"), &jwk), EabError::Jws(JwsError::KeyReference)));
    assert!(matches!(
        sign(&header().replace(r#""url":"#, r#""other":"#), &jwk),
        EabError::Jws(JwsError::MissingMember("url"))
    ));
    assert!(matches!(sign(&header().replace("default", "other"), &jwk), EabError::Url));
    assert!(matches!(
        sign(&header().replacen('{', r#"{"k\u0069d":"x","#, 1), &jwk),
        EabError::Jws(JwsError::Json(_))
    ));
    let other = ClientKey::all()[1].jwk_json();
    for payload in [&other, "{}", "", "null", &jwk.replacen('{', r#"{"kty":"RSA","#, 1), &format!("[{jwk}]")]
    {
        assert!(matches!(sign(&header(), payload), EabError::OtherKey), "{payload}");
    }
}

#[test]
fn the_mac_is_whole() {
    let json = good();
    let parts: Vec<&str> = json.split('"').collect();
    let mac = base64url::decode(parts[11]).unwrap();
    for bad in [&mac[..16], &mac[..31], &[], &[&mac[..], &[0]].concat()] {
        assert!(matches!(verify(&flattened(parts[3], parts[7], &encode(bad))), Err(EabError::Mac)));
    }
    for at in 0..mac.len() {
        let mut changed = mac.clone();
        changed[at] ^= 1;
        assert!(matches!(verify(&flattened(parts[3], parts[7], &encode(changed))), Err(EabError::Mac)));
    }
}

#[test]
fn who_lacks_the_key_is_unauthorized_before_all_else() {
    // A wrong MAC says nothing about URL or key.
    let json = bind(&header().replace("default", "other"), "{}", hmac::HMAC_SHA256, &[8; 32]);
    let error = verify(&json).unwrap_err();
    assert!(matches!(error, EabError::Mac));
    assert_eq!(error.problem().kind, ErrorType::Unauthorized);
    assert_eq!(EabError::OtherKey.problem().kind, ErrorType::Malformed);
}

#[test]
fn it_is_flattened_and_strict() {
    for bad in [
        "[]".to_owned(),
        good().replacen('{', r#"{"header":{},"#, 1),
        good().replacen('{', r#"{"signatures":[],"#, 1),
        good().replacen('{', r#"{"payload":"","#, 1),
        good().replacen(r#""}"#, r#"="}"#, 1),
    ] {
        assert!(Binding::from_json(&bad).is_err(), "{bad}");
        assert!(serde_json::from_str::<Binding>(&bad).is_err(), "{bad}");
    }
}

#[test]
fn it_is_shown_and_stored_as_it_came() {
    let binding = Binding::from_json(&good()).unwrap();
    let shown = serde_json::to_string(&binding).unwrap();
    assert_eq!(shown, binding.to_json());
    assert_eq!(shown, good());
    assert_eq!(serde_json::from_str::<Binding>(&shown).unwrap(), binding);
    assert_eq!(Binding::from_json(&shown).unwrap(), binding);
}

#[test]
fn key_ids_have_one_text() {
    let id = kid();
    let text = id.to_string();
    assert_eq!(text.len(), 39);
    assert_eq!(text.parse::<EabKeyId>().unwrap(), id);
    assert_eq!((id.version(), id.epoch()), (1, 2));
    let most = EabKeyId::new(u32::MAX, u64::MAX, [255; 16]);
    assert_eq!(most.to_string().parse::<EabKeyId>().unwrap(), most);
    let mut format = id.to_bytes();
    format[0] = 2;
    for bad in ["", "x", &text[1..], &format!("{text}="), &encode(format), &format!("{text}A")] {
        assert!(matches!(bad.parse::<EabKeyId>(), Err(EabError::UnknownKey)), "{bad}");
    }
}
