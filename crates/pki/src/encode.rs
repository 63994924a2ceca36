//! The DER writer behind `tbs` and `crl`: X.690 §8 and §10, definite lengths, nothing optional.
//!
//! It writes a header after its content is known, so that an encoder reads like the ASN.1 it
//! follows. `lint` must not use it: a mistake here has to be visible there.

/// Tags of X.690 §8.1.2 that this crate writes.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const ENUMERATED: u8 = 0x0a;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// `[number] IMPLICIT` over a primitive type.
    pub(crate) const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// `[number]` over a constructed type, or `[number] EXPLICIT`.
    pub(crate) const fn context_constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

/// The longest header that this crate writes: tag, `0x84`, four octets of length.
const MAX_HEADER: usize = 6;

/// A growing DER encoding.
#[derive(Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn with_capacity(octets: usize) -> Self {
        Self(Vec::with_capacity(octets))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets what was written and keeps the room for it.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Octets that are DER already.
    pub(crate) fn raw(&mut self, der: &[u8]) -> &mut Self {
        self.0.extend_from_slice(der);
        self
    }

    pub(crate) fn primitive(&mut self, tag: u8, content: &[u8]) -> &mut Self {
        let mut header = [0; MAX_HEADER];
        let header = write_header(&mut header, tag, content.len());
        self.raw(header).raw(content)
    }

    /// `tag` around whatever `content` writes. The content is written first and moved up by the
    /// length of its header: a few copies inside one buffer, no allocation for each level.
    pub(crate) fn nested(&mut self, tag: u8, content: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        content(self);
        let mut header = [0; MAX_HEADER];
        let header = write_header(&mut header, tag, self.0.len() - start);
        self.0.extend_from_slice(header);
        if let Some(moved) = self.0.get_mut(start..) {
            moved.rotate_right(header.len());
        }
        self
    }

    pub(crate) fn sequence(&mut self, content: impl FnOnce(&mut Self)) -> &mut Self {
        self.nested(tag::SEQUENCE, content)
    }

    /// An INTEGER from big-endian octets of a number that is not negative: X.690 §8.3, minimal.
    pub(crate) fn unsigned(&mut self, big_endian: &[u8]) -> &mut Self {
        self.nested(tag::INTEGER, |e| {
            let zeros = big_endian.iter().take_while(|octet| **octet == 0).count();
            let minimal = big_endian.get(zeros..).unwrap_or_default();
            if minimal.first().is_none_or(|first| first & 0x80 != 0) {
                e.raw(&[0]);
            }
            e.raw(minimal);
        })
    }

    pub(crate) fn boolean(&mut self, value: bool) -> &mut Self {
        self.primitive(tag::BOOLEAN, &[if value { 0xff } else { 0 }])
    }

    /// A BIT STRING of whole octets.
    pub(crate) fn bit_string(&mut self, octets: &[u8]) -> &mut Self {
        self.nested(tag::BIT_STRING, |e| {
            e.raw(&[0]).raw(octets);
        })
    }

    pub(crate) fn oid(&mut self, oid: &const_oid::ObjectIdentifier) -> &mut Self {
        self.primitive(0x06, oid.as_bytes())
    }
}

/// One value with its header.
pub(crate) fn encode(content: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::with_capacity(128);
    content(&mut encoder);
    encoder.into_bytes()
}

/// How many octets the header of `content_len` octets takes.
pub(crate) const fn header_len(content_len: usize) -> usize {
    match content_len {
        0..0x80 => 2,
        0x80..0x100 => 3,
        0x100..0x1_0000 => 4,
        0x1_0000..0x100_0000 => 5,
        _ => MAX_HEADER,
    }
}

/// Writes tag and length into `buffer` and returns the octets written. Contents of 4 GiB and more
/// do not occur: the caller holds them in memory or has counted them.
pub(crate) fn write_header(buffer: &mut [u8; MAX_HEADER], tag: u8, content_len: usize) -> &[u8] {
    let [a, b, c, d] = u32::try_from(content_len).unwrap_or(u32::MAX).to_be_bytes();
    *buffer = match header_len(content_len) {
        2 => [tag, d, 0, 0, 0, 0],
        3 => [tag, 0x81, d, 0, 0, 0],
        4 => [tag, 0x82, c, d, 0, 0],
        5 => [tag, 0x83, b, c, d, 0],
        _ => [tag, 0x84, a, b, c, d],
    };
    buffer.get(..header_len(content_len)).unwrap_or(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::{Decode, Encode, asn1::OctetStringRef};

    #[test]
    fn lengths_agree_with_the_der_crate_at_every_boundary() {
        for len in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0x12_3456] {
            let content = vec![0xa5; len];
            let ours = encode(|e| {
                e.nested(tag::OCTET_STRING, |e| {
                    e.raw(&content);
                });
            });
            assert_eq!(ours, OctetStringRef::new(&content).unwrap().to_der().unwrap(), "{len}");
            assert_eq!(
                ours,
                encode(|e| {
                    e.primitive(tag::OCTET_STRING, &content);
                })
            );
            assert_eq!(ours.len(), header_len(len) + len);
        }
    }

    #[test]
    fn integers_are_minimal() {
        let integer = |octets: &[u8]| {
            encode(|e| {
                e.unsigned(octets);
            })
        };
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(integer(&[0, 0]), [2, 1, 0]);
        assert_eq!(integer(&[0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(u64::from_der(&integer(&u64::MAX.to_be_bytes())).unwrap(), u64::MAX);
    }
}
