//! Identifiers as clients write them (RFC 8555 §7.1.4, §9.7.7; RFC 8738), and their way into [`pki::Name`].

use std::fmt;

use pki::{Name, NameError};
use serde::{Deserialize, Serialize};

use crate::jws::shortened;
use crate::problem::{ErrorType, Subproblem};

/// Type and value, as yet unjudged. Whoever has a [`Name`] instead has a good one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Identifier {
    /// "dns" or "ip"; whatever a client wrote.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name or address.
    pub value: String,
}

impl Identifier {
    /// A "dns" identifier.
    pub fn dns(value: impl Into<String>) -> Self {
        Self { kind: "dns".to_owned(), value: value.into() }
    }

    /// An "ip" identifier (RFC 8738).
    pub fn ip(value: impl Into<String>) -> Self {
        Self { kind: "ip".to_owned(), value: value.into() }
    }

    /// As an order shows it: a wildcard with its "*." (RFC 8555 §7.1.3).
    #[must_use]
    pub fn in_order(name: &Name) -> Self {
        match name {
            Name::Dns(_) | Name::Wildcard(_) => Self::dns(name.to_string()),
            Name::Ip(_) => Self::ip(name.to_string()),
        }
    }

    /// As an authorization shows it: a wildcard without its "*." (RFC 8555 §7.1.4).
    #[must_use]
    pub fn in_authorization(name: &Name) -> Self {
        match name.base() {
            Some(base) => Self::dns(base.to_string()),
            None => Self::in_order(name),
        }
    }

    /// Judges it.
    ///
    /// # Errors
    /// [`IdentifierError`].
    pub fn to_name(&self) -> Result<Name, IdentifierError> {
        match self.kind.as_str() {
            "dns" => Name::parse_dns(&self.value).map_err(IdentifierError::Dns),
            "ip" => Name::parse_ip(&self.value).map_err(IdentifierError::Ip),
            _ => Err(IdentifierError::Type),
        }
    }

    /// The subproblem for an identifier that was refused.
    #[must_use]
    pub fn refused(&self, error: &IdentifierError) -> Subproblem {
        let shown = Self { kind: shortened(&self.kind), value: self.value.chars().take(MAX_SHOWN).collect() };
        Subproblem::new(error.error_type(), error.to_string(), shown)
    }
}

/// A name of the greatest length is shown whole, a megabyte is not.
const MAX_SHOWN: usize = 256;

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Members {
            #[serde(rename = "type")]
            kind: String,
            value: String,
        }
        let Members { kind, value } = crate::json::object(deserializer)?;
        Ok(Self { kind, value })
    }
}

/// Why an identifier is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// A type that is not "dns" or "ip" (RFC 8555 §9.7.7).
    #[error("identifiers of this type are not supported")]
    Type,
    /// Not a DNS name that a certificate can have.
    #[error("not acceptable as a DNS name: {0}")]
    Dns(#[source] NameError),
    /// Not an IP address in its one text form (RFC 8738 §3).
    #[error("not acceptable as an IP address: {0}")]
    Ip(#[source] NameError),
}

impl IdentifierError {
    /// The client's fault.
    #[must_use]
    pub const fn class(&self) -> pki::ErrorClass {
        pki::ErrorClass::Client
    }

    /// The registered type of the problem.
    #[must_use]
    pub const fn error_type(&self) -> ErrorType {
        match self {
            Self::Type => ErrorType::UnsupportedIdentifier,
            Self::Dns(_) | Self::Ip(_) => ErrorType::RejectedIdentifier,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_do_not_mix() {
        assert!(Identifier::dns("example.org").to_name().is_ok());
        assert!(Identifier::dns("*.example.org").to_name().is_ok());
        assert!(Identifier::ip("192.0.2.1").to_name().is_ok());
        assert!(Identifier::ip("2001:db8::1").to_name().is_ok());
        for (bad, kind) in [
            (Identifier::dns("192.0.2.1"), ErrorType::RejectedIdentifier),
            (Identifier::dns("2001:db8::1"), ErrorType::RejectedIdentifier),
            (Identifier::dns("*.192.0.2.1"), ErrorType::RejectedIdentifier),
            (Identifier::dns("*.*.example.org"), ErrorType::RejectedIdentifier),
            (Identifier::dns("a.*.example.org"), ErrorType::RejectedIdentifier),
            (Identifier::dns("*example.org"), ErrorType::RejectedIdentifier),
            (Identifier::dns("*."), ErrorType::RejectedIdentifier),
            (Identifier::dns("example.org."), ErrorType::RejectedIdentifier),
            (Identifier::dns("bücher.example"), ErrorType::RejectedIdentifier),
            (Identifier::dns("a_b.example.org"), ErrorType::RejectedIdentifier),
            (Identifier::dns(""), ErrorType::RejectedIdentifier),
            (Identifier::dns("example.org\0"), ErrorType::RejectedIdentifier),
            (Identifier::ip("example.org"), ErrorType::RejectedIdentifier),
            (Identifier::ip("192.0.2.01"), ErrorType::RejectedIdentifier),
            (Identifier::ip("2001:DB8::1"), ErrorType::RejectedIdentifier),
            (Identifier::ip("2001:db8:0::1"), ErrorType::RejectedIdentifier),
            (Identifier::ip("*.192.0.2.1"), ErrorType::RejectedIdentifier),
            (
                Identifier { kind: "DNS".into(), value: "example.org".into() },
                ErrorType::UnsupportedIdentifier,
            ),
            (
                Identifier { kind: "email".into(), value: "a@example.org".into() },
                ErrorType::UnsupportedIdentifier,
            ),
        ] {
            assert_eq!(bad.to_name().unwrap_err().error_type(), kind, "{bad}");
        }
    }

    #[test]
    fn the_star_shows_in_orders_only() {
        let wildcard = Identifier::dns("*.example.org").to_name().unwrap();
        assert_eq!(Identifier::in_order(&wildcard), Identifier::dns("*.example.org"));
        assert_eq!(Identifier::in_authorization(&wildcard), Identifier::dns("example.org"));
        let address = Identifier::ip("2001:db8::1").to_name().unwrap();
        assert_eq!(Identifier::in_order(&address), Identifier::ip("2001:db8::1"));
        assert_eq!(Identifier::in_authorization(&address), Identifier::ip("2001:db8::1"));
    }

    #[test]
    fn only_an_object_is_an_identifier() {
        let good = r#"{"type":"dns","value":"example.org","extra":1}"#;
        assert_eq!(serde_json::from_str::<Identifier>(good).unwrap(), Identifier::dns("example.org"));
        for bad in [r#"["dns","example.org"]"#, r#"{"type":"dns"}"#, r#"{"type":"dns","value":1}"#, "null"] {
            assert!(serde_json::from_str::<Identifier>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_short() {
        let long = Identifier { kind: "x".repeat(10_000), value: "y".repeat(10_000) };
        let shown = long.refused(&long.to_name().unwrap_err()).identifier.unwrap();
        assert!(shown.kind.len() + shown.value.len() < 400);
    }
}
