//! Keys that are well-formed and still not to be used (BR §6.1.1.3): what their numbers give away, and lists of keys that
//! everybody has.
//!
//! What is looked for here needs the public key alone. Whether somebody *said* that a key is compromised is the
//! journal's to know.

mod factors;
mod fermat;
mod list;
mod natural;
mod roca;

use crate::PublicKey;
use natural::Natural;

pub use list::{WeakKeyList, WeakKeyListError};

/// Why a well-formed key is weak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Weakness {
    /// The modulus has a small factor: whatever made it was no key generator.
    #[error("its modulus has a factor below {}", factors::BOUND)]
    SmallFactor,
    /// The factors are so close that Fermat's method finds them (BR §6.1.1.3).
    #[error("its factors are so close together that {} rounds of Fermat's method find them", fermat::ROUNDS)]
    CloseFactors,
    /// The modulus has the fingerprint of the Infineon library (CVE-2017-15361, "ROCA").
    #[error(
        "its modulus has the fingerprint of a generator whose keys can be factored (ROCA, CVE-2017-15361)"
    )]
    Roca,
    /// It is on a list of known keys, such as those of Debian's OpenSSL (CVE-2008-0166).
    #[error("it is on a list of keys whose private keys are known")]
    Listed,
}

impl PublicKey {
    /// What the numbers of the key give away: only RSA keys have something to give. About a tenth of a millisecond for
    /// 2048 bits, ten times that for 8192.
    #[must_use]
    pub fn weakness(&self) -> Option<Weakness> {
        let modulus = Natural::from_octets(self.rsa_modulus()?);
        if factors::has_small(&modulus) {
            Some(Weakness::SmallFactor)
        } else if roca::has_fingerprint(&modulus) {
            Some(Weakness::Roca)
        } else if fermat::factors_are_close(&modulus) {
            Some(Weakness::CloseFactors)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
