//! What an account's key must not be: weak, blocked, or a certificate's (RFC 8555 §11.1). Whether it is blocked or a
//! certificate's, the store says in the transaction that registers it; the reverse, in the transaction of the intent.

use acme::Jwk;
use aws_lc_rs::digest;
use ca_store::KeyTaken;
use pki::{KeyAlgorithm, PublicKey};

use crate::ca::Ca;
use crate::refusal::{Reason, Refusal};
use crate::request::ClientRequest;

impl Ca {
    /// Refuses a key that is weak to whoever can see it.
    ///
    /// # Errors
    /// A refusal.
    pub(crate) fn check_account_key(&self, request: &ClientRequest, key: &Jwk) -> Result<(), Refusal> {
        match self.weak_keys.weakness(key.public_key()) {
            None => Ok(()),
            Some(weakness) => Err(request.refuse(Reason::KeyWeak, format!("the key is weak: {weakness}"))),
        }
    }
}

/// The refusal of a key that is something else's.
pub(crate) fn key_taken(request: &ClientRequest, taken: KeyTaken) -> Refusal {
    match taken {
        KeyTaken::Blocked => {
            request.refuse(Reason::KeyUnacceptable, "the key is known to be compromised or weak")
        }
        KeyTaken::Certificate => request.refuse(Reason::KeyUnacceptable, "the key is a certificate's"),
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
