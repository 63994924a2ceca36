//! OpenSSL and GnuTLS as clients and as another responder.

use super::*;
use crate::testing::{openssl, profile, run, write};
use std::path::Path;

/// A hierarchy in files, with one certificate.
struct Files {
    folder: tempfile::TempDir,
    hierarchy: Hierarchy,
    leaf: Certificate,
    root: String,
    issuer: String,
    leaf_file: String,
}

impl Files {
    fn new(algorithm: KeyAlgorithm) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::generate(algorithm);
        let private = profile(crate::ProfileKind::Private);
        let leaf = hierarchy.key.certify(&hierarchy.leaf(&private, &["a.example"], &Key::fixed(9).public()));
        let file = |name, content: &str| write(folder.path(), name, content);
        Self {
            root: file("root.pem", &hierarchy.root.certificate().pem()),
            issuer: file("issuer.pem", &hierarchy.issuer.certificate().pem()),
            leaf_file: file("leaf.pem", &leaf.pem()),
            hierarchy,
            leaf,
            folder,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn hashes(&self) -> IssuerHashes {
        IssuerHashes::of(self.hierarchy.issuer.certificate())
    }

    /// What `openssl ocsp -reqout` writes for the leaf, with this hash.
    fn request(&self, hash: &str, options: &[&str]) -> Vec<u8> {
        let out = self.path("request.der");
        let always = ["ocsp", "-reqout", &out, "-issuer", &self.issuer, hash, "-cert", &self.leaf_file];
        openssl(&[&always, options].concat(), b"");
        std::fs::read(out).unwrap()
    }
}

#[test]
fn openssls_requests_are_read_and_written_alike() {
    let files = Files::new(KeyAlgorithm::EcdsaP256);
    let (hashes, serial) = (files.hashes(), files.leaf.serial());
    for (option, hash) in [("-sha1", CertIdHash::Sha1), ("-sha256", CertIdHash::Sha256)] {
        let id = CertId::new(hash, &hashes, &serial);
        let der = files.request(option, &["-no_nonce"]);
        assert_eq!(Request::from_der(&der).unwrap().cert_ids(), std::slice::from_ref(&id));
        assert_eq!(encode_request(std::slice::from_ref(&id), None), der);
        // OpenSSL's nonces have 16 octets.
        let der = files.request(option, &["-nonce"]);
        let request = Request::from_der(&der).unwrap();
        assert_eq!(request.nonce().map(<[u8]>::len), Some(16));
        assert_eq!(encode_request(&[id], request.nonce()), der);
    }
    let other = files.request("-sha384", &["-no_nonce"]);
    let request = Request::from_der(&other).unwrap();
    assert_eq!((request.cert_ids()[0].hash(), request.cert_ids()[0].is_of(&hashes)), (None, false));
    // Several, of both kinds of hash; and signed, with a certificate.
    let several = files.request("-sha1", &["-no_nonce", "-serial", "0x1234", "-sha256", "-serial", "7"]);
    let request = Request::from_der(&several).unwrap();
    let serials: Vec<_> = request.cert_ids().iter().map(|id| id.serial().unwrap().to_string()).collect();
    assert_eq!(serials.len(), 3);
    assert!(serials.contains(&"1234".to_owned()) && serials.contains(&"07".to_owned()), "{serials:?}");
    let key = files.path("signer.key");
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key], b"");
    let signer = files.path("signer.pem");
    openssl(&["req", "-new", "-x509", "-subj", "/CN=client", "-key", &key, "-out", &signer], b"");
    let signed = files.request("-sha1", &["-nonce", "-signer", &signer, "-signkey", &key]);
    let request = Request::from_der(&signed).unwrap();
    assert!(!request.is_plain() && request.nonce().is_some());
    assert_eq!(request.cert_ids()[0].serial(), Some(serial));
}

#[test]
fn gnutls_requests_are_read_and_written_alike() {
    let files = Files::new(KeyAlgorithm::EcdsaP256);
    let id = CertId::new(CertIdHash::Sha1, &files.hashes(), &files.leaf.serial());
    let out = files.path("request.der");
    let arguments = [
        "--generate-request",
        "--load-issuer",
        &files.issuer,
        "--load-cert",
        &files.leaf_file,
        "--outfile",
        &out,
    ];
    let output = run("ocsptool", "gnutls-bin", &arguments, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let der = std::fs::read(out).unwrap();
    let request = Request::from_der(&der).unwrap();
    assert_eq!((request.cert_ids(), request.nonce()), (std::slice::from_ref(&id), None));
    assert_eq!(encode_request(request.cert_ids(), request.nonce()), der);
}

#[test]
fn openssl_and_gnutls_believe_our_answers() {
    for (algorithm, key) in [
        (KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP256),
        (KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa { bits: 2048 }),
        (KeyAlgorithm::Rsa { bits: 2048 }, KeyAlgorithm::EcdsaP384),
        (KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519),
    ] {
        let files = Files::new(algorithm);
        let responder = Responder::of(&files.hierarchy, Key::generate(key));
        let at = NOW.minus(Period::from_hours(3));
        for (status, answer) in [
            (CertStatus::Good, ": good"),
            (CertStatus::Revoked { at, reason: Reason::KeyCompromise }, ": revoked"),
            (CertStatus::Revoked { at, reason: Reason::Unspecified }, ": revoked"),
            (CertStatus::Unknown, ": unknown"),
        ] {
            for (option, nonce) in [("-sha1", "-no_nonce"), ("-sha256", "-nonce")] {
                let request = Request::from_der(&files.request(option, &[nonce])).unwrap();
                let one = Single {
                    archive_cutoff: Some(NOW.minus(Period::from_days(400))),
                    ..single(&request.cert_ids()[0], status)
                };
                let der = responder.answer(&[one], request.nonce());
                let response = write(files.folder.path(), "response.der", &der);
                assert_eq!(nonce == "-nonce", request.nonce().is_some());
                openssl_believes(&files, &response, option, answer, status);
                gnutls_believes(&files, &responder, &response, &answer[2..]);
            }
        }
        let mut changed =
            responder.answer(&[single(&id(&files.hierarchy, CertIdHash::Sha1, 1), CertStatus::Good)], None);
        let good = changed.windows(2).position(|window| window == [0x80, 0]).unwrap();
        changed[good] = 0x82;
        let changed = write(files.folder.path(), "response.der", &changed);
        let output = run("openssl", "openssl", &verification(&files, &changed, &at_noon()), b"");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("Response Verify Failure"), "{text}");
    }
}

/// An hour after [`NOW`].
fn at_noon() -> String {
    NOW.plus(Period::from_hours(1)).unix().to_string()
}

/// Its judgement of the answer's times goes by the wall clock: some years do not matter here. It would
/// add a nonce of its own to the request that it is given.
fn verification<'a>(files: &'a Files, response: &'a str, at: &'a str) -> Vec<&'a str> {
    vec![
        "ocsp",
        "-respin",
        response,
        "-CAfile",
        &files.root,
        "-verify_other",
        &files.issuer,
        "-issuer",
        &files.issuer,
        "-attime",
        at,
        "-validity_period",
        "1000000000",
        "-no_nonce",
        "-resp_text",
    ]
}

fn openssl_believes(files: &Files, response: &str, hash: &str, answer: &str, status: CertStatus) {
    let at = at_noon();
    let mut arguments = verification(files, response, &at);
    // The request that was answered, for its nonce.
    let request = files.path("request.der");
    arguments.extend([hash, "-cert", &files.leaf_file, "-reqin", &request]);
    let text = openssl(&arguments, b"");
    assert!(text.contains("Response verify OK") && !text.contains("WARNING"), "{text}");
    assert!(text.contains(&format!("leaf.pem{answer}")), "{text}");
    let key_compromise = matches!(status, CertStatus::Revoked { reason: Reason::KeyCompromise, .. });
    assert_eq!(text.contains("keyCompromise"), key_compromise, "{text}");
    for expected in [
        "Responder Id: ",
        "Produced At: Nov 24 12:00:00 2026 GMT",
        "Next Update: Nov 26 12:00:00 2026 GMT",
        "OCSP Archive Cutoff",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
}

/// With the responder named: which is all that `ocsptool` judges without the wall clock.
fn gnutls_believes(files: &Files, responder: &Responder, response: &str, answer: &str) {
    let signer = write(files.folder.path(), "responder.pem", responder.certificate.pem());
    let arguments = ["--verify-response", "--load-response", response, "--load-signer", &signer];
    let output = run("ocsptool", "gnutls-bin", &arguments, b"");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && text.contains("Success"), "{text}");
    let output = run("ocsptool", "gnutls-bin", &["--response-info", "--load-response", response], b"");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(text.contains(&format!("Certificate Status: {answer}")), "{text}");
}

/// A line of the `index.txt` of `openssl ca`.
fn index_line(state: &str, revoked: &str, serial: &Serial) -> String {
    format!("{state}\t491231235959Z\t{revoked}\t{}\tunknown\t/CN=x\n", serial.to_string().to_uppercase())
}

#[test]
fn we_believe_openssls_answers() {
    let files = Files::new(KeyAlgorithm::EcdsaP256);
    let key = files.path("responder.key");
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key], b"");
    let spki = run("openssl", "openssl", &["pkey", "-in", &key, "-pubout", "-outform", "DER"], b"").stdout;
    let public_key = PublicKey::from_spki_der(&spki).unwrap();
    // OpenSSL answers by the wall clock: the certificate outlives that by years.
    let hierarchy = &files.hierarchy;
    let certificate = certify(&hierarchy.issuer, &hierarchy.key, &public_key, validity(3_600));
    let responder = write(files.folder.path(), "responder.pem", certificate.pem());
    let index = index_line("V", "", &serial(1))
        + &index_line("R", "261120120000Z,keyCompromise", &serial(2))
        + &index_line("R", "261120120000Z", &serial(3));
    let index = write(files.folder.path(), "index.txt", index);
    let at = Timestamp::from_unix(1_795_176_000); // 2026-11-20T12:00:00Z
    let expected = [
        CertStatus::Good,
        CertStatus::Revoked { at, reason: Reason::KeyCompromise },
        CertStatus::Revoked { at, reason: Reason::Unspecified },
        CertStatus::Unknown,
    ];
    let ids: Vec<_> = (1..=4).map(|n| id(hierarchy, CertIdHash::ALL[usize::from(n % 2)], n)).collect();
    for (by_key, nonce) in [(true, None), (false, None), (true, Some(&[9; 16][..]))] {
        let request = write(files.folder.path(), "request.der", encode_request(&ids, nonce));
        let out = files.path("response.der");
        let mut arguments = vec![
            "ocsp",
            "-index",
            &index,
            "-CA",
            &files.issuer,
            "-rsigner",
            &responder,
            "-rkey",
            &key,
            "-reqin",
            &request,
            "-respout",
            &out,
            "-ndays",
            "2",
        ];
        arguments.extend(by_key.then_some("-resp_key_id"));
        openssl(&arguments, b"");
        let response = successful(&std::fs::read(Path::new(&out)).unwrap());
        assert_eq!(response.verify(hierarchy.issuer.certificate(), NOW), Ok(()));
        assert_eq!(response.nonce(), nonce);
        let read: Vec<_> = response.singles().iter().map(|single| single.status).collect();
        assert_eq!(read, expected);
        assert!(response.singles().iter().zip(&ids).all(|(single, id)| single.id == *id));
        assert_eq!((response.responder(), response.is_plain()), (Some(&certificate), by_key));
    }
}
