//! Relying parties that insist on an answer: what openssl, GnuTLS, pkilint and pyhanko-certvalidator (hard-fail) make of this
//! CA's CRLs and OCSP responses, for certificates that are good, revoked and unknown.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::oracle::revocation::{Hash, Subject, Verdict};
use e2e::program::succeed;
use e2e::{Demo, client, oracle};

mod responder;

/// The demo, a certificate that stays good and one that is revoked.
struct Case {
    demo: Demo,
    good: Certificate,
    revoked: Certificate,
}

struct Certificate {
    folder: PathBuf,
    chain: PathBuf,
    leaf: PathBuf,
}

impl Case {
    fn make() -> Self {
        let demo = Demo::start();
        let [good, revoked] = ["good", "revoked"].map(|name| {
            let folder = demo.client_folder(name);
            let chain = client::certbot(&demo, &folder, &[&format!("{name}.demo.test")]);
            let leaf = oracle::first_of(&chain, &folder);
            Certificate { folder, chain, leaf }
        });
        let der = pki::chain::from_pem(&std::fs::read_to_string(&revoked.leaf).unwrap()).unwrap();
        let serial = der[0].serial();
        succeed(demo.operator().args(["certificate", "revoke", &serial.to_string(), "--reason", "4"]));
        demo.wait_for_crl("showed the revoked certificate", |crl| {
            pki::crl::Crl::from_der(crl).unwrap().find(&serial).is_some()
        });
        Self { demo, good, revoked }
    }

    fn subject<'a>(&'a self, certificate: &'a Certificate) -> Subject<'a> {
        let (issuer, root) = (&self.demo.facts.issuer, &self.demo.facts.root);
        let Certificate { folder, chain, leaf } = certificate;
        Subject { chain, leaf, issuer, root, folder }
    }

    fn each(&self) -> [(Subject<'_>, Verdict); 2] {
        [(self.subject(&self.good), Verdict::Good), (self.subject(&self.revoked), Verdict::Revoked)]
    }

    /// The root's CRL.
    fn root_crl(&self) -> PathBuf {
        self.demo.state().join("ca/root.crl")
    }
}

#[test]
fn k6_crls_tell_the_good_from_the_revoked() {
    let case = Case::make();
    let crl = case.good.folder.join("leaf.crl");
    std::fs::write(&crl, case.demo.crl()).unwrap();
    let pem = oracle::crl_to_pem(&case.demo.crl(), &case.good.folder, "leaf-crl");
    let root_crl = case.root_crl();
    oracle::certtool_verifies_crl(&pem, &case.demo.facts.issuer);
    oracle::pkilint("lint_crl", &["-t", "CRL", "-p", "BR"], &[&pem], &[]);

    oracle::openssl_verifies(&case.good.chain, &case.demo.facts.root, &pem);
    let said = oracle::openssl_refuses(&case.revoked.chain, &case.demo.facts.root, &pem);
    assert!(said.contains("certificate revoked"), "{said}");
    for (subject, expected) in case.each() {
        assert_eq!(subject.certtool_checks(&pem), expected);
        assert_eq!(subject.certvalidator_checks(&[&crl, &root_crl], &[]), Ok(expected));
        // By the URLs in the certificates, from the status node.
        assert_eq!(subject.certvalidator_fetches(), Ok(expected));
        // It insists: without the one or the other CRL nothing is good.
        for some in [&[&crl as &Path][..], &[&root_crl]] {
            let verdict = subject.certvalidator_checks(some, &[]);
            assert!(verdict != Ok(Verdict::Good), "{some:?}: {verdict:?}");
        }
    }
    // A CRL whose signature is another's is as good as none.
    let mut forged = case.demo.crl();
    *forged.last_mut().unwrap() ^= 1;
    std::fs::write(&crl, forged).unwrap();
    let verdict = case.subject(&case.good).certvalidator_checks(&[&crl, &root_crl], &[]);
    assert!(verdict.is_err(), "{verdict:?}");
}

/// Everyone who can ask asks this responder.
fn everyone_asks(subject: &Subject<'_>, url: &str, expected: Verdict, issuers_crl: &Path) {
    for hash in [Hash::Sha1, Hash::Sha256] {
        let (verdict, response) = subject.openssl_asks(url, hash);
        assert_eq!(verdict, expected, "openssl, {hash:?}");
        subject.ocsptool_verifies(&response);
        oracle::pkilint("lint_ocsp_response", &[], &[&response], &[]);
    }
    let (verdict, response) = subject.ocsptool_asks(url);
    assert_eq!(verdict, expected, "ocsptool");
    oracle::pkilint("lint_ocsp_response", &[], &[&response], &[]);
    let verdict = subject.certvalidator_checks(&[issuers_crl], &[&response]);
    match expected {
        // "Unknown" is no answer to somebody who insists on one.
        Verdict::Unknown => assert!(verdict.is_err(), "{verdict:?}"),
        expected => assert_eq!(verdict, Ok(expected)),
    }
}

#[test]
fn ocsp_tells_the_good_from_the_revoked_and_the_unknown() {
    let case = Case::make();
    let url = case.demo.facts.ocsp.clone().expect("a responder");
    let root_crl = case.root_crl();
    for (subject, expected) in case.each() {
        everyone_asks(&subject, &url, expected, &root_crl);
        assert_eq!(subject.certvalidator_fetches(), Ok(expected));
    }
    // The issuer's name and key, and a serial that it never gave.
    let folder = case.demo.client_folder("unknown");
    let stranger = responder::stranger(&folder, &case.good.chain);
    let subject = case.subject(&stranger);
    for hash in [Hash::Sha1, Hash::Sha256] {
        assert_eq!(subject.openssl_asks(&url, hash).0, Verdict::Unknown);
    }
    assert_eq!(subject.ocsptool_asks(&url).0, Verdict::Unknown);
}

/// The relying parties themselves: against openssl's responder they say what is true, and take no answer that is none.
#[test]
fn relying_parties_tell_right_from_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let authority = responder::Authority::make(folder.path());
    let server = authority.serve("responder");
    for (name, expected) in
        [("good", Verdict::Good), ("revoked", Verdict::Revoked), ("unknown", Verdict::Unknown)]
    {
        let certificate = authority.certificate(name);
        everyone_asks(&authority.subject(&certificate), &server.url, expected, &authority.file("root.crl"));
    }
    // A responder whose certificate is not for it.
    let impostor = authority.serve("good");
    let certificate = authority.certificate("good");
    let subject = authority.subject(&certificate);
    let response = impostor.fetch(&subject);
    let said = subject.ocsptool_verification(&response);
    assert!(!said.contains("Success"), "{said}");
    let verdict = subject.certvalidator_checks(&[&authority.file("root.crl")], &[&response]);
    assert!(verdict.is_err(), "{verdict:?}");
    // An answer about somebody else.
    let other = authority.certificate("revoked");
    let other = server.fetch(&authority.subject(&other));
    let verdict = subject.certvalidator_checks(&[&authority.file("root.crl")], &[&other]);
    assert!(verdict.is_err(), "{verdict:?}");
    // And none at all.
    assert!(subject.certvalidator_checks(&[&authority.file("root.crl")], &[]).is_err());
}

/// openssl, which says what it says on one line.
fn openssl(folder: &Path, arguments: &str) {
    succeed(Command::new("openssl").args(arguments.split(' ')).current_dir(folder));
}
