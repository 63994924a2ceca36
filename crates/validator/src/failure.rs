//! What a method answers when it did not find what it looked for, and what keeps it from looking at all.

use std::fmt;

/// The outside world did not show what the method demands. Goes into the receipt, and to the client, as a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which problem type it becomes.
    pub kind: FailureKind,
    /// What the client's operator needs in order to mend it: address, URL, cause. Printable ASCII.
    pub detail: String,
}

/// The problem types of RFC 8555 §6.7 that a validation ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No usable address for a name.
    Dns,
    /// No connection, or one that did not carry an HTTP answer in time.
    Connection,
    /// CAA records forbid the issuance.
    Caa,
    /// The TLS handshake of a redirect's target failed.
    Tls,
    /// An answer, but not the one that shows control.
    Unauthorized,
    /// An answer that the method does not permit: a forbidden redirect, an oversized or encoded body.
    IncorrectResponse,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, detail: impl fmt::Display) -> Self {
        let detail =
            detail.to_string().chars().filter(|c| matches!(c, ' '..='~')).take(DETAIL_CHARS).collect();
        Self { kind, detail }
    }
}

/// Long enough for two URLs and a cause; a receipt holds it, and the journal keeps receipts.
const DETAIL_CHARS: usize = 800;

/// How an attempt ended without success.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// The target's fault, or nobody's: a receipt says so.
    Failed(Failure),
    /// This node's fault: no receipt, the caller may ask again.
    Local(LocalFault),
}

/// What a perspective cannot do at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocalFault {
    /// The configured resolver does not take queries.
    #[error("the resolver does not answer at all")]
    Resolver,
    /// The configured resolver does not validate DNSSEC, though it is to.
    #[error("the resolver does not validate DNSSEC")]
    Unvalidated,
    /// More attempts than the configured limits let run at once.
    #[error("too many validations are running")]
    Busy,
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<LocalFault> for Ending {
    fn from(fault: LocalFault) -> Self {
        Self::Local(fault)
    }
}

/// The first bytes of something foreign, fit for a problem document and a terminal.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let shown = bytes.get(..EXCERPT_BYTES).unwrap_or(bytes);
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("\"{}{dots}\"", shown.escape_ascii())
}

/// A key authorization's token and a bit more: enough to recognise an error page.
const EXCERPT_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_cannot_carry_control_characters() {
        assert_eq!(excerpt(b"<b>\x1b[2J\r\n\"\xff"), r#""<b>\x1b[2J\r\n\"\xff""#);
        assert_eq!(excerpt(&[b'a'; 65]), format!("\"{}...\"", "a".repeat(64)));
    }

    #[test]
    fn a_detail_is_printable_and_bounded() {
        let failure = Failure::new(FailureKind::Dns, format!("a\nb\u{202e}{}", "x".repeat(5000)));
        assert!(failure.detail.starts_with("abx"));
        assert_eq!(failure.detail.len(), DETAIL_CHARS);
    }
}
