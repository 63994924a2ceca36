use super::*;
use crate::testing::ClientKey;

fn read(payload: &str) -> Result<Revocation, RevocationError> {
    let jws = ClientKey::one().jws(payload);
    Revocation::from_verified(&jws.verify_embedded().unwrap())
}

#[test]
fn subscribers_have_five_reasons() {
    assert_eq!(read(r#"{"certificate":"AQID"}"#).unwrap().certificate, [1, 2, 3]);
    assert_eq!(read(r#"{"certificate":"AQID"}"#).unwrap().reason, Reason::Unspecified);
    assert_eq!(read(r#"{"certificate":"AQID","reason":null}"#).unwrap().reason, Reason::Unspecified);
    for code in -1..=12_i64 {
        let read = read(&format!(r#"{{"certificate":"AQID","reason":{code}}}"#));
        match code {
            0 | 1 | 3 | 4 | 5 => assert_eq!(i64::from(read.unwrap().reason.code()), code),
            _ => assert_eq!(read.unwrap_err().problem().kind, ErrorType::BadRevocationReason, "{code}"),
        }
    }
    for code in ["256", "257", "4294967296", "-9223372036854775808"] {
        let error = read(&format!(r#"{{"certificate":"AQID","reason":{code}}}"#)).unwrap_err();
        assert!(matches!(error, RevocationError::Reason), "{code}");
    }
}

#[test]
fn the_rest_is_malformed() {
    for payload in [
        "",
        "{}",
        "[\"AQID\"]",
        r#"{"certificate":"AQID=="}"#,
        r#"{"certificate":"AQID","reason":"1"}"#,
        r#"{"certificate":"AQID","reason":1.0}"#,
        r#"{"certificate":"AQID","reason":18446744073709551616}"#,
        r#"{"certificate":"AQID","certificate":"AQID"}"#,
        r#"{"certificate":"AQID","reason":0,"reason":1}"#,
    ] {
        assert_eq!(read(payload).unwrap_err().problem().kind, ErrorType::Malformed, "{payload}");
    }
}
