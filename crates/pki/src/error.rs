//! How an error is to be treated, whatever crate it comes from.

use std::fmt;

/// The class of an error. Retry, metric label and log level derive from it, and from nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The caller sent something that will be refused however often it is sent.
    Client,
    /// The request was good, but something else got there first.
    Conflict,
    /// It may succeed when tried again later.
    Transient,
    /// An operator has to act: configuration, corruption or a broken invariant.
    Fatal,
}

impl ErrorClass {
    /// The class as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Conflict => "conflict",
            Self::Transient => "transient",
            Self::Fatal => "fatal",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
