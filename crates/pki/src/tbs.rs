//! To-be-signed certificates: bytes that depend on profile, issuer and request alone.
//!
//! The same input gives the same bytes on every machine and in every version, so that what is
//! journaled can be compared and signed again.

use crate::{
    Certificate, CertificateError, CommonName, DistinguishedName, DistinguishedNameError, ErrorClass,
    ExtendedKeyUsage, Issuer, KeyAlgorithm, Name, NameRefusal, NameSet, NodeIdentity, PolicyOid, Profile,
    PublicKey, Serial, SignatureAlgorithm, Validity,
    certificate::TbsFields,
    decode,
    distinguished_name::attribute,
    encode::{Encoder, encode, tag},
    extension::{self, key_usage},
};

/// The exact octets of a TBSCertificate, and the algorithm that they say they will be signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tbs {
    der: Vec<u8>,
    signature: SignatureAlgorithm,
}

/// What a subscriber's certificate takes from the request and from the signer.
#[derive(Clone, Copy, Debug)]
pub struct LeafRequest<'a> {
    /// Its serial number.
    pub serial: Serial,
    /// Its subject alternative names.
    pub names: &'a NameSet,
    /// Its key.
    pub public_key: &'a PublicKey,
    /// First and last second, from [`Profile::validity_at`].
    pub validity: Validity,
    /// The shard of the issuer's CRL in which a revocation will be found.
    pub shard: u32,
    /// Whether it has the TLS feature `status_request`, from [`Profile::staples`].
    pub must_staple: bool,
}

/// A root, or another self-signed CA.
#[derive(Clone, Copy, Debug)]
pub struct RootRequest<'a> {
    /// Its serial number.
    pub serial: Serial,
    /// Subject and issuer.
    pub subject: &'a DistinguishedName,
    /// Its key.
    pub public_key: &'a PublicKey,
    /// How it signs itself.
    pub signature: SignatureAlgorithm,
    /// First and last second.
    pub validity: Validity,
    /// Whether it is marked as a test CA: [`Certificate::is_test_ca`].
    pub test_ca: bool,
}

/// An issuing CA below a root.
#[derive(Clone, Copy, Debug)]
pub struct IntermediateRequest<'a> {
    /// Its serial number.
    pub serial: Serial,
    /// Its subject.
    pub subject: &'a DistinguishedName,
    /// Its key.
    pub public_key: &'a PublicKey,
    /// First and last second.
    pub validity: Validity,
    /// The shard of the root's CRL; a root has one, 0.
    pub shard: u32,
    /// How many CAs may follow; `Some(0)` for one that issues to subscribers.
    pub path_length: Option<u8>,
    /// The purposes that it may issue for (BR §7.1.2.10.6); none: any.
    pub extended_key_usages: &'a [ExtendedKeyUsage],
    /// Its policies (BR §7.1.2.10.5); none: no extension.
    pub policies: &'a [PolicyOid],
    /// Whether it is marked as a test CA, as its issuer is: [`Certificate::is_test_ca`].
    pub test_ca: bool,
}

/// A node of the CA itself.
#[derive(Clone, Copy, Debug)]
pub struct NodeRequest<'a> {
    /// Its serial number.
    pub serial: Serial,
    /// Role and name, as a URI.
    pub identity: &'a NodeIdentity,
    /// The names under which other nodes connect to it.
    pub names: Option<&'a NameSet>,
    /// Its key.
    pub public_key: &'a PublicKey,
    /// First and last second.
    pub validity: Validity,
}

/// A delegated OCSP responder.
#[derive(Clone, Copy, Debug)]
pub struct ResponderRequest<'a> {
    /// Its serial number.
    pub serial: Serial,
    /// Its common name; country and organisation are the issuer's (BR §7.1.2.8, §7.1.2.10.2).
    pub common_name: &'a str,
    /// Its key, which is none of the issuer's.
    pub public_key: &'a PublicKey,
    /// First and last second. Nobody can revoke it: its end is what limits a stolen key.
    pub validity: Validity,
}

/// Why there is no certificate for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TbsError {
    /// The profile does not accept this kind of key.
    #[error("the profile does not accept {0} keys")]
    KeyAlgorithm(KeyAlgorithm),
    /// More names than the profile allows.
    #[error("{count} names, but the profile allows {maximum}")]
    TooManyNames {
        /// In the request.
        count: usize,
        /// In the profile.
        maximum: usize,
    },
    /// A name that the profile does not issue for.
    #[error("{name}: {refusal}")]
    Name {
        /// The name.
        name: Name,
        /// Why.
        refusal: NameRefusal,
    },
    /// The profile has no TLS feature.
    #[error("the profile does not allow the TLS feature status_request")]
    MustStaple,
    /// A validity that ends before it begins, is longer than the profile's, or leaves the issuer's.
    #[error("the validity does not fit the profile or the issuer's certificate")]
    Validity,
    /// The issuer and the subject are the same key.
    #[error("the key is the issuer's own")]
    IssuerKey,
    /// A signature algorithm of another kind of key.
    #[error("{key} keys do not sign with {signature}")]
    Signature {
        /// The signing key.
        key: KeyAlgorithm,
        /// The algorithm asked for.
        signature: SignatureAlgorithm,
    },
    /// A common name that is empty, too long or not printable.
    #[error("common name: {0}")]
    CommonName(#[from] DistinguishedNameError),
    /// Octets from the journal that are no TBSCertificate.
    #[error("not a to-be-signed certificate: {0}")]
    Read(#[from] CertificateError),
}

impl TbsError {
    /// What the client can mend, what the operator has to.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::KeyAlgorithm(_)
            | Self::TooManyNames { .. }
            | Self::Name { .. }
            | Self::MustStaple
            | Self::IssuerKey => ErrorClass::Client,
            Self::Validity | Self::Signature { .. } | Self::CommonName(_) | Self::Read(_) => {
                ErrorClass::Fatal
            }
        }
    }
}

impl Tbs {
    /// The octets to be signed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.der
    }

    /// The algorithm named inside.
    #[must_use]
    pub const fn signature(&self) -> SignatureAlgorithm {
        self.signature
    }

    /// Takes octets up again that were written before.
    ///
    /// # Errors
    /// When they are not exactly one TBSCertificate.
    pub fn from_der(der: &[u8]) -> Result<Self, TbsError> {
        let fields = decode::sequence(der, TbsFields::read).map_err(CertificateError::from)?;
        let signature = SignatureAlgorithm::from_identifier_der(fields.algorithm)
            .ok_or(CertificateError::SignatureAlgorithm)?;
        Ok(Self { der: der.to_vec(), signature })
    }
}

/// The certificate: octets, algorithm, signature (RFC 5280 §4.1).
#[must_use]
pub fn assemble(tbs: &Tbs, signature: &[u8]) -> Vec<u8> {
    let mut e = Encoder::with_capacity(tbs.der.len() + signature.len() + 64);
    e.sequence(|e| {
        e.raw(&tbs.der).raw(tbs.signature.identifier_der()).bit_string(signature);
    });
    e.into_bytes()
}

/// A subscriber's certificate.
///
/// # Errors
/// When the profile does not allow what is asked for.
pub fn leaf(profile: &Profile, issuer: &Issuer, request: LeafRequest<'_>) -> Result<Tbs, TbsError> {
    check_leaf(profile, issuer, &request)?;
    let common_name = match profile.common_name {
        CommonName::Omitted => None,
        CommonName::FirstDnsName => first_short_name(request.names),
    };
    let subject = encode(|e| {
        e.sequence(|e| {
            if let Some(name) = common_name {
                attribute(e, &const_oid::db::rfc4519::COMMON_NAME, tag::UTF8_STRING, name);
            }
        });
    });
    let fields = Fields {
        serial: request.serial,
        signature: issuer.signature(),
        issuer: issuer.certificate().subject_der(),
        validity: request.validity,
        subject: &subject,
        public_key: request.public_key,
    };
    Ok(fields.encode(|e| {
        extension::subject_alt_name(e, common_name.is_none(), request.names);
        leaf_usage(e, profile, request.public_key);
        if profile.subject_key_identifier {
            extension::subject_key_identifier(e, &request.public_key.key_id());
        }
        e.raw(issuer.authority_key_identifier());
        if !profile.policies.is_empty() {
            extension::certificate_policies(e, profile.policies.iter().map(PolicyOid::oid));
        }
        let ocsp = issuer.ocsp_url().filter(|_| profile.ocsp);
        let ca_issuers = issuer.ca_issuers_url().filter(|_| profile.ca_issuers);
        publication(e, ocsp, ca_issuers, issuer.crl_url(request.shard).filter(|_| profile.crl).as_deref());
        if let Some(url) = issuer.delta_crl_url(request.shard).filter(|_| profile.crl) {
            extension::freshest_crl(e, &url);
        }
        if request.must_staple {
            extension::must_staple(e);
        }
    }))
}

/// A self-signed root (BR §7.1.2.1).
///
/// # Errors
/// When the key does not sign so, or the validity is not one.
pub fn root(request: RootRequest<'_>) -> Result<Tbs, TbsError> {
    self_signed(request, None)
}

/// The CA of the nodes: self-signed, and nothing may be a CA below it.
///
/// # Errors
/// When the key does not sign so, or the validity is not one.
pub fn node_ca(request: RootRequest<'_>) -> Result<Tbs, TbsError> {
    self_signed(request, Some(0))
}

fn self_signed(request: RootRequest<'_>, path_length: Option<u8>) -> Result<Tbs, TbsError> {
    let key = request.public_key.algorithm();
    if !request.signature.is_for(key) {
        return Err(TbsError::Signature { key, signature: request.signature });
    }
    if request.validity.not_before > request.validity.not_after {
        return Err(TbsError::Validity);
    }
    let subject = request.subject.to_der();
    let fields = Fields {
        serial: request.serial,
        signature: request.signature,
        issuer: &subject,
        validity: request.validity,
        subject: &subject,
        public_key: request.public_key,
    };
    let key_id = request.public_key.key_id();
    Ok(fields.encode(|e| {
        extension::basic_constraints(e, true, path_length);
        extension::key_usage(e, &[key_usage::KEY_CERT_SIGN, key_usage::CRL_SIGN]);
        extension::subject_key_identifier(e, &key_id);
        e.raw(&extension::authority_key_identifier(&key_id));
        if request.test_ca {
            extension::test_ca(e);
        }
    }))
}

/// An issuing CA, signed by `issuer` (BR §7.1.2.6).
///
/// # Errors
/// When the validity does not fit into the issuer's, or the key is the issuer's own.
pub fn intermediate(issuer: &Issuer, request: IntermediateRequest<'_>) -> Result<Tbs, TbsError> {
    check_issued(issuer, request.public_key, request.validity)?;
    let subject = request.subject.to_der();
    let fields = Fields {
        serial: request.serial,
        signature: issuer.signature(),
        issuer: issuer.certificate().subject_der(),
        validity: request.validity,
        subject: &subject,
        public_key: request.public_key,
    };
    Ok(fields.encode(|e| {
        extension::basic_constraints(e, true, request.path_length);
        extension::key_usage(e, &[key_usage::KEY_CERT_SIGN, key_usage::CRL_SIGN]);
        if !request.extended_key_usages.is_empty() {
            extension::extended_key_usage(e, request.extended_key_usages);
        }
        extension::subject_key_identifier(e, &request.public_key.key_id());
        e.raw(issuer.authority_key_identifier());
        if !request.policies.is_empty() {
            extension::certificate_policies(e, request.policies.iter().map(PolicyOid::oid));
        }
        let crl = issuer.crl_url(request.shard);
        publication(e, issuer.ocsp_url(), issuer.ca_issuers_url(), crl.as_deref());
        if request.test_ca {
            extension::test_ca(e);
        }
    }))
}

/// A node's certificate: client and server at once, named by its URI.
///
/// # Errors
/// When the validity does not fit into the issuer's, or the key is the issuer's own.
pub fn node(issuer: &Issuer, request: NodeRequest<'_>) -> Result<Tbs, TbsError> {
    check_issued(issuer, request.public_key, request.validity)?;
    let fields = Fields {
        serial: request.serial,
        signature: issuer.signature(),
        issuer: issuer.certificate().subject_der(),
        validity: request.validity,
        subject: EMPTY_NAME,
        public_key: request.public_key,
    };
    Ok(fields.encode(|e| {
        extension::node_alt_name(e, &request.identity.to_string(), request.names);
        extension::basic_constraints(e, false, None);
        extension::key_usage(e, &[key_usage::DIGITAL_SIGNATURE]);
        extension::extended_key_usage(e, &[ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth]);
        extension::subject_key_identifier(e, &request.public_key.key_id());
        e.raw(issuer.authority_key_identifier());
    }))
}

/// A delegated OCSP responder's certificate (RFC 6960 §4.2.2.2, BR §7.1.2.8): OCSPSigning alone, and
/// nothing to check it by.
///
/// # Errors
/// When the validity does not fit into the issuer's, the key is the issuer's own, or the common name
/// cannot stand in a certificate.
pub fn responder(issuer: &Issuer, request: ResponderRequest<'_>) -> Result<Tbs, TbsError> {
    check_issued(issuer, request.public_key, request.validity)?;
    let subject = DistinguishedName::beside(issuer.certificate(), request.common_name)?.to_der();
    let fields = Fields {
        serial: request.serial,
        signature: issuer.signature(),
        issuer: issuer.certificate().subject_der(),
        validity: request.validity,
        subject: &subject,
        public_key: request.public_key,
    };
    Ok(fields.encode(|e| {
        extension::key_usage(e, &[key_usage::DIGITAL_SIGNATURE]);
        extension::ocsp_signing(e);
        extension::ocsp_nocheck(e);
        extension::subject_key_identifier(e, &request.public_key.key_id());
        e.raw(issuer.authority_key_identifier());
    }))
}

/// An RDNSequence without members.
const EMPTY_NAME: &[u8] = &[0x30, 0x00];

/// X.520's upper bound for a common name, in characters; names here are ASCII.
const COMMON_NAME_MAX: usize = 64;

fn first_short_name(names: &NameSet) -> Option<&str> {
    names.iter().find_map(|name| match name {
        Name::Dns(name) if name.as_str().len() <= COMMON_NAME_MAX => Some(name.as_str()),
        _ => None,
    })
}

fn check_leaf(profile: &Profile, issuer: &Issuer, request: &LeafRequest<'_>) -> Result<(), TbsError> {
    if !profile.allows_key(request.public_key) {
        return Err(TbsError::KeyAlgorithm(request.public_key.algorithm()));
    }
    let (count, maximum) = (request.names.len(), profile.max_names);
    if count > maximum {
        return Err(TbsError::TooManyNames { count, maximum });
    }
    for name in request.names {
        let permitted = issuer.certificate().permits(name);
        profile
            .check_name(name)
            .and(if permitted { Ok(()) } else { Err(NameRefusal::Issuer) })
            .map_err(|refusal| TbsError::Name { name: name.clone(), refusal })?;
    }
    if request.must_staple && profile.must_staple != crate::MustStaple::Honour {
        return Err(TbsError::MustStaple);
    }
    if request.validity.period() > profile.validity {
        return Err(TbsError::Validity);
    }
    check_issued(issuer, request.public_key, request.validity)
}

fn check_issued(issuer: &Issuer, public_key: &PublicKey, validity: Validity) -> Result<(), TbsError> {
    let Validity { not_before, not_after } = validity;
    let certificate = issuer.certificate();
    if not_before > not_after || not_before < certificate.not_before() || not_after > certificate.not_after()
    {
        return Err(TbsError::Validity);
    }
    if public_key == certificate.public_key() {
        return Err(TbsError::IssuerKey);
    }
    Ok(())
}

/// basicConstraints, key usage and purposes of a subscriber (BR §7.1.2.7.6).
fn leaf_usage(e: &mut Encoder, profile: &Profile, public_key: &PublicKey) {
    if profile.basic_constraints {
        extension::basic_constraints(e, false, None);
    }
    let bits: &[u8] = if public_key.algorithm().is_rsa() && profile.rsa_key_encipherment {
        &[key_usage::DIGITAL_SIGNATURE, key_usage::KEY_ENCIPHERMENT]
    } else {
        &[key_usage::DIGITAL_SIGNATURE]
    };
    extension::key_usage(e, bits);
    extension::extended_key_usage(e, &profile.extended_key_usages);
}

/// Where issuer certificate, OCSP and CRL are.
fn publication(e: &mut Encoder, ocsp: Option<&str>, ca_issuers: Option<&str>, crl: Option<&str>) {
    if ocsp.is_some() || ca_issuers.is_some() {
        extension::authority_info_access(e, ocsp, ca_issuers);
    }
    if let Some(url) = crl {
        extension::crl_distribution_points(e, url);
    }
}

/// The fields that every TBSCertificate has (RFC 5280 §4.1).
struct Fields<'a> {
    serial: Serial,
    signature: SignatureAlgorithm,
    /// Copied byte for byte from the issuer's subject (RFC 5280 §7.1, BR §7.1.4.1).
    issuer: &'a [u8],
    validity: Validity,
    subject: &'a [u8],
    public_key: &'a PublicKey,
}

impl Fields<'_> {
    fn encode(&self, extensions: impl FnOnce(&mut Encoder)) -> Tbs {
        let mut e = Encoder::with_capacity(1024);
        e.sequence(|e| {
            // v3 is 2.
            e.nested(tag::context_constructed(0), |e| {
                e.unsigned(&[2]);
            });
            self.serial.encode(e);
            e.raw(self.signature.identifier_der()).raw(self.issuer);
            e.sequence(|e| {
                self.validity.not_before.encode(e);
                self.validity.not_after.encode(e);
            });
            e.raw(self.subject).raw(self.public_key.spki_der());
            e.nested(tag::context_constructed(3), |e| {
                e.sequence(extensions);
            });
        });
        Tbs { der: e.into_bytes(), signature: self.signature }
    }
}

/// A certificate as it comes back from the token.
///
/// # Errors
/// When the octets and the signature together are no certificate.
pub fn assemble_certificate(tbs: &Tbs, signature: &[u8]) -> Result<Certificate, CertificateError> {
    Certificate::from_der(&assemble(tbs, signature))
}

#[cfg(test)]
mod tests;
