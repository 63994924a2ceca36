//! Factors that are close together: Fermat's method finds them at once (BR §6.1.1.3).
//!
//! With N = p q, a = (p + q) / 2 and b = (p - q) / 2, N is a² - b². The method tries a from √N upwards until a² - N is a
//! square.

use super::Natural;

/// So many values of a are tried (BR §6.1.1.3 (3): "within 100 rounds").
pub(super) const ROUNDS: u32 = 100;

/// Whether Fermat's method finds the factors of an odd number.
pub(super) fn factors_are_close(number: &Natural) -> bool {
    let (mut a, rest) = number.square_root();
    if rest.is_zero() {
        return true;
    }
    // The first a is ⌈√N⌉, one above the root r: a² - N = 2 r + 1 - rest.
    let one = Natural::from(1);
    let mut difference = successor_of_twice(&a);
    difference.subtract(&rest);
    a.add(&one);
    for _ in 0..ROUNDS {
        if is_square(&difference) {
            return true;
        }
        // (a + 1)² = a² + 2 a + 1.
        difference.add(&successor_of_twice(&a));
        a.add(&one);
    }
    false
}

fn successor_of_twice(number: &Natural) -> Natural {
    let mut twice = number.clone();
    twice.push(1, 1);
    twice
}

/// Whether it is a square. Nearly every number that is not shows it modulo one of a few small ones.
fn is_square(number: &Natural) -> bool {
    const SIEVE: [u64; 7] = [63, 65, 11, 17, 19, 23, 31];
    let rest = number.remainder(SIEVE.iter().product());
    let may_be = is_square_modulo(number.low() % 64, 64)
        && SIEVE.iter().all(|modulus| is_square_modulo(rest % modulus, *modulus));
    may_be && number.square_root().1.is_zero()
}

fn is_square_modulo(rest: u64, modulus: u64) -> bool {
    (0..=modulus / 2).any(|root| root * root % modulus == rest)
}
