use super::*;
use crate::{
    SignatureError, ecdsa_raw_to_der,
    testing::{Key, openssl},
};

const ALL: [KeyAlgorithm; 6] = [
    KeyAlgorithm::EcdsaP256,
    KeyAlgorithm::EcdsaP384,
    KeyAlgorithm::EcdsaP521,
    KeyAlgorithm::Rsa { bits: 2048 },
    KeyAlgorithm::Rsa { bits: 3072 },
    KeyAlgorithm::Ed25519,
];

fn error(spki: &[u8]) -> KeyError {
    PublicKey::from_spki_der(spki).expect_err("a key that must be refused")
}

#[test]
fn every_kind_of_key_reads_back_signs_and_verifies() {
    for algorithm in ALL {
        let key = Key::generate(algorithm);
        let public = key.public();
        assert_eq!(public.algorithm(), algorithm);
        assert_eq!(PublicKey::from_spki_der(public.spki_der()), Ok(public.clone()));
        let default = algorithm.default_signature();
        let signature = key.sign(default, b"message");
        assert_eq!(public.verify(default, b"message", &signature), Ok(()));
        assert_eq!(public.verify(default, b"massage", &signature), Err(SignatureError::Invalid));
        assert_eq!(
            Key::generate(algorithm).public().verify(default, b"message", &signature),
            Err(SignatureError::Invalid)
        );
        match default.digest(b"message") {
            Some(digest) => {
                assert_eq!(public.verify_digest(default, &digest, &signature), Ok(()));
                assert_eq!(
                    public.verify_digest(default, &digest[1..], &signature),
                    Err(SignatureError::Digest)
                );
            }
            None => {
                assert_eq!(public.verify_digest(default, &[0; 32], &signature), Err(SignatureError::Digest))
            }
        }
        for other in
            ["ecdsa-sha256", "rsa-sha384", "ed25519"].map(|name| name.parse::<SignatureAlgorithm>().unwrap())
        {
            if !other.is_for(algorithm) {
                assert_eq!(public.verify(other, b"message", &signature), Err(SignatureError::KeyMismatch));
            }
        }
    }
}

#[test]
fn rsa_verifies_with_every_hash() {
    let key = Key::generate(KeyAlgorithm::Rsa { bits: 2048 });
    for name in ["rsa-sha256", "rsa-sha384", "rsa-sha512"] {
        let algorithm = name.parse().unwrap();
        let signature = key.sign(algorithm, b"message");
        assert_eq!(key.public().verify(algorithm, b"message", &signature), Ok(()));
        let digest = algorithm.digest(b"message").unwrap();
        assert_eq!(key.public().verify_digest(algorithm, &digest, &signature), Ok(()));
    }
}

#[test]
fn openssl_agrees_about_encoding_and_key_identifier() {
    for algorithm in ALL {
        let public = Key::generate(algorithm).public();
        let pem = crate::chain::pem_block("PUBLIC KEY", public.spki_der());
        let again = openssl(&["pkey", "-pubin", "-outform", "PEM"], pem.as_bytes());
        assert_eq!(again, pem, "{algorithm}");
    }
}

#[test]
fn every_single_changed_octet_is_another_key_or_none() {
    let public = Key::generate(KeyAlgorithm::EcdsaP256).public();
    for at in 0..public.spki_der().len() {
        let mut changed = public.spki_der().to_vec();
        changed[at] ^= 1;
        // A point with a changed coordinate is off the curve, except once in about 2^32.
        assert!(PublicKey::from_spki_der(&changed).is_err(), "octet {at}");
    }
}

#[test]
fn trailing_and_missing_octets_are_refused() {
    for algorithm in ALL {
        let mut spki = Key::generate(algorithm).public().spki_der().to_vec();
        spki.push(0);
        assert!(PublicKey::from_spki_der(&spki).is_err(), "{algorithm}");
        spki.truncate(spki.len() - 2);
        assert!(PublicKey::from_spki_der(&spki).is_err(), "{algorithm}");
    }
    assert_eq!(error(&[]), KeyError::Encoding);
}

#[test]
fn e4_points_are_uncompressed_and_on_the_curve() {
    let public = Key::generate(KeyAlgorithm::EcdsaP256).public();
    let point = public.raw().to_vec();
    let mut hybrid = point.clone();
    hybrid[0] = 6 | (point[64] & 1);
    assert_eq!(PublicKey::from_ec_point(KeyAlgorithm::EcdsaP256, &hybrid), Err(KeyError::Point));
    let mut compressed = vec![2 | (point[64] & 1)];
    compressed.extend_from_slice(&point[1..33]);
    assert_eq!(PublicKey::from_ec_point(KeyAlgorithm::EcdsaP256, &compressed), Err(KeyError::Point));
    let compressed_spki = [&b"\x30\x39\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x22\x00"[..], &compressed].concat();
    assert_eq!(error(&compressed_spki), KeyError::Algorithm);
    assert_eq!(
        PublicKey::from_ec_point(KeyAlgorithm::EcdsaP256, &[&[4][..], &[0; 64]].concat()),
        Err(KeyError::Point)
    );
    assert_eq!(PublicKey::from_ec_point(KeyAlgorithm::EcdsaP384, &point), Err(KeyError::Point));
    assert_eq!(PublicKey::from_ec_point(KeyAlgorithm::Ed25519, &point), Err(KeyError::Algorithm));
    assert_eq!(PublicKey::from_ec_point(KeyAlgorithm::EcdsaP256, &[0]), Err(KeyError::Point));
}

#[test]
fn e4_rsa_numbers_are_bounded() {
    let modulus = |octets: usize| {
        let mut number = vec![0xff; octets];
        number[0] = 0xc1;
        number
    };
    let good = PublicKey::from_rsa(&modulus(256), &[1, 0, 1]).unwrap();
    assert_eq!(good.algorithm(), KeyAlgorithm::Rsa { bits: 2048 });
    assert_eq!(PublicKey::from_rsa(&[&[0][..], &modulus(256)].concat(), &[0, 1, 0, 1]), Ok(good));
    let bits = |octets| PublicKey::from_rsa(&modulus(octets), &[1, 0, 1]).map(|key| key.algorithm());
    assert_eq!(bits(257), Ok(KeyAlgorithm::Rsa { bits: 2056 }));
    assert_eq!(bits(1024), Ok(KeyAlgorithm::Rsa { bits: 8192 }));
    assert_eq!(bits(1025), Err(KeyError::Modulus));
    assert_eq!(bits(255), Err(KeyError::Modulus));
    assert_eq!(bits(100_000), Err(KeyError::Modulus));
    let mut short_by_a_bit = modulus(256);
    short_by_a_bit[0] = 0x7f;
    assert_eq!(PublicKey::from_rsa(&short_by_a_bit, &[1, 0, 1]), Err(KeyError::Modulus));
    let mut even = modulus(256);
    even[255] = 0xfe;
    assert_eq!(PublicKey::from_rsa(&even, &[1, 0, 1]), Err(KeyError::Modulus));
    assert_eq!(PublicKey::from_rsa(&[], &[1, 0, 1]), Err(KeyError::Modulus));
    for exponent in [&[3][..], &[0xff, 0xff], &[1, 0, 0], &[1, 0, 2], &[], &[1; 9], &[0]] {
        assert_eq!(PublicKey::from_rsa(&modulus(256), exponent), Err(KeyError::Exponent), "{exponent:?}");
    }
    assert!(PublicKey::from_rsa(&modulus(256), &[1, 0, 0, 1]).is_ok());
}

#[test]
fn rsa_has_one_encoding() {
    let spki = Key::generate(KeyAlgorithm::Rsa { bits: 2048 }).public().spki_der().to_vec();
    // AlgorithmIdentifier without its NULL.
    let without_null = [
        &[
            0x30, 0x82, 0x01, 0x20, 0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
            0x01,
        ][..],
        &spki[19..],
    ]
    .concat();
    assert_eq!(
        spki::SubjectPublicKeyInfoRef::from_der(&without_null).map(|_| ()),
        Ok(()),
        "the test's own encoding"
    );
    assert_eq!(error(&without_null), KeyError::Encoding);
    // id-RSASSA-PSS keys are another algorithm.
    let mut pss = spki;
    pss[16] = 0x0a;
    assert_eq!(error(&pss), KeyError::Algorithm);
}

#[test]
fn e4_ed25519_points_of_small_order_and_unreduced_ones_are_refused() {
    for y in ED25519_SMALL_ORDER {
        for sign in [0, 0x80] {
            let mut octets = y;
            octets[31] |= sign;
            assert_eq!(PublicKey::from_ed25519(&octets), Err(KeyError::Point));
        }
    }
    for low in 0xed..=0xff {
        assert_eq!(PublicKey::from_ed25519(&small(low, 0xff, 0x7f)), Err(KeyError::Point));
        assert_eq!(PublicKey::from_ed25519(&small(low, 0xff, 0xff)), Err(KeyError::Point));
    }
}

#[test]
fn e4_unknown_kinds_of_keys_are_refused() {
    // secp256k1
    let k1 = b"\x30\x56\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x0a\x03\x42\x00";
    let spki = [&k1[..], &[4; 65]].concat();
    assert_eq!(error(&spki), KeyError::Algorithm);
    // X25519
    assert_eq!(
        error(&[&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x6e\x03\x21\x00"[..], &[9; 32]].concat()),
        KeyError::Algorithm
    );
}

#[test]
fn raw_ecdsa_signatures_become_der() {
    let mut raw = [0; 64];
    raw[31] = 0x80;
    raw[63] = 0x7f;
    assert_eq!(ecdsa_raw_to_der(&raw).unwrap(), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]);
    for bad in [&[1; 63][..], &[1; 0], &[1; 65], &[0; 64], &[&[0; 32][..], &[1; 32]].concat()] {
        assert_eq!(ecdsa_raw_to_der(bad), Err(SignatureError::Raw));
    }
    let pair =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING)
            .unwrap();
    let raw = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), b"message").unwrap();
    let public = PublicKey::from_ec_point(
        KeyAlgorithm::EcdsaP384,
        aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref(),
    )
    .unwrap();
    let der = ecdsa_raw_to_der(raw.as_ref()).unwrap();
    assert_eq!(public.verify(SignatureAlgorithm::EcdsaSha384, b"message", &der), Ok(()));
}

#[test]
fn key_algorithms_have_one_spelling() {
    for text in
        ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "rsa-4096", "rsa-8192", "ed25519"]
    {
        assert_eq!(text.parse::<KeyAlgorithm>().unwrap().to_string(), text);
    }
    for text in
        ["", "rsa", "rsa-", "rsa-1024", "rsa-2049", "rsa-16384", "rsa-99999", "rsa-+2048", "RSA-2048", "p256"]
    {
        assert_eq!(text.parse::<KeyAlgorithm>(), Err(KeyError::Name), "{text}");
    }
}
