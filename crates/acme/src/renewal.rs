//! Renewal information (RFC 9773): its object, and the ids of certificates in it and in `replaces` (§4.1, §5).

use std::fmt;
use std::str::FromStr;

use pki::{Serial, Timestamp};
use serde::Serialize;

use crate::base64url;
use crate::rfc3339;

/// RFC 5280 sets no limit for a key identifier; ours have 20 octets, and no digest in use has more than 64.
const MAX_KEY_ID_BYTES: usize = 64;

/// `base64url(authority key identifier).base64url(serial number)`; the serial keeps its leading zero octet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateId {
    /// The issuer's key identifier.
    pub authority_key_id: Vec<u8>,
    /// The certificate's serial.
    pub serial: Serial,
}

/// The text is no id of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate's id")]
pub struct BadCertificateId;

impl FromStr for CertificateId {
    type Err = BadCertificateId;
    fn from_str(text: &str) -> Result<Self, BadCertificateId> {
        let (key_id, serial) = text.split_once('.').ok_or(BadCertificateId)?;
        let decode = |part| base64url::decode(part).map_err(|_| BadCertificateId);
        let authority_key_id = decode(key_id)?;
        if !(1..=MAX_KEY_ID_BYTES).contains(&authority_key_id.len()) {
            return Err(BadCertificateId);
        }
        let serial = Serial::from_bytes(&decode(serial)?).map_err(|_| BadCertificateId)?;
        Ok(Self { authority_key_id, serial })
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key_id, serial) =
            (base64url::encode(&self.authority_key_id), base64url::encode(self.serial.as_bytes()));
        write!(f, "{key_id}.{serial}")
    }
}

crate::id::serde_as_text!(CertificateId);

/// When a certificate is to be renewed (RFC 9773 §4.2). The end is after the beginning: there is no other way to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    start: Timestamp,
    end: Timestamp,
}

impl Window {
    /// From `start` to `end`, or to the second after `start` if that is later.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Self {
        // At the end of time there is no later second.
        let start = start.min(Timestamp::MAX.minus(pki::Period::from_seconds(1)));
        Self { start, end: end.max(start.plus(pki::Period::from_seconds(1))) }
    }

    /// Its beginning.
    #[must_use]
    pub const fn start(&self) -> Timestamp {
        self.start
    }

    /// Its end.
    #[must_use]
    pub const fn end(&self) -> Timestamp {
        self.end
    }
}

/// The renewal information object (RFC 9773 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// When the client should renew.
    suggested_window: SuggestedWindow,
    /// A page that says why, for people.
    #[serde(rename = "explanationURL", skip_serializing_if = "Option::is_none")]
    explanation_url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SuggestedWindow {
    #[serde(serialize_with = "time")]
    start: Timestamp,
    #[serde(serialize_with = "time")]
    end: Timestamp,
}

fn time<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    rfc3339::serialize(&Some(*time), serializer)
}

impl Object {
    /// The object of a window.
    #[must_use]
    pub fn new(window: Window, explanation_url: Option<String>) -> Self {
        let Window { start, end } = window;
        Self { suggested_window: SuggestedWindow { start, end }, explanation_url }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_9773() {
        let text = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE";
        let id: CertificateId = text.parse().unwrap();
        assert_eq!(hex::encode(&id.authority_key_id), "69885b6b87464041e1b37b847ba0ae2cde01c8d4");
        assert_eq!(id.serial.to_string(), "0087654321");
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn a_window_ends_after_it_begins() {
        let at = Timestamp::from_unix;
        for (start, end, expected) in [(10, 20, (10, 20)), (10, 10, (10, 11)), (10, 5, (10, 11))] {
            let window = Window::new(at(start), at(end));
            assert_eq!((window.start(), window.end()), (at(expected.0), at(expected.1)));
        }
        let last = Window::new(Timestamp::MAX, Timestamp::MAX);
        assert!(last.start() < last.end());
    }

    #[test]
    fn the_object_of_rfc_9773() {
        let start = rfc3339::parse("2025-01-02T04:00:00Z").unwrap();
        let window = Window::new(start, rfc3339::parse("2025-01-03T04:00:00Z").unwrap());
        let mut expected = serde_json::json!({
            "suggestedWindow": { "start": "2025-01-02T04:00:00Z", "end": "2025-01-03T04:00:00Z" }
        });
        assert_eq!(serde_json::to_value(Object::new(window, None)).unwrap(), expected);
        let url = "https://acme.example.com/docs/ari";
        expected["explanationURL"] = url.into();
        assert_eq!(serde_json::to_value(Object::new(window, Some(url.to_owned()))).unwrap(), expected);
    }

    #[test]
    fn it_has_one_spelling() {
        let long = format!("{}.AQ", base64url::encode([1; 65]));
        // No key id, no serial, padding, a serial that is not minimal, zero, negative, three parts.
        for bad in ["", ".", ".AQ", "AQ.", "AQ", "AQ==.AQ", "AQ.AAE", "AQ.AA", "AQ.gQ", "AQ.AQ.AQ", &long] {
            assert_eq!(bad.parse::<CertificateId>(), Err(BadCertificateId), "{bad}");
        }
    }
}
