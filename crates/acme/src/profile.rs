//! Names of certificate profiles (draft-ietf-acme-profiles).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A profile's name: 1 to 64 letters, digits, `-`, `_` and `.`. What the profile is, `pki` says.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileName(Arc<str>);

impl ProfileName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text cannot name a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a profile's name has 1 to 64 letters, digits and any of \"-_.\"")]
pub struct BadProfileName;

impl FromStr for ProfileName {
    type Err = BadProfileName;
    fn from_str(text: &str) -> Result<Self, BadProfileName> {
        let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if (1..=64).contains(&text.len()) && letters { Ok(Self(text.into())) } else { Err(BadProfileName) }
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProfileName({self})")
    }
}

crate::id::serde_as_text!(ProfileName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["tls", "tls-server_2.0", &"x".repeat(64)] {
            assert_eq!(good.parse::<ProfileName>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(bad.parse::<ProfileName>(), Err(BadProfileName), "{bad}");
        }
    }
}
