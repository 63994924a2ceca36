//! Receipts: what one perspective saw of one validation, signed by that perspective (DESIGN §3.2).
//!
//! A compact JWS, EdDSA with Ed25519, made and checked by josekit. Its header has exactly `alg`, `typ` and `kid`; the
//! payload has exactly the members of [`Receipt`]. The signer counts a quorum from these and from nothing else.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use josekit::jws::alg::eddsa::{EddsaJwsSigner, EddsaJwsVerifier};
use josekit::jws::{self as jose, EdDSA, JwsHeader};
use pki::{DnsName, ErrorClass, Name, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::account_url::AccountUrl;
use crate::base64url;
use crate::challenge::Method;
use crate::directory::DirectoryName;
use crate::id::{AccountId, AuthorizationId};
use crate::json::Object;
use crate::jwk::Thumbprint;
use crate::problem::Problem;

/// The `typ` of a receipt: no other JWS of ours has it, and no receipt another (RFC 8725 §3.11).
const TYPE: &str = "chancery-receipt+jwt";
/// A receipt with the longest name, a problem and dozens of addresses has some 4 kB.
const MAX_RECEIPT_BYTES: usize = 16 * 1024;
/// PKCS #8 of an Ed25519 key, up to the seed (RFC 8410 §7).
const PKCS8_PREFIX: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// SubjectPublicKeyInfo of an Ed25519 key, up to the key (RFC 8410 §4).
const SPKI_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The name of a perspective, which is its validator's node name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Perspective(String);

impl Perspective {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Perspective {
    type Err = BadPerspective;
    fn from_str(text: &str) -> Result<Self, BadPerspective> {
        match pki::NodeIdentity::new("validator", text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(BadPerspective),
        }
    }
}

impl fmt::Display for Perspective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::id::serde_as_text!(Perspective);

/// The text cannot name a perspective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a perspective's name is a node's: 1 to 63 lower-case letters, digits and inner hyphens")]
pub struct BadPerspective;

/// One look of all perspectives together, drawn at random by the primary. Only receipts of one run make a quorum: a front
/// chooses how often it asks, and must not gather what each perspective saw at another time (BR §3.2.2.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run([u8; 16]);

impl Run {
    /// From 16 random bytes.
    #[must_use]
    pub const fn from_bytes(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(self.0))
    }
}

impl std::str::FromStr for Run {
    type Err = BadRun;
    fn from_str(text: &str) -> Result<Self, BadRun> {
        base64url::decode_array(text).map(Self).map_err(|_| BadRun)
    }
}

crate::id::serde_as_text!(Run);

/// The text is not a run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run is 16 octets in base64url")]
pub struct BadRun;

/// What one perspective saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The authorization.
    pub authorization: AuthorizationId,
    /// The directory.
    pub directory: DirectoryName,
    /// The account.
    pub account: AccountId,
    /// The account's URL that was asked for with the validation: DNS records may name it. A front said it; the signer
    /// compares.
    pub account_url: AccountUrl,
    /// The thumbprint of the account's key in the key authorization that was looked for.
    pub thumbprint: Thumbprint,
    /// The name, with "*." if it is a wildcard: type, value and wildcard in one.
    pub name: Name,
    /// The method.
    pub method: Method,
    /// The version and section of the Baseline Requirements that the method follows (BR 3.2.2.4, 5.4.1), see
    /// [`requirement`]; or that none was met, [`NO_REQUIREMENT`].
    pub requirement: String,
    /// The token, which the perspective computed from the authorization's id.
    pub token: String,
    /// The number of the client's try, as the front counts.
    pub attempt: u32,
    /// The run that this look was part of.
    pub run: Run,
    /// Who saw it.
    pub perspective: Perspective,
    /// The addresses that answered, or were tried, in order.
    pub addresses: Vec<IpAddr>,
    /// What CAA said, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub caa: Option<Caa>,
    /// How long a persistent record may be relied upon, where one showed control.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub persisted: Option<Persisted>,
    /// Whether the perspective's resolver validates DNSSEC: what is bogus fails then.
    pub dnssec: bool,
    /// When the try began.
    pub started: Timestamp,
    /// When it ended: the time of the validation.
    pub finished: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
}

impl Receipt {
    /// Whether its requirement is that of its method; or none, where nobody looked: then it has nothing of a look either.
    fn says_what_was_met(&self) -> bool {
        if self.outcome == Outcome::Assumed {
            let seen = !self.addresses.is_empty() || self.caa.is_some() || self.dnssec;
            return self.requirement == NO_REQUIREMENT && !seen;
        }
        // The version may be another during an upgrade; the section follows from method and name.
        let section = self.requirement.rsplit(' ').next().unwrap_or_default();
        section == self.method.section(&self.name)
    }
}

/// What a receipt says of the requirements that a validation of this name by this method follows: `BR 2.2.6 3.2.2.4.7`.
#[must_use]
pub fn requirement(method: Method, name: &Name) -> String {
    format!("BR {REQUIREMENTS_VERSION} {}", method.section(name))
}

/// What an assumed receipt says of the requirements: nobody looked, so none was met.
pub const NO_REQUIREMENT: &str = "none";

/// Of the Baseline Requirements, as the methods are implemented.
const REQUIREMENTS_VERSION: &str = "2.2.6";

/// A record that shows control as long as it stands (draft-ietf-acme-dns-persist).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persisted {
    /// The record's TTL.
    pub ttl_seconds: u32,
}

/// What CAA said (RFC 8659).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caa {
    /// Whether it permits the issuance.
    pub permitted: bool,
    /// By which names records were taken to refer to this CA. A front said them; the signer compares.
    pub identities: Vec<DnsName>,
    /// The name at which the record set was found; none if there is none up to the root.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub found_at: Option<String>,
    /// How long the answer may be used.
    pub ttl_seconds: u32,
    /// When it was asked.
    pub checked: Timestamp,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Outcome {
    /// Control was shown.
    Valid,
    /// Nobody looked for control: CAA alone was asked, and permits.
    Caa,
    /// Nobody looked at anything: the validator is told to assume that all is well. For directories of test CAs whose policy
    /// says so (`always_valid`), and for nothing else.
    Assumed,
    /// It was not, or CAA does not permit.
    Invalid(Problem),
}

/// A perspective's signing key.
#[derive(Clone)]
pub struct ReceiptKey {
    perspective: Perspective,
    signer: EddsaJwsSigner,
    public_key: [u8; 32],
}

impl ReceiptKey {
    /// From the seed of an Ed25519 key: 32 random bytes.
    ///
    /// # Errors
    /// [`ReceiptError::Key`].
    pub fn from_seed(perspective: Perspective, seed: &[u8; 32]) -> Result<Self, ReceiptError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| ReceiptError::Key)?;
        let public_key = pair.public_key().as_ref().try_into().map_err(|_| ReceiptError::Key)?;
        let pkcs8 = Zeroizing::new([PKCS8_PREFIX, seed].concat());
        let signer = EdDSA.signer_from_der(&*pkcs8).map_err(|_| ReceiptError::Key)?;
        Ok(Self { perspective, signer, public_key })
    }

    /// Who signs.
    #[must_use]
    pub const fn perspective(&self) -> &Perspective {
        &self.perspective
    }

    /// The public key, to be registered with the signers.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Signs.
    ///
    /// # Errors
    /// [`ReceiptError::OtherPerspective`] if the receipt is another's; [`ReceiptError::Sign`].
    pub fn sign(&self, receipt: &Receipt) -> Result<String, ReceiptError> {
        if receipt.perspective != self.perspective {
            return Err(ReceiptError::OtherPerspective);
        }
        let payload = serde_json::to_vec(receipt).map_err(|_| ReceiptError::Sign)?;
        let mut header = JwsHeader::new();
        header.set_token_type(TYPE);
        header.set_key_id(self.perspective.as_str());
        let compact =
            jose::serialize_compact(&payload, &header, &self.signer).map_err(|_| ReceiptError::Sign)?;
        if compact.len() > MAX_RECEIPT_BYTES { Err(ReceiptError::TooLarge) } else { Ok(compact) }
    }
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiptKey").field("perspective", &self.perspective.0).finish_non_exhaustive()
    }
}

/// A perspective's public key, ready to verify. Made once for each node row, not for each receipt.
#[derive(Debug, Clone)]
pub struct ReceiptVerifier {
    perspective: Perspective,
    verifier: EddsaJwsVerifier,
}

impl ReceiptVerifier {
    /// From the registered key.
    ///
    /// # Errors
    /// [`ReceiptError::Key`] if it is no Ed25519 key, or one whose signatures prove nothing.
    pub fn new(perspective: Perspective, public_key: &[u8; 32]) -> Result<Self, ReceiptError> {
        pki::PublicKey::from_ed25519(public_key).map_err(|_| ReceiptError::Key)?;
        let verifier =
            EdDSA.verifier_from_der([SPKI_PREFIX, public_key].concat()).map_err(|_| ReceiptError::Key)?;
        Ok(Self { perspective, verifier })
    }

    /// Verifies a receipt of this perspective. What it is about is for the caller to compare.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(&self, compact: &str) -> Result<Receipt, ReceiptError> {
        if self.perspective != perspective(compact)? {
            return Err(ReceiptError::OtherPerspective);
        }
        let (payload, _) =
            jose::deserialize_compact(compact, &self.verifier).map_err(|_| ReceiptError::Signature)?;
        let receipt: Receipt = crate::json::from_slice(&payload).map_err(|_| ReceiptError::Payload)?;
        if receipt.perspective != self.perspective {
            return Err(ReceiptError::OtherPerspective);
        }
        let persisted = receipt.method == Method::DnsPersist01 && receipt.outcome == Outcome::Valid;
        if receipt.token != crate::id::token(&receipt.authorization)
            || receipt.finished < receipt.started
            || !receipt.says_what_was_met()
            || persisted != receipt.persisted.is_some()
        {
            return Err(ReceiptError::Payload);
        }
        Ok(receipt)
    }
}

/// Who says that it made this receipt: to find the key, not to be believed.
///
/// # Errors
/// [`ReceiptError::Malformed`] for everything that is not three canonical parts with exactly the header of a receipt.
pub fn perspective(compact: &str) -> Result<Perspective, ReceiptError> {
    if compact.len() > MAX_RECEIPT_BYTES {
        return Err(ReceiptError::TooLarge);
    }
    let mut parts = compact.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ReceiptError::Malformed);
    };
    let decode = |part| base64url::decode(part).map_err(|_| ReceiptError::Malformed);
    let (header, _, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
    if signature.len() != 64 {
        return Err(ReceiptError::Malformed);
    }
    // josekit would let the last of two equal members win and pass over what it does not know.
    let mut header = Object::from_slice(&header).map_err(|_| ReceiptError::Malformed)?;
    let mut text = |name| header.take_text(name).ok().flatten().ok_or(ReceiptError::Malformed);
    let (algorithm, kind, kid) = (text("alg")?, text("typ")?, text("kid")?);
    if algorithm != "EdDSA" || kind != TYPE || !header.is_empty() {
        return Err(ReceiptError::Malformed);
    }
    kid.parse().map_err(|_| ReceiptError::Malformed)
}

/// Why a receipt is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not a compact JWS with a receipt's header.
    #[error("the receipt is malformed")]
    Malformed,
    /// Larger than any receipt.
    #[error("the receipt is too large")]
    TooLarge,
    /// The header or the payload names another perspective.
    #[error("the receipt is of another perspective")]
    OtherPerspective,
    /// The signature is not good.
    #[error("the receipt's signature does not verify")]
    Signature,
    /// The payload is not a receipt that a perspective would make.
    #[error("the receipt's payload is malformed")]
    Payload,
    /// The key is no good Ed25519 key.
    #[error("not a receipt key")]
    Key,
    /// The receipt could not be signed.
    #[error("the receipt could not be signed")]
    Sign,
}

impl ReceiptError {
    /// A bad receipt is its bearer's fault; a bad key is the operator's.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        match self {
            Self::Malformed | Self::TooLarge | Self::OtherPerspective | Self::Signature | Self::Payload => {
                ErrorClass::Client
            }
            Self::Key | Self::Sign => ErrorClass::Fatal,
        }
    }
}

#[cfg(test)]
mod tests;
