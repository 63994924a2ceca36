//! Serial numbers of certificates (RFC 5280 §4.1.2.2).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::encode::Encoder;

/// A serial number: positive, at most twenty octets of DER content, minimal.
///
/// Serials that this CA makes ([`Serial::from_random`]) are exactly sixteen octets with 126 random
/// bits, more than the 64 of BR §7.1.2.7; shorter ones exist only in certificates of others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial {
    /// Compared first: of two positive minimal integers the longer is the greater.
    len: u8,
    octets: [u8; MAX_OCTETS],
}

/// RFC 5280 §4.1.2.2: "conforming CAs MUST NOT use serialNumber values longer than 20 octets".
const MAX_OCTETS: usize = 20;

/// Why octets or text are not a serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    /// Longer than twenty octets, or empty.
    #[error("a serial number has 1 to 20 octets")]
    Length,
    /// Zero or negative.
    #[error("a serial number is positive")]
    NotPositive,
    /// A leading zero octet that DER does not have.
    #[error("a serial number has no superfluous leading zero")]
    NotMinimal,
    /// Text that is not lower-case hexadecimal.
    #[error("a serial number is written in lower-case hexadecimal, two digits an octet")]
    NotHex,
}

impl Serial {
    /// A serial from sixteen random octets. The two first bits become `01`, so that every serial is
    /// positive and of the same length.
    #[must_use]
    pub fn from_random(random: [u8; 16]) -> Self {
        let number = (u128::from_be_bytes(random) & (u128::MAX >> 2)) | (1 << 126);
        let mut octets = [0; MAX_OCTETS];
        for (to, from) in octets.iter_mut().zip(number.to_be_bytes()) {
            *to = from;
        }
        Self { len: 16, octets }
    }

    /// A serial from the content octets of a DER INTEGER.
    ///
    /// # Errors
    /// When they are not positive, minimal and at most twenty.
    pub fn from_bytes(content: &[u8]) -> Result<Self, SerialError> {
        match content {
            [] => return Err(SerialError::Length),
            [first, ..] if first & 0x80 != 0 => return Err(SerialError::NotPositive),
            [0] => return Err(SerialError::NotPositive),
            [0, second, ..] if second & 0x80 == 0 => return Err(SerialError::NotMinimal),
            _ => {}
        }
        let mut octets = [0; MAX_OCTETS];
        octets.get_mut(..content.len()).ok_or(SerialError::Length)?.copy_from_slice(content);
        Ok(Self { len: u8::try_from(content.len()).map_err(|_| SerialError::Length)?, octets })
    }

    /// A serial from lower-case hexadecimal, as [`Display`](fmt::Display) writes it. Upper case is
    /// refused: a serial has one spelling in URLs and logs.
    ///
    /// # Errors
    /// When the text is not that.
    pub fn from_hex(text: &str) -> Result<Self, SerialError> {
        if text.bytes().any(|octet| octet.is_ascii_uppercase()) {
            return Err(SerialError::NotHex);
        }
        Self::from_bytes(&hex::decode(text).map_err(|_| SerialError::NotHex)?)
    }

    /// The content octets of the DER INTEGER, most significant first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or(&self.octets)
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.primitive(crate::encode::tag::INTEGER, self.as_bytes());
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.to_string()
    }
}

impl TryFrom<String> for Serial {
    type Error = SerialError;

    fn try_from(text: String) -> Result<Self, SerialError> {
        Self::from_hex(&text)
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        Self::from_hex(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn random_serials_are_positive_and_sixteen_octets() {
        for random in [[0; 16], [0xff; 16], [0x80; 16], [0x12; 16]] {
            let serial = Serial::from_random(random);
            assert_eq!(serial.as_bytes().len(), 16);
            assert_eq!(serial.as_bytes()[0] >> 6, 1);
            assert_eq!(Serial::from_bytes(serial.as_bytes()).unwrap(), serial);
            assert_eq!(serial.as_bytes()[1..], random[1..]);
        }
    }

    #[test]
    fn bad_octets_are_refused() {
        assert_eq!(Serial::from_bytes(&[]), Err(SerialError::Length));
        assert_eq!(Serial::from_bytes(&[0x11; 21]), Err(SerialError::Length));
        assert!(Serial::from_bytes(&[0x7f; 20]).is_ok());
        assert_eq!(Serial::from_bytes(&[0]), Err(SerialError::NotPositive));
        assert_eq!(Serial::from_bytes(&[0x80]), Err(SerialError::NotPositive));
        assert_eq!(Serial::from_bytes(&[0, 0x7f]), Err(SerialError::NotMinimal));
        assert!(Serial::from_bytes(&[0, 0x80]).is_ok());
        assert_eq!(Serial::from_hex("4A"), Err(SerialError::NotHex));
        assert_eq!(Serial::from_hex("4"), Err(SerialError::NotHex));
        assert_eq!(Serial::from_hex("4a ").map(|_| ()), Err(SerialError::NotHex));
    }

    proptest! {
        #[test]
        fn text_round_trips(random: [u8; 16]) {
            let serial = Serial::from_random(random);
            prop_assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        }

        #[test]
        fn order_is_numeric(a: u128, b: u128) {
            let minimal = |n: u128| {
                let octets = n.to_be_bytes();
                let start = octets.iter().take_while(|o| **o == 0).count();
                let mut content = octets[start..].to_vec();
                if content.first().is_some_and(|o| o & 0x80 != 0) { content.insert(0, 0); }
                content
            };
            prop_assume!(a > 0 && b > 0);
            let (x, y) = (Serial::from_bytes(&minimal(a)).unwrap(), Serial::from_bytes(&minimal(b)).unwrap());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }
    }
}
