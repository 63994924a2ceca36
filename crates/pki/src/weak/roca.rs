//! The fingerprint of RSA keys of the Infineon library (CVE-2017-15361; Nemec, Sys, Svenda, Klinec, Matyas: "The Return of
//! Coppersmith's Attack", 2017).
//!
//! Its primes are k M + (65537^a mod M), with M the product of the first primes: the first 39 for the shortest keys, more
//! for longer ones. Then the modulus is a power of 65537 modulo M as well. Whether it is one is easy to tell, because the
//! order of 65537 modulo each small prime is small: a discrete logarithm modulo each of the 39 primes that all such keys
//! have in common, and one exponent that fits them all.

use std::sync::LazyLock;

use super::{Natural, factors};

const GENERATOR: u64 = 65_537;
/// The odd primes of M that keys of all lengths have in common: 3 to 167.
const PRIMES: usize = 38;

/// A prime and the powers of the generator modulo it, from the 0th on: as many as its order.
struct Subgroup {
    prime: u64,
    powers: Vec<u64>,
}

static SUBGROUPS: LazyLock<Vec<Subgroup>> = LazyLock::new(|| {
    let subgroup = |prime: u64| {
        let next = |power: &u64| Some(power * GENERATOR % prime).filter(|power| *power != 1);
        Subgroup { prime, powers: std::iter::successors(Some(1), next).collect() }
    };
    factors::odd_primes().take(PRIMES).map(subgroup).collect()
});

/// Whether a number is a power of 65537 modulo the product of the primes. Of random numbers one in 2^150 is.
pub(super) fn has_fingerprint(number: &Natural) -> bool {
    // (order, logarithm) for each prime; nearly every number fails at one of the first.
    let mut logarithms: Vec<(u64, u64)> = Vec::with_capacity(PRIMES);
    for Subgroup { prime, powers } in SUBGROUPS.iter() {
        let rest = number.remainder(*prime);
        let Some(logarithm) = powers.iter().position(|power| *power == rest) else { return false };
        let (Ok(order), Ok(logarithm)) = (u64::try_from(powers.len()), u64::try_from(logarithm)) else {
            return false;
        };
        logarithms.push((order, logarithm));
    }
    // One exponent has all these logarithms exactly when each two agree modulo what their orders have in common (the
    // Chinese remainder theorem for moduli that are not coprime).
    logarithms.iter().enumerate().all(|(at, (order, logarithm))| {
        logarithms.iter().skip(at + 1).all(|(other_order, other)| {
            let common = greatest_common_divisor(*order, *other_order);
            logarithm.abs_diff(*other).is_multiple_of(common)
        })
    })
}

fn greatest_common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}
