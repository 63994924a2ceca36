use pki::Name;

use super::*;
use crate::authorization::Status as A;
use crate::id::{IdKeys, TierSecret, TierSecrets};
use crate::jwk::Thumbprint;
use crate::jws::JwsError;
use crate::testing::ClientKey;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

fn problem() -> Problem {
    Problem::new(ErrorType::BadCsr, "no")
}

fn serial() -> Serial {
    Serial::from_random([9; 16])
}

fn order(state: State) -> Order {
    let mut secret = [1; 32];
    secret[0] = 2;
    let keys = IdKeys::new(&TierSecrets::new(vec![TierSecret::new(1, secret).unwrap()]).unwrap());
    let directory: DirectoryName = "default".parse().unwrap();
    let account = AccountId::derive(&directory, &Thumbprint::from_bytes([1; 32]));
    let names: Vec<Name> = ["example.org", "*.example.org"].map(|name| name.parse().unwrap()).to_vec();
    let authorization = |name| keys.mint_authorization(&directory, &account, name, &[7; 32], at(50), [0; 16]);
    let facts = Facts {
        id: keys.mint_order(&directory, &account, &[7; 32], at(50), [0; 16]),
        authorizations: names.iter().map(authorization).collect(),
        names: NameSet::new(names).unwrap(),
        directory,
        account,
        not_before: None,
        not_after: Some(at(1_700_000_000)),
        profile: "tls".parse().unwrap(),
        replaces: None,
        ancestors: BTreeMap::new(),
        created: at(50),
        expires: at(1000),
        new_order: "{}".into(),
    };
    Order { facts, state }
}

fn states() -> [State; 6] {
    let processing = || Ready::default().finalize("{}".into(), at(60));
    [
        State::Pending(Pending {}),
        State::Ready(Ready::default()),
        State::Ready(processing().refuse(problem())),
        State::Processing(processing()),
        State::Valid(processing().issue(serial())),
        State::Invalid(processing().fail(problem())),
    ]
}

#[test]
fn ready_needs_every_authorization() {
    let pending = |statuses: &[A]| Pending {}.review(statuses).status();
    let ready = |statuses: &[A]| Ready::default().review(statuses).status();
    for review in [&pending as &dyn Fn(&[A]) -> Status, &ready] {
        assert_eq!(review(&[A::Valid, A::Valid]), Status::Ready);
        assert_eq!(review(&[A::Valid, A::Pending]), Status::Pending);
        assert_eq!(review(&[]), Status::Pending, "nothing completes nothing");
        for broken in [A::Invalid, A::Deactivated, A::Expired, A::Revoked] {
            assert_eq!(review(&[A::Valid, broken]), Status::Invalid);
            assert_eq!(review(&[broken, A::Pending]), Status::Invalid);
        }
    }
}

#[test]
fn only_what_waits_for_the_client_expires() {
    for state in states() {
        let waits = matches!(state, State::Pending(_) | State::Ready(_));
        let expired = state.clone().at(at(1000), at(1000));
        assert_eq!(expired.status() == Status::Invalid, waits || state.status() == Status::Invalid);
        assert!(waits || expired == state);
        assert_eq!(state.clone().at(at(999), at(1000)), state);
    }
}

#[test]
fn a_refusal_leaves_the_order_ready_and_says_why() {
    let ready = Ready::default().finalize("{}".into(), at(60)).refuse(problem());
    let order = order(State::Ready(ready.clone()));
    let object = serde_json::to_value(order.object(&"https://ca.example".parse().unwrap(), at(100))).unwrap();
    assert_eq!((&object["status"], &object["error"]["detail"]), (&"ready".into(), &"no".into()));
    assert_eq!(ready.clone().review(&[A::Valid, A::Valid]), State::Ready(ready), "it is kept");
}

#[test]
fn it_is_stored_and_read() {
    for state in states() {
        let order = order(state);
        let json = serde_json::to_string(&order).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&json).unwrap(), order, "{json}");
        assert_eq!(serde_json::to_value(&order.state).unwrap()["status"], order.state.status().as_str());
    }
    assert!(serde_json::from_str::<State>(r#"{"status":"pending","later":1}"#).is_ok());
    for bad in ["{}", r#"{"status":"valid"}"#, r#"{"status":"done"}"#, r#"{"status":"processing"}"#] {
        assert!(serde_json::from_str::<State>(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_client_sees_urls_and_stars() {
    let base = "https://ca.example".parse().unwrap();
    let order = order(State::Valid(Valid { serial: serial() }));
    let json = serde_json::to_value(order.object(&base, at(100))).unwrap();
    let root = "https://ca.example/acme/default";
    let ids: Vec<String> =
        order.facts.authorizations.iter().map(|id| format!("{root}/authorization/{id}")).collect();
    let mut identifiers: Vec<&str> =
        json["identifiers"].as_array().unwrap().iter().map(|id| id["value"].as_str().unwrap()).collect();
    identifiers.sort_unstable();
    assert_eq!(identifiers, ["*.example.org", "example.org"]);
    assert_eq!(json["authorizations"], serde_json::json!(ids));
    assert_eq!(json["finalize"], format!("{root}/order/{}/finalize", order.facts.id));
    assert_eq!(json["certificate"], format!("{root}/certificate/{}", serial()));
    assert_eq!(json["notAfter"], "2023-11-14T22:13:20Z");
    assert_eq!(json["profile"], "tls");
    for absent in ["notBefore", "error", "replaces", "newOrder", "new_order"] {
        assert!(json.get(absent).is_none(), "{absent}");
    }
    for state in states() {
        let status = state.status();
        let json = serde_json::to_value(Order { state, ..order.clone() }.object(&base, at(100))).unwrap();
        assert_eq!(json["status"], status.as_str());
        assert_eq!(json.get("certificate").is_some(), status == Status::Valid);
    }
    let expired = order_at_its_end(&order);
    assert_eq!(expired["status"], "invalid");
    assert_eq!(expired["error"]["detail"], "the order has expired");
}

fn order_at_its_end(order: &Order) -> serde_json::Value {
    let order = Order { state: State::Ready(Ready::default()), ..order.clone() };
    serde_json::to_value(order.object(&"https://ca.example".parse().unwrap(), at(1000))).unwrap()
}

fn new_order(payload: &str) -> Result<NewOrder, NewOrderError> {
    NewOrder::from_verified(&ClientKey::one().jws(payload).verify_embedded().unwrap(), 3)
}

fn with(identifiers: &str, rest: &str) -> String {
    format!(r#"{{"identifiers":[{identifiers}]{rest}}}"#)
}

const NAME: &str = r#"{"type":"dns","value":"example.org"}"#;

#[test]
fn names_are_judged_and_merged() {
    let upper = r#"{"type":"dns","value":"EXAMPLE.org"}"#;
    let star = r#"{"type":"dns","value":"*.example.org"}"#;
    let address = r#"{"type":"ip","value":"2001:db8::1"}"#;
    let order = new_order(&with(&[NAME, upper, star, address, NAME].join(","), "")).unwrap();
    let expected = ["example.org", "*.example.org", "2001:db8::1"].map(|name| name.parse::<Name>().unwrap());
    assert_eq!(order.names, NameSet::new(expected).unwrap());
    assert_eq!((order.not_before, order.not_after, order.profile, order.replaces), (None, None, None, None));
}

#[test]
fn every_bad_name_is_named() {
    let bad = [r#"{"type":"dns","value":"*.*.example.org"}"#, NAME, r#"{"type":"dns","value":"192.0.2.1"}"#];
    let problem = new_order(&with(&bad.join(","), "")).unwrap_err().problem();
    assert_eq!((problem.kind, problem.subproblems.len()), (ErrorType::RejectedIdentifier, 2));
    let named: Vec<_> = problem.subproblems.iter().map(|sub| sub.identifier.clone().unwrap().value).collect();
    assert_eq!(named, ["*.*.example.org", "192.0.2.1"]);
    let unsupported = new_order(&with(r#"{"type":"email","value":"a@b"}"#, "")).unwrap_err().problem();
    assert_eq!(unsupported.kind, ErrorType::UnsupportedIdentifier);
    let mixed =
        new_order(&with(&format!(r#"{{"type":"x","value":""}},{}"#, bad[0]), "")).unwrap_err().problem();
    assert_eq!(mixed.kind, ErrorType::Compound);
    let many = vec![bad[0]; 1000].join(",");
    assert_eq!(new_order(&with(&many, "")).unwrap_err().problem().subproblems.len(), 3);
}

#[test]
fn none_and_too_many_are_malformed() {
    for payload in ["{}", r#"{"identifiers":[]}"#] {
        let error = new_order(payload).unwrap_err();
        assert!(matches!(error, NewOrderError::NoIdentifiers), "{payload}");
        assert_eq!(error.problem().kind, ErrorType::Malformed);
    }
    let names = |n: usize| {
        (0..n)
            .map(|i| format!(r#"{{"type":"dns","value":"a{i}.example.org"}}"#))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(new_order(&with(&names(3), "")).unwrap().names.len(), 3);
    let error = new_order(&with(&names(4), "")).unwrap_err();
    assert!(matches!(error, NewOrderError::TooManyIdentifiers { maximum: 3 }));
    assert_eq!(error.problem().kind, ErrorType::Malformed);
}

#[test]
fn times_are_exact_or_refused() {
    let times = |before: &str, after: &str| {
        new_order(&with(NAME, &format!(r#","notBefore":"{before}","notAfter":"{after}""#)))
    };
    let order = times("2023-11-14T22:13:20Z", "2023-11-14T23:13:21+00:00").unwrap();
    assert_eq!((order.not_before, order.not_after), (Some(at(1_700_000_000)), Some(at(1_700_003_601))));
    let error = times("2023-11-14T22:13:20.5Z", "2023-11-14T23:13:21Z").unwrap_err();
    assert!(matches!(error, NewOrderError::Time("notBefore")));
    assert!(matches!(
        times("2023-11-14T22:13:20Z", "tomorrow").unwrap_err(),
        NewOrderError::Time("notAfter")
    ));
    for after in ["2023-11-14T22:13:20Z", "2023-11-14T22:13:19Z"] {
        let error = times("2023-11-14T22:13:20Z", after).unwrap_err();
        assert!(matches!(error, NewOrderError::Period));
        assert_eq!(error.problem().kind, ErrorType::Malformed);
    }
    assert!(new_order(&with(NAME, r#","notBefore":null"#)).unwrap().not_before.is_none());
}

#[test]
fn extensions_are_read_or_refused() {
    let order =
        new_order(&with(NAME, r#","profile":"tls","replaces":"aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE","x":{}"#));
    let order = order.unwrap();
    assert_eq!(order.profile.as_deref(), Some("tls"));
    assert_eq!(order.replaces.unwrap().to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    assert!(matches!(new_order(&with(NAME, r#","replaces":"x""#)), Err(NewOrderError::Replaces)));
}

#[test]
fn i5_star_and_delegation_are_refused_not_ignored() {
    for (name, member) in [
        ("auto-renewal", r#"{}"#),
        ("auto-renewal", r#"{"end-date":"x"}"#),
        ("auto-renewal", "true"),
        ("delegation", r#""https://ca.example/acme/default/delegation/1""#),
        ("allow-certificate-get", "true"),
        ("allow-certificate-get", "false"),
    ] {
        let error = new_order(&with(NAME, &format!(r#","{name}":{member}"#))).unwrap_err();
        assert!(matches!(error, NewOrderError::NotOffered(said) if said == name), "{name}: {member}");
        assert_eq!(error.problem().kind, ErrorType::Malformed);
        assert!(error.problem().detail.contains(name));
    }
    assert!(new_order(&with(NAME, r#","auto-renewal":null,"delegation":null"#)).is_ok());
}

#[test]
fn i5_an_ancestor_is_a_domain_above_and_nothing_else() {
    let asked = |value: &str, ancestor: &str| {
        let kind = if value.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
        let one = format!(r#"{{"type":"{kind}","value":"{value}","ancestorDomain":"{ancestor}"}}"#);
        new_order(&with(&one, ""))
    };
    for above in ["example.org", "EXAMPLE.org", "b.example.org", "org"] {
        let order = asked("a.b.example.org", above).unwrap();
        let name: Name = "a.b.example.org".parse().unwrap();
        assert_eq!(order.ancestors, BTreeMap::from([(name, DnsName::parse(above).unwrap())]));
    }
    for (name, ancestor) in [
        ("a.example.org", "a.example.org"),
        ("a.example.org", "b.example.org"),
        ("example.org", "a.example.org"),
        ("notexample.org", "example.org"),
        ("a.example.org", "ple.org"),
        ("a.example.org", "*.example.org"),
        ("a.example.org", "example.org."),
        ("a.example.org", ""),
        ("*.a.example.org", "example.org"),
        ("192.0.2.1", "example.org"),
    ] {
        let problem = asked(name, ancestor).unwrap_err().problem();
        assert_eq!(problem.kind, ErrorType::RejectedIdentifier, "{name} below {ancestor}");
        assert_eq!(problem.subproblems[0].identifier.clone().unwrap().value, name);
    }
    assert!(new_order(&with(NAME, "")).unwrap().ancestors.is_empty());
}

#[test]
fn the_rest_is_malformed() {
    for payload in [
        "",
        "[]",
        r#"{"identifiers":{}}"#,
        r#"{"identifiers":["example.org"]}"#,
        r#"{"identifiers":[["dns","example.org"]]}"#,
        r#"{"identifiers":[{"type":"dns"}]}"#,
        r#"{"identifiers":[{"type":"dns","value":"a.example","value":"b.example"}]}"#,
        r#"{"identifiers":[],"identifiers":[{"type":"dns","value":"example.org"}]}"#,
    ] {
        let error = new_order(payload).unwrap_err();
        assert!(matches!(error, NewOrderError::Jws(JwsError::Payload(_))), "{payload}: {error}");
        assert_eq!(error.problem().kind, ErrorType::Malformed);
    }
}

#[test]
fn finalize_has_a_csr_in_canonical_base64url() {
    let finalize =
        |payload: &str| Finalize::from_verified(&ClientKey::one().jws(payload).verify_embedded().unwrap());
    assert_eq!(finalize(r#"{"csr":"AQID","x":1}"#).unwrap().csr, [1, 2, 3]);
    for bad in [r#"{"csr":"AQID="}"#, r#"{"csr":"AQI\nD"}"#, r#"{"csr":"-----BEGIN"}"#, r#"{"csr":"AQJ"}"#] {
        assert!(matches!(finalize(bad), Err(JwsError::Base64("csr"))), "{bad}");
    }
    for bad in ["", "{}", r#"["AQID"]"#, r#"{"csr":1}"#, r#"{"csr":"AQID","csr":"AQID"}"#] {
        assert!(matches!(finalize(bad), Err(JwsError::Payload(_))), "{bad}");
    }
}
