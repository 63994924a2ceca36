//! Which algorithm identifiers are right: an independent table of identifiers and parameters.

use const_oid::{
    ObjectIdentifier,
    db::{
        rfc5912::{
            ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, ID_EC_PUBLIC_KEY, RSA_ENCRYPTION,
            SECP_256_R_1, SECP_384_R_1, SECP_521_R_1, SHA_256_WITH_RSA_ENCRYPTION,
            SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
        },
        rfc8410::ID_ED_25519,
    },
};
use der::{Decode, Tag, Tagged, asn1::UintRef};
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

/// A family of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lint) enum Family {
    Ecdsa,
    Rsa,
    Ed25519,
}

/// Family and bits of the hash of a signature algorithm; `None` if it is unknown or its parameters
/// are not as RFC 4055 §5 (NULL), RFC 5758 §3.2 and RFC 8410 §3 (absent) have them.
pub(in crate::lint) fn signature(identifier: &[u8]) -> Option<(Family, u16)> {
    let identifier = AlgorithmIdentifierRef::from_der(identifier).ok()?;
    let (family, bits) = match identifier.oid {
        ECDSA_WITH_SHA_256 => (Family::Ecdsa, 256),
        ECDSA_WITH_SHA_384 => (Family::Ecdsa, 384),
        ECDSA_WITH_SHA_512 => (Family::Ecdsa, 512),
        SHA_256_WITH_RSA_ENCRYPTION => (Family::Rsa, 256),
        SHA_384_WITH_RSA_ENCRYPTION => (Family::Rsa, 384),
        SHA_512_WITH_RSA_ENCRYPTION => (Family::Rsa, 512),
        ID_ED_25519 => (Family::Ed25519, 0),
        _ => return None,
    };
    let parameters_are_right = match family {
        Family::Rsa => is_null(&identifier),
        Family::Ecdsa | Family::Ed25519 => identifier.parameters.is_none(),
    };
    parameters_are_right.then_some((family, bits))
}

/// The family of a key; `None` if it is unknown, or its parameters (RFC 3279 §2.3.1, RFC 5480
/// §2.1.1, RFC 8410 §3) or the form of the key are wrong.
pub(in crate::lint) fn key(spki: &[u8]) -> Option<Family> {
    let info = SubjectPublicKeyInfoRef::from_der(spki).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    match info.algorithm.oid {
        RSA_ENCRYPTION => (is_null(&info.algorithm) && rsa_numbers(key).is_some()).then_some(Family::Rsa),
        ID_EC_PUBLIC_KEY => {
            let coordinate = coordinate_len(curve(&info)?)?;
            (key.len() == 1 + 2 * coordinate && key.first() == Some(&4)).then_some(Family::Ecdsa)
        }
        ID_ED_25519 => (info.algorithm.parameters.is_none() && key.len() == 32).then_some(Family::Ed25519),
        _ => None,
    }
}

/// The named curve of an EC key.
pub(in crate::lint) fn curve(info: &SubjectPublicKeyInfoRef<'_>) -> Option<ObjectIdentifier> {
    info.algorithm.parameters?.decode_as::<ObjectIdentifier>().ok()
}

fn coordinate_len(curve: ObjectIdentifier) -> Option<usize> {
    match curve {
        SECP_256_R_1 => Some(32),
        SECP_384_R_1 => Some(48),
        SECP_521_R_1 => Some(66),
        _ => None,
    }
}

/// Bits of the hash that BR §7.1.3.2.2 ties to a curve.
pub(in crate::lint) fn hash_of_curve(curve: ObjectIdentifier) -> Option<u16> {
    match curve {
        SECP_256_R_1 => Some(256),
        SECP_384_R_1 => Some(384),
        SECP_521_R_1 => Some(512),
        _ => None,
    }
}

/// Modulus and exponent of an RSAPublicKey.
pub(in crate::lint) fn rsa_numbers(key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let numbers: [UintRef<'_>; 2] = Vec::<UintRef<'_>>::from_der(key).ok()?.try_into().ok()?;
    let [modulus, exponent] = numbers.map(|number| number.as_bytes().to_vec());
    Some((modulus, exponent))
}

fn is_null(identifier: &AlgorithmIdentifierRef<'_>) -> bool {
    identifier
        .parameters
        .is_some_and(|parameters| parameters.tag() == Tag::Null && parameters.value().is_empty())
}
