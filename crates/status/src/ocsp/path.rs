//! An OCSP request in a GET's path (RFC 6960 §A.1): its DER in base64, percent-encoded or not.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use pki::ocsp::MAX_REQUEST_OCTETS;

/// The standard alphabet alone: `-` and `_` are no digits. The padding, which some clients leave away, may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The DER, from what stands after `…/ocsp`. `None` when it is no base64, or more than a request may have.
pub(super) fn request(text: &str) -> Option<Vec<u8>> {
    // Slashes before it are of a URL that ends with one. The base64 of a SEQUENCE begins with an M.
    let text = text.trim_start_matches('/');
    if text.is_empty() || text.len() > MAX_REQUEST_OCTETS * 4 {
        return None;
    }
    let digits = percent_decoded(text)?;
    let der = BASE64.decode(digits).ok()?;
    (der.len() <= MAX_REQUEST_OCTETS).then_some(der)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_one_request_is_that_request() {
        // With all three that have to be escaped in a URL, and two slashes in a row.
        let der = [0x30, 0xff, 0xff, 0xfb, 0xef, 0xbe, 0x01];
        for text in [
            "/MP//++++AQ==",
            "/MP//++++AQ",
            "//MP//++++AQ==",
            "/MP%2F%2F%2B%2B%2B%2BAQ%3D%3D",
            "/MP%2f/++%2b%2BAQ%3d=",
            "/%4d%50//++++%41%51",
        ] {
            assert_eq!(request(text).as_deref(), Some(der.as_slice()), "{text}");
        }
    }

    #[test]
    fn what_is_no_base64_is_nothing() {
        let long = "M".repeat(MAX_REQUEST_OCTETS * 4 + 1);
        let over = "M".repeat(MAX_REQUEST_OCTETS * 2);
        for text in [
            "", "/", "/M", "/MP__", "/MP--", "/MP%", "/MP%2", "/MP%zz", "/MP %20", "/MP=A", "/M===", &long,
            &over,
        ] {
            assert_eq!(request(text), None, "{text}");
        }
    }
}
