//! A node's key and the request for its certificate.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use der::{
    Encode,
    asn1::{BitString, ObjectIdentifier, SetOfVec},
    pem::LineEnding,
};
use x509_cert::{
    name::Name,
    request::{CertReq, CertReqInfo, Version},
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
};

/// A node's key pair: ECDSA on P-256.
pub struct KeyPair {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

impl KeyPair {
    /// A new one, from the operating system's randomness.
    ///
    /// # Errors
    /// When there is none.
    pub fn generate() -> Result<Self, RequestError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| RequestError::Crypto)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, RequestError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|_| RequestError::Crypto)?;
        Ok(Self { pair, pkcs8: pkcs8.to_vec() })
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The private key, PKCS#8 PEM.
    ///
    /// # Errors
    /// Never for a key of this type.
    pub fn pem(&self) -> Result<String, RequestError> {
        Ok(der::pem::encode_string("PRIVATE KEY", LineEnding::LF, &self.pkcs8).map_err(der::Error::from)?)
    }

    /// A PKCS#10 request (RFC 2986), DER, with an empty subject and no attributes: only its key counts, and that the
    /// requester has it. Role, name and server names are the signer's to write.
    ///
    /// # Errors
    /// When signing fails.
    pub fn request(&self) -> Result<Vec<u8>, RequestError> {
        let info = CertReqInfo {
            version: Version::V1,
            subject: Name::default(),
            public_key: self.public_key()?,
            attributes: SetOfVec::new(),
        };
        let signature =
            self.pair.sign(&SystemRandom::new(), &info.to_der()?).map_err(|_| RequestError::Crypto)?;
        let request = CertReq {
            info,
            algorithm: AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None },
            signature: BitString::from_bytes(signature.as_ref())?,
        };
        Ok(request.to_der()?)
    }

    fn public_key(&self) -> Result<SubjectPublicKeyInfoOwned, RequestError> {
        Ok(SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: EC_PUBLIC_KEY,
                parameters: Some(der::Any::encode_from(&P256)?),
            },
            subject_public_key: BitString::from_bytes(self.pair.public_key().as_ref())?,
        })
    }
}

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// Why there is no key or request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The cryptographic library refused.
    #[error("the key cannot be made or used")]
    Crypto,
    /// Encoding failed.
    #[error("the request cannot be encoded")]
    Der(#[from] der::Error),
}
