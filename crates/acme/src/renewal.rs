//! Ids of certificates in renewal information and in `replaces` (RFC 9773 §4.1, §5).

use std::fmt;
use std::str::FromStr;

use pki::Serial;

use crate::base64url;

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
    fn it_has_one_spelling() {
        let long = format!("{}.AQ", base64url::encode([1; 65]));
        // No key id, no serial, padding, a serial that is not minimal, zero, negative, three parts.
        for bad in ["", ".", ".AQ", "AQ.", "AQ", "AQ==.AQ", "AQ.AAE", "AQ.AA", "AQ.gQ", "AQ.AQ.AQ", &long] {
            assert_eq!(bad.parse::<CertificateId>(), Err(BadCertificateId), "{bad}");
        }
    }
}
