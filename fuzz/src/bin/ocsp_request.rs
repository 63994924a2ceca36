//! `fuzz::ocsp_request` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::ocsp_request(octets));
