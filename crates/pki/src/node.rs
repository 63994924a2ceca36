//! The identity of a node: its role and name as one URI (DESIGN §1, "Node identity").

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `chancery://role/name`. Role and name are 1 to 63 lower-case letters, digits and inner hyphens,
/// so that an identity has one spelling and needs no escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeIdentity {
    role: String,
    name: String,
}

/// Text that is not a node's URI, or a role or name that cannot be in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node is chancery://role/name, each of 1 to 63 lower-case letters, digits and inner hyphens")]
pub struct NodeIdentityError;

const SCHEME: &str = "chancery://";

impl NodeIdentity {
    /// The node `name` in `role`.
    ///
    /// # Errors
    /// When one of them has other characters or lengths.
    pub fn new(role: &str, name: &str) -> Result<Self, NodeIdentityError> {
        if [role, name].into_iter().all(is_label) {
            Ok(Self { role: role.to_owned(), name: name.to_owned() })
        } else {
            Err(NodeIdentityError)
        }
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The name, unique within its role.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl fmt::Display for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.role, self.name)
    }
}

impl FromStr for NodeIdentity {
    type Err = NodeIdentityError;

    fn from_str(text: &str) -> Result<Self, NodeIdentityError> {
        let (role, name) =
            text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or(NodeIdentityError)?;
        Self::new(role, name)
    }
}

impl TryFrom<String> for NodeIdentity {
    type Error = NodeIdentityError;

    fn try_from(text: String) -> Result<Self, NodeIdentityError> {
        text.parse()
    }
}

impl From<NodeIdentity> for String {
    fn from(identity: NodeIdentity) -> Self {
        identity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let node = NodeIdentity::new("front", "eu-1").unwrap();
        assert_eq!(node.to_string(), "chancery://front/eu-1");
        assert_eq!(node.to_string().parse(), Ok(node));
        for bad in [
            "",
            "chancery://",
            "chancery://front",
            "chancery://front/",
            "chancery:///x",
            "chancery://front/a/b",
            "chancery://Front/a",
            "Chancery://front/a",
            "chancery://front/a?x",
            "chancery://front/a%20",
            "chancery://front/-a",
            "chancery://front/a ",
            "https://front/a",
        ] {
            assert_eq!(bad.parse::<NodeIdentity>(), Err(NodeIdentityError), "{bad}");
        }
        assert!(NodeIdentity::new(&"a".repeat(64), "b").is_err());
    }
}
