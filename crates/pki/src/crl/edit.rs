//! A later CRL's entries out of an earlier one's: most are the same octets.

use std::collections::HashSet;
use std::io::Write;

use super::CrlError;
use super::writer::{EntryWriter, REASON};
use crate::encode::tag;
use crate::{Reason, Serial};

/// What becomes of an earlier CRL's entries in a later one.
#[derive(Clone, Debug, Default)]
pub struct CrlEdits {
    left: HashSet<Serial>,
    raised: HashSet<Serial>,
}

/// An encoded entry.
struct Encoded<'a> {
    len: usize,
    serial: &'a [u8],
    /// Serial number and time, as they are encoded.
    certificate: &'a [u8],
}

impl CrlEdits {
    /// `left`: those that the later one does not have. `raised`: those whose reason it has as keyCompromise.
    pub fn new(left: impl IntoIterator<Item = Serial>, raised: impl IntoIterator<Item = Serial>) -> Self {
        Self { left: left.into_iter().collect(), raised: raised.into_iter().collect() }
    }

    /// Whether each was found.
    #[must_use]
    pub fn are_made(&self) -> bool {
        self.left.is_empty() && self.raised.is_empty()
    }
}

impl<W: Write> EntryWriter<W> {
    /// Copies an earlier CRL's entries, edited; what was found leaves `edits`. Answers how many octets these were: the last
    /// entry may not be there whole, and is to be given again with what follows.
    ///
    /// # Errors
    /// When these are no entries as this writer makes them, or the output fails.
    pub fn copy(&mut self, encoded: &[u8], edits: &mut CrlEdits) -> Result<usize, CrlError> {
        let (mut same, mut entries, mut at) = (0, 0, 0);
        while let Some(entry) = Encoded::first(encoded.get(at..).unwrap_or_default())? {
            let next = at.saturating_add(entry.len);
            // Nearly always there is nothing to look for.
            let (leaves, rises) = if edits.are_made() {
                (false, false)
            } else {
                let serial = Serial::from_bytes(entry.serial).map_err(|_| CrlError::Totals)?;
                (edits.left.remove(&serial), edits.raised.remove(&serial))
            };
            if leaves || rises {
                self.pass_on(encoded.get(same..at).unwrap_or_default(), entries)?;
                (same, entries) = (next, 0);
                if rises && !leaves {
                    self.raised(&entry)?;
                }
            } else {
                entries += 1;
            }
            at = next;
        }
        self.pass_on(encoded.get(same..at).unwrap_or_default(), entries)?;
        Ok(at)
    }

    fn raised(&mut self, entry: &Encoded<'_>) -> Result<(), CrlError> {
        let reason = [REASON, &[Reason::KeyCompromise.code()]].concat();
        let content = u8::try_from(entry.certificate.len().saturating_add(reason.len()));
        let header = [tag::SEQUENCE, content.map_err(|_| CrlError::Totals)?];
        self.pass_on(&[&header, entry.certificate, &reason].concat(), 1)
    }
}

impl<'a> Encoded<'a> {
    /// The first of some octets; none if it is not there whole.
    fn first(octets: &'a [u8]) -> Result<Option<Self>, CrlError> {
        let Some((&[sequence, len], rest)) = octets.split_first_chunk() else { return Ok(None) };
        if sequence != tag::SEQUENCE || len >= 0x80 {
            return Err(CrlError::Totals);
        }
        let Some(content) = rest.get(..usize::from(len)) else { return Ok(None) };
        let (serial, after) = value(content, |tag| tag == tag::INTEGER).ok_or(CrlError::Totals)?;
        let is_time = |tag| tag == tag::UTC_TIME || tag == tag::GENERALIZED_TIME;
        let (_, after) = value(after, is_time).ok_or(CrlError::Totals)?;
        let certificate = content.get(..content.len().saturating_sub(after.len())).unwrap_or_default();
        Ok(Some(Self { len: content.len().saturating_add(2), serial, certificate }))
    }
}

/// A short value, and what follows it.
fn value(octets: &[u8], expected: impl Fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    let (&[tag, len], rest) = octets.split_first_chunk()?;
    if !expected(tag) || len >= 0x80 {
        return None;
    }
    rest.split_at_checked(usize::from(len))
}
