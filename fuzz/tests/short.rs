//! The short form of `make fuzz`: every target over its seeds and over some thousands of mutations of
//! them, the same in every run.

use std::path::Path;

use fuzz::TARGETS;

/// Mutations of each target; of those that make connections, fewer.
const MUTATIONS: usize = 4_000;
const CONNECTIONS: usize = 400;

/// xorshift64*, from a fixed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut seeds: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 5, "{name} has seeds");
    seeds
}

/// One to four changes: a bit, an octet, a length, a piece taken out, doubled, or from another seed.
fn mutate(random: &mut Random, octets: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(octets.len());
        let end = (at + 1 + random.below(16)).min(octets.len());
        match random.below(6) {
            0 => octets.iter_mut().skip(at).take(1).for_each(|octet| *octet ^= 1 << (random.next() % 8)),
            1 => octets.iter_mut().skip(at).take(1).for_each(|octet| *octet = random.next().to_le_bytes()[0]),
            2 => octets.iter_mut().skip(at).take(1).for_each(|octet| *octet = octet.wrapping_add(1)),
            3 => drop(octets.drain(at..end)),
            4 => {
                let piece = octets[at..end].to_vec();
                octets.splice(at..at, piece);
            }
            _ => {
                let from = random.below(other.len());
                let piece = &other[from..(from + 16).min(other.len())];
                let end = (at + piece.len()).min(octets.len());
                octets.splice(at..end, piece.iter().copied());
            }
        }
    }
}

#[test]
fn no_target_finds_anything_in_its_seeds_and_their_mutations() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        seeds.iter().for_each(|(_, octets)| target(octets));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let rounds = if ["http_01", "dns"].contains(&name) { CONNECTIONS } else { MUTATIONS };
        for round in 0..rounds {
            let (file, seed) = &seeds[round % seeds.len()];
            let other = &seeds[random.below(seeds.len())].1;
            let mut octets = seed.clone();
            mutate(&mut random, &mut octets, other);
            let outcome = std::panic::catch_unwind(|| target(&octets));
            assert!(outcome.is_ok(), "{name}, mutation {round} of {file}: {}", hex(&octets));
        }
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The seeds are what they say: they are read, all but those made to be refused.
#[test]
fn seeds_are_good() {
    for (name, octets) in seeds("ocsp_request") {
        assert_eq!(pki::ocsp::Request::from_der(&octets).is_ok(), !name.starts_with("bad-"), "{name}");
    }
    for (name, octets) in seeds("ocsp_response") {
        assert_eq!(pki::ocsp::read(&octets).is_ok(), !name.starts_with("bad-"), "{name}");
    }
    for (name, octets) in seeds("jws") {
        assert_eq!(acme::Jws::from_slice(&octets).is_ok(), !name.starts_with("bad-"), "{name}");
    }
    for (name, octets) in seeds("jwk") {
        let text = std::str::from_utf8(&octets).unwrap();
        assert_eq!(acme::Jwk::from_json(text).is_ok(), !name.starts_with("bad-"), "{name}");
    }
    for (name, octets) in seeds("csr") {
        assert_eq!(pki::Csr::from_der(&octets).is_ok(), !name.starts_with("bad-"), "{name}");
    }
    for (name, octets) in seeds("crl") {
        assert_eq!(pki::crl::Crl::from_der(&octets).is_ok(), !name.starts_with("bad-"), "{name}");
    }
}
