//! The ceiling of a token: bare `C_Sign` loops on a SoftHSM token of its own, in this process, a session for each thread.
//! Prints one JSON object: signatures a second, microseconds of CPU each.
//!
//! `cargo run --release -p hsm --example bare_sign [milliseconds] [threads] [ecdsa-p256 | rsa-2048]`

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "a measurement, not a service"
)]

use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use testkit::token::{PIN, TestToken};

/// DER of the OID of P-256.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

fn main() {
    let argument = |at, default: &str| std::env::args().nth(at).unwrap_or_else(|| default.to_owned());
    let time = Duration::from_millis(argument(1, "2000").parse().unwrap());
    let threads: usize = argument(2, "1").parse().unwrap();
    let (generation, is_rsa, public, data) = match argument(3, "ecdsa-p256").as_str() {
        "ecdsa-p256" => (Mechanism::EccKeyPairGen, false, Attribute::EcParams(P256.to_vec()), &[7; 32][..]),
        // What is signed is a DigestInfo with SHA-256.
        "rsa-2048" => (Mechanism::RsaPkcsKeyPairGen, true, Attribute::ModulusBits(2048.into()), &[7; 51][..]),
        other => panic!("{other}?"),
    };
    let softhsm = TestToken::create("bare");
    // SAFETY: there is no other thread yet.
    unsafe { std::env::set_var("SOFTHSM2_CONF", softhsm.conf()) };
    let pkcs11 = Pkcs11::new(softhsm.module()).unwrap();
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
    let session = pkcs11.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
    let public = [public, Attribute::Verify(true)];
    let private = [Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Sign(true)];
    let (_, key) = session.generate_key_pair(&generation, &public, &private).unwrap();
    let sessions: Vec<_> = (0..threads).map(|_| pkcs11.open_ro_session(slot).unwrap()).collect();
    let (began, before) = (Instant::now(), cpu());
    let count: u64 = std::thread::scope(|scope| {
        let each = |session: Session| {
            scope.spawn(move || {
                let mechanism = if is_rsa { Mechanism::RsaPkcs } else { Mechanism::Ecdsa };
                let mut count = 0;
                while began.elapsed() < time {
                    session.sign(&mechanism, key, data).unwrap();
                    count += 1;
                }
                count
            })
        };
        let loops: Vec<_> = sessions.into_iter().map(each).collect();
        loops.into_iter().map(|one| one.join().unwrap()).sum::<u64>()
    });
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!(r#"{{"per_second":{rate:.1},"cpu_us":{:.2}}}"#, (cpu() - before) * 1e6 / count as f64);
    drop(session);
    pkcs11.finalize().unwrap();
}

/// User and system time of this process, seconds.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
