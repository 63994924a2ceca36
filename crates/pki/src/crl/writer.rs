//! The streaming writer of TBSCertList.

use std::io::{Read, Write};

use aws_lc_rs::digest;
use const_oid::db::rfc5280 as oid;

use super::{CrlError, CrlParameters, CrlScope, Entry};
use crate::{
    Reason, SignatureAlgorithm, Timestamp,
    encode::{Encoder, encode, header_len, tag, write_header},
    extension::{distribution_point_name, extension, freshest_crl},
};

/// What the entries of a CRL take up: one pass over them before they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrlTotals {
    entries: u64,
    octets: u64,
}

/// Writes entries alone, ahead of the TBSCertList that they will stand in: its header, which says how long they are, is known
/// when they are.
pub struct EntryWriter<W> {
    out: W,
    this_update: Timestamp,
    written: CrlTotals,
    buffer: Encoder,
}

impl<W: Write> EntryWriter<W> {
    /// For a CRL of this time.
    pub fn new(this_update: Timestamp, out: W) -> Self {
        Self { out, this_update, written: CrlTotals::default(), buffer: Encoder::with_capacity(BUFFER + 256) }
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// When it was revoked after thisUpdate, or the output fails.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), CrlError> {
        if entry.revoked_at > self.this_update {
            return Err(CrlError::RevokedLater(entry.serial));
        }
        encode_entry(&mut self.buffer, entry);
        self.written.add(entry);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Entries that are encoded already.
    pub(super) fn pass_on(&mut self, encoded: &[u8], entries: u64) -> Result<(), CrlError> {
        self.written = CrlTotals {
            entries: self.written.entries + entries,
            octets: self.written.octets + encoded.len() as u64,
        };
        if encoded.len() < BUFFER {
            self.buffer.raw(encoded);
            return if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) };
        }
        self.flush()?;
        Ok(self.out.write_all(encoded)?)
    }

    /// What was written until now.
    pub const fn written(&self) -> CrlTotals {
        self.written
    }

    /// Gives the output back, and what was written.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(mut self) -> Result<(W, CrlTotals), CrlError> {
        self.flush()?;
        Ok((self.out, self.written))
    }

    fn flush(&mut self) -> Result<(), CrlError> {
        self.out.write_all(self.buffer.as_bytes())?;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes a TBSCertList piece by piece.
pub struct CrlWriter<W> {
    out: W,
    digest: Option<digest::Context>,
    algorithm: SignatureAlgorithm,
    this_update: Timestamp,
    expected: CrlTotals,
    written: CrlTotals,
    /// Octets that are not yet in `out` and `digest`: both like large pieces better.
    buffer: Encoder,
    extensions: Vec<u8>,
    len: u64,
    tbs_len: u64,
    entries_at: u64,
}

/// A finished TBSCertList: what its signature needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlTbs {
    /// Octets written.
    pub len: u64,
    /// After so many of them the first entry begins.
    pub entries_at: u64,
    /// Entries written.
    pub entries: u64,
    /// The algorithm named inside.
    pub algorithm: SignatureAlgorithm,
    /// The digest to be signed; `None` if the algorithm signs the octets themselves.
    pub digest: Option<Vec<u8>>,
}

/// How much is collected before it is written on.
const BUFFER: usize = 64 * 1024;
/// Encoded entries are copied in pieces of this many octets.
const COPY: usize = 256 * 1024;

impl CrlTotals {
    /// Counts one more entry.
    pub fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.octets += entry_len(entry) as u64;
    }

    /// How many octets they take up.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// Totals that were kept beside encoded entries.
    #[must_use]
    pub const fn of(entries: u64, octets: u64) -> Self {
        Self { entries, octets }
    }

    /// How many entries were counted.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }
}

impl<'a> FromIterator<&'a Entry> for CrlTotals {
    fn from_iter<I: IntoIterator<Item = &'a Entry>>(entries: I) -> Self {
        let mut totals = Self::default();
        entries.into_iter().for_each(|entry| totals.add(entry));
        totals
    }
}

impl<W: Write> CrlWriter<W> {
    /// Writes everything up to the entries, `totals` of which will follow.
    ///
    /// # Errors
    /// When the parameters contradict each other, or the output fails.
    pub fn start(parameters: &CrlParameters<'_>, totals: CrlTotals, out: W) -> Result<Self, CrlError> {
        if parameters.next_update <= parameters.this_update {
            return Err(CrlError::Times);
        }
        if parameters.delta_base.is_some_and(|base| base >= parameters.number) {
            return Err(CrlError::Base);
        }
        let algorithm = parameters.issuer.signature();
        let extensions = encode_extensions(parameters)?;
        let fields = encode(|e| {
            // v2 is 1.
            e.unsigned(&[1])
                .raw(algorithm.identifier_der())
                .raw(parameters.issuer.certificate().subject_der());
            parameters.this_update.encode(e);
            parameters.next_update.encode(e);
        });
        let entries = usize::try_from(totals.octets).unwrap_or(usize::MAX);
        let list = if totals.entries == 0 { 0 } else { header_len(entries).saturating_add(entries) };
        let content = fields.len().saturating_add(list).saturating_add(extensions.len());
        let mut buffer = Encoder::with_capacity(BUFFER + 256);
        let mut header = [0; super::PREFIX_MAX];
        let tbs_len = header_len(content).saturating_add(content) as u64;
        buffer.raw(write_header(&mut header, tag::SEQUENCE, content)).raw(&fields);
        // RFC 5280 §5.1.2.6: without entries the list is absent, not empty.
        if totals.entries > 0 {
            buffer.raw(write_header(&mut header, tag::SEQUENCE, entries));
        }
        let entries_at = buffer.len() as u64;
        Ok(Self {
            out,
            digest: algorithm.digest_algorithm().map(digest::Context::new),
            algorithm,
            this_update: parameters.this_update,
            expected: totals,
            written: CrlTotals::default(),
            buffer,
            extensions,
            len: 0,
            tbs_len,
            entries_at,
        })
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// When it was revoked after thisUpdate, or the output fails.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), CrlError> {
        if entry.revoked_at > self.this_update {
            return Err(CrlError::RevokedLater(entry.serial));
        }
        encode_entry(&mut self.buffer, entry);
        self.written.add(entry);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// The octets that the TBSCertList will have.
    pub const fn tbs_len(&self) -> u64 {
        self.tbs_len
    }

    /// Copies all entries from where an [`EntryWriter`] has written them.
    ///
    /// # Errors
    /// When they are fewer octets than were counted, or input or output fail.
    pub fn entries_from(&mut self, mut encoded: impl Read) -> Result<(), CrlError> {
        self.flush()?;
        let mut piece = vec![0; COPY];
        let mut left = self.expected.octets;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(COPY);
            let read = encoded.read(piece.get_mut(..room).unwrap_or_default())?;
            let octets = piece.get(..read).filter(|octets| !octets.is_empty()).ok_or(CrlError::Totals)?;
            self.pass_on(octets)?;
            left = left.saturating_sub(read as u64);
        }
        self.written = self.expected;
        Ok(())
    }

    /// Writes the extensions, and gives the output back with what there is to sign.
    ///
    /// # Errors
    /// When the entries were not those that were counted, or the output fails.
    pub fn finish(mut self) -> Result<(W, CrlTbs), CrlError> {
        if self.written != self.expected {
            return Err(CrlError::Totals);
        }
        let extensions = std::mem::take(&mut self.extensions);
        self.buffer.raw(&extensions);
        self.flush()?;
        let digest = self.digest.map(|context| context.finish().as_ref().to_vec());
        let tbs = CrlTbs {
            len: self.len,
            entries_at: self.entries_at,
            entries: self.written.entries,
            algorithm: self.algorithm,
            digest,
        };
        Ok((self.out, tbs))
    }

    fn flush(&mut self) -> Result<(), CrlError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let passed_on = self.pass_on(buffer.as_bytes());
        buffer.clear();
        self.buffer = buffer;
        passed_on
    }

    fn pass_on(&mut self, octets: &[u8]) -> Result<(), CrlError> {
        if let Some(digest) = &mut self.digest {
            digest.update(octets);
        }
        self.out.write_all(octets)?;
        self.len += octets.len() as u64;
        Ok(())
    }
}

/// `crlExtensions [0]` (RFC 5280 §5.2).
fn encode_extensions(parameters: &CrlParameters<'_>) -> Result<Vec<u8>, CrlError> {
    let (url, delta_url) = match parameters.scope {
        CrlScope::Complete => (None, None),
        CrlScope::Shard(shard) => (
            Some(parameters.issuer.crl_url(shard).ok_or(CrlError::NoUrl)?),
            parameters.issuer.delta_crl_url(shard),
        ),
    };
    Ok(encode(|e| {
        e.nested(tag::context_constructed(0), |e| {
            e.sequence(|e| {
                e.raw(parameters.issuer.authority_key_identifier());
                extension(e, &oid::ID_CE_CRL_NUMBER, false, |e| {
                    e.unsigned(&parameters.number.to_be_bytes());
                });
                if let Some(base) = parameters.delta_base {
                    extension(e, &oid::ID_CE_DELTA_CRL_INDICATOR, true, |e| {
                        e.unsigned(&base.to_be_bytes());
                    });
                }
                if let Some(url) = url {
                    extension(e, &oid::ID_CE_ISSUING_DISTRIBUTION_POINT, true, |e| {
                        e.sequence(|e| {
                            distribution_point_name(e, &url);
                            // onlyContainsUserCerts [1] BOOLEAN DEFAULT FALSE
                            e.primitive(tag::context(1), &[0xff]);
                        });
                    });
                }
                // RFC 5280 §5.2.6: "MUST NOT appear in delta CRLs".
                if let Some(url) = delta_url.filter(|_| parameters.delta_base.is_none()) {
                    freshest_crl(e, &url);
                }
            });
        });
    }))
}

/// `crlEntryExtensions` with a reasonCode, not critical, up to the code itself.
pub(super) const REASON: &[u8] =
    &[0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, tag::ENUMERATED, 0x01];

fn entry_content_len(entry: &Entry) -> usize {
    let reason = if entry.reason == Reason::Unspecified { 0 } else { REASON.len() + 1 };
    2 + entry.serial.as_bytes().len() + entry.revoked_at.encoded_len() + reason
}

/// An entry's content has at most 22 + 17 + 14 octets: its header has two.
fn entry_len(entry: &Entry) -> usize {
    2 + entry_content_len(entry)
}

fn encode_entry(e: &mut Encoder, entry: &Entry) {
    let content = u8::try_from(entry_content_len(entry)).unwrap_or(u8::MAX);
    e.raw(&[tag::SEQUENCE, content]);
    entry.serial.encode(e);
    entry.revoked_at.encode(e);
    if entry.reason != Reason::Unspecified {
        e.raw(REASON).raw(&[entry.reason.code()]);
    }
}
