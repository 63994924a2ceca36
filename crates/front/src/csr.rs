//! The request for this front's own HTTPS certificate (RFC 2986): a new key, made here, and the names.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use der::asn1::{BitString, Ia5String, ObjectIdentifier, OctetString, SetOfVec};
use der::{Any, Encode};
use pki::{Name, NameSet};
use x509_cert::attr::Attribute;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// A new key and what is sent to the signer.
pub(crate) struct NewKey {
    /// PKCS#8, DER.
    pub(crate) pkcs8: Vec<u8>,
    /// PKCS#10, DER.
    pub(crate) request: Vec<u8>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CsrError {
    /// The cryptographic library refused.
    #[error("the key cannot be made or used")]
    Crypto(#[from] aws_lc_rs::error::Unspecified),
    /// A name cannot be encoded.
    #[error("the request cannot be encoded")]
    Der(#[from] der::Error),
}

/// Makes a key (ECDSA on P-256) and a request for these names.
pub(crate) fn generate(names: &NameSet) -> Result<NewKey, CsrError> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref())
        .map_err(|_| CsrError::Crypto(aws_lc_rs::error::Unspecified))?;
    let info = CertReqInfo {
        version: Version::V1,
        subject: x509_cert::name::Name::default(),
        public_key: SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: EC_PUBLIC_KEY,
                parameters: Some(Any::encode_from(&P256)?),
            },
            subject_public_key: BitString::from_bytes(pair.public_key().as_ref())?,
        },
        attributes: SetOfVec::try_from(vec![extension_request(names)?])?,
    };
    let signature = pair.sign(&random, &info.to_der()?)?;
    let request = CertReq {
        info,
        algorithm: AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None },
        signature: BitString::from_bytes(signature.as_ref())?,
    };
    Ok(NewKey { pkcs8: pkcs8.as_ref().to_vec(), request: request.to_der()? })
}

fn extension_request(names: &NameSet) -> Result<Attribute, CsrError> {
    let names = names.iter().map(general_name).collect::<Result<_, _>>()?;
    let extension = Extension {
        extn_id: SUBJECT_ALT_NAME,
        critical: false,
        extn_value: OctetString::new(SubjectAltName(names).to_der()?)?,
    };
    let values = SetOfVec::try_from(vec![Any::encode_from(&vec![extension])?])?;
    Ok(Attribute { oid: EXTENSION_REQUEST, values })
}

fn general_name(name: &Name) -> Result<GeneralName, CsrError> {
    Ok(match name {
        Name::Dns(_) | Name::Wildcard(_) => GeneralName::DnsName(Ia5String::new(&name.to_string())?),
        Name::Ip(std::net::IpAddr::V4(address)) => {
            GeneralName::IpAddress(OctetString::new(address.octets())?)
        }
        Name::Ip(std::net::IpAddr::V6(address)) => {
            GeneralName::IpAddress(OctetString::new(address.octets())?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strict_reader_accepts_it() {
        let names: Vec<Name> =
            ["acme.example.org", "127.0.0.1", "::1"].iter().map(|name| name.parse().unwrap()).collect();
        let names = NameSet::new(names).unwrap();
        let made = generate(&names).unwrap();
        let read = pki::Csr::from_der(&made.request).unwrap();
        assert_eq!(read.names(), &names);
        assert_ne!(generate(&names).unwrap().pkcs8, made.pkcs8);
    }
}
