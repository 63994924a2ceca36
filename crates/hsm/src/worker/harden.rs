//! What the worker asks of the kernel for itself, and the descriptor that it inherited.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// No core, no tracer: the PIN will be in this process's memory.
#[expect(unsafe_code, reason = "prctl and setrlimit have no safe form in the standard library")]
pub(super) fn harden() -> io::Result<()> {
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: system calls on integers, a literal with its NUL, and a struct that outlives its call.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NAME, c"hsm-worker".as_ptr(), 0, 0, 0),
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0),
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core),
        ]
    };
    if results.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// No survivor either: from here on the kernel kills this process, stopped or hung, when its supervisor dies. To be called
/// by the main thread, and not before it has logged in: SoftHSM writes its token's file anew at each login, and one that was
/// cut short has no token any more. (If the supervisor is dead already, its socket has ended, and so does this process.)
#[expect(unsafe_code, reason = "prctl has no safe form in the standard library")]
pub(super) fn die_with_supervisor() -> io::Result<()> {
    // SAFETY: a system call on integers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Ends the process in `limit` after the other end of the socket is gone, wherever its other threads are by then.
#[expect(unsafe_code, reason = "poll has no safe form in the standard library")]
pub(super) fn exit_after_hangup(socket: &UnixStream, limit: Duration) -> io::Result<()> {
    let socket = socket.try_clone()?;
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        let mut watched = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one `pollfd` that outlives the call, of a descriptor that `socket` owns. A hangup is reported unasked.
        while unsafe { libc::poll(&raw mut watched, 1, -1) } == -1 {}
        std::thread::sleep(limit);
        exit_now(75);
    })?;
    Ok(())
}

/// Takes over the descriptor that the supervisor passed, if it is a socket; whatever the module executes shall not have it.
#[expect(unsafe_code, reason = "an inherited descriptor is only a number")]
pub(super) fn take_socket(fd: RawFd) -> Option<UnixStream> {
    // SAFETY: `fcntl` on a number; -1 when it names no open descriptor.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return None;
    }
    // SAFETY: it is open (checked above), the supervisor opened it for this process, and nothing here has taken it: `main`
    // calls this once, before anything else runs.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    socket.peer_addr().ok()?;
    Some(socket)
}

/// Ends the process in `limit` unless it ends before; in the middle of a hung call if need be.
pub(super) fn exit_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        exit_now(75);
    });
}

/// Ends the process without running destructors: those of PKCS#11 modules hang or crash after a fault.
#[expect(unsafe_code, reason = "std::process::exit runs the destructors of the module")]
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; what it wanted to say has been written to the socket without a buffer.
    unsafe { libc::_exit(code) }
}
