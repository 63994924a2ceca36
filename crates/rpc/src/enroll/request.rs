//! A node's key and the request for its certificate.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use der::{
    Decode, Encode,
    asn1::{BitString, ObjectIdentifier, SetOfVec},
    pem::LineEnding,
};
use pki::{PublicKey, SignatureAlgorithm};
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

    /// From a private key in PKCS#8 PEM, as [`pem`](Self::pem) writes it.
    ///
    /// # Errors
    /// When the text is not that.
    pub fn from_pem(text: &[u8]) -> Result<Self, RequestError> {
        let (label, pkcs8) = der::pem::decode_vec(text).map_err(der::Error::from)?;
        if label != "PRIVATE KEY" {
            return Err(RequestError::Crypto);
        }
        Self::from_pkcs8(&pkcs8)
    }

    /// The public key, SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// Never for a key of this type.
    pub fn spki_der(&self) -> Result<Vec<u8>, RequestError> {
        Ok(self.public_key()?.to_der()?)
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

/// The key that a request asks a certificate for: the one thing of it that counts. Its signature, by which the requester
/// shows that it has the key, is verified.
///
/// # Errors
/// When the text is not exactly one PKCS#10 request in DER, or its signature is not by its own key.
pub fn requested_key(request: &[u8]) -> Result<PublicKey, RequestError> {
    let request = CertReq::from_der(request)?;
    let key =
        PublicKey::from_spki_der(&request.info.public_key.to_der()?).map_err(|_| RequestError::Signature)?;
    let algorithm = SignatureAlgorithm::from_identifier_der(&request.algorithm.to_der()?)
        .ok_or(RequestError::Signature)?;
    let signature = request.signature.as_bytes().ok_or(RequestError::Signature)?;
    key.verify(algorithm, &request.info.to_der()?, signature).map_err(|_| RequestError::Signature)?;
    Ok(key)
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
    /// Not signed by its own key, or with something that is not accepted.
    #[error("the request is not signed by its own key")]
    Signature,
    /// Not DER, or not a request.
    #[error("the request cannot be read or written")]
    Der(#[from] der::Error),
}
