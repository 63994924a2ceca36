//! `openssl ca -gencrl`, from its text database.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Made;
use crate::processes::cost_of;

const CONFIGURATION: &str = "
[ca]
default_ca = one
[one]
dir = .
database = index.txt
crlnumber = crlnumber
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_crl_days = 4
crl_extensions = extensions
[extensions]
authorityKeyIdentifier = keyid:always
[req]
distinguished_name = name
x509_extensions = own
prompt = no
[name]
CN = Bench
[own]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
";

/// How often the process is looked at: its memory is known only while it lives.
const LOOK: Duration = Duration::from_millis(2);

/// One CRL of so many entries; none if it takes longer than `most`.
pub(super) fn make(entries: u64, most: Duration) -> anyhow::Result<Option<Made>> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    fs::write(folder.join("openssl.cnf"), CONFIGURATION)?;
    fs::write(folder.join("crlnumber"), "02\n")?;
    openssl(folder, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key"])?;
    let own = [
        "req",
        "-x509",
        "-new",
        "-key",
        "ca.key",
        "-days",
        "3650",
        "-config",
        "openssl.cnf",
        "-out",
        "ca.pem",
    ];
    openssl(folder, &own)?;
    let mut index = String::new();
    for n in 0..entries {
        // As random serials are: not in order.
        let serial = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) & (u128::MAX >> 2)
            | 1 << 126;
        writeln!(index, "R\t300101000000Z\t260101000000Z\t{serial:032X}\tunknown\t/CN={n}")?;
    }
    fs::write(folder.join("index.txt"), index)?;
    fs::write(folder.join("index.txt.attr"), "unique_subject = no\n")?;

    let began = Instant::now();
    let mut child = Command::new("openssl")
        .args(["ca", "-gencrl", "-config", "openssl.cnf", "-out", "crl.pem"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("openssl: apt install openssl")?;
    let mut memory = 0.0_f64;
    let seconds = loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "openssl ca -gencrl: {status}");
            break began.elapsed().as_secs_f64();
        }
        if began.elapsed() > most {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        memory = memory.max(cost_of(child.id()).peak_mib);
        std::thread::sleep(LOOK);
    };
    let octets = fs::metadata(folder.join("crl.pem"))?.len();
    Ok(Some(Made { entries, seconds, memory, octets }))
}

fn openssl(folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output();
    let output = output.context("openssl: apt install openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
