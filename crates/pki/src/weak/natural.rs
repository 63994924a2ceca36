//! As much arithmetic with long natural numbers as the tests of a public modulus need. All numbers are public: nothing here
//! takes the same time for all of them.

use std::cmp::Ordering;

/// A natural number, its lowest 64 bits first, without zeros at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Natural(Vec<u64>);

impl Natural {
    /// From its octets, big-endian.
    pub(super) fn from_octets(octets: &[u8]) -> Self {
        let limb = |chunk: &[u8]| chunk.iter().fold(0, |limb, octet| limb << 8 | u64::from(*octet));
        Self(octets.rchunks(8).map(limb).collect()).trimmed()
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// The lowest 64 bits.
    pub(super) fn low(&self) -> u64 {
        self.0.first().copied().unwrap_or_default()
    }

    /// What is left after division by `divisor`; 0 for a divisor of 0.
    pub(super) fn remainder(&self, divisor: u64) -> u64 {
        let divisor = u128::from(divisor);
        let rest = self.0.iter().rev().fold(0, |rest: u128, limb| {
            (rest << 64 | u128::from(*limb)).checked_rem(divisor).unwrap_or_default()
        });
        u64::try_from(rest).unwrap_or_default()
    }

    /// The greatest number whose square is no greater than this one, and what is left above its square.
    ///
    /// Digit by digit, as with pencil and paper, in base 2.
    pub(super) fn square_root(&self) -> (Self, Self) {
        let (mut root, mut rest) = (Self::default(), Self::default());
        for limb in self.0.iter().rev() {
            for shift in (0..64).step_by(2).rev() {
                rest.push(2, limb >> shift & 3);
                // (2 root + 1)² = 4 root² + 4 root + 1.
                let mut step = root.clone();
                step.push(2, 1);
                let digit = u64::from(rest >= step);
                if digit == 1 {
                    rest.subtract(&step);
                }
                root.push(1, digit);
            }
        }
        (root, rest)
    }

    /// Adds `other`.
    pub(super) fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut carry = false;
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        for (limb, other) in self.0.iter_mut().zip(others) {
            let (sum, first) = limb.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
        if carry {
            self.0.push(1);
        }
    }

    /// Subtracts `other`, which is no greater.
    pub(super) fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        for (limb, other) in self.0.iter_mut().zip(others) {
            let (difference, first) = limb.overflowing_sub(other);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            *limb = difference;
            borrow = first || second;
        }
        self.trim();
    }

    /// Moves all bits up by `places`, less than 64, and puts `bits` below them.
    pub(super) fn push(&mut self, places: u32, bits: u64) {
        let mut carry = bits;
        for limb in &mut self.0 {
            let above = limb.checked_shr(64 - places).unwrap_or_default();
            *limb = *limb << places | carry;
            carry = above;
        }
        if carry != 0 {
            self.0.push(carry);
        }
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn trimmed(mut self) -> Self {
        self.trim();
        self
    }
}

impl From<u64> for Natural {
    fn from(number: u64) -> Self {
        Self(vec![number]).trimmed()
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Natural {
        pub(in crate::weak) fn to_octets(&self) -> Vec<u8> {
            let octets: Vec<u8> = self.0.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect();
            let zeros = octets.iter().take_while(|octet| **octet == 0).count();
            octets[zeros..].to_vec()
        }

        /// Schoolbook multiplication, which only the tests need.
        pub(in crate::weak) fn times(&self, other: &Self) -> Self {
            let mut product = Self::default();
            for limb in self.0.iter().rev() {
                for bit in (0..64).rev() {
                    product.push(1, 0);
                    if limb >> bit & 1 == 1 {
                        product.add(other);
                    }
                }
            }
            product
        }
    }

    fn number() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..80)
    }

    proptest! {
        #[test]
        fn a_square_root_is_one(octets in number()) {
            let number = Natural::from_octets(&octets);
            let (root, rest) = number.square_root();
            let mut sum = root.times(&root);
            sum.add(&rest);
            prop_assert_eq!(&sum, &number);
            // No greater one: rest is at most 2 root.
            let mut twice = root;
            twice.push(1, 0);
            prop_assert!(rest <= twice);
        }

        #[test]
        fn sums_and_differences_undo_each_other(one in number(), other in number()) {
            let (one, other) = (Natural::from_octets(&one), Natural::from_octets(&other));
            let mut sum = one.clone();
            sum.add(&other);
            prop_assert!(sum >= one);
            sum.subtract(&other);
            prop_assert_eq!(sum, one);
        }

        #[test]
        fn remainders_are_those_of_wide_numbers(high: u64, low: u64, divisor in 1_u64..) {
            let wide = u128::from(high) << 64 | u128::from(low);
            let number = Natural::from_octets(&wide.to_be_bytes());
            prop_assert_eq!(u128::from(number.remainder(divisor)), wide % u128::from(divisor));
        }
    }
}
