use super::*;
use crate::{
    KeyAlgorithm,
    encode::{Encoder, encode, tag},
    extension,
    testing::{Key, names_of, openssl, write},
};
use const_oid::db::rfc5280;
use proptest::prelude::*;

/// A request as a client would write it, with everything open to be broken.
struct Draft {
    key: Key,
    algorithm: SignatureAlgorithm,
    version: u8,
    subject: Vec<u8>,
    attributes: Option<Vec<u8>>,
}

impl Draft {
    fn new(names: &[&str]) -> Self {
        let key = Key::generate(KeyAlgorithm::EcdsaP256);
        let mut draft = Self {
            key,
            algorithm: SignatureAlgorithm::EcdsaSha256,
            version: 0,
            subject: vec![0x30, 0],
            attributes: None,
        };
        let names = names_of(names);
        draft.attributes = Some(requests(|e| extension::subject_alt_name(e, false, &names)));
        draft
    }

    fn extensions(mut self, extensions: impl FnOnce(&mut Encoder)) -> Self {
        self.attributes = Some(requests(extensions));
        self
    }

    fn common_name(mut self, string: u8, value: &str) -> Self {
        self.subject = encode(|e| {
            e.sequence(|e| crate::distinguished_name::attribute(e, &rfc4519::COMMON_NAME, string, value));
        });
        self
    }

    fn der(&self) -> Vec<u8> {
        let info = encode(|e| {
            e.sequence(|e| {
                e.unsigned(&[self.version]).raw(&self.subject).raw(self.key.public().spki_der());
                if let Some(attributes) = &self.attributes {
                    e.nested(tag::context_constructed(0), |e| {
                        e.raw(attributes);
                    });
                }
            });
        });
        let signature = self.key.sign(self.algorithm, &info);
        encode(|e| {
            e.sequence(|e| {
                e.raw(&info).raw(self.algorithm.identifier_der()).bit_string(&signature);
            });
        })
    }

    fn read(&self) -> Result<Csr, CsrError> {
        Csr::from_der(&self.der())
    }
}

/// One extensionRequest attribute.
fn requests(extensions: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    encode(|e| {
        e.sequence(|e| {
            e.oid(&ID_EXTENSION_REQ).nested(tag::SET, |e| {
                e.sequence(extensions);
            });
        });
    })
}

fn san(e: &mut Encoder, choice: u8, content: &[u8]) {
    extension::extension(e, &rfc5280::ID_CE_SUBJECT_ALT_NAME, false, |e| {
        e.sequence(|e| {
            e.primitive(tag::context(choice), content);
        });
    });
}

#[test]
fn e2_names_are_common_name_and_alternative_names_together() {
    let csr = Draft::new(&["b.example", "*.example", "192.0.2.1", "2001:db8::1"])
        .common_name(tag::UTF8_STRING, "A.example")
        .read()
        .unwrap();
    assert_eq!(*csr.names(), names_of(&["a.example", "b.example", "*.example", "192.0.2.1", "2001:db8::1"]));
    assert!(!csr.must_staple());
    let upper = Draft::new(&["a.example"]).extensions(|e| san(e, 2, b"WWW.EXAMPLE")).read().unwrap();
    assert_eq!(*upper.names(), names_of(&["www.example"]));
}

#[test]
fn a_common_name_alone_is_enough_in_every_string_type() {
    for string in [tag::UTF8_STRING, tag::PRINTABLE_STRING, 0x14, 0x0c] {
        let mut draft = Draft::new(&["x.example"]).common_name(string, "a.example");
        draft.attributes = Some(Vec::new());
        assert_eq!(*draft.read().unwrap().names(), names_of(&["a.example"]));
        draft.attributes = None;
        assert_eq!(*draft.read().unwrap().names(), names_of(&["a.example"]));
    }
    let empty = Draft::new(&["x.example"]).common_name(tag::UTF8_STRING, "");
    assert_eq!(*empty.read().unwrap().names(), names_of(&["x.example"]));
}

#[test]
fn what_names_nothing_or_something_else_is_refused() {
    let mut nameless = Draft::new(&["a.example"]);
    nameless.attributes = Some(Vec::new());
    assert_eq!(nameless.read().unwrap_err(), CsrError::Name(NameError::NoNames));
    let named = Draft::new(&["a.example"]).common_name(tag::UTF8_STRING, "Jane Doe").read();
    assert_eq!(named.unwrap_err(), CsrError::Name(NameError::Character));
    for (choice, content) in [(1, &b"a@example"[..]), (6, b"http://a.example"), (8, &[0x2a, 0x03])] {
        assert_eq!(
            Draft::new(&["a.example"]).extensions(|e| san(e, choice, content)).read().unwrap_err(),
            CsrError::NameType
        );
    }
    for (choice, content) in [
        (2, &b"a_b.example"[..]),
        (2, b""),
        (2, b" "),
        (2, b"a.example\0"),
        (7, &[1, 2, 3]),
        (7, &[0; 8]),
        (2, b"192.0.2.1"),
    ] {
        let refused = Draft::new(&["a.example"]).extensions(|e| san(e, choice, content)).read();
        assert!(matches!(refused.unwrap_err(), CsrError::Name(_)), "{content:?}");
    }
}

#[test]
fn empty_lists_of_names_and_extensions_are_refused() {
    let no_names = Draft::new(&["a.example"]).extensions(|e| {
        extension::extension(e, &rfc5280::ID_CE_SUBJECT_ALT_NAME, false, |e| {
            e.raw(&[0x30, 0]);
        });
    });
    assert!(matches!(no_names.read().unwrap_err(), CsrError::Der(_)));
    assert!(matches!(Draft::new(&["a.example"]).extensions(|_| {}).read().unwrap_err(), CsrError::Der(_)));
}

#[test]
fn e3_extensions_that_nobody_reads_are_dropped() {
    let csr = Draft::new(&["a.example"]).extensions(|e| {
        san(e, 2, b"a.example");
        extension::basic_constraints(e, true, None);
        extension::key_usage(e, &[extension::key_usage::KEY_CERT_SIGN]);
        extension::extended_key_usage(e, &[crate::ExtendedKeyUsage::ClientAuth]);
    });
    assert_eq!(*csr.read().unwrap().names(), names_of(&["a.example"]));
}

#[test]
fn the_same_thing_twice_is_refused() {
    let twice = Draft::new(&["a.example"]).extensions(|e| {
        san(e, 2, b"a.example");
        san(e, 2, b"b.example");
    });
    assert!(matches!(twice.read().unwrap_err(), CsrError::Der(_)));
    let mut lists = Draft::new(&["a.example"]);
    lists.attributes = lists.attributes.map(|one| [one.clone(), one].concat());
    assert_eq!(lists.read().unwrap_err(), CsrError::Twice("lists of extensions"));
    let mut names = Draft::new(&["a.example"]);
    names.subject = encode(|e| {
        e.sequence(|e| {
            for name in ["a.example", "b.example"] {
                crate::distinguished_name::attribute(e, &rfc4519::COMMON_NAME, tag::UTF8_STRING, name);
            }
        });
    });
    assert_eq!(names.read().unwrap_err(), CsrError::Twice("common names"));
    // extensionRequest with two values.
    let mut values = Draft::new(&["a.example"]);
    let names = names_of(&["a.example"]);
    values.attributes = Some(encode(|e| {
        e.sequence(|e| {
            e.oid(&ID_EXTENSION_REQ).nested(tag::SET, |e| {
                for _ in 0..2 {
                    e.sequence(|e| extension::subject_alt_name(e, false, &names));
                }
            });
        });
    }));
    assert!(matches!(values.read().unwrap_err(), CsrError::Der(_)));
}

#[test]
fn must_staple_is_the_one_tls_feature() {
    let feature = |value: &'static [u8]| {
        Draft::new(&["a.example"])
            .extensions(|e| {
                san(e, 2, b"a.example");
                extension::extension(e, &ID_PE_TLS_FEATURE, false, |e| {
                    e.raw(value);
                });
            })
            .read()
    };
    assert!(feature(MUST_STAPLE).unwrap().must_staple());
    for other in [&[0x30, 3, 2, 1, 17][..], &[0x30, 6, 2, 1, 5, 2, 1, 17], &[0x30, 0], &[]] {
        assert_eq!(feature(other).unwrap_err(), CsrError::TlsFeature);
    }
}

#[test]
fn e3_signatures_have_to_be_right_and_strong() {
    let draft = Draft::new(&["a.example"]);
    let mut der = draft.der();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(matches!(Csr::from_der(&der).unwrap_err(), CsrError::Signature));
    let folder = tempfile::tempdir().unwrap();
    let key = write(
        folder.path(),
        "key.pem",
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-quiet"], b""),
    );
    let request = |hash: &str| {
        let path = write(folder.path(), "request.der", b"");
        let arguments =
            ["req", "-new", "-key", &key, "-subj", "/CN=a.example", "-outform", "DER", "-out", &path, hash];
        openssl(&arguments, b"");
        Csr::from_der(&std::fs::read(path).unwrap())
    };
    for weak in ["-sha1", "-md5", "-sha224"] {
        assert_eq!(request(weak).unwrap_err(), CsrError::SignatureAlgorithm, "{weak}");
    }
    for strong in ["-sha256", "-sha384", "-sha512"] {
        assert!(request(strong).is_ok(), "{strong}");
    }
    let mut mismatch = Draft::new(&["a.example"]);
    mismatch.key = Key::generate(KeyAlgorithm::Ed25519);
    mismatch.algorithm = SignatureAlgorithm::Ed25519;
    assert!(mismatch.read().is_ok());
    let mut swapped = mismatch.der();
    let at = swapped.windows(7).rposition(|w| w == [0x30, 5, 6, 3, 0x2b, 0x65, 0x70]).unwrap();
    swapped[at + 6] = 0x71; // Ed448
    assert_eq!(Csr::from_der(&swapped).unwrap_err(), CsrError::SignatureAlgorithm);
}

#[test]
fn e3_another_keys_signature_is_refused() {
    let (one, mut other) = (Draft::new(&["a.example"]), Draft::new(&["a.example"]));
    let (one_der, info_len) = (one.der(), 0);
    let _ = info_len;
    other.key = Key::generate(KeyAlgorithm::EcdsaP256);
    let signed = Signed::read(&one_der).unwrap();
    let signature = other.key.sign(SignatureAlgorithm::EcdsaSha256, signed.content);
    let forged = encode(|e| {
        e.sequence(|e| {
            e.raw(signed.content).raw(signed.algorithm).bit_string(&signature);
        });
    });
    assert_eq!(Csr::from_der(&forged).unwrap_err(), CsrError::Signature);
}

#[test]
fn e3_pem_trailing_octets_other_versions_and_giants_are_refused() {
    let draft = Draft::new(&["a.example"]);
    let der = draft.der();
    assert_eq!(
        Csr::from_der(crate::chain::pem_block("CERTIFICATE REQUEST", &der).as_bytes()).unwrap_err(),
        CsrError::Pem
    );
    assert!(matches!(Csr::from_der(&[&der[..], &[0]].concat()).unwrap_err(), CsrError::Der(_)));
    assert!(matches!(Csr::from_der(&der[..der.len() - 1]).unwrap_err(), CsrError::Der(_)));
    assert!(matches!(Csr::from_der(&[]).unwrap_err(), CsrError::Der(_)));
    assert_eq!(Csr::from_der(&vec![0x30; MAX_OCTETS + 1]).unwrap_err(), CsrError::TooLong);
    for version in [1, 2] {
        let mut other = Draft::new(&["a.example"]);
        other.version = version;
        assert!(matches!(other.read().unwrap_err(), CsrError::Der(_)));
    }
}

#[test]
fn requests_made_by_openssl_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "request.der", b"");
    for (algorithm, option) in [
        ("EC", "ec_paramgen_curve:P-256"),
        ("EC", "ec_paramgen_curve:P-384"),
        ("EC", "ec_paramgen_curve:P-521"),
        ("RSA", "rsa_keygen_bits:3072"),
    ] {
        let key = write(
            folder.path(),
            "key.pem",
            openssl(&["genpkey", "-quiet", "-algorithm", algorithm, "-pkeyopt", option], b""),
        );
        openssl(
            &[
                "req",
                "-new",
                "-key",
                &key,
                "-subj",
                "/C=CH/O=Example/CN=a.example",
                "-outform",
                "DER",
                "-out",
                &path,
                "-addext",
                "subjectAltName=DNS:b.example,DNS:*.b.example,IP:192.0.2.1,IP:2001:db8::1",
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "tlsfeature=status_request",
            ],
            b"",
        );
        let csr = Csr::from_der(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            *csr.names(),
            names_of(&["a.example", "b.example", "*.b.example", "192.0.2.1", "2001:db8::1"])
        );
        assert!(csr.must_staple());
    }
}

proptest! {
    #[test]
    fn no_octets_make_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Csr::from_der(&octets);
    }

    #[test]
    fn a_changed_request_is_never_believed(at in 0_usize..300, bit in 0_u8..8) {
        let der = FIXED.with(Clone::clone);
        let mut changed = der.clone();
        let at = at % der.len();
        changed[at] ^= 1 << bit;
        prop_assert!(Csr::from_der(&changed).is_err(), "octet {}", at);
    }
}

thread_local! {
    static FIXED: Vec<u8> = Draft::new(&["a.example", "b.example"]).der();
}
