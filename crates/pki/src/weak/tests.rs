use aws_lc_rs::{digest, rand};

use super::*;
use crate::{
    KeyAlgorithm,
    testing::{Key, openssl},
};

/// A modulus of `moduli.txt`.
fn modulus(name: &str) -> Vec<u8> {
    let line = include_str!("moduli.txt").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    hex::decode(line.expect("a modulus of this name")).unwrap()
}

fn key(name: &str) -> PublicKey {
    PublicKey::from_rsa(&modulus(name), &[1, 0, 1]).unwrap()
}

/// An odd number of 2048 bits.
fn random_modulus() -> [u8; 256] {
    let mut octets = [0; 256];
    rand::fill(&mut octets).unwrap();
    octets[0] |= 0x80;
    octets[255] |= 1;
    octets
}

#[test]
fn e5_keys_that_generators_make_are_not_weak() {
    let rsa = [2048, 2048, 2048, 3072].map(|bits| KeyAlgorithm::Rsa { bits });
    let others = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Ed25519];
    for algorithm in rsa.into_iter().chain(others) {
        assert_eq!(Key::generate(algorithm).public().weakness(), None, "{algorithm}");
    }
}

#[test]
fn e5_roca_keys_are_found() {
    assert_eq!(key("roca").weakness(), Some(Weakness::Roca));
    assert_eq!(key("roca-published").weakness(), Some(Weakness::Roca));
    // Whatever k and a are, and of whatever length: products of two numbers k M + (65537^a mod M).
    let primorial = factors::odd_primes().take(38).fold(Natural::from(2), |m, prime| m.times(&prime.into()));
    for _ in 0..20 {
        let [one, other] = [0; 2].map(|_| {
            let random = random_modulus();
            let mut number = Natural::from_octets(&random[..100]).times(&primorial);
            // 65537^a for a below 16: no need to reduce it by M.
            let exponent = random[255] & 15;
            number.add(&(0..exponent).fold(Natural::from(1), |power, _| power.times(&Natural::from(65_537))));
            number
        });
        assert!(roca::has_fingerprint(&one.times(&other)));
        let mut off = one.times(&other);
        off.add(&Natural::from(2));
        assert!(!roca::has_fingerprint(&off));
    }
}

#[test]
fn e5_no_other_number_has_the_fingerprint_of_roca() {
    for _ in 0..5_000 {
        assert!(!roca::has_fingerprint(&Natural::from_octets(&random_modulus())));
    }
    // A power of 65537 modulo each prime, but of another exponent each: the primes one by one would not tell it apart.
    let (mut number, mut product) = (Natural::from(1), Natural::from(2));
    for (at, prime) in (0..).zip(factors::odd_primes().take(38)) {
        let wanted = (0..at * at % 7).fold(1, |power, _| power * 65_537 % prime);
        let step = (0..prime)
            .find(|step| (number.remainder(prime) + step * product.remainder(prime)) % prime == wanted);
        number.add(&product.times(&step.unwrap().into()));
        product = product.times(&prime.into());
        assert_eq!(number.remainder(prime), wanted);
    }
    assert!(!roca::has_fingerprint(&number));
}

#[test]
fn e5_close_factors_are_found_in_100_rounds_and_not_in_101() {
    for name in ["square", "close-1", "close-2", "close-99", "close-100"] {
        assert_eq!(key(name).weakness(), Some(Weakness::CloseFactors), "{name}");
    }
    assert_eq!(key("close-101").weakness(), None);
    // Small enough to be counted by hand: 101 · 137 = 119² - 18², ⌈√13837⌉ is 118, so that it takes two rounds.
    assert!(fermat::factors_are_close(&Natural::from(101 * 137)));
    // 3 · 1_000_003: a is 500_003, ⌈√N⌉ is 1733.
    assert!(!fermat::factors_are_close(&Natural::from(3 * 1_000_003)));
}

#[test]
fn e5_small_factors_are_found() {
    for factor in [3_u64, 751, 4093] {
        // The first multiple of the factor above some number of 2048 bits that is odd.
        let mut number = Natural::from_octets(&random_modulus());
        let rest = number.remainder(2 * factor);
        number.add(&Natural::from(2 * factor - rest + factor));
        let weak = PublicKey::from_rsa(&number.to_octets(), &[1, 0, 1]).unwrap();
        assert_eq!(weak.weakness(), Some(Weakness::SmallFactor), "{factor}");
    }
    // The first prime that is not tried.
    assert!(!factors::has_small(&Natural::from(4099 * 4099)));
}

/// An ECDSA key of a system with CVE-2008-0166: made by process 1000 on amd64. Its private key has been published
/// (github.com/badkeys/debianopenssl, `ecp256/ssl/le64/1000-rnd.key`).
const DEBIAN_P256: &str = "04b5f663b0bc8d5ba4fe98369d3b1bd70ad6af817b99376c50047ee2d36bd0e24ecbfaf8957f2d445e5b1e57cf120861\
                           5214f8f3955b085ccbd3bb328692a372ca";

fn debian_p256() -> PublicKey {
    PublicKey::from_ec_point(KeyAlgorithm::EcdsaP256, &hex::decode(DEBIAN_P256).unwrap()).unwrap()
}

#[test]
fn e5_debian_keys_are_found_by_the_digests_of_openssl_blacklist() {
    let debian = key("debian");
    assert_eq!(debian.weakness(), None, "nothing but a list tells");
    let list =
        WeakKeyList::read(b"# RSA-2048\n\n00005890bc78bcbee3ca\nb7ead9492dfd921fc4f9\n".to_vec()).unwrap();
    assert!(list.contains(&debian));
    assert_eq!(list.len(), 2);
    for name in ["roca", "close-101"] {
        assert!(!list.contains(&key(name)), "{name}");
    }
    // With another exponent it is no better.
    let other_exponent = PublicKey::from_rsa(&modulus("debian"), &[1, 0, 3]).unwrap();
    assert!(list.contains(&other_exponent));
    // The digest is the one that `openssl rsa -modulus | sha1sum` gives.
    let fresh = Key::generate(KeyAlgorithm::Rsa { bits: 2048 }).public();
    let printed = openssl(&["rsa", "-pubin", "-inform", "DER", "-noout", "-modulus"], fresh.spki_der());
    let line = printed.lines().find(|line| line.starts_with("Modulus=")).unwrap();
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{line}\n").as_bytes());
    let list = WeakKeyList::read(hex::encode(&hash.as_ref()[10..]).into_bytes()).unwrap();
    assert!(list.contains(&fresh));
    assert!(!list.contains(&debian));
}

#[test]
fn e5_debian_keys_are_found_in_the_records_of_badkeys() {
    let record = |hash: &str| [hex::decode(hash).unwrap(), vec![7]].concat();
    let (rsa, p256) = (record("31c152529eb033a010f8c272fd8d42"), record("e5a24be7e5cf243b37a7a2f93f39b3"));
    let ed25519 = Key::fixed(7).public();
    let hash = digest::digest(&digest::SHA256, ed25519.raw());
    let mut records = [rsa, p256, record(&hex::encode(&hash.as_ref()[..15])), vec![0; 16], vec![0xff; 16]];
    records.sort();
    let list = WeakKeyList::read(records.concat()).unwrap();
    assert_eq!(list.len(), 5);
    for key in [key("debian"), debian_p256(), ed25519] {
        assert!(list.contains(&key), "{key:?}");
    }
    for key in [key("roca"), Key::generate(KeyAlgorithm::EcdsaP256).public(), Key::fixed(8).public()] {
        assert!(!list.contains(&key), "{key:?}");
    }
}

#[test]
fn keys_of_all_kinds_are_listed_by_their_spki() {
    let listed = Key::generate(KeyAlgorithm::EcdsaP384).public();
    let list = WeakKeyList::read(format!("{}\r\n", hex::encode(listed.sha256())).into_bytes()).unwrap();
    assert!(list.contains(&listed));
    assert!(!list.contains(&Key::generate(KeyAlgorithm::EcdsaP384).public()));
}

#[test]
fn files_that_are_no_list_are_named() {
    let error = |octets: &[u8]| WeakKeyList::read(octets.to_vec()).unwrap_err();
    assert_eq!(error(b""), WeakKeyListError::Empty);
    assert_eq!(error(b"# nothing\n"), WeakKeyListError::Empty);
    assert_eq!(error(b"# one\n00005890bc78bcbee3c\n"), WeakKeyListError::Line(2));
    assert_eq!(error(b"00005890bc78bcbee3ca\n-----BEGIN CERTIFICATE-----\n"), WeakKeyListError::Line(2));
    assert_eq!(error(&[0xff; 15]), WeakKeyListError::Length);
    assert_eq!(error(&[[0xff; 16], [0xfe; 16]].concat()), WeakKeyListError::Order(2));
}
