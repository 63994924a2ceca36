use super::*;
use crate::id::{IdKeys, TierSecret, TierSecrets};
use crate::jwk::Thumbprint;
use crate::problem::ErrorType;
use crate::testing::ClientKey;

const LEASE: Period = Period::from_seconds(60);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

fn rest() -> Rest {
    Rest { problem: problem(), counts: true, next: None }
}

fn problem() -> Problem {
    Problem::new(ErrorType::Connection, "refused")
}

fn authorization(name: &str, state: State) -> Authorization {
    let mut secret = [1; 32];
    secret[0] = 2;
    let keys = IdKeys::new(&TierSecrets::new(vec![TierSecret::new(1, secret).unwrap()]).unwrap());
    let directory: DirectoryName = "default".parse().unwrap();
    let account = AccountId::derive(&directory, &Thumbprint::from_bytes([1; 32]));
    let name: Name = name.parse().unwrap();
    let id = keys.mint_authorization(&directory, &account, &name, &[7; 32], at(50), [0; 16]);
    Authorization { facts: Facts { id, directory, account, name, created_by: [7; 32] }, state }
}

fn pending() -> Pending {
    Pending::new(&"example.org".parse().unwrap(), Method::ALL, at(1000))
}

fn states() -> Vec<State> {
    let running = || pending().start(Method::Http01, at(100), LEASE).unwrap().0;
    vec![
        State::Pending(pending()),
        State::Pending(running()),
        State::Pending(running().rest(Method::Http01, 1, rest()).unwrap()),
        State::Valid(running().succeed(Method::Http01, 1, at(101), at(5000), vec!["a.b.c".into()]).unwrap()),
        State::Valid(Valid::granted("grant-1".into(), at(5000))),
        State::Invalid(running().fail(Method::Http01, 1, problem()).unwrap()),
        State::Deactivated(pending().deactivate()),
        State::Expired(Expired { expired: at(9) }),
        State::Revoked(Valid::granted("grant-1".into(), at(5000)).revoke()),
    ]
}

#[test]
fn a_try_ends_it_either_way() {
    let (running, start) = pending().start(Method::Http01, at(100), LEASE).unwrap();
    assert_eq!(start, Start::Begin(1));
    let valid = running.clone().succeed(Method::Http01, 1, at(101), at(5000), vec!["a.b.c".into()]).unwrap();
    assert_eq!((valid.receipts(), valid.expires), (&["a.b.c".to_owned()][..], at(5000)));
    let invalid = running.fail(Method::Http01, 1, problem()).unwrap();
    assert!(matches!(invalid.challenge.state, challenge::State::Invalid { attempt: 1, .. }));
}

#[test]
fn asking_twice_changes_nothing() {
    let (running, _) = pending().start(Method::Http01, at(100), LEASE).unwrap();
    let (again, start) = running.clone().start(Method::Http01, at(130), LEASE).unwrap();
    assert_eq!((&again, start), (&running, Start::Running(1)));
}

#[test]
fn an_outcome_counts_for_its_own_try_only() {
    let stale = Err(TransitionError::StaleAttempt);
    assert_eq!(pending().succeed(Method::Http01, 1, at(1), at(2), Vec::new()).map(drop), stale, "none runs");
    let (running, _) = pending().start(Method::Http01, at(100), LEASE).unwrap();
    let (second, start) = running.start(Method::Http01, at(161), LEASE).unwrap();
    assert_eq!(start, Start::Begin(2));
    assert_eq!(second.clone().succeed(Method::Http01, 1, at(1), at(2), Vec::new()).map(drop), stale);
    assert_eq!(second.clone().fail(Method::Http01, 1, problem()).map(drop), stale);
    assert_eq!(second.clone().rest(Method::Http01, 3, rest()).map(drop), stale);
    let rested = second.rest(Method::Http01, 2, rest()).unwrap();
    assert_eq!(rested.succeed(Method::Http01, 2, at(1), at(2), Vec::new()).map(drop), stale, "it has ended");
}

#[test]
fn d2_a_wildcard_is_offered_dns_and_an_address_is_not() {
    let offered = |name: &str| {
        let pending = Pending::new(&name.parse().unwrap(), Method::ALL, at(1000));
        pending.challenges.iter().map(|challenge| challenge.method).collect::<Vec<_>>()
    };
    assert_eq!(offered("*.example.org"), [Method::Dns01, Method::DnsAccount01, Method::DnsPersist01]);
    assert_eq!(offered("192.0.2.1"), [Method::Http01, Method::TlsAlpn01]);
    assert_eq!(offered("example.org"), Method::ALL);
    let name = "*.example.org".parse().unwrap();
    let pending = Pending::new(&name, &[Method::Http01], at(1000));
    assert!(pending.challenges.is_empty());
    assert_eq!(pending.start(Method::Http01, at(1), LEASE).map(drop), Err(TransitionError::NoSuchChallenge));
}

#[test]
fn what_is_too_old_is_expired_whatever_was_stored() {
    for state in states() {
        let before = state.status();
        let authorization = authorization("example.org", state.clone());
        let (early, late) = (at(999), at(5000));
        let expected = match before {
            Status::Pending | Status::Valid => Status::Expired,
            other => other,
        };
        assert_eq!(state.clone().at(late).status(), expected);
        assert_eq!(authorization.status(late), expected);
        assert_eq!(state.at(early).status(), before);
        assert_eq!(authorization.status(early), before);
    }
    assert_eq!(State::Pending(pending()).at(at(1000)).status(), Status::Expired, "the very second");
}

#[test]
fn it_is_stored_and_read() {
    for state in states() {
        let authorization = authorization("*.example.org", state);
        let json = serde_json::to_string(&authorization).unwrap();
        assert_eq!(serde_json::from_str::<Authorization>(&json).unwrap(), authorization, "{json}");
        let state = serde_json::to_value(&authorization.state).unwrap();
        assert_eq!(state["status"], authorization.state.status().as_str());
    }
    // A rolling upgrade: the next version may add members.
    let later = r#"{"status":"deactivated","reason":"x"}"#;
    assert!(serde_json::from_str::<State>(later).is_ok());
    for bad in [r#"{"status":"new"}"#, "{}", r#"{"status":"valid"}"#] {
        assert!(serde_json::from_str::<State>(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_client_sees_no_star_but_is_told_of_it() {
    let base = "https://ca.example".parse().unwrap();
    let json =
        |name, state| serde_json::to_value(authorization(name, state).object(&base, at(102), &[])).unwrap();
    let plain = json("example.org", State::Pending(pending()));
    assert_eq!(plain["identifier"], serde_json::json!({"type": "dns", "value": "example.org"}));
    assert!(plain.get("wildcard").is_none());
    assert_eq!(plain["expires"], "1970-01-01T00:16:40Z");
    let url = plain["challenges"][0]["url"].as_str().unwrap();
    assert!(
        url.starts_with("https://ca.example/acme/default/challenge/") && url.ends_with("/http-01"),
        "{url}"
    );
    let id = authorization("example.org", State::Pending(pending())).facts.id;
    assert_eq!(plain["challenges"][0]["token"], id::token(&id));

    let wildcard = json("*.example.org", State::Valid(Valid::granted("g".into(), at(5000))));
    assert_eq!(wildcard["identifier"]["value"], "example.org");
    assert_eq!(wildcard["wildcard"], true);
    assert_eq!(wildcard["challenges"], serde_json::json!([]));
    assert!(!wildcard.to_string().contains("\"g\""), "grants are the operator's");

    let address = json("2001:db8::1", State::Pending(pending()));
    assert_eq!(address["identifier"], serde_json::json!({"type": "ip", "value": "2001:db8::1"}));
    for state in states() {
        let shown = json("example.org", state.clone());
        assert_eq!(shown["status"], state.status().as_str());
        assert!(!shown.to_string().contains("a.b.c"), "receipts are not for clients");
        if state.status() == Status::Invalid {
            assert_eq!(shown["challenges"][0]["error"]["detail"], "refused");
        }
    }
}

#[test]
fn d10_new_authz_is_for_one_plain_name() {
    let read = |identifier: &str| {
        let payload = format!(r#"{{"identifier":{identifier},"resource":"new-authz"}}"#);
        NewAuthorization::from_verified(&ClientKey::one().jws(&payload).verify_embedded().unwrap())
    };
    let plain = read(r#"{"type":"dns","value":"Example.org","x":1}"#).unwrap();
    assert_eq!(plain, NewAuthorization { name: "example.org".parse().unwrap(), subdomains: false });
    assert!(read(r#"{"type":"dns","value":"example.org","subdomainAuthAllowed":true}"#).unwrap().subdomains);
    // There is nothing below an address.
    assert!(!read(r#"{"type":"ip","value":"192.0.2.1","subdomainAuthAllowed":true}"#).unwrap().subdomains);
    for (identifier, kind) in [
        (r#"{"type":"dns","value":"*.example.org"}"#, ErrorType::RejectedIdentifier),
        (r#"{"type":"dns","value":"192.0.2.1"}"#, ErrorType::RejectedIdentifier),
        (r#"{"type":"email","value":"a@example.org"}"#, ErrorType::UnsupportedIdentifier),
        (r#"{"type":"dns"}"#, ErrorType::Malformed),
        (r#"{"type":"dns","value":"example.org","subdomainAuthAllowed":"yes"}"#, ErrorType::Malformed),
        (r#"[{"type":"dns","value":"example.org"}]"#, ErrorType::Malformed),
    ] {
        assert_eq!(read(identifier).unwrap_err().problem().kind, kind, "{identifier}");
    }
}

#[test]
fn a_client_may_only_give_it_up() {
    let update =
        |payload: &str| Update::from_verified(&ClientKey::one().jws(payload).verify_embedded().unwrap());
    assert_eq!(update(r#"{"status":"deactivated"}"#).unwrap(), Update::Deactivate);
    assert_eq!(update(r#"{"status":"valid"}"#).unwrap(), Update::Nothing);
    assert_eq!(update("{}").unwrap(), Update::Nothing);
    assert!(update("[]").is_err() && update(r#"{"status":"x","status":"deactivated"}"#).is_err());
}
