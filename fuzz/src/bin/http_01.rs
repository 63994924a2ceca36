//! `fuzz::http_01` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::http_01(octets));
