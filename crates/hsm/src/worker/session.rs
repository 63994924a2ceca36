//! The module, the token in it, the login, and sessions.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io, thread};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::keys::Keys;
use super::outbox::Outbox;
use crate::fault::{Fault, RvClass};
use crate::frame::{Configure, Event, Report};
use crate::latch::{Latch, Verdict};

/// The token, logged in.
pub(super) struct Backend {
    pkcs11: Pkcs11,
    slot: Slot,
    configure: Configure,
    pin: AuthPin,
    serial: String,
    manufacturer: String,
    model: String,
    /// Held for the life of the process: when the last session closes, the token logs everybody out.
    anchor: Mutex<Session>,
    /// Rises with each login; handles of objects live within one epoch.
    epoch: AtomicU64,
    pub(super) keys: Keys,
    pub(super) outbox: Arc<Outbox>,
}

impl Backend {
    /// Loads the module, finds the token and logs in.
    pub(super) fn open(configure: Configure, outbox: Arc<Outbox>) -> Result<Backend, Fault> {
        let pin = read_pin(Path::new(&configure.pin_file))?;
        // Nobody else logs in while we look for the token, and we look for it while nobody logs in.
        let latch = Latch::lock(Path::new(&configure.latch_file))?;
        if latch.verdict(pin.expose_secret().as_bytes())? == Verdict::Refused {
            return Err(latched(&configure));
        }
        let module =
            |error: Error| Fault::Module { path: configure.module.clone().into(), reason: error.to_string() };
        let pkcs11 = Pkcs11::new(&configure.module).map_err(module)?;
        initialize(&pkcs11).map_err(module)?;
        let (slot, info) = find_token(&pkcs11, &configure)?;
        let anchor = pkcs11.open_rw_session(slot)?;
        log_in(&anchor, &pin, &latch, Some(&info), &configure)?;
        Ok(Backend {
            pkcs11,
            slot,
            pin,
            serial: info.serial_number().trim_end().to_owned(),
            manufacturer: info.manufacturer_id().trim_end().to_owned(),
            model: info.model().trim_end().to_owned(),
            anchor: Mutex::new(anchor),
            epoch: AtomicU64::new(1),
            keys: Keys::default(),
            outbox,
            configure,
        })
    }

    pub(super) fn ready_report(&self, sessions: u16) -> Report {
        Report::Ready {
            serial: self.serial.clone(),
            manufacturer: self.manufacturer.clone(),
            model: self.model.clone(),
            sessions,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A new session that is logged in. Logs in again when the token has forgotten us.
    pub(super) fn session(&self) -> Result<Session, Fault> {
        let session = self.pkcs11.open_rw_session(self.slot)?;
        if is_logged_in(&session)? {
            return Ok(session);
        }
        drop(session);
        let mut anchor = self.anchor.lock();
        // Another thread may have logged in while this one waited.
        let session = self.pkcs11.open_rw_session(self.slot)?;
        if is_logged_in(&session)? {
            return Ok(session);
        }
        let latch = Latch::lock(Path::new(&self.configure.latch_file))?;
        let info = self.pkcs11.get_token_info(self.slot).ok();
        log_in(&session, &self.pin, &latch, info.as_ref(), &self.configure)?;
        drop(latch);
        // The old anchor is dead, or it would have kept us logged in; closing it could do no more than fail.
        *anchor = self.pkcs11.open_rw_session(self.slot)?;
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        drop(anchor);
        self.outbox.send(&Report::Event(Event::LoggedIn { epoch }));
        Ok(session)
    }

    /// Counts a failed call in the supervisor's metrics.
    pub(super) fn note(&self, fault: &Fault) {
        if let Fault::Call { function, rv, .. } = fault {
            self.outbox
                .send(&Report::Event(Event::CallFailed { function: function.clone(), rv: rv.clone() }));
        }
    }

    /// What a token does on its own now and then.
    #[cfg(test)]
    pub(super) fn log_out(&self) {
        self.anchor.lock().logout().unwrap();
    }

    pub(super) fn finalize(&self) {
        // Nothing can be done about an error at the very end.
        let _ = self.pkcs11.clone().finalize();
    }
}

fn initialize(pkcs11: &Pkcs11) -> Result<(), Error> {
    match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        outcome => outcome,
    }
}

/// The slot by the token's label and serial. A token may be missed while another process logs in (SoftHSM rewrites its
/// file then), and modules cache that it is absent: look again, each time from the beginning.
fn find_token(pkcs11: &Pkcs11, configure: &Configure) -> Result<(Slot, TokenInfo), Fault> {
    let mut looks = 1;
    loop {
        let missing = match look_for_token(pkcs11, configure) {
            Err(fault @ Fault::TokenNotFound { .. }) => fault,
            outcome => return outcome,
        };
        if looks >= LOOKS_MAX {
            return Err(missing);
        }
        looks += 1;
        thread::sleep(LOOK_AGAIN);
        pkcs11.clone().finalize()?;
        initialize(pkcs11)?;
    }
}

fn look_for_token(pkcs11: &Pkcs11, configure: &Configure) -> Result<(Slot, TokenInfo), Fault> {
    let mut found = Vec::new();
    for slot in pkcs11.get_slots_with_token()? {
        // One slot that cannot be read must not hide the others.
        let Ok(info) = pkcs11.get_token_info(slot) else { continue };
        let is_ours = info.token_initialized()
            && info.label().trim_end() == configure.label
            && configure.serial.as_ref().is_none_or(|serial| info.serial_number().trim_end() == serial);
        if is_ours {
            found.push((slot, info));
        }
    }
    let count = found.len() as u64;
    match (found.pop(), count) {
        (Some(one), 1) => Ok(one),
        (Some(_), count) => Err(Fault::TokenAmbiguous { label: configure.label.clone(), count }),
        (None, _) => {
            Err(Fault::TokenNotFound { label: configure.label.clone(), serial: configure.serial.clone() })
        }
    }
}

/// The one call of `C_Login` in this program.
fn log_in(
    session: &Session,
    pin: &AuthPin,
    latch: &Latch,
    info: Option<&TokenInfo>,
    configure: &Configure,
) -> Result<(), Fault> {
    let octets = pin.expose_secret().as_bytes();
    let refused = |rv: String| Fault::PinRefused { rv, latch: configure.latch_file.clone().into() };
    match latch.verdict(octets)? {
        Verdict::Unknown => {}
        Verdict::Refused => return Err(latched(configure)),
        Verdict::Trying if info.is_some_and(TokenInfo::user_pin_count_low) => {
            latch.refused(octets)?;
            return Err(refused("a login was interrupted, and the token counts a failed one".to_owned()));
        }
        Verdict::Trying => {}
    }
    if info.is_some_and(TokenInfo::user_pin_locked) {
        return Err(Fault::PinLocked);
    }
    if info.is_some_and(TokenInfo::user_pin_final_try) {
        return Err(Fault::PinFinalTry);
    }
    latch.trying(octets)?;
    match session.login(UserType::User, Some(pin)) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => latch.accepted(),
        Err(error) => {
            let fault = Fault::from(error);
            match fault {
                Fault::Call { rv, class: RvClass::Pin, .. } => {
                    latch.refused(octets)?;
                    Err(refused(rv))
                }
                // Not about the PIN, as far as the module says; the mark stays until the token's counter tells.
                fault => Err(fault),
            }
        }
    }
}

fn is_logged_in(session: &Session) -> Result<bool, Fault> {
    Ok(matches!(session.get_session_info()?.session_state(), SessionState::RwUser))
}

fn latched(configure: &Configure) -> Fault {
    Fault::PinLatched { latch: configure.latch_file.clone().into() }
}

/// The first line of the PIN file.
fn read_pin(path: &Path) -> Result<AuthPin, Fault> {
    let unreadable = |reason: String| Fault::PinUnreadable { path: path.to_owned(), reason };
    let mut file = fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mode = file.metadata().map_err(|error| unreadable(error.to_string()))?.mode();
    if mode & 0o007 != 0 {
        return Err(Fault::PinExposed { path: path.to_owned() });
    }
    let mut buffer = Zeroizing::new([0_u8; PIN_FILE_MAX]);
    let length =
        read_up_to(&mut file, buffer.as_mut_slice()).map_err(|error| unreadable(error.to_string()))?;
    let text = buffer.get(..length).and_then(|octets| std::str::from_utf8(octets).ok());
    let line = text.and_then(|text| text.lines().next()).filter(|line| !line.is_empty());
    match line {
        Some(_) if length == PIN_FILE_MAX => Err(unreadable("longer than any PIN".to_owned())),
        Some(line) => Ok(AuthPin::from(line)),
        None => Err(unreadable("no PIN in its first line".to_owned())),
    }
}

fn read_up_to(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

const PIN_FILE_MAX: usize = 1024;

const LOOKS_MAX: u32 = 4;

const LOOK_AGAIN: Duration = Duration::from_millis(40);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn pin_file(content: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn the_pin_is_the_first_line_whatever_ends_it() {
        for content in [&b"1234"[..], b"1234\n", b"1234\r\n", b"1234\nnot this\n"] {
            let (_folder, path) = pin_file(content, 0o600);
            assert_eq!(read_pin(&path).unwrap().expose_secret(), "1234");
        }
    }

    #[test]
    fn files_without_a_pin_and_files_that_others_can_read_are_refused() {
        for content in [&b""[..], b"\n", b"\n1234", &[0xff, 0xfe], &[b'1'; 2000]] {
            let (_folder, path) = pin_file(content, 0o600);
            assert!(matches!(read_pin(&path), Err(Fault::PinUnreadable { .. })), "{content:?}");
        }
        let (_folder, path) = pin_file(b"1234", 0o644);
        assert!(matches!(read_pin(&path), Err(Fault::PinExposed { .. })));
        assert!(matches!(read_pin(Path::new("/nowhere/pin")), Err(Fault::PinUnreadable { .. })));
    }
}
