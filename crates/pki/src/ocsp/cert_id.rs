//! Which certificate is meant: CertID (RFC 6960 §4.1.1).

use std::{fmt, ops::Range, sync::Arc};

use aws_lc_rs::digest;
use const_oid::{ObjectIdentifier, db::rfc5912};
use der::{Decode, Reader, SliceReader, asn1::Null};

use crate::{
    Certificate, PublicKey, Serial, decode,
    encode::{encode, tag},
};

/// The hash of a CertID's issuer name and key. Other algorithms name issuers that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertIdHash {
    /// SHA-1, 1.3.14.3.2.26: what most clients send. Nothing is signed with it here.
    Sha1,
    /// SHA-256, 2.16.840.1.101.3.4.2.1: what RFC 9919 asks clients for.
    Sha256,
}

impl CertIdHash {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => rfc5912::ID_SHA_1,
            Self::Sha256 => rfc5912::ID_SHA_256,
        }
    }
}

/// What every CertID of an issuer has: the hashes of its name and key. Made once for each issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IssuerHashes {
    sha1: [Vec<u8>; 2],
    sha256: [Vec<u8>; 2],
}

impl IssuerHashes {
    /// Of the subject, DER, and of the content of the public key's BIT STRING.
    #[must_use]
    pub fn of(certificate: &Certificate) -> Self {
        let inputs = [certificate.subject_der(), certificate.public_key().raw()];
        let hash = |algorithm| inputs.map(|octets| digest::digest(algorithm, octets).as_ref().to_vec());
        Self { sha1: hash(&digest::SHA1_FOR_LEGACY_USE_ONLY), sha256: hash(&digest::SHA256) }
    }

    fn by(&self, hash: CertIdHash) -> &[Vec<u8>; 2] {
        match hash {
            CertIdHash::Sha1 => &self.sha1,
            CertIdHash::Sha256 => &self.sha256,
        }
    }
}

/// The name of a responder in its answers: SHA-1 of its key (RFC 6960 §4.2.1, `KeyHash`).
pub(super) fn key_hash(key: &PublicKey) -> digest::Digest {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.raw())
}

/// A CertID as it came. Its octets are echoed in the answer, because some clients compare them; two
/// are equal if their octets are. Cheap to clone.
#[derive(Clone)]
pub struct CertId(Arc<Parsed>);

struct Parsed {
    der: Box<[u8]>,
    hash: Option<CertIdHash>,
    name_hash: Range<usize>,
    key_hash: Range<usize>,
    serial: Option<Serial>,
}

impl CertId {
    /// The CertID of one of `issuer`'s certificates, octet by octet the one that OpenSSL, GnuTLS, Go
    /// and Java make: with the parameter NULL.
    #[must_use]
    pub fn new(hash: CertIdHash, issuer: &IssuerHashes, serial: &Serial) -> Self {
        let [name, key] = issuer.by(hash);
        let der = encode(|e| {
            e.sequence(|e| {
                e.sequence(|e| {
                    e.oid(&hash.oid()).primitive(tag::NULL, &[]);
                });
                e.primitive(tag::OCTET_STRING, name).primitive(tag::OCTET_STRING, key);
                serial.encode(e);
            });
        });
        // The serial, the two hashes and their headers, from the end.
        let key_end = der.len() - serial.as_bytes().len() - 2;
        let key_start = key_end - key.len();
        let name_end = key_start - 2;
        Self(Arc::new(Parsed {
            hash: Some(hash),
            name_hash: name_end - name.len()..name_end,
            key_hash: key_start..key_end,
            serial: Some(*serial),
            der: der.into(),
        }))
    }

    /// Reads the next value.
    pub(super) fn decode(reader: &mut SliceReader<'_>) -> der::Result<Self> {
        let der = reader.tlv_bytes()?;
        let fields = decode::sequence(der, Fields::read)?;
        let range = |part: &[u8]| {
            let start = part.as_ptr().addr().saturating_sub(der.as_ptr().addr());
            start..start + part.len()
        };
        Ok(Self(Arc::new(Parsed {
            hash: fields.hash,
            name_hash: range(fields.name_hash),
            key_hash: range(fields.key_hash),
            serial: Serial::from_bytes(fields.serial).ok(),
            der: der.into(),
        })))
    }

    /// The hash that it uses; `None` if it is another one, so that its issuer cannot be told.
    #[must_use]
    pub fn hash(&self) -> Option<CertIdHash> {
        self.0.hash
    }

    /// Whether its issuer has this name and this key.
    #[must_use]
    pub fn is_of(&self, issuer: &IssuerHashes) -> bool {
        let part = |range: &Range<usize>| self.0.der.get(range.clone()).unwrap_or_default();
        self.0.hash.is_some_and(|hash| {
            let [name, key] = issuer.by(hash);
            part(&self.0.name_hash) == name && part(&self.0.key_hash) == key
        })
    }

    /// The serial number; `None` if it is not positive or longer than twenty octets, so that no
    /// certificate has it.
    #[must_use]
    pub fn serial(&self) -> Option<Serial> {
        self.0.serial
    }

    /// The octets of the whole CertID.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.0.der
    }
}

struct Fields<'a> {
    hash: Option<CertIdHash>,
    name_hash: &'a [u8],
    key_hash: &'a [u8],
    serial: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        let hash = reader.sequence(read_algorithm)?;
        let (name_hash, key_hash) = (decode::octets(reader)?, decode::octets(reader)?);
        Ok(Self { hash, name_hash, key_hash, serial: decode::integer(reader)? })
    }
}

/// An AlgorithmIdentifier whose parameters are NULL or absent (RFC 5754 §2 has both).
fn read_algorithm(reader: &mut SliceReader<'_>) -> der::Result<Option<CertIdHash>> {
    let oid = decode::oid(reader)?;
    let known = CertIdHash::ALL.into_iter().find(|hash| hash.oid() == oid);
    if !reader.is_finished() {
        match known {
            Some(_) => drop(Null::decode(reader)?),
            None => drop(reader.tlv_bytes()?),
        }
    }
    Ok(known)
}

impl PartialEq for CertId {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for CertId {}

impl std::hash::Hash for CertId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.der.hash(state);
    }
}

impl fmt::Debug for CertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuer = self.0.der.get(self.0.key_hash.clone()).unwrap_or_default();
        write!(f, "CertId({:?} of key {}, serial ", self.0.hash, hex::encode(issuer))?;
        match self.0.serial {
            Some(serial) => write!(f, "{serial})"),
            None => f.write_str("of nobody)"),
        }
    }
}
