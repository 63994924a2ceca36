use super::*;
use crate::testing::ClientKey;

fn new_account(payload: &str) -> Result<NewAccount, JwsError> {
    NewAccount::from_verified(&ClientKey::one().jws(payload).verify_embedded().unwrap())
}

fn update(payload: &str) -> Result<Update, UpdateError> {
    Update::from_verified(&ClientKey::one().jws(payload).verify_embedded().unwrap())
}

#[test]
fn one_plain_address() {
    for (text, canonical) in [
        ("mailto:a@example.org", "mailto:a@example.org"),
        ("MAILTO:A.b+c@Example.ORG", "mailto:A.b+c@example.org"),
        ("mailto:o'hara_1@xn--bcher-kva.example", "mailto:o'hara_1@xn--bcher-kva.example"),
    ] {
        assert_eq!(Contact::parse(text).unwrap().as_str(), canonical);
        assert_eq!(Contact::parse(canonical).unwrap().as_str(), canonical);
    }
    for text in [
        "mailto:",
        "mailto:a",
        "mailto:@example.org",
        "mailto:a@",
        "mailto:a@b@example.org",
        "mailto:a@example.org,b@example.org",
        "mailto:a@example.org%2Cb@example.org",
        "mailto:a%0d%0aBcc:b@example.org",
        "mailto:a@example.org?subject=x",
        "mailto:a?cc=b@example.org",
        "mailto:a@example.org#x",
        "mailto:\"a b\"@example.org",
        "mailto:a b@example.org",
        "mailto: a@example.org",
        "mailto:a@example.org ",
        "mailto:a@example.org\r\nBcc: b@example.org",
        "mailto:a\0@example.org",
        "mailto:ä@example.org",
        "mailto:a@ä.example",
        "mailto:a@[192.0.2.1]",
        "mailto:a@192.0.2.1",
        "mailto:a..b@example.org",
        "mailto:.a@example.org",
        "mailto:a.@example.org",
        "mailto:<a@example.org>",
        "mailto:a(x)@example.org",
        "mailto:%61@example.org",
        &format!("mailto:{}@example.org", "a".repeat(65)),
        &format!("mailto:{}@{}org", "a".repeat(60), "abcdefghi.".repeat(20)),
        "example.org",
        "",
    ] {
        let error = Contact::parse(text).unwrap_err();
        assert_eq!(error, ContactError::Invalid, "{text}");
        assert_eq!(error.problem().kind, ErrorType::InvalidContact);
    }
    for text in ["tel:+1", "https://example.org", ":", "mail:a@example.org", " mailto:a@example.org"] {
        let error = Contact::parse(text).unwrap_err();
        assert_eq!(error, ContactError::UnsupportedScheme, "{text}");
        assert_eq!(error.problem().kind, ErrorType::UnsupportedContact);
    }
}

#[test]
fn a_request_for_what_exists_is_not_refused_for_its_contacts() {
    let request = new_account(r#"{"contact":["tel:1"],"onlyReturnExisting":true}"#).unwrap();
    assert!(request.only_return_existing && !request.terms_of_service_agreed);
    assert_eq!(request.contacts(), Err(ContactError::UnsupportedScheme));
}

#[test]
fn what_newaccount_takes() {
    let request = new_account(
        r#"{"contact":["mailto:a@example.org"],"termsOfServiceAgreed":true,"status":"revoked","orders":"x","resource":"new-reg"}"#,
    )
    .unwrap();
    assert!(request.terms_of_service_agreed && !request.only_return_existing);
    assert_eq!(request.contacts().unwrap().len(), 1);
    assert!(request.external_account_binding.is_none());
    let empty = new_account("{}").unwrap();
    assert_eq!(empty.contacts(), Ok(Vec::new()));
    assert!(!empty.terms_of_service_agreed);
    assert!(new_account(r#"{"contact":null}"#).is_ok());
    let many =
        format!(r#"{{"contact":[{}"mailto:a@example.org"]}}"#, r#""mailto:a@example.org","#.repeat(10));
    assert_eq!(new_account(&many).unwrap().contacts(), Err(ContactError::TooMany));
    for bad in [
        "",
        "[]",
        r#"{"contact":"mailto:a@example.org"}"#,
        r#"{"termsOfServiceAgreed":"true"}"#,
        r#"{"termsOfServiceAgreed":1}"#,
        r#"{"onlyReturnExisting":false,"onlyReturnExisting":true}"#,
        r#"{"externalAccountBinding":{}}"#,
        r#"{"externalAccountBinding":"x"}"#,
    ] {
        assert!(matches!(new_account(bad), Err(JwsError::Payload(_))), "{bad}");
    }
}

#[test]
fn an_update_changes_contacts_or_gives_the_account_up() {
    assert_eq!(update("{}").unwrap(), Update::Nothing);
    let nothing = r#"{"status":"valid","orders":"x","termsOfServiceAgreed":false}"#;
    assert_eq!(update(nothing).unwrap(), Update::Nothing);
    let agrees = r#"{"termsOfServiceAgreed":true}"#;
    assert_eq!(update(agrees).unwrap(), Update::Change { contacts: None, agrees: true });
    assert_eq!(update(r#"{"status":"revoked"}"#).unwrap(), Update::Nothing);
    assert_eq!(update(r#"{"status":"deactivated"}"#).unwrap(), Update::Deactivate);
    assert_eq!(update(r#"{"contact":["tel:1"],"status":"deactivated"}"#).unwrap(), Update::Deactivate);
    assert_eq!(
        update(r#"{"contact":[]}"#).unwrap(),
        Update::Change { contacts: Some(Vec::new()), agrees: false }
    );
    let contact = Contact::parse("mailto:a@example.org").unwrap();
    let both = update(r#"{"contact":["mailto:a@example.org"],"termsOfServiceAgreed":true}"#).unwrap();
    assert_eq!(both, Update::Change { contacts: Some(vec![contact]), agrees: true });
    assert_eq!(update(r#"{"contact":["tel:1"]}"#).unwrap_err().problem().kind, ErrorType::UnsupportedContact);
    assert_eq!(update("[]").unwrap_err().problem().kind, ErrorType::Malformed);
}

#[test]
fn the_object_has_what_there_is() {
    let object = Object {
        status: Status::Valid,
        contact: Vec::new(),
        terms_of_service_agreed: false,
        external_account_binding: None,
        orders: "https://ca.example/o".into(),
    };
    let expected = serde_json::json!({"status": "valid", "orders": "https://ca.example/o"});
    assert_eq!(serde_json::to_value(&object).unwrap(), expected);
    let full = Object {
        contact: vec![Contact::parse("mailto:a@example.org").unwrap()],
        terms_of_service_agreed: true,
        ..object
    };
    let json = serde_json::to_value(&full).unwrap();
    assert_eq!(json["contact"], serde_json::json!(["mailto:a@example.org"]));
    assert_eq!(json["termsOfServiceAgreed"], true);
    for status in [Status::Valid, Status::Deactivated, Status::Revoked] {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
    assert_eq!("VALID".parse::<Status>(), Err(UnknownStatus));
}
