//! The only door to the shelf: bytes become an [`Object`] when they are what they are said to be and their issuer signed
//! them.

use bytes::Bytes;
use pki::Certificate;
use pki::crl::Crl;

use crate::object::{Content, Kind, Object, ObjectPath, Revision, Sha256};
use crate::readers::Readers;
use crate::shelf::Shelf;

/// Checks objects, against pinned certificates where the configuration has some.
#[derive(Debug, Default)]
pub struct Verifier {
    anchors: Vec<(Sha256, Certificate)>,
}

/// Why an object is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The spool's manifest is none.
    #[error("the manifest is not one that this version wrote")]
    Manifest,
    /// The file is missing, or reading it failed.
    #[error("the file cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    /// More or fewer bytes than announced.
    #[error("the size is not the announced one")]
    Size,
    /// Other bytes than announced.
    #[error("the digest is not the announced one")]
    Digest,
    /// Not a certificate.
    #[error("not a certificate: {0}")]
    Certificate(#[from] pki::CertificateError),
    /// Not a CRL.
    #[error("not a CRL: {0}")]
    Crl(#[from] pki::crl::CrlReadError),
    /// A certificate that may not sign what it is said to have signed.
    #[error("the issuer's certificate is not a CA's")]
    NotCa,
    /// The issuer's certificate is neither pinned nor among the verified objects.
    #[error("the issuer's certificate is not known")]
    UnknownIssuer,
    /// The issuer's key did not sign it.
    #[error("the issuer did not sign it")]
    Signature,
    /// A CRL whose own times are not the announced ones.
    #[error("thisUpdate or nextUpdate is not the announced one")]
    Times,
}

/// What became of several objects.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) verified: Vec<Object>,
    pub(crate) refused: Vec<(ObjectPath, Refusal)>,
}

impl Batch {
    fn certificate(&self, sha256: &Sha256) -> Option<Certificate> {
        self.verified.iter().find_map(|object| object.certificate(sha256))
    }
}

impl Verifier {
    /// With pinned certificates, only what chains to one of them is served; without, CA certificates are taken on the word
    /// of the signers.
    #[must_use]
    pub fn new(anchors: Vec<Certificate>) -> Self {
        Self { anchors: anchors.into_iter().map(|anchor| (Sha256::of(anchor.der()), anchor)).collect() }
    }

    /// Makes bytes an object. `known` finds certificates that were verified before.
    ///
    /// # Errors
    /// What is wrong with it. [`Refusal::UnknownIssuer`] may pass when another certificate comes.
    pub fn verify(
        &self,
        revision: &Revision,
        bytes: Bytes,
        known: impl Fn(&Sha256) -> Option<Certificate>,
    ) -> Result<Object, Refusal> {
        if u64::try_from(bytes.len()) != Ok(revision.size) {
            return Err(Refusal::Size);
        }
        if Sha256::of(&bytes) != revision.sha256 {
            return Err(Refusal::Digest);
        }
        let issuer = self.anchor(&revision.issuer_sha256).or_else(|| known(&revision.issuer_sha256));
        let (content, made_at) = match revision.kind {
            Kind::Certificate => self.certificate(&bytes, issuer)?,
            Kind::Crl => crl(revision, &bytes, issuer.ok_or(Refusal::UnknownIssuer)?)?,
        };
        Ok(Object { revision: revision.clone(), bytes, content, made_at, readers: Readers::default() })
    }

    /// Makes objects of a batch whose members may be each other's issuers, in any order; what is on the shelf may be an
    /// issuer as well.
    pub(crate) fn verify_all(&self, batch: Vec<(Revision, Bytes)>, shelf: &Shelf) -> Batch {
        let mut done = Batch::default();
        let mut waiting = batch;
        loop {
            let before = waiting.len();
            let mut later = Vec::new();
            for (revision, bytes) in waiting {
                let known = |sha256: &Sha256| done.certificate(sha256).or_else(|| shelf.certificate(sha256));
                match self.verify(&revision, bytes.clone(), known) {
                    Ok(object) => done.verified.push(object),
                    Err(Refusal::UnknownIssuer) => later.push((revision, bytes)),
                    Err(refusal) => done.refused.push((revision.path, refusal)),
                }
            }
            if later.len() == before {
                done.refused.extend(later.into_iter().map(|(lost, _)| (lost.path, Refusal::UnknownIssuer)));
                return done;
            }
            waiting = later;
        }
    }

    fn anchor(&self, sha256: &Sha256) -> Option<Certificate> {
        self.anchors.iter().find(|(digest, _)| digest == sha256).map(|(_, anchor)| anchor.clone())
    }

    /// The anchor that issued this certificate; a root is issued by itself.
    fn anchor_above(&self, certificate: &Certificate) -> Option<Certificate> {
        let above = |anchor: &Certificate| pki::chain::is_issued_by(certificate, anchor).is_ok();
        self.anchors.iter().map(|(_, anchor)| anchor).find(|anchor| above(anchor)).cloned()
    }

    fn certificate(&self, bytes: &Bytes, issuer: Option<Certificate>) -> Result<(Content, i64), Refusal> {
        let certificate = Certificate::from_der(bytes)?;
        if !certificate.is_ca() {
            return Err(Refusal::NotCa);
        }
        // A signer that does not publish the issuer of a certificate names the certificate itself.
        let named = issuer.filter(|issuer| issuer.der() != certificate.der());
        let issuer = named.or_else(|| self.anchor_above(&certificate));
        if issuer.is_none() && !self.anchors.is_empty() {
            return Err(Refusal::UnknownIssuer);
        }
        let issuer = issuer.or_else(|| certificate.is_self_issued().then(|| certificate.clone()));
        if let Some(issuer) = issuer {
            if !issuer.is_ca() {
                return Err(Refusal::NotCa);
            }
            pki::chain::is_issued_by(&certificate, &issuer).map_err(|_| Refusal::Signature)?;
        }
        let made_at = seconds(certificate.not_before());
        Ok((Content::Certificate(certificate), made_at))
    }
}

fn crl(revision: &Revision, bytes: &Bytes, issuer: Certificate) -> Result<(Content, i64), Refusal> {
    if !issuer.is_ca() {
        return Err(Refusal::NotCa);
    }
    let crl = Crl::from_der(bytes)?;
    crl.verify_issued_by(&issuer).map_err(|_| Refusal::Signature)?;
    let times = (seconds(crl.this_update()), seconds(crl.next_update()));
    if times != (revision.this_update, revision.next_update) {
        return Err(Refusal::Times);
    }
    Ok((Content::Crl { number: crl.number() }, times.0))
}

fn seconds(at: pki::Timestamp) -> i64 {
    i64::try_from(at.unix()).unwrap_or(i64::MAX)
}
