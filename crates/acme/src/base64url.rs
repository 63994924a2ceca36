//! Base64url as RFC 8555 §6.1 wants it: no padding, no white space, no stray trailing bits.
//!
//! One byte string has exactly one text, so that a text may be compared, hashed and used as a key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The text is not canonical base64url (RFC 8555 §6.1, RFC 7515 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not canonical base64url")]
pub struct NotBase64Url;

/// The one text of these bytes.
#[must_use]
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a canonical text.
///
/// # Errors
/// For padding, white space, foreign characters, impossible lengths and non-zero trailing bits.
pub fn decode(text: &str) -> Result<Vec<u8>, NotBase64Url> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| NotBase64Url)
}

/// The bytes of a canonical text of known length.
///
/// # Errors
/// As [`decode`], and when the length differs.
pub fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], NotBase64Url> {
    <[u8; N]>::try_from(decode(text)?).map_err(|_| NotBase64Url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_text_decodes() {
        assert_eq!(decode("").unwrap(), b"");
        assert_eq!(decode("_-8").unwrap(), [0xff, 0xef]);
        // Padding, trailing bits, the other alphabet, white space, an impossible length, not ASCII.
        for bad in ["_-8=", "_-9", "/+8", "_-8 ", " _-8", "_-\n8", "A", "AAAAA", "_-8\0", "ＡＡ", "=", "AA=="]
        {
            assert_eq!(decode(bad), Err(NotBase64Url), "{bad:?}");
        }
        assert_eq!(decode_array::<2>("_-8").unwrap(), [0xff, 0xef]);
        assert_eq!(decode_array::<3>("_-8"), Err(NotBase64Url));
    }

    proptest! {
        #[test]
        fn one_text_for_each_byte_string(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn whatever_decodes_is_its_own_encoding(text in "[A-Za-z0-9_=+/ -]{0,24}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(bytes), text);
            }
        }
    }
}
