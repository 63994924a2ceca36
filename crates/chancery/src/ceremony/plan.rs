//! The ceremony's file: the reviewed record of which keys and certificates come into being.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use pki::{DistinguishedName, KeyAlgorithm, Period, PolicyOid};
use serde::Deserialize;

/// A ceremony, `version = 1`. Unknown keys are refused: a reviewed record must not hold words without effect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) version: u32,
    /// What this ceremony is, for the transcript.
    pub(crate) title: String,
    /// The folder for certificates, CRLs and the transcript; relative to the file.
    pub(crate) output: PathBuf,
    /// Whether this is a CA for tests: its roots and intermediates carry a mark that says so to everybody who looks, and that
    /// cannot be taken off or put on later. No directory of public trust issues by them, and only by them does one whose
    /// challenges all succeed (`always_valid`). Default: false.
    #[serde(default)]
    pub(crate) test_ca: bool,
    /// The tokens in which keys are made.
    #[serde(rename = "token")]
    pub(crate) tokens: Vec<Token>,
    /// Self-signed CAs. Their tokens are not needed to run the CA.
    #[serde(default, rename = "root")]
    pub(crate) roots: Vec<Root>,
    /// CAs signed by a root; the signers' issuers.
    #[serde(default, rename = "intermediate")]
    pub(crate) intermediates: Vec<Intermediate>,
    /// Keys of OCSP responders. Their certificates are the running signers' work; the signers' policy names the keys.
    #[serde(default, rename = "responder_key")]
    pub(crate) responder_keys: Vec<KeyPlan>,
    /// The internal CA of the nodes' mutual TLS.
    pub(crate) node_ca: Option<NodeCa>,
    /// Nodes that cannot join, since nobody is there yet: the first signer and the first operator.
    #[serde(default, rename = "node")]
    pub(crate) nodes: Vec<Node>,
}

/// A PKCS#11 token. Who holds its PIN can sign with every key in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// How this file refers to it.
    pub(crate) name: String,
    /// CKA label of the token.
    pub(crate) label: String,
    /// The PKCS#11 module (a shared library).
    pub(crate) module: PathBuf,
    /// A file with the user PIN on one line, mode 0600.
    pub(crate) pin_file: PathBuf,
    /// Environment of the module, e.g. `SOFTHSM2_CONF`.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
}

/// Where a key is, and what it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyPlan {
    /// A token of this file.
    pub(crate) token: String,
    /// CKA_ID, hexadecimal. The configuration of the signer repeats it.
    pub(crate) id: String,
    /// CKA_LABEL.
    pub(crate) label: String,
    /// `ecdsa-p256`, `ecdsa-p384`, `rsa-2048`, `rsa-3072`, `rsa-4096` or `ed25519`.
    pub(crate) algorithm: KeyAlgorithm,
}

/// A self-signed CA.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    /// Names the output files.
    pub(crate) name: String,
    pub(crate) key: KeyPlan,
    pub(crate) subject: DistinguishedName,
    /// E.g. "7305d" (days), at most 25 years in the Baseline Requirements (§6.3.2).
    pub(crate) validity: Period,
    /// Base of the URL of its CRL, `{crl_url_base}/{key id}/0.crl`; plain http. It stands in the intermediates.
    pub(crate) crl_url_base: String,
    /// Where relying parties find its certificate; plain http. It stands in the intermediates.
    pub(crate) ca_issuers_url: Option<String>,
    /// Life of its CRL; for a CA at most twelve months (Baseline Requirements §7.2). Default: 365d.
    #[serde(default = "year")]
    pub(crate) crl_lifetime: Period,
}

/// A CA that a root signs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Intermediate {
    pub(crate) name: String,
    /// A root of this file.
    pub(crate) issuer: String,
    pub(crate) key: KeyPlan,
    pub(crate) subject: DistinguishedName,
    pub(crate) validity: Period,
    /// Base of the URLs of its CRLs, `{crl_url_base}/{key id}/{shard}.crl`; the signer's policy repeats it.
    pub(crate) crl_url_base: String,
    /// Certificate policies, as object identifiers; empty: no extension.
    #[serde(default)]
    pub(crate) policies: Vec<PolicyOid>,
    /// How many shards its CRL has; the signer's policy repeats it. Default: 1.
    #[serde(default = "one")]
    pub(crate) shards: u32,
    /// Life of its first CRL. Default: 7d.
    #[serde(default = "week")]
    pub(crate) crl_lifetime: Period,
}

/// The node CA: a root of its own that no directory can reference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeCa {
    pub(crate) key: KeyPlan,
    pub(crate) common_name: String,
    pub(crate) validity: Period,
}

/// A node whose certificate the ceremony makes. Its key is a file beside it, mode 0600.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// `signer` or `operator`; the others join.
    pub(crate) role: String,
    pub(crate) name: String,
    /// DNS names and addresses under which it is reached; for information, roles are what counts.
    #[serde(default)]
    pub(crate) server_names: Vec<String>,
    /// Default: 30d; it renews itself once a signer runs.
    #[serde(default = "month")]
    pub(crate) validity: Period,
}

const fn one() -> u32 {
    1
}

const fn week() -> Period {
    Period::from_days(7)
}

const fn month() -> Period {
    Period::from_days(30)
}

const fn year() -> Period {
    Period::from_days(365)
}

impl Plan {
    /// Reads and checks a file; every path in it is then relative to the file's folder.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no ceremony, or contradicts itself.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut plan: Self =
            toml::from_str(&text).map_err(|error| anyhow::anyhow!("{}:\n{error}", path.display()))?;
        // Absolute, since the worker processes have a working directory of their own.
        let path = std::path::absolute(path)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        plan.output = folder.join(&plan.output);
        for token in &mut plan.tokens {
            token.pin_file = folder.join(&token.pin_file);
        }
        plan.check().with_context(|| format!("{} contradicts itself", path.display()))?;
        Ok(plan)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.version == 1,
            "version = {} is not known here; this program reads version = 1",
            self.version
        );
        unique("token", self.tokens.iter().map(|token| token.name.as_str()))?;
        unique(
            "root or intermediate",
            self.roots
                .iter()
                .map(|r| r.name.as_str())
                .chain(self.intermediates.iter().map(|i| i.name.as_str())),
        )?;
        let keys: Vec<_> = self.keys().collect();
        for key in &keys {
            ensure!(
                self.tokens.iter().any(|token| token.name == key.token),
                "key {:?} names the token {:?}, which is not in this file",
                key.label,
                key.token
            );
            ensure!(
                hex::decode(&key.id).is_ok_and(|id| (1..=32).contains(&id.len())),
                "key {:?}: id {:?} is not 1 to 32 octets in hexadecimal",
                key.label,
                key.id
            );
        }
        unique("key (token and id)", keys.iter().map(|key| format!("{}/{}", key.token, key.id)))?;
        for intermediate in &self.intermediates {
            ensure!(
                self.roots.iter().any(|root| root.name == intermediate.issuer),
                "intermediate {:?} names the issuer {:?}, which is no root of this file",
                intermediate.name,
                intermediate.issuer
            );
            ensure!(intermediate.shards >= 1, "intermediate {:?}: at least one shard", intermediate.name);
        }
        for node in &self.nodes {
            ensure!(self.node_ca.is_some(), "node {:?} needs a [node_ca]", node.name);
            if !matches!(node.role.as_str(), "signer" | "operator") {
                bail!(
                    "node {:?}: the ceremony makes signers and operators; a {} joins with `chancery node join`",
                    node.name,
                    node.role
                );
            }
        }
        unique("node", self.nodes.iter().map(|node| format!("{}/{}", node.role, node.name)))
    }

    fn keys(&self) -> impl Iterator<Item = &KeyPlan> {
        let roots = self.roots.iter().map(|root| &root.key);
        let intermediates = self.intermediates.iter().map(|intermediate| &intermediate.key);
        let node_ca = self.node_ca.iter().map(|node_ca| &node_ca.key);
        roots.chain(intermediates).chain(&self.responder_keys).chain(node_ca)
    }
}

fn unique<T: Ord + std::fmt::Display>(what: &str, items: impl Iterator<Item = T>) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for item in items {
        ensure!(!seen.contains(&item), "{what} {item} stands twice in this file");
        seen.insert(item);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
version = 1
title = "test"
output = "out"
[[token]]
name = "t"
label = "t"
module = "/usr/lib/softhsm/libsofthsm2.so"
pin_file = "pin"
[[root]]
name = "root"
key = { token = "t", id = "01", label = "root", algorithm = "ecdsa-p384" }
subject = { common_name = "Root" }
validity = "3650d"
crl_url_base = "http://crl.test"
"#;

    const RESPONDER_KEY: &str =
        "\n[[responder_key]]\ntoken = \"t\"\nid = \"31\"\nlabel = \"ocsp\"\nalgorithm = \"ecdsa-p256\"\n";

    fn check(text: &str) -> anyhow::Result<()> {
        toml::from_str::<Plan>(text)?.check()
    }

    #[test]
    fn a_sound_plan_passes() {
        check(SMALL).unwrap();
        check(&format!("{SMALL}{RESPONDER_KEY}")).unwrap();
    }

    #[test]
    fn contradictions_are_named() {
        let cases = [
            (SMALL.replace("version = 1", "version = 2"), "version = 2"),
            (SMALL.replace("token = \"t\"", "token = \"u\""), "\"u\", which is not in this file"),
            (SMALL.replace("\"01\"", "\"0g\""), "hexadecimal"),
            (SMALL.replace("title", "tilte"), "unknown field `tilte`"),
            (SMALL.replace("3650d", "3650x"), "period"),
            // A responder has no CA's key.
            (format!("{SMALL}{}", RESPONDER_KEY.replace("31", "01")), "key (token and id) t/01 stands twice"),
            (format!("{SMALL}\n[[node]]\nrole = \"signer\"\nname = \"s\"\n"), "needs a [node_ca]"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", check(&text).unwrap_err());
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }
}
