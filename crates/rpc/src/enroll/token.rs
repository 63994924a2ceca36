//! The join token: `chancery-join-v1.{base64url secret}.{hexadecimal SHA-256 of the node CA's DER}`.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// The SHA-256 of the node CA's certificate, by which a joining node knows its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate, DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(sha256(certificate))
    }

    /// Whether it is this certificate's.
    pub fn matches(&self, certificate: &[u8]) -> bool {
        *self == Self::of(certificate)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| TokenError::Fingerprint)?;
        Ok(Self(bytes))
    }
}

/// A single-use token. Whoever has it becomes the node that it names; `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: [u8; 32],
    authority: Fingerprint,
}

impl JoinToken {
    /// A new token; the secret is the caller's randomness.
    pub fn new(secret: [u8; 32], authority: Fingerprint) -> Self {
        Self { secret, authority }
    }

    /// The node CA's fingerprint.
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// What travels in `JoinRequest.token`.
    pub fn secret(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.secret)
    }

    /// What the signer stores instead of the secret.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.secret)
    }

    /// The stored digest of a secret that came in `JoinRequest.token`.
    ///
    /// # Errors
    /// When the text cannot be the secret of a token.
    pub fn digest_of(secret: &str) -> Result<[u8; 32], TokenError> {
        Ok(sha256(&secret_bytes(secret)?))
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}.{}", self.secret(), self.authority)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JoinToken").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let (secret, authority) = rest.split_once('.').ok_or(TokenError::Fingerprint)?;
        Ok(Self { secret: secret_bytes(secret)?, authority: authority.parse()? })
    }
}

const PREFIX: &str = "chancery-join-v1.";

fn secret_bytes(text: &str) -> Result<[u8; 32], TokenError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Secret)?;
    bytes.try_into().map_err(|_| TokenError::Secret)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of this version.
    #[error("a join token begins with {PREFIX}")]
    Prefix,
    /// The secret part is not 32 bytes of base64url.
    #[error("the join token's secret is incomplete")]
    Secret,
    /// The last part is not a SHA-256.
    #[error("the join token's fingerprint is incomplete")]
    Fingerprint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_hides_its_secret() {
        let token = JoinToken::new([7; 32], Fingerprint::of(b"node CA"));
        let text = token.to_string();
        assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
        assert_eq!(JoinToken::digest_of(&token.secret()), Ok(token.digest()));
        assert!(!format!("{token:?}").contains(&token.secret()));
        assert_eq!(text.replace("v1", "v2").parse::<JoinToken>(), Err(TokenError::Prefix));
        assert_eq!(text[..60].parse::<JoinToken>(), Err(TokenError::Fingerprint));
        assert_eq!("chancery-join-v1.AAAA.00".parse::<JoinToken>(), Err(TokenError::Secret));
    }
}
