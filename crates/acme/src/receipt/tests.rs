use super::*;
use crate::base64url::encode;
use crate::id::{IdKeys, TierSecret, TierSecrets, token};
use crate::problem::ErrorType;

const ACCOUNT_URL: &str = "https://ca.example/acme/default/account/1";

fn key(perspective: &str, seed: u8) -> ReceiptKey {
    ReceiptKey::from_seed(perspective.parse().unwrap(), &[seed; 32]).unwrap()
}

fn verifier(key: &ReceiptKey) -> ReceiptVerifier {
    ReceiptVerifier::new(key.perspective().clone(), key.public_key()).unwrap()
}

fn receipt(perspective: &str) -> Receipt {
    let mut secret = [1; 32];
    secret[0] = 2;
    let keys = IdKeys::new(&TierSecrets::new(vec![TierSecret::new(1, secret).unwrap()]).unwrap());
    let directory: DirectoryName = "default".parse().unwrap();
    let thumbprint = Thumbprint::from_bytes([1; 32]);
    let account = AccountId::derive(&directory, &thumbprint);
    let name: Name = "example.org".parse().unwrap();
    let authorization =
        keys.mint_authorization(&directory, &account, &name, &[7; 32], Timestamp::from_unix(50), [0; 16]);
    Receipt {
        authorization,
        directory,
        account,
        account_url: ACCOUNT_URL.parse().unwrap(),
        thumbprint,
        requirement: requirement(Method::Http01, &name),
        name,
        method: Method::Http01,
        token: token(&authorization),
        attempt: 1,
        run: Run::from_bytes([6; 16]),
        perspective: perspective.parse().unwrap(),
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        caa: Some(Caa {
            permitted: true,
            identities: vec!["ca.example".parse().unwrap()],
            found_at: Some("example.org".into()),
            ttl_seconds: 300,
            checked: Timestamp::from_unix(60),
        }),
        persisted: None,
        dnssec: true,
        started: Timestamp::from_unix(60),
        finished: Timestamp::from_unix(61),
        outcome: Outcome::Valid,
    }
}

/// Of a perspective that looks at nothing.
fn assumed(perspective: &str) -> Receipt {
    Receipt {
        requirement: NO_REQUIREMENT.to_owned(),
        addresses: Vec::new(),
        caa: None,
        dnssec: false,
        outcome: Outcome::Assumed,
        ..receipt(perspective)
    }
}

/// A compact JWS as a test wants it, rightly signed.
fn forge(key: &ReceiptKey, header: &str, payload: &str) -> String {
    use josekit::jws::JwsSigner;
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = key.signer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", encode(signature))
}

const HEADER: &str = r#"{"alg":"EdDSA","typ":"chancery-receipt+jwt","kid":"eu-1"}"#;

#[test]
fn what_is_signed_is_read() {
    let key = key("eu-1", 1);
    let failed = Receipt {
        outcome: Outcome::Invalid(Problem::new(ErrorType::Connection, "refused")),
        caa: None,
        addresses: Vec::new(),
        ..receipt("eu-1")
    };
    let caa_only = Receipt { outcome: Outcome::Caa, ..receipt("eu-1") };
    for receipt in [receipt("eu-1"), failed, caa_only, assumed("eu-1")] {
        let compact = key.sign(&receipt).unwrap();
        assert_eq!(perspective(&compact).unwrap().as_str(), "eu-1");
        assert_eq!(verifier(&key).verify(&compact), Ok(receipt));
    }
}

#[test]
fn a_longest_receipt_fits() {
    let key = key("eu-1", 1);
    let name = format!("{}example.org", "a23456789.".repeat(24));
    let detail = "x".repeat(2000);
    let receipt = Receipt {
        name: name.parse().unwrap(),
        addresses: vec!["2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".parse().unwrap(); 32],
        outcome: Outcome::Invalid(Problem::new(ErrorType::IncorrectResponse, detail)),
        ..receipt("eu-1")
    };
    let compact = key.sign(&receipt).unwrap();
    assert_eq!(verifier(&key).verify(&compact), Ok(receipt.clone()));
    let outcome = Outcome::Invalid(Problem::new(ErrorType::IncorrectResponse, "x".repeat(MAX_RECEIPT_BYTES)));
    assert_eq!(key.sign(&Receipt { outcome, ..receipt }), Err(ReceiptError::TooLarge));
}

#[test]
fn nobody_signs_for_another() {
    let (one, two) = (key("eu-1", 1), key("eu-2", 2));
    assert_eq!(one.sign(&receipt("eu-2")), Err(ReceiptError::OtherPerspective));
    let compact = one.sign(&receipt("eu-1")).unwrap();
    assert_eq!(verifier(&two).verify(&compact), Err(ReceiptError::OtherPerspective));
    // Another key under the same name, and another name under the same key.
    assert_eq!(verifier(&key("eu-1", 2)).verify(&compact), Err(ReceiptError::Signature));
    let payload = serde_json::to_string(&receipt("eu-2")).unwrap();
    assert_eq!(verifier(&one).verify(&forge(&one, HEADER, &payload)), Err(ReceiptError::OtherPerspective));
}

#[test]
fn the_header_is_exactly_that_of_a_receipt() {
    let key = key("eu-1", 1);
    let payload = serde_json::to_string(&receipt("eu-1")).unwrap();
    assert!(verifier(&key).verify(&forge(&key, HEADER, &payload)).is_ok());
    for header in [
        r#"{"alg":"EdDSA","typ":"JWT","kid":"eu-1"}"#,
        r#"{"alg":"EdDSA","kid":"eu-1"}"#,
        r#"{"alg":"EdDSA","typ":"chancery-receipt+jwt"}"#,
        r#"{"typ":"chancery-receipt+jwt","kid":"eu-1"}"#,
        r#"{"alg":"none","typ":"chancery-receipt+jwt","kid":"eu-1"}"#,
        r#"{"alg":"HS256","typ":"chancery-receipt+jwt","kid":"eu-1"}"#,
        r#"{"alg":"Ed25519","typ":"chancery-receipt+jwt","kid":"eu-1"}"#,
        r#"{"alg":"ES256","typ":"chancery-receipt+jwt","kid":"eu-1"}"#,
        r#"{"alg":"EdDSA","typ":"chancery-receipt+jwt","kid":"EU 1"}"#,
        r#"{"alg":"EdDSA","typ":"chancery-receipt+jwt","kid":"eu-1","crit":["b64"],"b64":false}"#,
        r#"{"alg":"EdDSA","typ":"chancery-receipt+jwt","kid":"eu-1","crit":["exp"]}"#,
        r#"{"alg":"EdDSA","typ":"chancery-receipt+jwt","kid":"eu-1","jwk":{}}"#,
        r#"{"alg":"EdDSA","typ":"chancery-receipt+jwt","kid":"eu-2","kid":"eu-1"}"#,
        r#"{"alg":"none","\u0061lg":"EdDSA","typ":"chancery-receipt+jwt","kid":"eu-1"}"#,
        "[]",
        "",
    ] {
        let refused = verifier(&key).verify(&forge(&key, header, &payload));
        assert_eq!(refused, Err(ReceiptError::Malformed), "{header}");
    }
}

#[test]
fn the_payload_is_exactly_a_receipt() {
    let key = key("eu-1", 1);
    let good = serde_json::to_string(&receipt("eu-1")).unwrap();
    let other_token = good.replace(&receipt("eu-1").token, &encode([0; 32]));
    for payload in [
        String::new(),
        "{}".into(),
        format!("[{good}]"),
        as_array(&good),
        good.replacen(r#"{"permitted""#, r#"{"permitted":false,"permitted""#, 1),
        good.replacen('{', r#"{"extra":1,"#, 1),
        good.replacen('{', r#"{"attempt":2,"#, 1),
        good.replacen('{', r#"{"\u0061ttempt":2,"#, 1),
        good.replace(r#""attempt":1"#, r#""attempt":-1"#),
        good.replace(r#""attempt":1"#, r#""attempt":4294967296"#),
        good.replace(r#""outcome":"valid""#, r#""outcome":"Valid""#),
        good.replace(r#"["ca.example"]"#, r#"["CA..example"]"#),
        good.replace(r#""outcome":"valid""#, r#""outcome":{"valid":1}"#),
        good.replace("http-01", "http-02"),
        good.replace("3.2.2.4.19", "3.2.2.4.7"),
        good.replace(r#""dnssec""#, r#""persisted":{"ttl_seconds":1},"dnssec""#),
        good.replace(r#""dnssec":true,"#, ""),
        good.replace("http-01", "dns-persist-01").replace("3.2.2.4.19", "3.2.2.4.22"),
        good.replace("https://ca.example", "http://ca.example"),
        good.replace(r#""run":"BgYG"#, r#""run":"BgY"#),
        good.replace(r#""ttl_seconds":300"#, r#""ttl_seconds":300,"x":1"#),
        good.replace(r#""finished":61"#, r#""finished":59"#),
        other_token,
    ] {
        assert_ne!(payload, good);
        let refused = verifier(&key).verify(&forge(&key, HEADER, &payload));
        assert_eq!(refused, Err(ReceiptError::Payload), "{payload}");
    }
}

/// Who looked at nothing has nothing to show for it, and who looked says what for.
#[test]
fn an_assumed_receipt_says_so_in_every_field() {
    let key = key("eu-1", 1);
    let good = assumed("eu-1");
    assert!(serde_json::to_string(&good).unwrap().contains(r#""outcome":"assumed""#));
    let looked = receipt("eu-1");
    let persisted = Some(Persisted { ttl_seconds: 60 });
    for bad in [
        Receipt { requirement: looked.requirement.clone(), ..good.clone() },
        Receipt { requirement: format!("none {}", Method::Http01.section(&good.name)), ..good.clone() },
        Receipt { addresses: looked.addresses.clone(), ..good.clone() },
        Receipt { caa: looked.caa.clone(), ..good.clone() },
        Receipt { dnssec: true, ..good.clone() },
        Receipt { method: Method::DnsPersist01, persisted, ..good.clone() },
        Receipt { requirement: NO_REQUIREMENT.to_owned(), ..looked.clone() },
        Receipt { outcome: Outcome::Valid, ..good.clone() },
        Receipt { outcome: Outcome::Caa, ..good.clone() },
    ] {
        let refused = verifier(&key).verify(&key.sign(&bad).unwrap());
        assert_eq!(refused, Err(ReceiptError::Payload), "{bad:?}");
    }
    // By whatever method the client answered.
    for method in [Method::Dns01, Method::TlsAlpn01, Method::DnsAccount01, Method::DnsPersist01] {
        let receipt = Receipt { method, ..good.clone() };
        assert_eq!(verifier(&key).verify(&key.sign(&receipt).unwrap()), Ok(receipt));
    }
}

/// The values without their names, in their order: serde's derive would take them.
fn as_array(json: &str) -> String {
    let receipt: Receipt = serde_json::from_str(json).unwrap();
    let Receipt { authorization, directory, account, account_url, thumbprint, name, .. } = &receipt;
    let Receipt { method, requirement, token, attempt, .. } = &receipt;
    let first = (
        (authorization, directory, account, account_url, thumbprint, name),
        (method, requirement, token, attempt),
    );
    let Receipt { run, perspective, addresses, caa, persisted, dnssec, .. } = &receipt;
    let Receipt { started, finished, outcome, .. } = &receipt;
    let second = (run, perspective, addresses, caa, persisted, dnssec, started, finished, outcome);
    let [first, second] = [serde_json::to_string(&first).unwrap(), serde_json::to_string(&second).unwrap()];
    let first = first.replace("[[", "[").replace("],[", ",");
    let array = format!("{},{}", first.trim_end_matches(']'), second.trim_start_matches('['));
    assert!(serde_json::from_str::<Receipt>(&array).is_ok(), "{array}");
    array
}

#[test]
fn three_canonical_parts() {
    let key = key("eu-1", 1);
    let good = key.sign(&receipt("eu-1")).unwrap();
    let verifier = verifier(&key);
    for bad in [
        String::new(),
        "a.b".into(),
        format!("{good}."),
        format!("{good}.AA"),
        format!("{good}="),
        format!("{good} "),
        format!(" {good}"),
        good.replacen('.', "=.", 1),
        good.replacen('.', "..", 1),
        good.rsplit_once('.').unwrap().0.to_owned() + ".",
        good.rsplit_once('.').unwrap().0.to_owned() + ".AAAA",
        format!("{good}AAAA"),
    ] {
        assert_eq!(verifier.verify(&bad), Err(ReceiptError::Malformed), "{bad}");
    }
    assert_eq!(verifier.verify(&good.repeat(100)), Err(ReceiptError::TooLarge));
    // Every byte of it counts.
    for at in (0..good.len()).step_by(5) {
        let mut changed = good.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(verifier.verify(&String::from_utf8(changed).unwrap()).is_err(), "{at}");
    }
}

#[test]
fn a_perspective_is_named_like_its_node() {
    for good in ["eu-1", "a", &"x".repeat(63)] {
        assert_eq!(good.parse::<Perspective>().unwrap().as_str(), good);
    }
    for bad in ["", "EU-1", "eu.1", "-a", "a-", "a b", "ä", &"x".repeat(64)] {
        assert_eq!(bad.parse::<Perspective>(), Err(BadPerspective), "{bad}");
    }
}

#[test]
fn keys_prove_something() {
    let name: Perspective = "eu-1".parse().unwrap();
    let mut identity = [0; 32];
    identity[0] = 1;
    for bad in [[0; 32], identity] {
        assert_eq!(ReceiptVerifier::new(name.clone(), &bad).map(drop), Err(ReceiptError::Key));
    }
    let debug = format!("{:?}", key("eu-1", 1));
    assert_eq!(debug, r#"ReceiptKey { perspective: "eu-1", .. }"#);
}

/// The other opinion: aws-lc-rs verifies what josekit signed, and the key is the seed's own.
#[test]
fn aws_lc_agrees() {
    let key = key("eu-1", 1);
    let compact = key.sign(&receipt("eu-1")).unwrap();
    let (signed, signature) = compact.rsplit_once('.').unwrap();
    let public =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key.public_key());
    public.verify(signed.as_bytes(), &base64url::decode(signature).unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    assert_eq!(pair.sign(signed.as_bytes()).as_ref(), base64url::decode(signature).unwrap());
}
