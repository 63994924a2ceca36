//! What a worker can report: about the module, the token, the PIN, a key, or one PKCS#11 call.

use std::path::PathBuf;

use pki::ErrorClass;

/// A fault on the token's side of the socket. It crosses the socket, so it owns plain data and no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The worker has not said yet whether the token is there.
    #[error("the worker is starting")]
    Starting,
    /// The worker's program could not be executed.
    #[error("cannot run the worker: {reason}")]
    Spawn {
        /// The operating system's words.
        reason: String,
    },
    /// The worker ended, or was killed.
    #[error("the worker ended: {status}")]
    Died {
        /// Its exit status or signal.
        status: String,
    },
    /// The worker did not answer in time and was killed.
    #[error("the worker hung and was killed")]
    Hung,
    /// The two sides do not understand each other: different versions of the program.
    #[error("unintelligible frame: {reason}")]
    Protocol {
        /// What is wrong with the frame.
        reason: String,
    },
    /// The module cannot be loaded.
    #[error("cannot load the PKCS#11 module {path}: {reason}")]
    Module {
        /// The module's path.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// No token has the label (and serial).
    #[error("no token has the label {label:?}{}", serial.as_ref().map(|s| format!(" and the serial {s:?}")).unwrap_or_default())]
    TokenNotFound {
        /// The label of the configuration.
        label: String,
        /// The serial of the configuration.
        serial: Option<String>,
    },
    /// More than one token has the label: configure the serial.
    #[error("{count} tokens have the label {label:?}: configure the serial")]
    TokenAmbiguous {
        /// The label of the configuration.
        label: String,
        /// How many tokens have it.
        count: u64,
    },
    /// The PIN file cannot be read, or holds no PIN.
    #[error("cannot read the PIN file {path}: {reason}")]
    PinUnreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// The PIN file can be read by everybody: a PIN in it is not a secret.
    #[error("the PIN file {path} can be read by others: chmod o-rwx it, and consider the PIN known")]
    PinExposed {
        /// The file.
        path: PathBuf,
    },
    /// The token refused the PIN now. It is not tried again.
    #[error("the token refused the PIN ({rv}); latched in {latch} until the PIN file changes")]
    PinRefused {
        /// The return value of `C_Login`.
        rv: String,
        /// The latch file.
        latch: PathBuf,
    },
    /// The token refused this PIN earlier. It was not tried.
    #[error("the token refused this PIN before; not tried again (latch file {latch}): correct the PIN file")]
    PinLatched {
        /// The latch file.
        latch: PathBuf,
    },
    /// The token says that the PIN is locked.
    #[error("the user PIN is locked: the token's security officer must reset it")]
    PinLocked,
    /// One more refusal would lock the PIN. A service does not take the last try.
    #[error("the token has one try left for the user PIN: log in by hand to reset its counter")]
    PinFinalTry,
    /// The latch file cannot be written, so no PIN is tried.
    #[error("cannot use the latch file {path}: {reason}")]
    Latch {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// No private key has the id.
    #[error("no private key with CKA_ID {id}")]
    KeyNotFound {
        /// The id in hexadecimal.
        id: String,
    },
    /// More than one private key has the id.
    #[error("{count} private keys with CKA_ID {id}")]
    KeyAmbiguous {
        /// The id in hexadecimal.
        id: String,
        /// How many.
        count: u64,
    },
    /// The token has a key with this id or label already, and generation replaces nothing.
    #[error("a key with CKA_ID {id} or label {label:?} exists already")]
    KeyExists {
        /// The id in hexadecimal.
        id: String,
        /// The label.
        label: String,
    },
    /// The token does not tell the key's public half.
    #[error("the public key of CKA_ID {id} cannot be read: {reason}")]
    PublicKeyUnreadable {
        /// The id in hexadecimal.
        id: String,
        /// What is missing or malformed.
        reason: String,
    },
    /// The key with this id is not the one that was declared.
    #[error("the key with CKA_ID {id} is another one: its public key is not the expected one")]
    PublicKeyMismatch {
        /// The id in hexadecimal.
        id: String,
    },
    /// An attribute of the key does not fit its declared origin.
    #[error("key with CKA_ID {id}: {attribute} is {}, must be {expected}",
            found.map_or_else(|| "not told".to_owned(), |value| value.to_string()))]
    Attribute {
        /// The id in hexadecimal.
        id: String,
        /// The attribute, `CKA_…`.
        attribute: String,
        /// What it must be.
        expected: bool,
        /// What the token says.
        found: Option<bool>,
    },
    /// The worker does not know the key's number: the supervisor has not declared it.
    #[error("key number {index} was not declared")]
    KeyUndeclared {
        /// The number.
        index: u32,
    },
    /// The token's signature has a length that the algorithm does not know.
    #[error("signature of {found} octets where {expected} were due")]
    SignatureLength {
        /// The length of the algorithm.
        expected: u64,
        /// The length of the token's signature.
        found: u64,
    },
    /// The job's deadline passed before its turn in the worker.
    #[error("deadline passed before the session took the job")]
    Expired,
    /// A PKCS#11 call failed.
    #[error("{function}: {rv}")]
    Call {
        /// The function, as `cryptoki` names it.
        function: String,
        /// The return value's name.
        rv: String,
        /// What that means for recovery.
        class: RvClass,
    },
}

impl Fault {
    /// Whose fault it is, and whether it is worth another try.
    pub fn class(&self) -> ErrorClass {
        match self {
            Fault::KeyExists { .. } => ErrorClass::Conflict,
            Fault::Call { class: RvClass::Input, .. } => ErrorClass::Client,
            Fault::Call { class: RvClass::Pin, .. }
            | Fault::PinExposed { .. }
            | Fault::PinRefused { .. }
            | Fault::PinLatched { .. }
            | Fault::PinLocked
            | Fault::PinFinalTry
            | Fault::TokenAmbiguous { .. }
            | Fault::KeyAmbiguous { .. }
            | Fault::PublicKeyUnreadable { .. }
            | Fault::PublicKeyMismatch { .. }
            | Fault::Attribute { .. }
            | Fault::Protocol { .. }
            | Fault::SignatureLength { .. } => ErrorClass::Fatal,
            _ => ErrorClass::Transient,
        }
    }

    /// Whether only a person can mend it: the PIN is wrong, locked or exposed.
    pub fn is_pin(&self) -> bool {
        matches!(
            self,
            Fault::PinExposed { .. }
                | Fault::PinRefused { .. }
                | Fault::PinLatched { .. }
                | Fault::PinLocked
                | Fault::PinFinalTry
                | Fault::Call { class: RvClass::Pin, .. }
        )
    }
}

/// What a return value means for recovery. Modules give different codes for the same event, so whatever is not known to
/// be something milder counts as a lost session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RvClass {
    /// The request is at fault; another try gives the same.
    Input = 1,
    /// The token has too much to do.
    Busy = 2,
    /// The PIN was refused. Never tried again: each try burns one of the token's.
    Pin = 3,
    /// The session, the login or the handle is gone: replace the session, log in, find the key, try once more.
    Session = 4,
    /// The token or the module's connection is gone: as `Session`, and if that does not help a new process.
    Device = 5,
}

impl RvClass {
    pub(crate) const fn from_u8(value: u8) -> Option<RvClass> {
        Some(match value {
            1 => RvClass::Input,
            2 => RvClass::Busy,
            3 => RvClass::Pin,
            4 => RvClass::Session,
            5 => RvClass::Device,
            _ => return None,
        })
    }
}
