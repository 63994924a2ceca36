use proptest::prelude::*;

use super::*;
use crate::base64url::encode;
use crate::testing::{ClientKey, flattened};

const URL: &str = "https://ca.example/acme/default/new-order";
const KID: &str = "https://ca.example/acme/default/account/x";

/// The error for a header and a payload that are rightly signed.
fn refused(header: &str) -> JwsError {
    Jws::from_slice(ClientKey::one().body(header, "{}").as_bytes()).unwrap_err()
}

#[test]
fn every_algorithm_verifies_and_only_with_its_own_key() {
    for key in ClientKey::all() {
        let body = key.body(&key.kid_header(URL, KID), r#"{"a":1}"#);
        let jws = Jws::from_slice(body.as_bytes()).unwrap();
        assert_eq!((jws.header().algorithm, jws.header().url.as_str()), (key.algorithm(), URL));
        assert!(matches!(&jws.header().key, KeyReference::Kid(kid) if kid == KID));
        let jwk = key.jwk();
        let verified = jws.verify(&jwk).unwrap();
        assert_eq!(verified.payload(), br#"{"a":1}"#);
        for other in ClientKey::all() {
            if other.algorithm() != key.algorithm() {
                assert!(matches!(jws.verify(&other.jwk()), Err(JwsError::AlgorithmMismatch { .. })));
            }
        }
        let stranger = ClientKey::generate(key.algorithm()).jwk();
        assert!(matches!(jws.verify(&stranger), Err(JwsError::Signature)));
    }
}

#[test]
fn what_was_verified_is_remembered_and_nothing_else() {
    let key = ClientKey::one();
    let body = key.body(&key.kid_header(URL, KID), r#"{"a":1}"#);
    let (jws, jwk) = (Jws::from_slice(body.as_bytes()).unwrap(), key.jwk());
    let remembered = jws.verify(&jwk).unwrap().remember();
    assert_eq!(jws.verify_again(&jwk, &remembered).unwrap().payload(), br#"{"a":1}"#);
    // Another signature of the same words, good or not, is verified for itself, and so is another key.
    let again = Jws::from_slice(key.body(&key.kid_header(URL, KID), r#"{"a":1}"#).as_bytes()).unwrap();
    assert_ne!(again.verify(&jwk).unwrap().remember(), remembered);
    assert!(again.verify_again(&jwk, &remembered).is_ok());
    let mut parts: Vec<String> = body.split('"').map(str::to_owned).collect();
    parts[11] = encode([0; 64]);
    let unsigned = Jws::from_slice(parts.join("\"").as_bytes()).unwrap();
    assert!(matches!(unsigned.verify_again(&jwk, &remembered), Err(JwsError::Signature)));
    parts[11] = body.split('"').nth(11).unwrap().to_owned();
    parts[7] = encode(r#"{"a":2}"#);
    let changed = Jws::from_slice(parts.join("\"").as_bytes()).unwrap();
    assert!(matches!(changed.verify_again(&jwk, &remembered), Err(JwsError::Signature)));
    let stranger = ClientKey::generate(key.algorithm()).jwk();
    assert!(matches!(jws.verify_again(&stranger, &remembered), Err(JwsError::Signature)));
}

#[test]
fn ed25519_goes_by_two_names() {
    let key = ClientKey::generate(Algorithm::EdDsa);
    let body = key.body(&key.kid_header(URL, KID).replace("EdDSA", "Ed25519"), "{}");
    assert!(Jws::from_slice(body.as_bytes()).unwrap().verify(&key.jwk()).is_ok());
}

#[test]
fn none_macs_and_strangers_are_unsupported_and_the_problem_says_what_is() {
    for name in
        ["none", "None", "HS256", "HS384", "HS512", "es256", "ES256K", "PS256", "RS384", "RS1", "Ed448", ""]
    {
        let error = refused(&format!(r#"{{"alg":"{name}","url":"{URL}","kid":"{KID}"}}"#));
        assert!(matches!(&error, JwsError::UnsupportedAlgorithm(said) if said == name), "{name}: {error}");
        let problem = error.problem();
        assert_eq!((problem.kind, problem.status), (ErrorType::BadSignatureAlgorithm, 400));
        assert_eq!(problem.algorithms, ["ES256", "ES384", "ES512", "RS256", "EdDSA"]);
    }
}

#[test]
fn the_algorithm_must_fit_the_key_in_the_header() {
    let [p256, p384, ..] = ClientKey::all() else { panic!("two keys") };
    let header = p256.jwk_header(URL).replace("ES256", "ES384");
    let error = refused(&header);
    assert!(matches!(error, JwsError::AlgorithmMismatch { expected: Algorithm::Es256 }));
    assert_eq!(error.error_type(), ErrorType::BadPublicKey);
    // And a good signature of another key does not help.
    let jws = Jws::from_slice(p384.body(&p384.jwk_header(URL), "{}").as_bytes()).unwrap();
    assert!(matches!(jws.verify(&p256.jwk()), Err(JwsError::KeyMismatch)));
}

#[test]
fn exactly_one_key_reference() {
    let jwk = ClientKey::one().jwk_json();
    for members in
        [String::new(), format!(r#","jwk":{jwk},"kid":"{KID}""#), format!(r#","kid":"","jwk":{jwk}"#)]
    {
        let error = refused(&format!(r#"{{"alg":"ES256","url":"{URL}"{members}}}"#));
        assert!(matches!(error, JwsError::KeyReference), "{members}: {error}");
    }
    for members in
        [r#","kid":1"#, r#","kid":null"#, r#","jwk":"x""#, r#","jwk":null,"kid":"x""#, r#","jwk":[]"#]
    {
        let error = refused(&format!(r#"{{"alg":"ES256","url":"{URL}"{members}}}"#));
        assert!(matches!(error, JwsError::Json(JsonError::WrongType { .. })), "{members}: {error}");
    }
    let kid = Jws::from_slice(ClientKey::one().body(&ClientKey::one().kid_header(URL, KID), "").as_bytes())
        .unwrap();
    assert!(matches!(kid.verify_embedded(), Err(JwsError::KeyReference)));
}

#[test]
fn only_the_flattened_serialization() {
    let key = ClientKey::one();
    let good = key.body(&key.kid_header(URL, KID), "{}");
    let with = |member: &str| good.replacen('{', &format!("{{{member},"), 1);
    let error = |body: &str| Jws::from_slice(body.as_bytes()).unwrap_err();
    assert!(matches!(error(&with(r#""header":{"kid":"x"}"#)), JwsError::UnprotectedHeader));
    assert!(matches!(error(&with(r#""header":null"#)), JwsError::UnprotectedHeader));
    assert!(matches!(error(&with(r#""signatures":[]"#)), JwsError::GeneralSerialization));
    assert!(matches!(error(&with(r#""h\u0065ader":{}"#)), JwsError::UnprotectedHeader));
    // Other members are ignored (RFC 7515 §7.2.1).
    assert!(Jws::from_slice(with(r#""extra":{"deep":[1]}"#).as_bytes()).unwrap().verify(&key.jwk()).is_ok());

    let parts: Vec<&str> = good.split('"').collect();
    let compact = [parts[3], parts[7], parts[11]].join(".");
    assert!(matches!(error(&compact), JwsError::Json(JsonError::Syntax(_))));
    assert!(matches!(error(&format!("[{good}]")), JwsError::Json(JsonError::NotAnObject)));
    assert!(matches!(error(&format!("{good}{good}")), JwsError::Json(JsonError::Syntax(_))));
    for name in ["protected", "payload", "signature"] {
        let without = good.replace(&format!(r#""{name}":"#), r#""other":"#);
        assert!(matches!(error(&without), JwsError::MissingMember(missing) if missing == name), "{name}");
        let twice = with(&format!(r#""{name}":"""#));
        assert!(
            matches!(error(&twice), JwsError::Json(JsonError::Duplicate(twice)) if twice == name),
            "{name}"
        );
    }
}

#[test]
fn a_member_twice_in_the_header_or_the_key_is_refused() {
    let key = ClientKey::one();
    for header in [
        format!(r#"{{"alg":"ES256","\u0061lg":"none","url":"{URL}","kid":"{KID}"}}"#),
        format!(r#"{{"alg":"ES256","url":"{URL}","url":"https://evil.example","kid":"{KID}"}}"#),
        format!(r#"{{"alg":"ES256","url":"{URL}","kid":"{KID}","k\u0069d":"x"}}"#),
        format!(r#"{{"alg":"ES256","url":"{URL}","kid":"{KID}","typ":"a","typ":"b"}}"#),
        key.jwk_header(URL).replacen(r#""kty""#, r#""x":"AA","kty""#, 1),
        key.jwk_header(URL).replacen(r#""kty""#, r#""use":"a","use":"b","kty""#, 1),
    ] {
        assert!(matches!(refused(&header), JwsError::Json(JsonError::Duplicate(_))), "{header}");
    }
}

#[test]
fn extensions_of_the_header_are_refused_and_hints_ignored() {
    let header = |member: &str| format!(r#"{{"alg":"ES256","url":"{URL}","kid":"{KID}",{member}}}"#);
    for member in [r#""crit":["exp"]"#, r#""crit":[]"#, r#""crit":null"#, r#""crit":["b64"],"b64":false"#] {
        assert!(matches!(refused(&header(member)), JwsError::Critical), "{member}");
    }
    for member in [r#""b64":false"#, r#""b64":true"#] {
        assert!(matches!(refused(&header(member)), JwsError::UnencodedPayload), "{member}");
    }
    for member in
        [r#""typ":"JOSE""#, r#""jku":"https://evil.example""#, r#""x5c":["AA"]"#, r#""critical":["x"]"#]
    {
        assert!(Jws::from_slice(ClientKey::one().body(&header(member), "{}").as_bytes()).is_ok(), "{member}");
    }
}

#[test]
fn the_header_has_algorithm_and_url_and_a_clean_nonce() {
    assert!(matches!(
        refused(&format!(r#"{{"alg":"ES256","kid":"{KID}"}}"#)),
        JwsError::MissingMember("url")
    ));
    assert!(matches!(
        refused(&format!(r#"{{"url":"{URL}","kid":"{KID}"}}"#)),
        JwsError::MissingMember("alg")
    ));
    assert!(matches!(refused("[]"), JwsError::Json(JsonError::NotAnObject)));
    assert!(matches!(refused(""), JwsError::Json(JsonError::Syntax(_))));
    let with_nonce =
        |nonce: &str| format!(r#"{{"alg":"ES256","nonce":{nonce},"url":"{URL}","kid":"{KID}"}}"#);
    for nonce in [r#""AA==""#, r#""a b""#, r#""AB""#, r#""+/""#, r#""é""#] {
        let error = refused(&with_nonce(nonce));
        assert!(matches!(error, JwsError::Base64("nonce")), "{nonce}: {error}");
        assert_eq!(error.error_type(), ErrorType::Malformed);
    }
    assert!(matches!(refused(&with_nonce("null")), JwsError::Json(_)));
    assert!(matches!(refused(&with_nonce(&format!(r#""{}""#, "A".repeat(300)))), JwsError::TooLong("nonce")));
    let jws = Jws::from_slice(ClientKey::one().body(&with_nonce(r#""AAAA""#), "").as_bytes()).unwrap();
    assert_eq!(jws.header().nonce.as_deref(), Some("AAAA"));
    let long = "x".repeat(3000);
    assert!(matches!(
        refused(&format!(r#"{{"alg":"ES256","url":"{long}","kid":"{KID}"}}"#)),
        JwsError::TooLong("url")
    ));
    assert!(matches!(
        refused(&format!(r#"{{"alg":"ES256","url":"{URL}","kid":"{long}"}}"#)),
        JwsError::TooLong("kid")
    ));
}

#[test]
fn base64url_is_canonical_everywhere() {
    let key = ClientKey::generate(Algorithm::EdDsa);
    let good = key.body(&key.kid_header(URL, KID), r#"{"a":12}"#);
    let parts: Vec<&str> = good.split('"').collect();
    let (protected, payload, signature) = (parts[3], parts[7], parts[11]);
    for (name, body) in [
        ("protected", flattened(&format!("{protected}="), payload, signature)),
        ("protected", flattened(&format!(" {protected}"), payload, signature)),
        ("payload", flattened(protected, &format!("{payload}="), signature)),
        ("payload", flattened(protected, &format!("{payload}\\n"), signature)),
        ("payload", flattened(protected, "A", signature)),
        ("payload", flattened(protected, "AB", signature)),
        ("signature", flattened(protected, payload, &format!("{signature}=="))),
        ("signature", flattened(protected, payload, &format!("+{}", &signature[1..]))),
        ("signature", flattened(protected, payload, &format!("{signature}é"))),
    ] {
        let error = Jws::from_slice(body.as_bytes()).unwrap_err();
        assert!(matches!(error, JwsError::Base64(part) if part == name), "{name} {body}: {error}");
    }
}

#[test]
fn any_changed_bit_is_found() {
    for key in ClientKey::all() {
        let jws = key.jws(r#"{"a":1}"#);
        let jwk = key.jwk();
        for at in (0..jws.signature.len() * 8).step_by(37) {
            let mut changed = jws.clone();
            changed.signature[at / 8] ^= 1 << (at % 8);
            assert!(changed.verify(&jwk).is_err(), "{} signature bit {at}", key.algorithm().name());
        }
        for extra in [
            &jws.signature[1..],
            &[&jws.signature[..], &[0]].concat(),
            &[&[0][..], &jws.signature].concat(),
            &[],
        ] {
            let changed = Jws { signature: extra.to_vec(), ..jws.clone() };
            assert!(matches!(changed.verify(&jwk), Err(JwsError::Signature)));
        }
        let other = key.body(&key.jwk_header("https://ca.example/x"), r#"{"a":2}"#);
        let other = Jws::from_slice(other.as_bytes()).unwrap();
        let mixed = Jws { signature: other.signature.clone(), ..jws.clone() };
        assert!(matches!(mixed.verify(&jwk), Err(JwsError::Signature)));
    }
}

#[test]
fn the_digest_is_of_what_was_signed_and_of_nothing_else() {
    let key = ClientKey::one();
    let header = key.kid_header(URL, KID);
    let (a, b) = (key.body(&header, "{}"), key.body(&header, "{}"));
    assert_ne!(a, b, "ECDSA is randomized");
    let [a, b] = [a, b].map(|body| Jws::from_slice(body.as_bytes()).unwrap());
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.digest(), sha256(format!("{}.{}", encode(&header), encode("{}")).as_bytes()));
    // White space, order and other members of the body do not change it; white space in the payload does.
    let parts: Vec<String> = a.to_json().split('"').map(str::to_owned).collect();
    let other = format!(
        "{{ \"signature\": \"{}\",\n\"x\": 1, \"payload\" :\"{}\", \"protected\":\"{}\"}}\n",
        parts[11], parts[7], parts[3]
    );
    let other = Jws::from_slice(other.as_bytes()).unwrap();
    assert_eq!((other.digest(), other.to_json()), (a.digest(), a.to_json()));
    let spaced = Jws::from_slice(key.body(&header, "{ }").as_bytes()).unwrap();
    assert_ne!(spaced.digest(), a.digest());
    // What is stored is read again, and is the same request.
    let again = Jws::from_slice(a.to_json().as_bytes()).unwrap();
    assert_eq!(again.digest(), a.digest());
    assert!(again.verify(&key.jwk()).is_ok());
}

#[test]
fn post_as_get_is_the_empty_payload_only() {
    let key = ClientKey::one();
    let jwk = key.jwk();
    let jws = key.jws("");
    assert!(jws.verify(&jwk).unwrap().is_post_as_get());
    let jws = key.jws("{}");
    let verified = jws.verify(&jwk).unwrap();
    assert!(!verified.is_post_as_get());
    assert!(verified.payload_json::<crate::challenge::Response>().is_ok());
    for payload in ["", "null", "[]", "1", r#"{"a":1,"a":2}"#, "{}x"] {
        let jws = key.jws(payload);
        let error = jws.verify(&jwk).unwrap().payload_json::<crate::challenge::Response>().unwrap_err();
        assert!(matches!(error, JwsError::Payload(_)), "{payload}");
        assert_eq!(error.error_type(), ErrorType::Malformed);
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let key = ClientKey::one();
    let big = key.body(&key.kid_header(URL, KID), &"x".repeat(MAX_JWS_BYTES));
    assert!(matches!(Jws::from_slice(big.as_bytes()), Err(JwsError::TooLarge)));
    let fits = key.body(&key.kid_header(URL, KID), &"x".repeat(MAX_JWS_BYTES / 2));
    assert!(Jws::from_slice(fits.as_bytes()).is_ok());
    let deep = format!(r#"{{"alg":"ES256","url":"{URL}","kid":"{KID}","x":{}"#, "[".repeat(40_000));
    assert!(matches!(refused(&deep), JwsError::Json(JsonError::TooDeep)));
    let deep = format!(r#"{{"x":{}"#, r#"{"x":"#.repeat(20_000));
    assert!(matches!(Jws::from_slice(deep.as_bytes()), Err(JwsError::Json(JsonError::TooDeep))));
}

#[test]
fn it_does_not_show_its_payload() {
    let jws = ClientKey::one().jws(r#"{"contact":["mailto:secret@example.org"]}"#);
    assert!(!format!("{jws:?}").contains(&encode(br#"{"contact":["#)[..12]));
}

/// josekit as the other opinion: whatever this crate accepts and verifies, josekit verifies too, with the same payload.
#[test]
fn josekit_agrees_with_what_is_good() {
    for key in ClientKey::all() {
        for payload in ["", "{}", r#"{"identifiers":[{"type":"dns","value":"example.org"}]}"#] {
            let body = key.body(&key.jwk_header(URL), payload);
            assert_eq!(by_josekit(key, &body).unwrap(), payload.as_bytes(), "{}", key.algorithm().name());
        }
    }
}

/// And the other way round: what josekit signs is good here.
#[test]
fn what_josekit_signs_is_good() {
    use josekit::jwk::alg::{ec::EcCurve, ed::EdCurve};
    use josekit::jws::{
        ES256, ES384, ES512, EdDSA, JwsHeaderSet, JwsSigner, RS256, serialize_flattened_json,
    };
    let (p256, p384) = (ES256.generate_key_pair().unwrap(), ES384.generate_key_pair().unwrap());
    let (p521, rsa) = (ES512.generate_key_pair().unwrap(), RS256.generate_key_pair(2048).unwrap());
    let ed = EdDSA.generate_key_pair(EdCurve::Ed25519).unwrap();
    assert_eq!(p521.curve(), EcCurve::P521);
    let keys: [(Box<dyn JwsSigner>, josekit::jwk::Jwk); 5] = [
        (Box::new(ES256.signer_from_der(p256.to_der_private_key()).unwrap()), p256.to_jwk_public_key()),
        (Box::new(ES384.signer_from_der(p384.to_der_private_key()).unwrap()), p384.to_jwk_public_key()),
        (Box::new(ES512.signer_from_der(p521.to_der_private_key()).unwrap()), p521.to_jwk_public_key()),
        (Box::new(RS256.signer_from_der(rsa.to_der_private_key()).unwrap()), rsa.to_jwk_public_key()),
        (Box::new(EdDSA.signer_from_der(ed.to_der_private_key()).unwrap()), ed.to_jwk_public_key()),
    ];
    for (signer, jwk) in keys {
        let mut header = JwsHeaderSet::new();
        header.set_url(URL, true);
        header.set_nonce([1, 2, 3], true);
        header.set_jwk(jwk, true);
        let body = serialize_flattened_json(b"{}", &header, &*signer).unwrap();
        let jws = Jws::from_slice(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!(jws.verify_embedded().unwrap().payload(), b"{}");
        assert_eq!(jws.header().nonce.as_deref(), Some("AQID"));
    }
}

fn by_josekit(key: &ClientKey, body: &str) -> Result<Vec<u8>, josekit::JoseError> {
    use josekit::jws::{ES256, ES384, ES512, EdDSA, JwsVerifier, RS256, deserialize_json};
    let jwk = josekit::jwk::Jwk::from_bytes(key.jwk_json()).unwrap();
    let verifier: Box<dyn JwsVerifier> = match key.algorithm() {
        Algorithm::Es256 => Box::new(ES256.verifier_from_jwk(&jwk)?),
        Algorithm::Es384 => Box::new(ES384.verifier_from_jwk(&jwk)?),
        Algorithm::Es512 => Box::new(ES512.verifier_from_jwk(&jwk)?),
        Algorithm::Rs256 => Box::new(RS256.verifier_from_jwk(&jwk)?),
        Algorithm::EdDsa => Box::new(EdDSA.verifier_from_jwk(&jwk)?),
    };
    deserialize_json(body, &*verifier).map(|(payload, _)| payload)
}

proptest! {
    /// Changes of single bytes: where this crate still verifies, josekit does, and sees the same payload.
    #[test]
    fn josekit_agrees_with_what_is_nearly_good(which in 0_usize..5, at in 0_usize..2000, to in any::<u8>()) {
        let key = &ClientKey::all()[which];
        let mut body = key.body(&key.jwk_header(URL), r#"{"a":1}"#).into_bytes();
        let at = at % body.len();
        body[at] = to;
        if let Ok(jws) = Jws::from_slice(&body)
            && let Ok(verified) = jws.verify(&key.jwk())
        {
            let body = String::from_utf8(body).unwrap();
            prop_assert_eq!(by_josekit(key, &body).unwrap(), verified.payload());
        }
    }

    /// No input panics, and what is read prints what it read.
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Jws::from_slice(&bytes);
        let header = encode(&bytes);
        let _ = Jws::from_slice(flattened(&header, "", "").as_bytes());
    }

    /// Structured nonsense gets deeper than random bytes.
    #[test]
    fn no_structured_input_panics(text in r#"(\{|\}|\[|\]|:|,|"alg"|"ES256"|"url"|"kid"|"jwk"|"kty"|"EC"|"x"|""|null|1){0,24}"#) {
        let _ = Jws::from_slice(flattened(&encode(text.as_bytes()), "", "").as_bytes());
        let _ = Jws::from_slice(text.as_bytes());
        let _ = Jwk::from_json(&text);
    }
}
