//! `fuzz::ocsp_response` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::ocsp_response(octets));
