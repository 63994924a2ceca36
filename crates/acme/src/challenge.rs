//! Challenges (RFC 8555 §7.1.5, §8): the methods, a challenge's states, and what a client sees of it.

use std::fmt;
use std::str::FromStr;

use pki::{DnsName, Name, Period, Timestamp};
use serde::{Deserialize, Serialize};

use crate::jwk::Thumbprint;
use crate::problem::Problem;
use crate::rfc3339;

/// How control of a name is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// A file at a well-known place (RFC 8555 §8.3).
    Http01,
    /// A TXT record (RFC 8555 §8.4).
    Dns01,
    /// A certificate that a TLS server shows (RFC 8737).
    TlsAlpn01,
    /// A TXT record under a label of the account's own (draft-ietf-acme-dns-account-label). Offered where a directory names it.
    DnsAccount01,
    /// A TXT record that names CA and account (draft-ietf-acme-dns-persist). Offered where a directory names it.
    DnsPersist01,
}

impl Method {
    /// All that are implemented.
    pub const ALL: &'static [Self] =
        &[Self::Http01, Self::Dns01, Self::TlsAlpn01, Self::DnsAccount01, Self::DnsPersist01];

    /// The name in a challenge's `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::DnsAccount01 => "dns-account-01",
            Self::DnsPersist01 => "dns-persist-01",
        }
    }

    /// Whether the method can show control of this name. Of a wildcard, only DNS can (BR 3.2.2.4.19); of an address, DNS
    /// cannot (RFC 8738 §7).
    #[must_use]
    pub const fn fits(self, name: &Name) -> bool {
        match (self, name) {
            (Self::Http01 | Self::TlsAlpn01, Name::Dns(_) | Name::Ip(_))
            | (Self::Dns01 | Self::DnsAccount01 | Self::DnsPersist01, Name::Dns(_) | Name::Wildcard(_)) => {
                true
            }
            (Self::Http01 | Self::TlsAlpn01, Name::Wildcard(_))
            | (Self::Dns01 | Self::DnsAccount01 | Self::DnsPersist01, Name::Ip(_)) => false,
        }
    }

    /// Whether it looks for TXT records.
    #[must_use]
    pub const fn is_dns(self) -> bool {
        matches!(self, Self::Dns01 | Self::DnsAccount01 | Self::DnsPersist01)
    }

    /// The section of the Baseline Requirements by which this method validates this name: what a record of the validation
    /// must name (BR 3.2.2.4, 5.4.1).
    #[must_use]
    pub const fn section(self, name: &Name) -> &'static str {
        match (self, name) {
            (Self::Http01, Name::Ip(_)) => "3.2.2.5.6",
            (Self::Http01, _) => "3.2.2.4.19",
            (Self::Dns01, _) => "3.2.2.4.7",
            (Self::TlsAlpn01, Name::Ip(_)) => "3.2.2.5.7",
            (Self::TlsAlpn01, _) => "3.2.2.4.20",
            (Self::DnsAccount01, _) => "3.2.2.4.21",
            (Self::DnsPersist01, _) => "3.2.2.4.22",
        }
    }
}

impl Method {
    /// Whether it shows control of the names below the name too (RFC 9444 §3; BR 3.2.2.4.7): what a web server or a TLS
    /// server shows, it shows of itself.
    #[must_use]
    pub fn covers_subdomains(self) -> bool {
        matches!(self.name(), "dns-01" | "dns-account-01")
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no method that is implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a validation method")]
pub struct UnknownMethod;

impl FromStr for Method {
    type Err = UnknownMethod;
    fn from_str(text: &str) -> Result<Self, UnknownMethod> {
        Self::ALL.iter().copied().find(|method| method.name() == text).ok_or(UnknownMethod)
    }
}

crate::id::serde_as_text!(Method);

/// What the client must show (RFC 8555 §8.1): the token and the thumbprint of its current key.
#[must_use]
pub fn key_authorization(token: &str, key: &Thumbprint) -> String {
    format!("{token}.{key}")
}

/// One challenge of an authorization. Its token is [`crate::id::token`] of the authorization's id, never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The method.
    pub method: Method,
    /// How far it got.
    #[serde(flatten)]
    pub state: State,
}

/// A challenge's state (RFC 8555 §7.1.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    /// The client has not asked for it.
    Pending,
    /// The client asked at least once (RFC 8555 §8.2: it may ask again).
    Processing(Processing),
    /// Control was shown.
    Valid {
        /// The try that showed it.
        attempt: u32,
        /// When (RFC 8555 §8).
        validated: Timestamp,
    },
    /// There will be no further try.
    Invalid {
        /// The last try.
        attempt: u32,
        /// Why it failed.
        error: Problem,
    },
}

/// A challenge that the client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processing {
    /// The current or last try, from 1.
    pub attempt: u32,
    /// When it began.
    pub since: Timestamp,
    /// Whether it runs; if not, it failed and may be tried again.
    pub running: bool,
    /// Tries that failed by what they found. (Those that no validator made cost nothing.)
    #[serde(default)]
    pub failed: u32,
    /// When the next try begins, of one that rests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// How the last finished try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// What becomes of a challenge after a try that was not its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// What the client is told.
    pub problem: Problem,
    /// Whether the try counts as failed.
    pub counts: bool,
    /// When the next one begins; none if nobody has planned one.
    pub next: Option<Timestamp>,
}

/// What a request to validate leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Ask the validator, with this number.
    Begin(u32),
    /// This try runs already: a second request has no effect (D6).
    Running(u32),
}

impl Challenge {
    /// A challenge that waits for the client.
    #[must_use]
    pub const fn new(method: Method) -> Self {
        Self { method, state: State::Pending }
    }

    /// Begins a try, unless one runs that is younger than `lease`: the front that ran an older one is dead.
    pub(crate) fn start(self, now: Timestamp, lease: Period) -> Result<(Self, Start), NotStartable> {
        let (attempt, failed, error) = match self.state {
            State::Pending => (1, 0, None),
            State::Processing(ref running) if running.running && now.since(running.since) <= lease => {
                let attempt = running.attempt;
                return Ok((self, Start::Running(attempt)));
            }
            State::Processing(last) => (last.attempt.saturating_add(1), last.failed, last.error),
            State::Valid { .. } | State::Invalid { .. } => return Err(NotStartable),
        };
        let state =
            State::Processing(Processing { attempt, since: now, running: true, failed, next: None, error });
        Ok((Self { method: self.method, state }, Start::Begin(attempt)))
    }

    /// Whether this try is the one that runs.
    pub(crate) fn runs(&self, attempt: u32) -> bool {
        matches!(&self.state, State::Processing(running) if running.running && running.attempt == attempt)
    }

    /// Ends the running try without an end of the challenge.
    pub(crate) fn rest(&mut self, rest: Rest) {
        if let State::Processing(running) = &mut self.state {
            running.running = false;
            running.failed = running.failed.saturating_add(u32::from(rest.counts));
            running.next = rest.next;
            running.error = Some(rest.problem);
        }
    }

    /// Whether somebody is at it: a try runs that is younger than `lease`, or the next one is planned, and not overdue by
    /// more than `lease`. Asking again has no effect then (RFC 8555 §8.2).
    #[must_use]
    pub fn is_under_way(&self, now: Timestamp, lease: Period) -> bool {
        match &self.state {
            State::Processing(last) if last.running => now.since(last.since) <= lease,
            State::Processing(last) => last.next.is_some_and(|next| now <= next.plus(lease)),
            _ => false,
        }
    }

    /// Whether the client asked for it and nobody is at it any longer. A challenge that rests without a plan is left alone
    /// for `lease`.
    #[must_use]
    pub fn is_abandoned(&self, now: Timestamp, lease: Period) -> bool {
        match &self.state {
            State::Processing(last) => !self.is_under_way(now, lease) && now.since(last.since) > lease,
            _ => false,
        }
    }

    /// When to look at it again, in seconds; none if nothing is to come. While a try runs, in a second.
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> Option<u32> {
        let State::Processing(last) = &self.state else { return None };
        let until = last.next.map_or(0, |next| next.since(now).seconds());
        Some(u32::try_from(until).unwrap_or(u32::MAX).max(1))
    }

    /// How many tries failed by what they found, in a challenge that may have another.
    #[must_use]
    pub fn failed(&self) -> u32 {
        match &self.state {
            State::Processing(last) => last.failed,
            _ => 0,
        }
    }

    /// What the client sees. `issuers` are the names of this CA, at most ten, for the method that has them in place of a token.
    #[must_use]
    pub fn object(&self, url: String, token: String, issuers: &[DnsName]) -> Object {
        let (status, validated, error) = match &self.state {
            State::Pending => ("pending", None, None),
            State::Processing(last) => ("processing", None, last.error.clone()),
            State::Valid { validated, .. } => ("valid", Some(*validated), None),
            State::Invalid { error, .. } => ("invalid", None, Some(error.clone())),
        };
        let (token, issuer_domain_names) = match self.method {
            Method::DnsPersist01 => (None, Some(issuers.to_vec())),
            _ => (Some(token), None),
        };
        Object { kind: self.method.name(), url, status, validated, error, token, issuer_domain_names }
    }
}

/// The challenge has ended: another try needs another authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the challenge has ended")]
pub struct NotStartable;

/// A challenge object (RFC 8555 §8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// The method.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Where the client answers.
    pub url: String,
    /// pending, processing, valid or invalid.
    pub status: &'static str,
    /// When control was shown.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339::serialize")]
    pub validated: Option<Timestamp>,
    /// How the last try failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// The token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// By which names a persistent record can name this CA.
    #[serde(rename = "issuer-domain-names", skip_serializing_if = "Option::is_none")]
    pub issuer_domain_names: Option<Vec<DnsName>>,
}

/// The payload with which a client asks for a validation: an object whose members mean nothing (RFC 8555 §7.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Response {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ErrorType;

    const LEASE: Period = Period::from_seconds(60);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    #[test]
    fn methods_have_one_name() {
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(*method));
        }
        assert_eq!("HTTP-01".parse::<Method>(), Err(UnknownMethod));
        assert!(!Method::Http01.fits(&"*.example.org".parse().unwrap()));
        assert!(Method::Http01.fits(&"example.org".parse().unwrap()));
        assert!(Method::Http01.fits(&"2001:db8::1".parse().unwrap()));
        for (name, fits) in [("example.org", true), ("*.example.org", true), ("192.0.2.1", false)] {
            assert_eq!(Method::Dns01.fits(&name.parse().unwrap()), fits, "{name}");
        }
    }

    #[test]
    fn a_planned_try_is_under_way_until_it_is_long_overdue() {
        let (mut challenge, _) = Challenge::new(Method::Dns01).start(at(100), LEASE).unwrap();
        let problem = || Problem::new(ErrorType::Unauthorized, "no TXT");
        challenge.rest(Rest { problem: problem(), counts: true, next: Some(at(200)) });
        assert_eq!((challenge.failed(), challenge.retry_after(at(101))), (1, Some(99)));
        assert!(challenge.is_under_way(at(260), LEASE) && !challenge.is_abandoned(at(260), LEASE));
        assert!(!challenge.is_under_way(at(261), LEASE) && challenge.is_abandoned(at(261), LEASE));
        let (mut challenge, start) = challenge.start(at(200), LEASE).unwrap();
        assert_eq!((start, challenge.failed()), (Start::Begin(2), 1));
        // Nobody made the try, and nobody has planned another.
        challenge.rest(Rest { problem: problem(), counts: false, next: None });
        assert_eq!((challenge.failed(), challenge.retry_after(at(201))), (1, Some(1)));
        assert!(!challenge.is_under_way(at(201), LEASE) && !challenge.is_abandoned(at(260), LEASE));
        assert!(challenge.is_abandoned(at(261), LEASE));
    }

    #[test]
    fn one_try_at_a_time_and_a_dead_one_is_replaced() {
        let (challenge, start) = Challenge::new(Method::Http01).start(at(100), LEASE).unwrap();
        assert_eq!(start, Start::Begin(1));
        let (challenge, start) = challenge.start(at(160), LEASE).unwrap();
        assert_eq!(start, Start::Running(1));
        assert!(challenge.runs(1) && !challenge.runs(2));
        let (mut challenge, start) = challenge.start(at(161), LEASE).unwrap();
        assert_eq!(start, Start::Begin(2));
        assert!(!challenge.runs(1), "the late answer of the dead front");
        let problem = Problem::new(ErrorType::Connection, "refused");
        challenge.rest(Rest { problem, counts: true, next: None });
        assert!(!challenge.runs(2));
        let (challenge, start) = challenge.start(at(162), LEASE).unwrap();
        assert_eq!(start, Start::Begin(3));
        let object = serde_json::to_value(challenge.object("u".into(), "t".into(), &[])).unwrap();
        assert_eq!(
            (&object["status"], &object["error"]["detail"]),
            (&"processing".into(), &"refused".into())
        );
    }

    #[test]
    fn an_end_is_an_end() {
        for state in [
            State::Valid { attempt: 1, validated: at(1) },
            State::Invalid { attempt: 1, error: Problem::new(ErrorType::Dns, "no") },
        ] {
            let challenge = Challenge { method: Method::Http01, state };
            assert_eq!(challenge.start(at(2), LEASE).unwrap_err(), NotStartable);
        }
    }

    #[test]
    fn the_object_has_what_its_state_has() {
        let object = |state| {
            serde_json::to_value(Challenge { method: Method::Http01, state }.object(
                "u".into(),
                "t".into(),
                &[],
            ))
            .unwrap()
        };
        assert_eq!(
            object(State::Pending),
            serde_json::json!({"type": "http-01", "url": "u", "status": "pending", "token": "t"})
        );
        let persistent = Challenge::new(Method::DnsPersist01);
        let of_persistent = persistent.object("u".into(), "t".into(), &["ca.example".parse().unwrap()]);
        assert_eq!(
            serde_json::to_value(of_persistent).unwrap(),
            serde_json::json!({
                "type": "dns-persist-01", "url": "u", "status": "pending",
                "issuer-domain-names": ["ca.example"],
            })
        );
        let valid = object(State::Valid { attempt: 1, validated: at(1_700_000_000) });
        assert_eq!(
            (&valid["status"], &valid["validated"]),
            (&"valid".into(), &"2023-11-14T22:13:20Z".into())
        );
    }

    #[test]
    fn it_is_stored_and_read() {
        let (challenge, _) = Challenge::new(Method::Http01).start(at(100), LEASE).unwrap();
        for challenge in [
            Challenge::new(Method::Http01),
            challenge,
            Challenge { method: Method::Http01, state: State::Valid { attempt: 1, validated: at(1) } },
            Challenge {
                method: Method::Http01,
                state: State::Invalid { attempt: 1, error: Problem::new(ErrorType::Dns, "no") },
            },
        ] {
            let json = serde_json::to_string(&challenge).unwrap();
            assert_eq!(serde_json::from_str::<Challenge>(&json).unwrap(), challenge, "{json}");
        }
    }
}
