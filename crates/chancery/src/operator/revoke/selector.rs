//! From the command line and its files to what the signer is asked.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::{Certificate, Csr, PublicKey, Serial};
use rpc::proto::admin::v1 as admin;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::SelectionArgs;

/// Serials and certificates of one request: no more than a message and the signer take.
const CHUNK: usize = 500;

/// The selectors of a run: one, or as many as its serials and certificates need.
pub(in crate::operator) fn read(args: &SelectionArgs) -> anyhow::Result<Vec<admin::CertificateSelector>> {
    let mut named: Vec<Named> = Vec::new();
    for text in &args.serials {
        named.push(Named::Serial(serial(text)?));
    }
    if let Some(file) = &args.serials_file {
        named.extend(serials_of(file)?.into_iter().map(Named::Serial));
        if named.is_empty() {
            bail!("{}: there is no serial number in it", file.display());
        }
    }
    for file in &args.certificates {
        named.push(Named::Certificate(certificate(file)?.der().to_vec()));
    }
    let common = admin::CertificateSelector {
        key_sha256: key(args)?.unwrap_or_default().into(),
        account_id: args.account.as_deref().map(account).unwrap_or_default(),
        name: args.name.clone().unwrap_or_default(),
        under: args.under.clone().unwrap_or_default(),
        profile: args.profile.clone().unwrap_or_default(),
        issuer_id: args.issuer.clone().unwrap_or_default(),
        issued_after: args.issued_after.unwrap_or_default(),
        issued_before: args.issued_before.unwrap_or_default(),
        ..admin::CertificateSelector::default()
    };
    if named.is_empty() {
        if common == admin::CertificateSelector::default() {
            bail!(
                "say which certificates: a serial number, or at least one condition (chancery revoke --help)"
            );
        }
        return Ok(vec![common]);
    }
    let selector = |chunk: &[Named]| {
        let mut selector = common.clone();
        for one in chunk {
            match one {
                Named::Serial(serial) => selector.serials.push(serial.to_string()),
                Named::Certificate(der) => selector.certificates.push(der.clone().into()),
            }
        }
        selector
    };
    Ok(named.chunks(CHUNK).map(selector).collect())
}

enum Named {
    Serial(Serial),
    Certificate(Vec<u8>),
}

/// As tools write them: openssl in upper case, browsers with colons.
fn serial(text: &str) -> anyhow::Result<Serial> {
    let plain = text.trim().replace(':', "").to_ascii_lowercase();
    let mut plain = plain.strip_prefix("0x").unwrap_or(&plain);
    // The octet that DER has in front of a first bit that is set, and that not every tool shows.
    while let Some(rest) = plain.strip_prefix("00") {
        plain = rest;
    }
    let padded = match plain.as_bytes().first() {
        Some(b'8' | b'9' | b'a'..=b'f') if plain.len().is_multiple_of(2) => format!("00{plain}"),
        _ => plain.to_owned(),
    };
    Serial::from_hex(&padded).with_context(|| format!("{text:?} is no serial number"))
}

fn serials_of(file: &Path) -> anyhow::Result<Vec<Serial>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("the standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| serial(line).with_context(|| format!("{}, line {at}", file.display())))
        .collect()
}

/// The id at the end of an account's URL, or the id.
fn account(text: &str) -> String {
    text.rsplit('/').next().unwrap_or(text).to_owned()
}

fn certificate(file: &Path) -> anyhow::Result<Certificate> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let der = block(&bytes, "CERTIFICATE").unwrap_or(bytes);
    Certificate::from_der(&der).with_context(|| format!("{}: no certificate", file.display()))
}

/// SHA-256 of the key that is meant.
fn key(args: &SelectionArgs) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(text) = &args.key_sha256 {
        let digest = hex::decode(text.trim().replace(':', "")).unwrap_or_default();
        if digest.len() != 32 {
            bail!("--key-sha256 {text:?}: a SHA-256 has 64 hexadecimal digits");
        }
        return Ok(Some(digest));
    }
    let Some(file) = &args.key else { return Ok(None) };
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    match key_in(&bytes) {
        Some(key) => Ok(Some(key.sha256().to_vec())),
        None if String::from_utf8_lossy(&bytes).contains("PRIVATE KEY-----") => bail!(
            "{}: this is a private key, which is nobody's business here; make the public one of it: openssl pkey -pubout",
            file.display()
        ),
        None => bail!(
            "{}: neither a public key (SubjectPublicKeyInfo) nor a certificate nor a CSR",
            file.display()
        ),
    }
}

fn key_in(bytes: &[u8]) -> Option<PublicKey> {
    let spki = |der: &[u8]| PublicKey::from_spki_der(der).ok();
    let certificate = |der: &[u8]| Certificate::from_der(der).ok().map(|it| it.public_key().clone());
    let request = |der: &[u8]| Csr::from_der(der).ok().map(|it| it.public_key().clone());
    let pem = |label| block(bytes, label);
    if let Some(der) = pem("PUBLIC KEY") {
        return spki(&der);
    }
    if let Some(der) = pem("CERTIFICATE") {
        return certificate(&der);
    }
    if let Some(der) = pem("CERTIFICATE REQUEST").or_else(|| pem("NEW CERTIFICATE REQUEST")) {
        return request(&der);
    }
    spki(bytes).or_else(|| certificate(bytes)).or_else(|| request(bytes))
}

/// The first PEM block with a label (RFC 7468).
fn block(bytes: &[u8], label: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

/// A day (its beginning, UTC) or a moment, as seconds since the epoch.
pub(in crate::operator) fn time(text: &str) -> Result<i64, String> {
    let moment = if text.contains(['T', 't', ' ']) { text.to_owned() } else { format!("{text}T00:00:00Z") };
    match OffsetDateTime::parse(&moment, &Rfc3339).map(OffsetDateTime::unix_timestamp) {
        Ok(seconds @ 1..) => Ok(seconds),
        Ok(_) => Err("no certificate was issued before 1970".to_owned()),
        Err(_) => Err("write it as 2026-11-30 or 2026-11-30T08:00:00Z".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_read_as_tools_write_them() {
        for text in ["5f0c3aa1", "5F0C3AA1", "5f:0c:3A:a1", "0x5f0c3aa1", " 5f0c3aa1 ", "005f0c3aa1"] {
            assert_eq!(serial(text).unwrap().to_string(), "5f0c3aa1", "{text}");
        }
        for text in ["ff01", "00ff01", "FF:01"] {
            assert_eq!(serial(text).unwrap().to_string(), "00ff01", "{text}");
        }
        for text in ["", "0", "00", "5f0", "xyz", "5f 0c", &"11".repeat(21)] {
            assert!(serial(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_days_or_moments() {
        assert_eq!(time("1970-01-02"), Ok(86_400));
        assert_eq!(time("1970-01-02T00:00:01Z"), Ok(86_401));
        assert_eq!(time("1970-01-02T01:00:01+01:00"), Ok(86_401));
        for text in ["", "tomorrow", "2026-13-01", "1960-01-01", "2026-11-30T08:00"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_account_is_an_id_or_a_url() {
        assert_eq!(account("abc"), "abc");
        assert_eq!(account("https://ca.example/acme/main/account/abc"), "abc");
    }
}
