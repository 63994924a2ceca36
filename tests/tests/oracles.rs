//! openssl, GnuTLS and pkilint accept everything that this CA makes: root, intermediate, leaf, CRLs. Once as a private CA
//! (the demo), once under the Baseline Requirements' rules (a ceremony of its own).

use std::path::Path;
use std::process::Command;

use e2e::program::{ours, succeed};
use e2e::{Demo, client, oracle};

#[test]
fn everything_the_demo_makes_is_accepted() {
    let demo = Demo::start();
    let folder = demo.client_folder("oracle");
    let chain = client::certbot(&demo, &folder, &["www.demo.test", "demo.test"]);
    let leaf = oracle::first_of(&chain, &folder);
    let ca = demo.state().join("ca");
    let (root, issuer) = (ca.join("root.pem"), ca.join("tls-1.pem"));
    let crl = oracle::crl_to_pem(&demo.crl(), &folder, "leaf-crl");
    let root_crl = oracle::crl_to_pem(&std::fs::read(ca.join("root.crl")).unwrap(), &folder, "root-crl");

    oracle::openssl_verifies(&chain, &root, &crl);
    oracle::certtool_verifies(&chain, &root, &crl);
    oracle::certtool_verifies_crl(&crl, &issuer);
    oracle::certtool_verifies_crl(&root_crl, &root);

    for certificate in [&root, &issuer, &leaf] {
        oracle::pkilint("lint_pkix_cert", &[], &[certificate], &[]);
    }
    oracle::pkilint("lint_pkix_signer_signee_cert_chain", &[], &[&root, &issuer], &[]);
    oracle::pkilint("lint_pkix_signer_signee_cert_chain", &[], &[&issuer, &leaf], &[]);
    oracle::pkilint("lint_crl", &["-t", "CRL", "-p", "BR"], &[&crl], &[]);
    oracle::pkilint("lint_crl", &["-t", "ARL", "-p", "BR"], &[&root_crl], &[]);
}

#[test]
fn a_ceremony_under_the_baseline_requirements_is_accepted() {
    let token = testkit::token::TestToken::create("ceremony");
    let folder = tempfile::tempdir().unwrap();
    let file = ceremony(&token, folder.path());
    succeed(Command::new(ours("chancery")).args(["ceremony", "run"]).arg(&file));
    let ca = folder.path().join("ca");
    for name in ["root", "tls-ecdsa", "tls-rsa"] {
        oracle::pkilint("lint_cabf_serverauth_cert", &["-d"], &[&ca.join(format!("{name}.pem"))], &[]);
    }
    for name in ["tls-ecdsa", "tls-rsa"] {
        let intermediate = ca.join(format!("{name}.pem"));
        oracle::pkilint(
            "lint_pkix_signer_signee_cert_chain",
            &[],
            &[&ca.join("root.pem"), &intermediate],
            &[],
        );
        let der = std::fs::read(ca.join(format!("{name}-0.crl"))).unwrap();
        let crl = oracle::crl_to_pem(&der, folder.path(), name);
        oracle::pkilint("lint_crl", &["-t", "CRL", "-p", "BR"], &[&crl], &[]);
        oracle::certtool_verifies_crl(&crl, &intermediate);
    }
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-x509_strict", "-CAfile"]).arg(ca.join("root.pem"));
    succeed(verify.arg(ca.join("tls-ecdsa.pem")).arg(ca.join("tls-rsa.pem")));
}

/// The golden bytes of `pki` are what the BR profile makes; a linter does not look at the signature.
#[test]
fn a_leaf_under_the_baseline_requirements_is_accepted() {
    let golden = e2e::program::root().join("crates/pki/src/tbs/golden/leaf-public-dv.der");
    let tbs = pki::Tbs::from_der(&std::fs::read(golden).unwrap()).unwrap();
    let certificate = pki::assemble(&tbs, &[0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leaf.pem");
    std::fs::write(&file, pki::chain::pem_block("CERTIFICATE", &certificate)).unwrap();
    // The golden issuer signs with Ed25519, which the Baseline Requirements do not know; all else is as they want it.
    let golden_issuer = "cabf.serverauth.prohibited_signature_algorithm_encoding";
    oracle::pkilint("lint_cabf_serverauth_cert", &["-d"], &[&file], &[golden_issuer]);
}

#[test]
fn a_ceremony_run_twice_changes_nothing() {
    let token = testkit::token::TestToken::create("ceremony");
    let folder = tempfile::tempdir().unwrap();
    let file = ceremony(&token, folder.path());
    let run =
        || succeed(Command::new(ours("chancery")).args(["ceremony", "run", "--json"]).arg(&file)).stdout;
    let first: serde_json::Value = serde_json::from_slice(&run()).unwrap();
    assert_eq!(first["kept"], 0);
    let before = contents(&folder.path().join("ca"));

    // The token is not needed any more: its library cannot even find it.
    token.unplug();
    let second: serde_json::Value = serde_json::from_slice(&run()).unwrap();
    assert_eq!((&second["signed"], &second["kept"]), (&0.into(), &first["signed"]));
    assert_eq!(contents(&folder.path().join("ca")), before);

    // The file is the reviewed record: a changed one needs an output folder of its own.
    let text = std::fs::read_to_string(&file).unwrap().replace("title = \"", "title = \"Another ");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(ours("chancery")).args(["ceremony", "run"]).arg(&file).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("begun with another ceremony file"), "{said}");
}

#[test]
fn m1_keys_of_a_ceremony_never_leave_their_token() {
    let token = testkit::token::TestToken::create("ceremony");
    let folder = tempfile::tempdir().unwrap();
    let file = ceremony(&token, folder.path());
    succeed(Command::new(ours("chancery")).args(["ceremony", "run"]).arg(&file));
    let transcript = std::fs::read_to_string(folder.path().join("ca/transcript.jsonl")).unwrap();
    let keys: Vec<serde_json::Value> = transcript
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|entry| entry["step"] == "key")
        .collect();
    assert_eq!(keys.len(), 3);
    for key in keys {
        for (attribute, expected) in [
            ("extractable", "false"),
            ("never_extractable", "true"),
            ("sensitive", "true"),
            ("always_sensitive", "true"),
            ("local", "true"),
            ("decrypt", "false"),
        ] {
            assert_eq!(key["attributes"][attribute], expected, "{attribute} of {key}");
        }
    }
    let pin = std::fs::read_to_string(token.pin_file()).unwrap();
    assert!(!transcript.contains(pin.trim()), "the PIN stands in the transcript");
}

/// A ceremony under the Baseline Requirements, all keys in one test token.
fn ceremony(token: &testkit::token::TestToken, folder: &Path) -> std::path::PathBuf {
    let mut text = format!(
        "version = 1\ntitle = \"Public CA\"\noutput = \"ca\"\n\n[[token]]\nname = \"t\"\nlabel = {:?}\nmodule = {:?}\n\
         pin_file = {:?}\nenvironment = {{ SOFTHSM2_CONF = {:?} }}\n",
        token.label(),
        token.module(),
        token.pin_file(),
        token.conf(),
    );
    text += r#"
[[root]]
name = "root"
key = { token = "t", id = "01", label = "root", algorithm = "ecdsa-p384" }
subject = { country = "NL", organization = "Example Trust", common_name = "Example Root X1" }
validity = "7300d"
crl_url_base = "http://crl.example.com/crl"
ca_issuers_url = "http://crl.example.com/issuer/root.cer"

[[intermediate]]
name = "tls-ecdsa"
issuer = "root"
key = { token = "t", id = "11", label = "tls ecdsa", algorithm = "ecdsa-p256" }
subject = { country = "NL", organization = "Example Trust", common_name = "Example TLS E1" }
validity = "1825d"
crl_url_base = "http://crl.example.com/crl"
policies = ["2.23.140.1.2.1"]

[[intermediate]]
name = "tls-rsa"
issuer = "root"
key = { token = "t", id = "12", label = "tls rsa", algorithm = "rsa-2048" }
subject = { country = "NL", organization = "Example Trust", common_name = "Example TLS R1" }
validity = "1825d"
crl_url_base = "http://crl.example.com/crl"
policies = ["2.23.140.1.2.1"]
"#;
    let file = folder.join("ceremony.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file() && !entry.file_name().to_string_lossy().ends_with(".lock"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}
