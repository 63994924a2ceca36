//! Distinguished names of certificate authorities.

use std::fmt;

use const_oid::{ObjectIdentifier, db::rfc4519};
use der::{Decode, Tag, Tagged};
use serde::{Deserialize, Serialize};
use x509_cert::name::RdnSequence;

use crate::{
    Certificate,
    encode::{Encoder, encode, tag},
};

/// The subject of a CA: country, organisation, common name, in the order of BR §7.1.4.2. Attributes
/// that are absent are left out; at least the common name is there (BR §7.1.2.10.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Attributes", into = "Attributes")]
pub struct DistinguishedName(Attributes);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attributes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization: Option<String>,
    common_name: String,
}

/// Why a distinguished name is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DistinguishedNameError {
    /// Not two upper-case letters (ISO 3166-1).
    #[error("a country is two upper-case letters")]
    Country,
    /// Empty, longer than RFC 5280's upper bound of 64 characters, or with control characters or
    /// outer white space.
    #[error("organization and common name have 1 to 64 printable characters")]
    Text,
}

impl DistinguishedName {
    /// A name of these attributes.
    ///
    /// # Errors
    /// When one of them is malformed.
    pub fn new(
        country: Option<&str>,
        organization: Option<&str>,
        common_name: &str,
    ) -> Result<Self, DistinguishedNameError> {
        Attributes {
            country: country.map(str::to_owned),
            organization: organization.map(str::to_owned),
            common_name: common_name.to_owned(),
        }
        .try_into()
    }

    /// Country and organisation of a CA, with another common name: for what belongs to it.
    pub(crate) fn beside(
        certificate: &Certificate,
        common_name: &str,
    ) -> Result<Self, DistinguishedNameError> {
        let name = RdnSequence::from_der(certificate.subject_der()).unwrap_or_default();
        let text = |oid: ObjectIdentifier| {
            let attribute = name.iter().flat_map(|rdn| rdn.iter()).find(|attribute| attribute.oid == oid)?;
            let is_text = matches!(attribute.value.tag(), Tag::Utf8String | Tag::PrintableString);
            str::from_utf8(attribute.value.value()).ok().filter(|_| is_text)
        };
        Self::new(text(rfc4519::COUNTRY_NAME), text(rfc4519::ORGANIZATION_NAME), common_name)
    }

    /// The common name.
    #[must_use]
    pub fn common_name(&self) -> &str {
        &self.0.common_name
    }

    /// The `Name`, DER.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        encode(|e| {
            e.sequence(|e| {
                if let Some(country) = &self.0.country {
                    attribute(e, &rfc4519::COUNTRY_NAME, tag::PRINTABLE_STRING, country);
                }
                if let Some(organization) = &self.0.organization {
                    attribute(e, &rfc4519::ORGANIZATION_NAME, tag::UTF8_STRING, organization);
                }
                attribute(e, &rfc4519::COMMON_NAME, tag::UTF8_STRING, &self.0.common_name);
            });
        })
    }
}

/// One RelativeDistinguishedName of one attribute (RFC 5280 §4.1.2.4).
pub(crate) fn attribute(e: &mut Encoder, oid: &ObjectIdentifier, string: u8, value: &str) {
    e.nested(tag::SET, |e| {
        e.sequence(|e| {
            e.oid(oid).primitive(string, value.as_bytes());
        });
    });
}

impl TryFrom<Attributes> for DistinguishedName {
    type Error = DistinguishedNameError;

    fn try_from(attributes: Attributes) -> Result<Self, DistinguishedNameError> {
        let country = attributes.country.as_deref();
        if country
            .is_some_and(|code| code.len() != 2 || !code.bytes().all(|octet| octet.is_ascii_uppercase()))
        {
            return Err(DistinguishedNameError::Country);
        }
        let texts = attributes.organization.iter().chain([&attributes.common_name]);
        for text in texts {
            let length = text.chars().count();
            if length == 0 || length > 64 || text.trim() != text || text.chars().any(char::is_control) {
                return Err(DistinguishedNameError::Text);
            }
        }
        Ok(Self(attributes))
    }
}

impl From<DistinguishedName> for Attributes {
    fn from(name: DistinguishedName) -> Self {
        name.0
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CN={}", self.0.common_name)?;
        if let Some(organization) = &self.0.organization {
            write!(f, ", O={organization}")?;
        }
        if let Some(country) = &self.0.country {
            write!(f, ", C={country}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x509_cert_reads_what_was_meant() {
        let name = DistinguishedName::new(Some("CH"), Some("Übung AG"), "Root R1").unwrap();
        let read = x509_cert::name::Name::from_der(&name.to_der()).unwrap();
        assert_eq!(read.to_string(), "CN=Root R1,O=Übung AG,C=CH");
    }

    #[test]
    fn malformed_attributes_are_refused() {
        use DistinguishedNameError::{Country, Text};
        let long = "x".repeat(65);
        for (country, organization, common_name, error) in [
            (Some("ch"), None, "R", Country),
            (Some("CHE"), None, "R", Country),
            (None, Some(""), "R", Text),
            (None, None, "", Text),
            (None, None, long.as_str(), Text),
            (None, None, "a\nb", Text),
            (None, None, " a", Text),
        ] {
            assert_eq!(DistinguishedName::new(country, organization, common_name), Err(error));
        }
    }
}
