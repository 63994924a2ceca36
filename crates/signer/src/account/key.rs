//! What an account's key must not be: blocked, or a certificate's (RFC 8555 §11.1). The reverse is checked by the store, in the
//! transaction of the intent.

use acme::Jwk;
use aws_lc_rs::digest;
use ca_store::{CertificateFilter, CertificateQuery};
use pki::{KeyAlgorithm, PublicKey};

use crate::ca::Ca;
use crate::refusal::Outcome;

/// What a key is in use for already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyUse {
    /// A certificate has it.
    Certificate,
    /// It is known to be bad.
    Blocked,
}

impl Ca {
    /// What keeps a key from becoming an account's.
    pub(crate) async fn account_key_use(&self, key: &Jwk) -> Outcome<Option<KeyUse>> {
        let spki = key.public_key().sha256();
        let query = CertificateQuery::first(CertificateFilter::Key(spki), 1);
        let keys = [spki];
        let (blocked, certificates) =
            futures::try_join!(self.store.blocked_keys(&keys), self.store.certificates(&query))?;
        Ok(match (blocked.is_empty(), certificates.items.is_empty()) {
            (false, _) => Some(KeyUse::Blocked),
            (true, false) => Some(KeyUse::Certificate),
            (true, true) => None,
        })
    }
}

/// The thumbprint that a certificate's key would have as an account's: SHA-256 of its canonical JWK (RFC 7638 §3).
pub(crate) fn thumbprint_of(key: &PublicKey) -> Option<[u8; 32]> {
    let encode = acme::base64url::encode;
    let raw = key.raw();
    let canonical = match key.algorithm() {
        KeyAlgorithm::Ed25519 => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(raw)),
        KeyAlgorithm::Rsa { .. } => {
            let (n, e) = rsa_components(raw)?;
            format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n))
        }
        KeyAlgorithm::EcdsaP256 => ec_json("P-256", raw)?,
        KeyAlgorithm::EcdsaP384 => ec_json("P-384", raw)?,
        KeyAlgorithm::EcdsaP521 => ec_json("P-521", raw)?,
    };
    let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
    hash.as_ref().try_into().ok()
}

fn ec_json(curve: &str, point: &[u8]) -> Option<String> {
    let coordinates = point.strip_prefix(&[0x04])?;
    let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
    let encode = acme::base64url::encode;
    Some(format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y)))
}

/// The two integers of an RSAPublicKey (RFC 8017 §A.1.1), without leading zeros. [`pki`] has validated the DER.
fn rsa_components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, _) = tlv(der, 0x30)?;
    let (n, rest) = tlv(content, 0x02)?;
    let (e, _) = tlv(rest, 0x02)?;
    Some((without_zeros(n)?, without_zeros(e)?))
}

fn without_zeros(integer: &[u8]) -> Option<&[u8]> {
    integer.get(integer.iter().position(|octet| *octet != 0)?..)
}

/// The content of the first DER value, which must have this tag, and what follows it.
fn tlv(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        _ => {
            let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let fold = |sum: usize, octet: &u8| sum.checked_mul(256)?.checked_add(usize::from(*octet));
            (octets.iter().try_fold(0, fold)?, rest)
        }
    };
    if *first == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By way of the encodings that `openssl` and clients use, and the crate that reads clients' keys.
    fn jwk(key: &PublicKey) -> Jwk {
        let encode = acme::base64url::encode;
        let json = match key.algorithm() {
            KeyAlgorithm::Ed25519 => {
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, encode(key.raw()))
            }
            KeyAlgorithm::Rsa { .. } => {
                let n = encode(&key.raw()[9..9 + 256]);
                format!(r#"{{"kty":"RSA","e":"AQAB","n":"{n}"}}"#)
            }
            KeyAlgorithm::EcdsaP256 => {
                let (x, y) = (encode(&key.raw()[1..33]), encode(&key.raw()[33..]));
                format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#)
            }
            other => panic!("no case for {other}"),
        };
        let jwk = Jwk::from_json(&json).unwrap();
        assert_eq!(jwk.public_key(), key);
        jwk
    }

    #[test]
    fn a_keys_two_forms_have_one_thumbprint() {
        let kinds = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256];
        for kind in kinds {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
            let key = PublicKey::from_spki_der(&spki).unwrap();
            let thumbprint = thumbprint_of(&key).unwrap();
            assert_eq!(&thumbprint, jwk(&key).thumbprint().as_bytes());
        }
    }
}
