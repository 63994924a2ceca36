//! A CA and an OCSP responder of openssl's own making.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::oracle::revocation::Subject;
use e2e::program::succeed;

use super::{Certificate, openssl};

/// Root, issuer, responder, and three certificates, one of which is in no index.
pub(crate) struct Authority {
    folder: PathBuf,
    root: PathBuf,
    issuer: PathBuf,
}

/// `openssl ocsp -port`; it ends with this.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

const EXTENSIONS: &str = "
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[issuer]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
crlDistributionPoints = URI:http://127.0.0.1:1/root.crl
[leaf]
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:leaf.test
authorityInfoAccess = OCSP;URI:http://127.0.0.1:1/
[responder]
keyUsage = critical, digitalSignature
extendedKeyUsage = OCSPSigning
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
noCheck = yes
[crl]
authorityKeyIdentifier = keyid
[ca]
default_ca = here
[here]
database = root.index
crlnumber = root.number
default_md = sha256
default_crl_days = 30
crl_extensions = crl
";

impl Authority {
    pub(crate) fn make(folder: &Path) -> Self {
        let [root, issuer] = ["root.pem", "issuer.pem"].map(|name| folder.join(name));
        let authority = Self { folder: folder.to_owned(), root, issuer };
        std::fs::write(authority.file("extensions"), EXTENSIONS).unwrap();
        authority.sign("root", "root", 1, "root");
        authority.sign("issuer", "root", 2, "issuer");
        authority.sign("responder", "issuer", 3, "responder");
        for (serial, name) in [(16, "good"), (17, "revoked"), (18, "unknown")] {
            authority.sign(name, "issuer", serial, "leaf");
        }
        std::fs::write(
            authority.file("index"),
            "V\t491231235959Z\t\t10\tunknown\t/CN=good\nR\t491231235959Z\t260101000000Z,keyCompromise\t11\tunknown\t/CN=revoked\n",
        )
        .unwrap();
        std::fs::write(authority.file("root.index"), "").unwrap();
        std::fs::write(authority.file("root.number"), "01\n").unwrap();
        openssl(
            folder,
            "ca -gencrl -config extensions -name here -cert root.pem -keyfile root.key -out root-crl.pem",
        );
        openssl(folder, "crl -in root-crl.pem -outform DER -out root.crl");
        authority
    }

    fn sign(&self, name: &str, by: &str, serial: u32, section: &str) {
        openssl(
            &self.folder,
            &format!(
                "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -subj /CN={name} -out {name}.csr"
            ),
        );
        let by = match name == by {
            true => format!("-signkey {name}.key"),
            false => format!("-CA {by}.pem -CAkey {by}.key"),
        };
        openssl(
            &self.folder,
            &format!(
                "x509 -req -in {name}.csr {by} -set_serial {serial} -days 90 -extfile extensions -extensions {section} -out {name}.pem"
            ),
        );
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        let folder = self.folder.join(format!("for-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let pem = |name: &str| std::fs::read_to_string(self.file(&format!("{name}.pem"))).unwrap();
        let chain = folder.join("chain.pem");
        std::fs::write(&chain, pem(name) + &pem("issuer")).unwrap();
        Certificate { folder, chain, leaf: self.file(&format!("{name}.pem")) }
    }

    pub(crate) fn subject<'a>(&'a self, certificate: &'a Certificate) -> Subject<'a> {
        let Certificate { folder, chain, leaf } = certificate;
        let Self { issuer, root, .. } = self;
        Subject { chain, leaf, issuer, root, folder }
    }

    /// Answers as this one; the port is the system's choice.
    pub(crate) fn serve(&self, signer: &str) -> Server {
        let arguments = format!(
            "ocsp -index index -CA issuer.pem -rsigner {signer}.pem -rkey {signer}.key -port 0 -ndays 1"
        );
        let mut child = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&self.folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let accepts = said.find_map(|line| {
            let line = line.unwrap();
            let address = line.strip_prefix("ACCEPT ")?;
            Some(address.split(' ').next()?.to_owned())
        });
        let address: String = accepts.expect("openssl's port");
        let port = address.rsplit(':').next().unwrap();
        Server { child, url: format!("http://127.0.0.1:{port}") }
    }
}

impl Server {
    /// The response for a certificate, whatever it is worth.
    pub(crate) fn fetch(&self, subject: &Subject<'_>) -> PathBuf {
        let response = subject.folder.join("fetched.der");
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-noverify", "-url", &self.url, "-issuer"]).arg(subject.issuer);
        succeed(command.arg("-cert").arg(subject.leaf).arg("-respout").arg(&response));
        response
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A certificate as the issuer might have made it, but for the serial, which it never gave.
pub(crate) fn stranger(folder: &Path, chain: &Path) -> Certificate {
    let certificates = pki::chain::from_pem(&std::fs::read_to_string(chain).unwrap()).unwrap();
    let mut der = certificates[0].der().to_vec();
    let serial = certificates[0].serial();
    let serial = serial.as_bytes();
    let at = der.windows(serial.len()).position(|octets| octets == serial).unwrap();
    der[at + serial.len() - 1] ^= 1;
    let (leaf, whole) = (folder.join("stranger.pem"), folder.join("chain.pem"));
    let pem = pki::chain::pem_block("CERTIFICATE", &der);
    std::fs::write(&leaf, &pem).unwrap();
    std::fs::write(&whole, pem + &pki::chain::to_pem(&certificates[1..])).unwrap();
    Certificate { folder: folder.to_owned(), chain: whole, leaf }
}
