//! An issuer: a CA certificate, how it signs, and where its things are published.

use crate::{
    Certificate, ErrorClass, KeyAlgorithm, SignatureAlgorithm,
    extension::{self, authority_key_identifier},
};

/// A CA that certificates name as their issuer.
#[derive(Clone, Debug)]
pub struct Issuer {
    certificate: Certificate,
    signature: SignatureAlgorithm,
    ca_issuers_url: Option<String>,
    crl_url_base: Option<String>,
    delta_crls: bool,
    ocsp_url: Option<String>,
    key_id: Vec<u8>,
    /// The authorityKeyIdentifier of everything that it signs: made once.
    authority_key_identifier: Vec<u8>,
}

/// Why a certificate and URLs are not an issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// basicConstraints does not say cA.
    #[error("the issuer's certificate is not a CA certificate")]
    NotCa,
    /// The key usage leaves out keyCertSign or cRLSign (RFC 5280 §4.2.1.3).
    #[error("the key usage of the issuer's certificate does not let it sign certificates and CRLs")]
    KeyUsage,
    /// Without a subject key identifier there is no authority key identifier (RFC 5280 §4.2.1.1).
    #[error("the issuer's certificate has no subject key identifier")]
    NoKeyId,
    /// A key of another kind.
    #[error("the issuer's key, {key}, does not sign with {signature}")]
    Signature {
        /// The issuer's kind of key.
        key: KeyAlgorithm,
        /// The algorithm asked for.
        signature: SignatureAlgorithm,
    },
    /// Not a plain HTTP URL of visible ASCII (BR §7.1.2.7.7, §7.1.2.11.2).
    #[error("{0:?} is not a plain http:// URL")]
    Url(String),
}

impl IssuerError {
    /// Always the operator's configuration.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Fatal
    }
}

impl Issuer {
    /// An issuer that publishes nothing yet.
    ///
    /// # Errors
    /// When the certificate is not a CA's, or its key does not go with the signature algorithm.
    pub fn new(certificate: Certificate, signature: SignatureAlgorithm) -> Result<Self, IssuerError> {
        if !certificate.is_ca() {
            return Err(IssuerError::NotCa);
        }
        if !certificate.may_sign_certificates() || !certificate.may_sign_crls() {
            return Err(IssuerError::KeyUsage);
        }
        let key_id = certificate.key_id().filter(|id| !id.is_empty()).ok_or(IssuerError::NoKeyId)?.to_vec();
        let key = certificate.public_key().algorithm();
        if !signature.is_for(key) {
            return Err(IssuerError::Signature { key, signature });
        }
        let authority_key_identifier = authority_key_identifier(&key_id);
        Ok(Self {
            certificate,
            signature,
            ca_issuers_url: None,
            crl_url_base: None,
            delta_crls: false,
            ocsp_url: None,
            key_id,
            authority_key_identifier,
        })
    }

    /// Where this issuer's certificate can be fetched (AIA caIssuers).
    ///
    /// # Errors
    /// When it is not a plain HTTP URL.
    pub fn with_ca_issuers_url(mut self, url: &str) -> Result<Self, IssuerError> {
        self.ca_issuers_url = Some(checked(url)?);
        Ok(self)
    }

    /// Below which URL this issuer's CRLs are published; see [`crl_url`].
    ///
    /// # Errors
    /// When it is not a plain HTTP URL.
    pub fn with_crl_url_base(mut self, base: &str) -> Result<Self, IssuerError> {
        self.crl_url_base = Some(checked(base)?);
        Ok(self)
    }

    /// Whether it makes delta CRLs as well (RFC 5280 §5.2.4). Its certificates and complete CRLs then
    /// say where they are.
    #[must_use]
    pub const fn with_delta_crls(mut self, delta_crls: bool) -> Self {
        self.delta_crls = delta_crls;
        self
    }

    /// Where its OCSP responder is (AIA OCSP).
    ///
    /// # Errors
    /// When it is not a plain HTTP URL.
    pub fn with_ocsp_url(mut self, url: &str) -> Result<Self, IssuerError> {
        self.ocsp_url = Some(checked(url)?);
        Ok(self)
    }

    /// The CA certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// How it signs.
    #[must_use]
    pub const fn signature(&self) -> SignatureAlgorithm {
        self.signature
    }

    /// Its subject key identifier, which is the authority key identifier of what it signs.
    #[must_use]
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// The key identifier in hexadecimal: the issuer's name in paths, logs and the database.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(&self.key_id)
    }

    /// AIA caIssuers.
    #[must_use]
    pub fn ca_issuers_url(&self) -> Option<&str> {
        self.ca_issuers_url.as_deref()
    }

    /// AIA OCSP.
    #[must_use]
    pub fn ocsp_url(&self) -> Option<&str> {
        self.ocsp_url.as_deref()
    }

    /// The base of its CRL URLs.
    #[must_use]
    pub fn crl_url_base(&self) -> Option<&str> {
        self.crl_url_base.as_deref()
    }

    /// The URL of one shard's CRL, if CRLs are published: the bytes of the certificates' CRL
    /// distribution point and of the CRL's issuing distribution point.
    #[must_use]
    pub fn crl_url(&self, shard: u32) -> Option<String> {
        self.crl_url_base().map(|base| crl_url(base, &self.key_id, shard))
    }

    /// The URL of one shard's delta CRL, if the issuer publishes CRLs and makes deltas.
    #[must_use]
    pub fn delta_crl_url(&self, shard: u32) -> Option<String> {
        self.crl_url_base().filter(|_| self.delta_crls).map(|base| delta_crl_url(base, &self.key_id, shard))
    }

    pub(crate) fn authority_key_identifier(&self) -> &[u8] {
        &self.authority_key_identifier
    }
}

/// The one place that knows where the CRL of a shard is: `{base}/{issuer's key id}/{shard}.crl`.
#[must_use]
pub fn crl_url(base: &str, issuer_key_id: &[u8], shard: u32) -> String {
    format!("{}/{}/{shard}.crl", base.trim_end_matches('/'), hex::encode(issuer_key_id))
}

/// The one place that knows where the delta CRL of a shard is:
/// `{base}/{issuer's key id}/{shard}.delta.crl`.
#[must_use]
pub fn delta_crl_url(base: &str, issuer_key_id: &[u8], shard: u32) -> String {
    format!("{}/{}/{shard}.delta.crl", base.trim_end_matches('/'), hex::encode(issuer_key_id))
}

fn checked(url: &str) -> Result<String, IssuerError> {
    if extension::is_http_url(url) { Ok(url.to_owned()) } else { Err(IssuerError::Url(url.to_owned())) }
}
