//! Why the signer says no, and what else can keep it from answering.
//!
//! A refusal has a reason of its own out of a closed list: the client sees a problem document, the operator counts
//! reasons (they are in the metrics and, batched, in `ca`).

use std::time::Duration;

use acme::JsonError;
use acme::jws::JwsError;
use acme::problem::{ErrorType, Problem};
use ca_store::{MacError, StoreError};
use pki::ErrorClass;

use crate::clock::ClockError;
use crate::doors::DoorError;
use crate::random::RandomnessError;

/// Declares the reasons once: variant, word, ACME type.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $kind:ident;)*) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in metrics, logs and the store.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The type that the client sees unless the refusal brings a problem of its own.
            #[must_use]
            pub const fn error_type(self) -> ErrorType {
                match self { $(Self::$variant => ErrorType::$kind,)* }
            }
        }
    };
}

reasons! {
    /// The JWS is not the JSON, or the base64url, that RFC 8555 §6.1 and §6.2 allow.
    JwsMalformed = "jws-malformed", Malformed;
    /// A member of the JWS, or of its header, is there twice: two readers might take one each.
    JwsDuplicate = "jws-duplicate", Malformed;
    /// The JWS is larger than any request.
    JwsTooLarge = "jws-too-large", Malformed;
    /// Several signatures, or the general serialization (RFC 8555 §6.2).
    JwsSerialization = "jws-serialization", Malformed;
    /// A header that nobody signed (RFC 8555 §6.2).
    JwsUnprotected = "jws-unprotected", Malformed;
    /// Critical header parameters (RFC 7515 §4.1.11).
    JwsCritical = "jws-critical", Malformed;
    /// An unencoded payload (RFC 7797).
    JwsUnencoded = "jws-unencoded", Malformed;
    /// Both of `jwk` and `kid`, none, or the wrong one (RFC 8555 §6.2).
    JwsKeyReference = "jws-key-reference", Malformed;
    /// `none`, a MAC, or another algorithm that is not accepted.
    JwsAlgorithm = "jws-algorithm", BadSignatureAlgorithm;
    /// The algorithm is not the key's.
    JwsAlgorithmMismatch = "jws-algorithm-mismatch", BadPublicKey;
    /// The key in the JWS is malformed, too weak, or not of a kind that is accepted.
    JwsKey = "jws-key", BadPublicKey;
    /// The JWS names another key than the one that counts.
    JwsOtherKey = "jws-other-key", Unauthorized;
    /// The signature is not by the key that counts.
    JwsSignature = "jws-signature", Malformed;
    /// The signature is by a key that was the account's before.
    KeyFormer = "key-former", Unauthorized;
    /// The payload is not what the operation takes.
    PayloadMalformed = "payload-malformed", Malformed;
    /// The JWS is for a URL that is not this CA's.
    UrlForeign = "url-foreign", Unauthorized;
    /// The JWS is for another operation.
    UrlOperation = "url-operation", Unauthorized;
    /// `kid` is not an account URL of the directory in `url`.
    KidForeign = "kid-foreign", Unauthorized;
    /// The JWS is about another account than the one that signed it.
    AccountForeign = "account-foreign", Unauthorized;
    /// No such account.
    AccountUnknown = "account-unknown", AccountDoesNotExist;
    /// The account is deactivated or revoked.
    AccountInactive = "account-inactive", Unauthorized;
    /// The account's registration is disabled.
    RegistrationInactive = "registration-inactive", Unauthorized;
    /// The key was an account's once; it never returns.
    KeyRetired = "key-retired", BadPublicKey;
    /// The key is another account's (RFC 8555 §7.3.5).
    KeyInUse = "key-in-use", Malformed;
    /// The key is blocked, or a certificate's (RFC 8555 §11.1).
    KeyUnacceptable = "key-unacceptable", BadPublicKey;
    /// The key is weak: its numbers give it away, or it is on a list.
    KeyWeak = "key-weak", BadPublicKey;
    /// The terms of service were not agreed to.
    TermsNotAgreed = "terms-not-agreed", UserActionRequired;
    /// The terms of service have changed, and the directory has its clients agree again (RFC 8555 §7.3.3).
    TermsChanged = "terms-changed", UserActionRequired;
    /// A contact's scheme is not supported.
    ContactUnsupported = "contact-unsupported", UnsupportedContact;
    /// A contact is malformed.
    ContactInvalid = "contact-invalid", InvalidContact;
    /// The directory demands an external account binding.
    EabRequired = "eab-required", ExternalAccountRequired;
    /// The external account binding's MAC is wrong: it was not made by who has the EAB key.
    EabMac = "eab-mac", Unauthorized;
    /// The external account binding is for another URL.
    EabUrl = "eab-url", Malformed;
    /// The external account binding is for another account key.
    EabOtherKey = "eab-other-key", Malformed;
    /// The EAB key is unknown, or of a secret that is not in use any more.
    EabUnknown = "eab-unknown", Unauthorized;
    /// The EAB key is of an older epoch of the database.
    EabEpoch = "eab-epoch", Unauthorized;
    /// The EAB key is another directory's.
    EabDirectory = "eab-directory", Unauthorized;
    /// The EAB key was revoked, or its registration disabled.
    EabRevoked = "eab-revoked", Unauthorized;
    /// The EAB key has expired.
    EabExpired = "eab-expired", Unauthorized;
    /// The EAB key is used up.
    EabUsedUp = "eab-used-up", Unauthorized;
    /// keyChange's inner JWS is bad (RFC 8555 §7.3.5).
    KeyChangeInner = "key-change-inner", Malformed;
    /// keyChange's inner JWS is for another URL.
    KeyChangeUrl = "key-change-url", Malformed;
    /// keyChange's inner JWS is for another account.
    KeyChangeAccount = "key-change-account", Malformed;
    /// keyChange's inner JWS names another old key than the account's.
    KeyChangeOldKey = "key-change-old-key", Malformed;
    /// keyChange's new key is the account's key already.
    KeyChangeSameKey = "key-change-same-key", Malformed;
    /// Something else changed at the same time.
    Conflict = "conflict", Malformed;
    /// A name that this directory or registration does not issue for.
    NameRejected = "name-rejected", RejectedIdentifier;
    /// An identifier type that is not known.
    IdentifierUnsupported = "identifier-unsupported", UnsupportedIdentifier;
    /// Too many names, or none.
    NameCount = "name-count", Malformed;
    /// A profile that the directory does not offer.
    ProfileUnknown = "profile-unknown", InvalidProfile;
    /// A profile that the account's registration may not use.
    ProfileForbidden = "profile-forbidden", InvalidProfile;
    /// Names, key or validity that the profile does not take, or another profile than the order was shown with.
    ProfileMismatch = "profile-mismatch", InvalidProfile;
    /// notBefore or notAfter: not offered here (RFC 8555 §7.4).
    ValidityRequested = "validity-requested", Malformed;
    /// `replaces`, `auto-renewal`, newAuthz or another extension that is not offered.
    ExtensionRequested = "extension-requested", Malformed;
    /// `replaces` names no certificate of the directory (RFC 9773 §5).
    ReplacedUnknown = "replaced-unknown", Malformed;
    /// `replaces` names another account's certificate.
    ReplacedForeign = "replaced-foreign", Unauthorized;
    /// `replaces` names a certificate that has no name of the order.
    ReplacedNames = "replaced-names", Malformed;
    /// `replaces` names a certificate that was replaced already.
    AlreadyReplaced = "already-replaced", AlreadyReplaced;
    /// The order id was not made for this newOrder, account and directory.
    OrderForged = "order-forged", Unauthorized;
    /// The order is too old.
    OrderExpired = "order-expired", OrderNotReady;
    /// newOrder and finalize are of different accounts or directories.
    OrderForeign = "order-foreign", Unauthorized;
    /// The order has a certificate already, for another CSR.
    OrderTaken = "order-taken", OrderNotReady;
    /// The newOrder request has a certificate already, under another order id.
    NewOrderTaken = "new-order-taken", OrderNotReady;
    /// An authorization id was not made for this account, name and request.
    AuthorizationForged = "authorization-forged", Unauthorized;
    /// The authorization is another one than the URL says.
    AuthorizationForeign = "authorization-foreign", Unauthorized;
    /// A domain above the name, which the order does not name, whose authorization is for no other name, or which does not
    /// count in the directory (RFC 9444).
    AncestorForeign = "ancestor-foreign", Unauthorized;
    /// An authorization was deactivated by its account.
    AuthorizationDeactivated = "authorization-deactivated", Unauthorized;
    /// A name of the order has no evidence.
    EvidenceMissing = "evidence-missing", Unauthorized;
    /// Evidence came for a name that is not in the order, or twice for one that is.
    EvidenceForeign = "evidence-foreign", Unauthorized;
    /// Evidence that cannot be read.
    EvidenceMalformed = "evidence-malformed", Unauthorized;
    /// A receipt is malformed.
    ReceiptMalformed = "receipt-malformed", Unauthorized;
    /// A receipt is of a perspective that is not an active validator.
    ReceiptUnregistered = "receipt-unregistered", Unauthorized;
    /// A receipt is not signed with its perspective's registered key.
    ReceiptSignature = "receipt-signature", Unauthorized;
    /// A receipt is for another authorization.
    ReceiptAuthorization = "receipt-authorization", Unauthorized;
    /// A receipt is for another directory.
    ReceiptDirectory = "receipt-directory", Unauthorized;
    /// A receipt is for another account.
    ReceiptAccount = "receipt-account", Unauthorized;
    /// A receipt is for a URL that is none of the account's in this directory.
    ReceiptAccountUrl = "receipt-account-url", Unauthorized;
    /// A receipt is for another name, the wildcard of the name among them.
    ReceiptName = "receipt-name", Unauthorized;
    /// A receipt is for a method that does not count here, or not for this name.
    ReceiptMethod = "receipt-method", Unauthorized;
    /// A receipt does not say what CAA says, or asked CAA for another CA.
    ReceiptCaa = "receipt-caa", Unauthorized;
    /// A receipt of a perspective without DNSSEC, in a directory of public trust.
    ReceiptDnssec = "receipt-dnssec", Unauthorized;
    /// A receipt of an address that is reserved, in a directory of public trust.
    ReceiptAddress = "receipt-address", Unauthorized;
    /// A receipt of a perspective that looked at nothing, in a directory that wants a proof.
    ReceiptAssumed = "receipt-assumed", Unauthorized;
    /// A receipt is for a key that was not the account's then.
    ReceiptKey = "receipt-key", Unauthorized;
    /// A receipt is older than its authorization.
    ReceiptEarly = "receipt-early", Unauthorized;
    /// It was made when its authorization had ended.
    ReceiptLate = "receipt-late", Unauthorized;
    /// A receipt is from the future.
    ReceiptFuture = "receipt-future", Unauthorized;
    /// A receipt is too old.
    ReceiptStale = "receipt-stale", Unauthorized;
    /// Not enough perspectives saw the proof.
    QuorumMissed = "quorum-missed", Unauthorized;
    /// CAA forbids it.
    Caa = "caa", Caa;
    /// The CSR is unacceptable.
    CsrInvalid = "csr-invalid", BadCsr;
    /// The CSR was not signed by its own key.
    CsrSignature = "csr-signature", BadCsr;
    /// The CSR's names are not the order's.
    CsrNames = "csr-names", BadCsr;
    /// The CSR's key is an account key (RFC 8555 §11.1).
    CsrAccountKey = "csr-account-key", BadCsr;
    /// The CSR's key is blocked.
    CsrKeyBlocked = "csr-key-blocked", BadCsr;
    /// The CSR's key is weak: its numbers give it away, or it is on a list (BR §6.1.1.3).
    CsrKeyWeak = "csr-key-weak", BadCsr;
    /// The CSR's key is not one that the profile takes.
    CsrKeyUnacceptable = "csr-key-unacceptable", BadCsr;
    /// What rests on validations that nobody made, under an issuer that its ceremony did not mark as a test CA.
    IssuerNotTest = "issuer-not-test", Unauthorized;
    /// The finished bytes did not pass the lints.
    Lint = "lint", BadCsr;
    /// A limit is reached.
    RateLimited = "rate-limited", RateLimited;
    /// No such certificate, or not the caller's.
    CertificateUnknown = "certificate-unknown", Malformed;
    /// The certificate is revoked already.
    AlreadyRevoked = "already-revoked", AlreadyRevoked;
    /// A revocation reason that is not the caller's to give.
    RevocationReason = "revocation-reason", BadRevocationReason;
    /// The caller has no authority over the certificate.
    RevocationForeign = "revocation-foreign", Unauthorized;
    /// The node may not have this.
    NodeForbidden = "node-forbidden", Unauthorized;
    /// A name that is not one of the node's own server names.
    NodeName = "node-name", Unauthorized;
    /// An RPC that is not the caller's role's to call.
    RpcRole = "rpc-role", Unauthorized;
    /// An RPC that this port does not have.
    RpcUnlisted = "rpc-unlisted", Unauthorized;
    /// An RPC of a node that is revoked.
    RpcRevoked = "rpc-revoked", Unauthorized;
    /// An RPC of somebody without a node's certificate.
    RpcNobody = "rpc-nobody", Unauthorized;
    /// An RPC's message is larger than the port takes.
    RpcTooLarge = "rpc-too-large", Malformed;
    /// An RPC's message is not what its definition says.
    RpcMalformed = "rpc-malformed", Malformed;
    /// A join token that does not exist, was used or has expired.
    JoinToken = "join-token", Unauthorized;
    /// An operator's request that is malformed or refers to something that is not there.
    OperatorRequest = "operator-request", Malformed;
}

/// A refusal: final for this request, and the caller's to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Out of the closed list.
    pub reason: Reason,
    /// What the client is told.
    pub problem: Box<Problem>,
    /// RFC 8555 §7.3.5: the account that already has the key.
    pub account: Option<String>,
    /// When the same request may succeed.
    pub retry_after: Option<Duration>,
    /// The directory, where it was known by then.
    pub directory: Option<String>,
}

impl Refusal {
    /// A refusal with the reason's usual type.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self::with_problem(reason, Problem::new(reason.error_type(), detail))
    }

    /// A refusal with a problem document of its own.
    #[must_use]
    pub fn with_problem(reason: Reason, problem: Problem) -> Self {
        Self { reason, problem: Box::new(problem), account: None, retry_after: None, directory: None }
    }

    /// The same with another HTTP status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.problem.status = status;
        self
    }

    /// The same, naming the account that is meant.
    #[must_use]
    pub fn account(mut self, id: impl Into<String>) -> Self {
        self.account = Some(id.into());
        self
    }

    /// The same, in this directory.
    #[must_use]
    pub fn directory(mut self, name: impl Into<String>) -> Self {
        self.directory.get_or_insert(name.into());
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.problem)
    }
}

impl std::error::Error for Refusal {}

impl From<JwsError> for Refusal {
    fn from(error: JwsError) -> Self {
        let reason = match &error {
            JwsError::Signature => Reason::JwsSignature,
            JwsError::KeyMismatch => Reason::JwsOtherKey,
            JwsError::AlgorithmMismatch { .. } => Reason::JwsAlgorithmMismatch,
            JwsError::UnsupportedAlgorithm(_) => Reason::JwsAlgorithm,
            JwsError::Key(_) => Reason::JwsKey,
            JwsError::KeyReference => Reason::JwsKeyReference,
            JwsError::UnencodedPayload => Reason::JwsUnencoded,
            JwsError::Critical => Reason::JwsCritical,
            JwsError::UnprotectedHeader => Reason::JwsUnprotected,
            JwsError::GeneralSerialization => Reason::JwsSerialization,
            JwsError::TooLarge => Reason::JwsTooLarge,
            JwsError::Json(JsonError::Duplicate(_)) => Reason::JwsDuplicate,
            JwsError::Payload(_) => Reason::PayloadMalformed,
            JwsError::Json(_) | JwsError::MissingMember(_) | JwsError::TooLong(_) | JwsError::Base64(_) => {
                Reason::JwsMalformed
            }
        };
        let problem = match error.error_type() {
            ErrorType::BadSignatureAlgorithm => Problem::bad_signature_algorithm(error.to_string()),
            kind => Problem::new(kind, error.to_string()),
        };
        Self::with_problem(reason, problem)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Refused: asking again changes nothing.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The database is away, or its answer was lost.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal cannot be read; whoever asked at the same time is told so as well.
    #[error(transparent)]
    Ledger(std::sync::Arc<StoreError>),
    /// The token is away, busy or refuses.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// Time is not to be trusted.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// Chance is not to be had.
    #[error(transparent)]
    Randomness(#[from] RandomnessError),
    /// A row of `ca` was changed by something else than a signer.
    #[error(transparent)]
    Tampered(#[from] MacError),
    /// A row of `ca` that a signer wrote cannot be read.
    #[error("a row of table {table} holds what no signer wrote: {detail}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// No issuer of the pool can sign now.
    #[error("no issuer of pool {pool:?} can sign now")]
    NoIssuer {
        /// The pool.
        pool: String,
    },
    /// Too much is in flight already.
    #[error("the signer has as much in flight as it takes")]
    Busy {
        /// When it will have moved on.
        retry_after: Duration,
    },
    /// The signer is draining, or a task of it was lost.
    #[error("the signer is stopping")]
    Stopping,
    /// What was to be signed could not be made: a profile and an issuer that do not go together.
    #[error("the certificate could not be made: {detail}")]
    Unmakeable {
        /// What is wrong.
        detail: String,
    },
    /// A responder's certificate was not renewed in time: answers end with it.
    #[error(
        "the certificate of the OCSP responder of issuer {issuer:?} ends in {seconds} s: answers end with it"
    )]
    ResponderLate {
        /// Whose responder.
        issuer: String,
        /// What is left of it.
        seconds: u64,
    },
    /// A responder's key is not to be used any more.
    #[error("the key of the OCSP responder of issuer {issuer:?} is blocked: it answers nothing")]
    ResponderBlocked {
        /// Whose responder.
        issuer: String,
    },
    /// A file of the state folder cannot be written or read.
    #[error("{path}: {detail}")]
    Spool {
        /// Which.
        path: String,
        /// Why.
        detail: String,
    },
    /// Concurrent changes won every time.
    #[error("concurrent changes won every time")]
    Contended,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<JwsError> for Failure {
    fn from(error: JwsError) -> Self {
        Refusal::from(error).into()
    }
}

impl Failure {
    /// How it is to be treated.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(refusal) if refusal.account.is_some() || refusal.reason == Reason::Conflict => {
                ErrorClass::Conflict
            }
            Self::Refused(_) => ErrorClass::Client,
            Self::Store(error) => error.class(),
            Self::Ledger(error) => error.class(),
            // A client's request never has a fault that only the token finds.
            Self::Door(DoorError::Hsm(error)) if error.class() != ErrorClass::Client => error.class(),
            Self::Door(_) => ErrorClass::Fatal,
            Self::Clock(_)
            | Self::Randomness(_)
            | Self::NoIssuer { .. }
            | Self::Busy { .. }
            | Self::Stopping
            | Self::Spool { .. }
            | Self::Contended => ErrorClass::Transient,
            Self::Tampered(_)
            | Self::Unreadable { .. }
            | Self::Unmakeable { .. }
            | Self::ResponderLate { .. }
            | Self::ResponderBlocked { .. } => ErrorClass::Fatal,
        }
    }
}

/// The result of everything that a request goes through.
pub type Outcome<T> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
