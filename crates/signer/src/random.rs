//! Chance as an argument: serial numbers, ids and owners' names are drawn from here, so that a test can choose them.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// The source of randomness has failed; nothing may be made without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct RandomnessError;

/// A source of unpredictable bytes.
pub trait Randomness: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// When the source has failed: `bytes` must then not be used.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomnessError>;
}

impl dyn Randomness {
    /// `N` bytes.
    ///
    /// # Errors
    /// As [`Randomness::fill`].
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], RandomnessError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

/// The operating system's, through aws-lc.
#[derive(Debug, Default)]
pub struct SystemRandomness(SystemRandom);

impl SystemRandomness {
    /// The operating system's source.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Randomness for SystemRandomness {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomnessError> {
        self.0.fill(bytes).map_err(|_| RandomnessError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let source: &dyn Randomness = &SystemRandomness::new();
        assert_ne!(source.bytes::<16>().unwrap(), source.bytes::<16>().unwrap());
    }
}
