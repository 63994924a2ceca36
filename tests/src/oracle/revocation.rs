//! What relying parties that insist on an answer make of CRLs and OCSP responses.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{python_tool, root, run, succeed};

/// What a relying party found out about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not revoked.
    Good,
    /// Revoked.
    Revoked,
    /// The responder does not know it.
    Unknown,
}

/// A certificate with its issuer and root, as relying parties see it.
#[derive(Debug)]
pub struct Subject<'a> {
    /// PEM, its own certificate first.
    pub chain: &'a Path,
    /// Its own certificate alone, PEM.
    pub leaf: &'a Path,
    /// PEM.
    pub issuer: &'a Path,
    /// PEM.
    pub root: &'a Path,
    /// For files.
    pub folder: &'a Path,
}

/// How `openssl ocsp` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// What everybody sends.
    Sha1,
    /// `-sha256`.
    Sha256,
}

impl Subject<'_> {
    /// Root and issuer in one file: what an OCSP responder's certificate is verified with.
    fn trust(&self) -> PathBuf {
        let file = self.folder.join("trust.pem");
        let pem = |path: &Path| std::fs::read_to_string(path).expect("a certificate");
        std::fs::write(&file, pem(self.root) + &pem(self.issuer)).expect("a file");
        file
    }

    /// `openssl ocsp`, by POST with a nonce: what it says, and the response's file.
    ///
    /// # Panics
    ///
    /// When openssl does not accept the response.
    #[must_use]
    pub fn openssl_asks(&self, url: &str, hash: Hash) -> (Verdict, PathBuf) {
        let response = self.folder.join("openssl-response.der");
        let mut command = Command::new("openssl");
        command.arg("ocsp").args(if hash == Hash::Sha256 { &["-sha256"][..] } else { &[] });
        command.arg("-issuer").arg(self.issuer).arg("-cert").arg(self.leaf).args(["-url", url]);
        command.arg("-CAfile").arg(self.trust()).arg("-respout").arg(&response);
        let output = succeed(&mut command);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let warned = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(warned.contains("Response verify OK"), "{warned}");
        assert!(!warned.contains("WARNING"), "{warned}");
        let status = said.lines().find_map(|line| line.split_once(".pem: ")).map(|(_, status)| status.trim());
        let verdict = match status {
            Some("good") => Verdict::Good,
            Some("revoked") => Verdict::Revoked,
            Some("unknown") => Verdict::Unknown,
            _ => panic!("openssl: {said}"),
        };
        (verdict, response)
    }

    /// GnuTLS' `ocsptool --ask` with a nonce, and its verification of the response.
    ///
    /// # Panics
    ///
    /// When ocsptool does not accept the response.
    #[must_use]
    pub fn ocsptool_asks(&self, url: &str) -> (Verdict, PathBuf) {
        let response = self.folder.join("ocsptool-response.der");
        let mut command = Command::new("ocsptool");
        command.arg(format!("--ask={url}")).arg("--nonce").arg("--load-cert").arg(self.leaf);
        command.arg("--load-issuer").arg(self.issuer).arg("--load-trust").arg(self.trust());
        let output = run(command.arg("--outfile").arg(&response));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let verdict = match said.lines().find_map(|line| line.trim().strip_prefix("Certificate Status: ")) {
            Some("good") => Verdict::Good,
            Some("revoked") => Verdict::Revoked,
            Some("unknown") => Verdict::Unknown,
            _ => panic!("ocsptool: {said}\n{}", String::from_utf8_lossy(&output.stderr)),
        };
        self.ocsptool_verifies(&response);
        (verdict, response)
    }

    /// `ocsptool --verify-response`.
    ///
    /// # Panics
    ///
    /// When ocsptool refuses.
    pub fn ocsptool_verifies(&self, response: &Path) {
        let said = self.ocsptool_verification(response);
        assert!(said.contains("Success"), "{said}");
    }

    /// What `ocsptool --verify-response` says.
    #[must_use]
    pub fn ocsptool_verification(&self, response: &Path) -> String {
        let mut command = Command::new("ocsptool");
        command.arg("--verify-response").arg("--load-response").arg(response);
        let output = run(command.arg("--load-trust").arg(self.trust()));
        let (said, warned) = (output.stdout, output.stderr);
        let said = [String::from_utf8_lossy(&said), String::from_utf8_lossy(&warned)].concat();
        let verdict = said.lines().find(|line| line.contains("Verifying OCSP Response:"));
        verdict.unwrap_or(&said).to_owned()
    }

    /// GnuTLS' `certtool --verify` with a CRL.
    ///
    /// # Panics
    ///
    /// When certtool says neither that the chain is good nor that it is revoked.
    #[must_use]
    pub fn certtool_checks(&self, crl: &Path) -> Verdict {
        let mut command = Command::new("certtool");
        command.arg("--verify").arg("--load-ca-certificate").arg(self.root).arg("--load-crl").arg(crl);
        let output = run(command.arg("--infile").arg(self.chain));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let verdict = said.lines().find(|line| line.contains("Chain verification output:")).unwrap_or(&said);
        match (output.status.success(), verdict.contains("revoked"), verdict.contains("Verified.")) {
            (true, false, true) => Verdict::Good,
            (false, true, _) => Verdict::Revoked,
            _ => panic!("certtool: {said}\n{}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// pyhanko-certvalidator in hard-fail mode, with these CRLs and OCSP responses (DER), and nothing else.
    ///
    /// # Errors
    ///
    /// What it says when it takes the certificate neither for good nor for revoked.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn certvalidator_checks(&self, crls: &[&Path], responses: &[&Path]) -> Result<Verdict, String> {
        let mut command = self.certvalidator();
        command.args(crls.iter().flat_map(|crl| [Path::new("--crl"), crl]));
        command.args(responses.iter().flat_map(|response| [Path::new("--ocsp"), response]));
        judged(&mut command)
    }

    /// pyhanko-certvalidator in hard-fail mode, which fetches what the certificates name.
    ///
    /// # Errors
    ///
    /// As [`Self::certvalidator_checks`].
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn certvalidator_fetches(&self) -> Result<Verdict, String> {
        judged(self.certvalidator().arg("--fetch"))
    }

    fn certvalidator(&self) -> Command {
        let mut command = Command::new(python_tool("python"));
        command.arg(root().join("tests/src/oracle/certvalidator.py"));
        command.arg("--root").arg(self.root).arg("--chain").arg(self.chain);
        command
    }
}

fn judged(command: &mut Command) -> Result<Verdict, String> {
    let output = succeed(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| {
        panic!("certvalidator: {error}\n{said}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    match (report["valid"].as_bool(), report["error"].as_str()) {
        (Some(true), _) => Ok(Verdict::Good),
        (_, Some("RevokedError")) => Ok(Verdict::Revoked),
        _ => Err(said),
    }
}
