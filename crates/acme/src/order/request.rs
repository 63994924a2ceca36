//! What a client sends about an order: newOrder and finalize (RFC 8555 §7.4).

use std::collections::BTreeMap;

use pki::{DnsName, Name, NameSet, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::base64url;
use crate::identifier::Identifier;
use crate::jws::{JwsError, Verified};
use crate::problem::{ErrorType, Problem, Subproblem};
use crate::renewal::CertificateId;
use crate::rfc3339;

/// The payload of newOrder, judged (RFC 8555 §7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// The names, duplicates merged.
    pub names: NameSet,
    /// To be honoured exactly, or refused.
    pub not_before: Option<Timestamp>,
    /// To be honoured exactly, or refused.
    pub not_after: Option<Timestamp>,
    /// As the client wrote it; `invalidProfile` is the directory's to say.
    pub profile: Option<String>,
    /// The certificate to be replaced (RFC 9773 §5).
    pub replaces: Option<CertificateId>,
    /// The domains above names that the client can show control of instead (RFC 9444 §4.3).
    pub ancestors: BTreeMap<Name, DnsName>,
}

impl NewOrder {
    /// Reads the payload. `maximum_names` counts distinct names.
    ///
    /// # Errors
    /// [`NewOrderError`], with all bad names at once.
    pub fn from_verified(request: &Verified<'_>, maximum_names: usize) -> Result<Self, NewOrderError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Payload {
            #[serde(default)]
            identifiers: Vec<Wanted>,
            not_before: Option<String>,
            not_after: Option<String>,
            profile: Option<String>,
            replaces: Option<String>,
            #[serde(rename = "auto-renewal")]
            auto_renewal: Option<IgnoredAny>,
            delegation: Option<IgnoredAny>,
            #[serde(rename = "allow-certificate-get")]
            allow_certificate_get: Option<IgnoredAny>,
        }
        let payload: Payload = request.payload_json()?;
        // RFC 8739 §3.1.1, RFC 9115 §2.3.1: whoever asks for these must not get a plain certificate instead.
        let others = [
            ("auto-renewal", payload.auto_renewal),
            ("delegation", payload.delegation),
            ("allow-certificate-get", payload.allow_certificate_get),
        ];
        if let Some((member, _)) = others.into_iter().find(|(_, asked)| asked.is_some()) {
            return Err(NewOrderError::NotOffered(member));
        }
        let time = |name, text: Option<String>| {
            text.map(|text| rfc3339::parse(&text).map_err(|_| NewOrderError::Time(name))).transpose()
        };
        let not_before = time("notBefore", payload.not_before)?;
        let not_after = time("notAfter", payload.not_after)?;
        if not_before.zip(not_after).is_some_and(|(before, after)| after <= before) {
            return Err(NewOrderError::Period);
        }
        let replaces =
            payload.replaces.map(|id| id.parse().map_err(|_| NewOrderError::Replaces)).transpose()?;
        let (names, ancestors) = read_names(&payload.identifiers, maximum_names)?;
        Ok(Self { names, not_before, not_after, profile: payload.profile, replaces, ancestors })
    }
}

/// An identifier as an order asks for it.
struct Wanted {
    identifier: Identifier,
    /// RFC 9444 §4.3.
    ancestor: Option<String>,
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Members {
            #[serde(rename = "type")]
            kind: String,
            value: String,
            ancestor_domain: Option<String>,
        }
        let Members { kind, value, ancestor_domain } = crate::json::object(deserializer)?;
        Ok(Self { identifier: Identifier { kind, value }, ancestor: ancestor_domain })
    }
}

impl Wanted {
    /// The domain above the name; whole labels are compared (RFC 9444 §5.1). A wildcard has none: what was shown of a plain
    /// name is never authority over a wildcard.
    fn ancestor_of(&self, name: &Name) -> Result<Option<DnsName>, &'static str> {
        let Some(text) = &self.ancestor else { return Ok(None) };
        let Name::Dns(below) = name else { return Err("ancestorDomain is for plain DNS names") };
        match DnsName::parse(text) {
            Ok(above) if above != *below && below.is_within(&above) => Ok(Some(above)),
            _ => Err("ancestorDomain is not a domain above the name"),
        }
    }
}

fn read_names(
    wanted: &[Wanted],
    maximum: usize,
) -> Result<(NameSet, BTreeMap<Name, DnsName>), NewOrderError> {
    let (mut names, mut refused): (Vec<Name>, Vec<Subproblem>) = (Vec::new(), Vec::new());
    let mut ancestors = BTreeMap::new();
    for one in wanted {
        match one.identifier.to_name() {
            Ok(name) => {
                match one.ancestor_of(&name) {
                    Ok(Some(ancestor)) => drop(ancestors.insert(name.clone(), ancestor)),
                    Ok(None) => {}
                    Err(detail) => {
                        let shown = Identifier::in_order(&name);
                        refused.push(Subproblem::new(ErrorType::RejectedIdentifier, detail, shown));
                    }
                }
                names.push(name);
            }
            Err(error) => refused.push(one.identifier.refused(&error)),
        }
    }
    // A thousand bad names need not all be shown.
    refused.truncate(maximum.max(1));
    if let Some(problem) = Problem::from_subproblems(refused) {
        return Err(NewOrderError::Identifiers(Box::new(problem)));
    }
    let names = NameSet::new(names).map_err(|_| NewOrderError::NoIdentifiers)?;
    if names.len() > maximum {
        return Err(NewOrderError::TooManyIdentifiers { maximum });
    }
    Ok((names, ancestors))
}

/// Why a newOrder is refused.
#[derive(Debug, thiserror::Error)]
pub enum NewOrderError {
    /// The payload is not a newOrder.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// There are no identifiers.
    #[error("an order needs at least one identifier")]
    NoIdentifiers,
    /// There are too many.
    #[error("an order may have {maximum} identifiers at most")]
    TooManyIdentifiers {
        /// How many there may be.
        maximum: usize,
    },
    /// Some are bad; the problem names each.
    #[error("{0}")]
    Identifiers(Box<Problem>),
    /// A time is not one that a certificate can say.
    #[error("{0} is not an RFC 3339 time of whole seconds")]
    Time(&'static str),
    /// The end is not after the beginning.
    #[error("notAfter is not after notBefore")]
    Period,
    /// Not the id of a certificate (RFC 9773 §4.1).
    #[error("replaces is not a certificate's id")]
    Replaces,
    /// Short-term automatic renewal (RFC 8739) and delegation (RFC 9115) are not offered.
    #[error("{0} is not supported: this server issues single certificates to the account's own client")]
    NotOffered(&'static str),
}

impl NewOrderError {
    /// The client's fault.
    #[must_use]
    pub const fn class(&self) -> pki::ErrorClass {
        pki::ErrorClass::Client
    }

    /// The problem document (RFC 8555 §6.7).
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Jws(error) => error.problem(),
            Self::Identifiers(problem) => (**problem).clone(),
            Self::NoIdentifiers
            | Self::TooManyIdentifiers { .. }
            | Self::Time(_)
            | Self::Period
            | Self::Replaces
            | Self::NotOffered(_) => Problem::new(ErrorType::Malformed, self.to_string()),
        }
    }
}

/// The payload of finalize (RFC 8555 §7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalize {
    /// The CSR, DER, as yet unjudged: [`pki::Csr::from_der`].
    pub csr: Vec<u8>,
}

impl Finalize {
    /// Reads the payload.
    ///
    /// # Errors
    /// [`JwsError::Payload`], [`JwsError::Base64`].
    pub fn from_verified(request: &Verified<'_>) -> Result<Self, JwsError> {
        #[derive(Deserialize)]
        struct Payload {
            csr: String,
        }
        let payload: Payload = request.payload_json()?;
        let csr = base64url::decode(&payload.csr).map_err(|_| JwsError::Base64("csr"))?;
        Ok(Self { csr })
    }
}
