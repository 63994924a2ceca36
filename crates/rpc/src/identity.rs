//! Who is at the other end: a role and a name, from the one URI SAN of a node certificate (DESIGN §1).

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

use pki::{Certificate, NodeIdentity, Period, Serial, Timestamp};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What a node is. One certificate never has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Faces the ACME clients.
    Front,
    /// Looks at the outside world.
    Validator,
    /// Is the CA.
    Signer,
    /// Serves CRLs and OCSP answers.
    Status,
    /// A person with the operator's tools.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Front, Self::Validator, Self::Signer, Self::Status, Self::Operator];

    /// Its word in URIs, tables and configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Validator => "validator",
            Self::Signer => "signer",
            Self::Status => "status",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(IdentityError::Role)
    }
}

/// A node's name among those of its role: 1 to 63 of `a-z`, `0-9`, `-`, beginning and ending with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=63).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good { Ok(Self(text.into())) } else { Err(IdentityError::Name) }
    }
}

impl TryFrom<String> for NodeName {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The peer of a connection, as its verified certificate says.
///
/// In a handler: [`PeerIdentity::of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The only role it has.
    pub role: Role,
    /// Its name among those of its role.
    pub name: NodeName,
    /// Its certificate's serial number.
    pub serial: Serial,
    /// When its certificate began.
    pub not_before: Timestamp,
    /// When its certificate ends.
    pub not_after: Timestamp,
}

impl PeerIdentity {
    /// Reads role and name from a certificate that somebody else has verified already.
    ///
    /// # Errors
    /// When the certificate does not have exactly one `chancery:` URI, or that one is not of the known form.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = Certificate::from_der(der).map_err(|_| IdentityError::Certificate)?;
        // A second URI of any scheme is refused: a node certificate carries its identity and nothing else there.
        let node: NodeIdentity = match certificate.uris() {
            [] => return Err(IdentityError::Missing),
            [uri] => uri.parse().map_err(|_| IdentityError::Missing)?,
            _ => return Err(IdentityError::Several),
        };
        Ok(Self {
            role: node.role().parse()?,
            name: node.name().parse()?,
            serial: certificate.serial(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        })
    }

    /// The caller of an RPC.
    ///
    /// # Errors
    /// `Unauthenticated` where no peer is known: on an anonymous port.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, tonic::Status> {
        request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.identity.as_deref())
            .ok_or_else(|| tonic::Status::unauthenticated("no client certificate"))
    }

    /// When its certificate is to be renewed: at a third of its life (DESIGN §1).
    pub fn renews_at(&self) -> OffsetDateTime {
        let life = self.not_after.since(self.not_before);
        self.not_before.plus(Period::from_seconds(life.seconds() / 3)).date_time()
    }

    /// `chancery://role/name`.
    pub fn uri(&self) -> String {
        uri(self.role, &self.name)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.role, self.name)
    }
}

/// The other end of a connection; in the extensions of every request (a test may put its own there).
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Who it is; nobody on an anonymous port.
    pub identity: Option<Arc<PeerIdentity>>,
}

/// The URI SAN of a node: `chancery://role/name`.
pub fn uri(role: Role, name: &NodeName) -> String {
    format!("{SCHEME}{role}/{name}")
}

const SCHEME: &str = "chancery://";

/// Why a certificate or a text is no node identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate at all.
    #[error("the certificate cannot be read")]
    Certificate,
    /// No `chancery://` URI among its names.
    #[error("the certificate names no node: it has no chancery:// URI")]
    Missing,
    /// More than one URI.
    #[error("the certificate has more than one URI: one certificate never has two roles")]
    Several,
    /// A word that is no role.
    #[error("no such role: front, validator, signer, status and operator are known")]
    Role,
    /// Not a node's name.
    #[error("a node's name is 1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'")]
    Name,
}
