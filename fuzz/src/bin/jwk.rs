//! `fuzz::jwk` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::jwk(octets));
