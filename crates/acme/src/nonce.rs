//! Anti-replay nonces (RFC 8555 §6.5) that cost no database write.
//!
//! A nonce is a sealed (front, epoch, counter). The front that made it remembers which of its last million counters
//! came back; another front reads from the nonce whom to ask. Nobody without the key makes one, and two of them do not
//! show that they come from one front.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::base64url;

/// Front, epoch and counter, eight bytes each.
const CLEAR_BYTES: usize = 24;
/// With the tag.
const SEALED_BYTES: usize = CLEAR_BYTES + 16;
/// The window that a front has unless it is configured: at 1,000 requests a second a client has 16 minutes.
pub const DEFAULT_WINDOW: u32 = 1_000_000;

/// Which front made a nonce: a hash of its node name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontId(u64);

impl FrontId {
    /// The id of the front with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, format!("chancery front id v1\0{name}").as_bytes());
        Self(hash.as_ref().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    /// As a number, for a log line.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What is sealed in a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The front that made it.
    pub front: FrontId,
    /// Which run of that front.
    pub epoch: u64,
    /// The nonces that the run had made before.
    pub counter: u64,
}

/// The key that the fronts share.
#[derive(Clone)]
pub struct NonceKey(std::sync::Arc<LessSafeKey>);

impl NonceKey {
    /// From 32 random bytes.
    ///
    /// # Errors
    /// [`BadNonceKey`] for bytes that are all alike, which are not random.
    pub fn new(key: &[u8; 32]) -> Result<Self, BadNonceKey> {
        if key.iter().all(|byte| Some(byte) == key.first()) {
            return Err(BadNonceKey);
        }
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).map_err(|_| BadNonceKey)?;
        Ok(Self(std::sync::Arc::new(LessSafeKey::new(key))))
    }

    /// From the file that holds them, as base64url with or without a line end.
    ///
    /// # Errors
    /// [`BadNonceKey`], also for another length.
    pub fn from_file(contents: &[u8]) -> Result<Self, BadNonceKey> {
        let text = std::str::from_utf8(contents).map_err(|_| BadNonceKey)?;
        let bytes = Zeroizing::new(base64url::decode(text.trim_end()).map_err(|_| BadNonceKey)?);
        Self::new(bytes.as_slice().try_into().map_err(|_| BadNonceKey)?)
    }

    /// The nonce's text.
    #[must_use]
    pub fn seal(&self, parts: Parts) -> String {
        let mut bytes = Vec::with_capacity(SEALED_BYTES);
        for number in [parts.front.0, parts.epoch, parts.counter] {
            bytes.extend(number.to_be_bytes());
        }
        let sealed = self.0.seal_in_place_append_tag(fixed_nonce(), purpose(), &mut bytes);
        #[expect(clippy::expect_used, reason = "AES-GCM-SIV fails on 2^36 bytes only, and here are 24")]
        sealed.expect("24 bytes");
        base64url::encode(bytes)
    }

    /// What a nonce says; `None` if it was not made with this key.
    #[must_use]
    pub fn open(&self, text: &str) -> Option<Parts> {
        let mut bytes = base64url::decode_array::<SEALED_BYTES>(text).ok()?;
        let clear = self.0.open_in_place(fixed_nonce(), purpose(), &mut bytes).ok()?;
        let mut numbers =
            clear.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok().map(u64::from_be_bytes));
        let (front, epoch, counter) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some(Parts { front: FrontId(front), epoch, counter })
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(..)")
    }
}

/// AES-GCM-SIV under one nonce is deterministic: equal inputs show, and no two inputs here are equal. It stays
/// misuse-resistant far beyond the number of requests that a key will see (RFC 8452 §9).
fn fixed_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn purpose() -> Aad<&'static [u8]> {
    Aad::from(b"chancery nonce v1")
}

/// The bytes are not a nonce key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the nonce key must be 32 random bytes, in base64url")]
pub struct BadNonceKey;

/// What became of a nonce that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redemption {
    /// Good, and good no more: accepted.
    Fresh,
    /// It was here before.
    Used,
    /// Older than the window, of an earlier run of this front, or not made yet.
    TooOld,
    /// Another front made it: ask there.
    NotMine(FrontId),
    /// No front made it.
    Unknown,
}

/// One run of a front: makes nonces and accepts each of the last ones once. Shared by all threads, without a lock.
#[derive(Debug)]
pub struct NonceWindow {
    key: NonceKey,
    front: FrontId,
    epoch: u64,
    next: AtomicU64,
    window: u64,
    /// A ring of words. The low half of a word are the used-bits of 32 neighbouring counters, the high half is the
    /// round of the ring that they belong to: one compare-and-swap both checks the round and sets the bit, so that a
    /// thread that sleeps in between cannot accept a nonce of an older round twice.
    ring: Box<[AtomicU64]>,
}

impl NonceWindow {
    /// `epoch` must differ from that of every earlier run: the start time in nanoseconds, or a random number.
    #[must_use]
    pub fn new(key: NonceKey, front: FrontId, epoch: u64, window: u32) -> Self {
        let window = window.max(1);
        // One word more than the window needs: the counters in the newest word are not all made yet.
        let words = window.div_ceil(32) as usize + 1;
        let ring = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { key, front, epoch, next: AtomicU64::new(0), window: u64::from(window), ring }
    }

    /// The front whose nonces these are.
    #[must_use]
    pub const fn front(&self) -> FrontId {
        self.front
    }

    /// A new nonce.
    #[must_use]
    pub fn issue(&self) -> String {
        let counter = self.next.fetch_add(1, Ordering::SeqCst);
        self.key.seal(Parts { front: self.front, epoch: self.epoch, counter })
    }

    /// Takes a nonce back; of all calls with one nonce, [`Redemption::Fresh`] is the answer to one.
    #[must_use]
    pub fn redeem(&self, text: &str) -> Redemption {
        match self.key.open(text) {
            None => Redemption::Unknown,
            Some(parts) if parts.front != self.front => Redemption::NotMine(parts.front),
            Some(parts) if parts.epoch != self.epoch => Redemption::TooOld,
            Some(parts) => self.accept(parts.counter),
        }
    }

    fn accept(&self, counter: u64) -> Redemption {
        let next = self.next.load(Ordering::SeqCst);
        if counter >= next || next - counter > self.window {
            return Redemption::TooOld;
        }
        let words = self.ring.len() as u64;
        let (word, bit) = (counter / 32, 1_u64 << (counter % 32));
        let slot = usize::try_from(word % words).ok().and_then(|at| self.ring.get(at));
        // Rounds fill 32 bits after 10^15 nonces of the default window; then only a restart helps.
        let (Some(slot), Ok(round)) = (slot, u32::try_from(word / words)) else { return Redemption::TooOld };
        let round = u64::from(round) << 32;
        let mut seen = slot.load(Ordering::SeqCst);
        loop {
            let used = match (seen & !0xffff_ffff).cmp(&round) {
                std::cmp::Ordering::Greater => return Redemption::TooOld,
                std::cmp::Ordering::Equal if seen & bit != 0 => return Redemption::Used,
                std::cmp::Ordering::Equal => seen,
                std::cmp::Ordering::Less => round,
            };
            match slot.compare_exchange_weak(seen, used | bit, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Redemption::Fresh,
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn key(first: u8) -> NonceKey {
        let mut bytes = [9; 32];
        bytes[0] = first;
        NonceKey::new(&bytes).unwrap()
    }

    fn window(size: u32) -> NonceWindow {
        NonceWindow::new(key(1), FrontId::from_name("eu-1"), 7, size)
    }

    #[test]
    fn each_is_accepted_once() {
        let window = window(100);
        let nonces: Vec<String> = (0..100).map(|_| window.issue()).collect();
        assert_eq!(nonces.iter().collect::<HashSet<_>>().len(), 100);
        for nonce in nonces.iter().rev() {
            assert_eq!(window.redeem(nonce), Redemption::Fresh);
            assert_eq!(window.redeem(nonce), Redemption::Used);
        }
        for nonce in &nonces {
            assert_eq!(window.redeem(nonce), Redemption::Used);
        }
    }

    #[test]
    fn the_window_slides_and_never_reopens() {
        for size in [1, 31, 32, 33, 64, 100] {
            let window = window(size);
            let first = window.issue();
            for _ in 1..size {
                let _ = window.issue();
            }
            assert_eq!(window.redeem(&first), Redemption::Fresh, "last of the window of {size}");
            let second = window.issue();
            assert_eq!(window.redeem(&first), Redemption::TooOld, "one beyond the window of {size}");
            for _ in 0..500 {
                let _ = window.redeem(&window.issue());
                assert_eq!(window.redeem(&first), Redemption::TooOld);
            }
            assert_ne!(window.redeem(&second), Redemption::Fresh);
        }
    }

    #[test]
    fn foreign_forged_and_future_nonces_are_told_apart() {
        let window = window(100);
        let made = window.issue();
        let other = NonceWindow::new(key(1), FrontId::from_name("eu-2"), 7, 100);
        assert_eq!(window.redeem(&other.issue()), Redemption::NotMine(FrontId::from_name("eu-2")));
        let earlier = NonceWindow::new(key(1), FrontId::from_name("eu-1"), 6, 100);
        assert_eq!(window.redeem(&earlier.issue()), Redemption::TooOld);
        let stranger = NonceWindow::new(key(2), FrontId::from_name("eu-1"), 7, 100);
        assert_eq!(window.redeem(&stranger.issue()), Redemption::Unknown);
        let parts = Parts { front: window.front(), epoch: 7, counter: 1 };
        assert_eq!(window.redeem(&key(1).seal(parts)), Redemption::TooOld, "not made yet");
        let last = Parts { counter: u64::MAX, ..parts };
        assert_eq!(window.redeem(&key(1).seal(last)), Redemption::TooOld);
        for text in ["", "AAAA", &made[1..], &format!("{made}="), &format!("{made}A")] {
            assert_eq!(window.redeem(text), Redemption::Unknown, "{text}");
        }
        assert_eq!(window.redeem(&made), Redemption::Fresh);
    }

    #[test]
    fn no_bit_can_be_changed() {
        let window = window(100);
        let sealed = base64url::decode(&window.issue()).unwrap();
        for at in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(window.redeem(&base64url::encode(changed)), Redemption::Unknown, "bit {at}");
        }
    }

    #[test]
    fn neighbours_have_nothing_in_common() {
        let window = window(100);
        let (a, b) =
            (base64url::decode(&window.issue()).unwrap(), base64url::decode(&window.issue()).unwrap());
        let equal = a.iter().zip(&b).filter(|(a, b)| a == b).count();
        assert!(equal < 8, "{equal} of {} bytes are the same", a.len());
    }

    #[test]
    fn of_many_threads_one_wins_each_nonce() {
        let window = window(4096);
        let nonces: Vec<String> = (0..2000).map(|_| window.issue()).collect();
        let accepted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for nonce in &nonces {
                        if window.redeem(nonce) == Redemption::Fresh {
                            accepted.fetch_add(1, Ordering::SeqCst);
                        }
                        let _ = window.issue();
                    }
                });
            }
        });
        // At most once each; those that the issuing threads pushed out of the window not at all.
        assert!(accepted.load(Ordering::SeqCst) <= 2000);
        assert!(accepted.load(Ordering::SeqCst) > 0);
        assert!(nonces.iter().all(|nonce| window.redeem(nonce) != Redemption::Fresh));
    }

    #[test]
    fn a_sleeper_cannot_use_a_word_of_a_later_round() {
        // What a thread sees that read `next`, slept for a round, and goes on: the word says so.
        let window = window(32);
        let old = window.next.fetch_add(1, Ordering::SeqCst);
        assert_eq!(window.accept(old), Redemption::Fresh);
        let round = 32 * window.ring.len() as u64;
        window.next.store(round + 1, Ordering::SeqCst);
        assert_eq!(window.accept(round), Redemption::Fresh);
        window.next.store(1, Ordering::SeqCst);
        assert_eq!(window.accept(old), Redemption::TooOld);
    }

    #[test]
    fn keys_come_from_files() {
        let mut bytes = [9; 32];
        bytes[0] = 1;
        let text = base64url::encode(bytes) + "\n";
        let read = NonceKey::from_file(text.as_bytes()).unwrap();
        let parts = Parts { front: FrontId(1), epoch: 2, counter: 3 };
        assert_eq!(key(1).open(&read.seal(parts)), Some(parts));
        assert_eq!(NonceKey::new(&[0; 32]).unwrap_err(), BadNonceKey);
        for bad in [&b"\xff"[..], b"", b"AAAA", base64url::encode([1; 33]).as_bytes()] {
            assert_eq!(NonceKey::from_file(bad).unwrap_err(), BadNonceKey);
        }
        assert_eq!(format!("{read:?}"), "NonceKey(..)");
    }

    proptest! {
        #[test]
        fn like_a_set_of_all_counters(size in 1_u32..200, picks in proptest::collection::vec((any::<bool>(), 0_u64..600), 0..400)) {
            let window = window(size);
            let (mut next, mut used) = (0_u64, HashSet::new());
            for (issue, counter) in picks {
                if issue {
                    for _ in 0..=counter % 7 {
                        let _ = window.next.fetch_add(1, Ordering::SeqCst);
                        next += 1;
                    }
                } else {
                    let expected = if counter >= next || next - counter > u64::from(size) {
                        Redemption::TooOld
                    } else if used.insert(counter) {
                        Redemption::Fresh
                    } else {
                        Redemption::Used
                    };
                    prop_assert_eq!(window.accept(counter), expected);
                }
            }
        }
    }
}
