//! Where to listen: an address, or a socket that the parent process opened.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// `"127.0.0.1:14000"`, or `"inherited:0"`: the first socket of the LISTEN_FDS protocol (systemd socket activation,
/// tests).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// Bind it.
    Address(SocketAddr),
    /// It is there: its position among the inherited ones.
    Inherited(usize),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let wrong = || ListenError::Form(text.to_owned());
        match text.strip_prefix(INHERITED) {
            Some(index) => index.parse().map(Self::Inherited).map_err(|_| wrong()),
            None => text.parse().map(Self::Address).map_err(|_| wrong()),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = ListenError;

    fn try_from(text: String) -> Result<Self, ListenError> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Inherited(index) => write!(formatter, "{INHERITED}{index}"),
        }
    }
}

const INHERITED: &str = "inherited:";

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not a place to listen at.
    #[error("{0:?} is neither an address (\"127.0.0.1:14000\", \"[::]:80\") nor \"inherited:N\"")]
    Form(String),
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The parent did not pass such a socket, or another listener took it.
    #[error("no socket number {index} was inherited (LISTEN_FDS)")]
    Absent {
        /// Its position.
        index: usize,
    },
    /// The inherited descriptor is no TCP listener.
    #[error("the inherited socket number {index} cannot be used")]
    Inherited {
        /// Its position.
        index: usize,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_two_forms() {
        for text in ["127.0.0.1:14000", "[::1]:80", "inherited:0", "inherited:12"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for bad in ["", "14000", "localhost:14000", "inherited:", "inherited:-1", "127.0.0.1"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
