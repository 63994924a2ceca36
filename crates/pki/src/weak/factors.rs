//! Small factors (NIST SP 800-89 §5.3.3 asks for a look for them). A modulus of two primes has none, so that one with a small
//! factor was made by something broken, or was altered.

use std::sync::LazyLock;

use super::Natural;

/// Primes below this number are tried.
pub(super) const BOUND: u64 = 4096;

/// The odd primes, in groups whose product fits into 64 bits: one long division serves a whole group.
static GROUPS: LazyLock<Vec<(u64, Vec<u64>)>> = LazyLock::new(|| {
    let mut groups: Vec<(u64, Vec<u64>)> = Vec::new();
    for prime in odd_primes().take_while(|prime| *prime < BOUND) {
        match groups.last_mut() {
            Some((product, primes)) if product.checked_mul(prime).is_some() => {
                *product *= prime;
                primes.push(prime);
            }
            _ => groups.push((prime, vec![prime])),
        }
    }
    groups
});

/// Whether an odd number above `BOUND` has a factor below it.
pub(super) fn has_small(number: &Natural) -> bool {
    GROUPS.iter().any(|(product, primes)| {
        let rest = number.remainder(*product);
        primes.iter().any(|prime| rest.is_multiple_of(*prime))
    })
}

/// 3, 5, 7, …
pub(super) fn odd_primes() -> impl Iterator<Item = u64> {
    let is_prime = |number: &u64| {
        (3..).step_by(2).take_while(|it| it * it <= *number).all(|it| !number.is_multiple_of(it))
    };
    (3..).step_by(2).filter(is_prime)
}
