//! Other people's programs, asked whether they accept what this CA makes.

pub mod revocation;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{python_tool, succeed};

/// `openssl verify -crl_check` with strict checks.
///
/// # Panics
///
/// When openssl refuses.
pub fn openssl_verifies(chain: &Path, root: &Path, crl: &Path) {
    let mut command = Command::new("openssl");
    command.args(["verify", "-crl_check", "-x509_strict", "-CAfile"]).arg(root);
    command.arg("-CRLfile").arg(crl).arg("-untrusted").arg(chain).arg(chain);
    let said = succeed(&mut command).stdout;
    assert!(String::from_utf8_lossy(&said).trim_end().ends_with(": OK"));
}

/// What `openssl verify -crl_check` says of a certificate that it must refuse.
///
/// # Panics
///
/// When openssl accepts it.
#[must_use]
pub fn openssl_refuses(chain: &Path, root: &Path, crl: &Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["verify", "-crl_check", "-CAfile"]).arg(root);
    command.arg("-CRLfile").arg(crl).arg("-untrusted").arg(chain).arg(chain);
    let output = crate::program::run(&mut command);
    assert!(!output.status.success(), "openssl accepted {}", chain.display());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// GnuTLS' `certtool --verify` of a chain against a root, and its reading of the CRL.
///
/// # Panics
///
/// When certtool refuses.
pub fn certtool_verifies(chain: &Path, root: &Path, crl: &Path) {
    let mut command = Command::new("certtool");
    command.arg("--verify").arg("--load-ca-certificate").arg(root).arg("--infile").arg(chain);
    let said = succeed(&mut command).stdout;
    assert!(String::from_utf8_lossy(&said).contains("Verified."), "{}", String::from_utf8_lossy(&said));
    let said = succeed(Command::new("certtool").arg("--crl-info").arg("--infile").arg(crl)).stdout;
    assert!(String::from_utf8_lossy(&said).contains("CRL Number"), "{}", String::from_utf8_lossy(&said));
}

/// GnuTLS' check of a CRL's signature by its issuer.
///
/// # Panics
///
/// When certtool refuses.
pub fn certtool_verifies_crl(crl: &Path, issuer: &Path) {
    let mut command = Command::new("certtool");
    command.arg("--verify-crl").arg("--load-ca-certificate").arg(issuer).arg("--infile").arg(crl);
    let said = succeed(&mut command).stdout;
    assert!(!String::from_utf8_lossy(&said).contains("Not verified"), "{}", String::from_utf8_lossy(&said));
}

/// pkilint, with one of its linters; no finding of severity ERROR or FATAL may remain but those named.
///
/// # Panics
///
/// When pkilint finds an error.
pub fn pkilint(tool: &str, arguments: &[&str], files: &[&Path], accepted: &[&str]) {
    let mut command = Command::new(python_tool(tool));
    command.arg("lint").args(arguments).args(["--severity", "ERROR", "--format", "JSON"]).args(files);
    let output = crate::program::run(&mut command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| {
        panic!("{tool}: {error}\n{said}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    let mut codes = Vec::new();
    collect_codes(&report, &mut codes);
    codes.retain(|code| !accepted.contains(&code.as_str()));
    assert!(codes.is_empty(), "{tool} on {files:?}: {codes:?}\n{said}");
}

fn collect_codes(value: &serde_json::Value, codes: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            if let Some(code) = members.get("code").and_then(|code| code.as_str()) {
                codes.push(code.to_owned());
            }
            members.values().for_each(|member| collect_codes(member, codes));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_codes(item, codes)),
        _ => {}
    }
}

/// A DER CRL as PEM, beside it.
///
/// # Panics
///
/// When openssl cannot read it.
#[must_use]
pub fn crl_to_pem(der: &[u8], folder: &Path, name: &str) -> PathBuf {
    let input = folder.join(format!("{name}.der"));
    let output = folder.join(format!("{name}.pem"));
    std::fs::write(&input, der).expect("the CRL's file");
    let mut command = Command::new("openssl");
    command.args(["crl", "-inform", "DER", "-in"]).arg(&input).arg("-out").arg(&output);
    succeed(&mut command);
    output
}

/// The first certificate of a PEM file, in a file of its own.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn first_of(chain: &Path, folder: &Path) -> PathBuf {
    let certificates = pki::chain::from_pem(&std::fs::read_to_string(chain).expect("a chain")).expect("PEM");
    let file = folder.join("first.pem");
    std::fs::write(&file, certificates[0].pem()).expect("a file");
    file
}
