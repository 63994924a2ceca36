//! The configurations in `deploy/` are what operators start from: the ceremony runs, and every role accepts its file.

use std::path::Path;
use std::process::Command;

use e2e::program::{ours, root, succeed};

#[test]
fn the_resolvers_sample_is_one_that_unbound_takes() {
    let folder = tempfile::tempdir().unwrap();
    let anchor = folder.path().join("root.key");
    // The root's key of 2017 (RFC 5011 state is kept in the same file).
    let key = ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n";
    std::fs::write(&anchor, key).unwrap();
    let text = std::fs::read_to_string(root().join("deploy/unbound.conf")).unwrap();
    let text = text.replace("/var/lib/unbound/root.key", anchor.to_str().unwrap());
    std::fs::write(folder.path().join("unbound.conf"), text).unwrap();
    // .ci/setup test installs it.
    succeed(Command::new("/usr/sbin/unbound-checkconf").arg(folder.path().join("unbound.conf")));
}

#[test]
fn the_samples_make_a_ca_and_pass_their_checks() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let text = std::fs::read_to_string(root().join("deploy").join(name)).unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    for name in [
        "ceremony.toml",
        "signer.toml",
        "policy.toml",
        "validator.toml",
        "front.toml",
        "status.toml",
        "operator.toml",
    ] {
        copy(name);
    }
    tokens(folder.path());
    let chancery = |arguments: &[&str]| {
        succeed(Command::new(ours("chancery")).args(arguments).current_dir(folder.path()));
    };
    chancery(&["ceremony", "run", "ceremony.toml"]);
    for role in ["signer", "validator", "front", "status"] {
        chancery(&[role, "--config", &format!("{role}.toml"), "--check"]);
    }
    // The thin programs take the same files.
    for role in ["validator", "front", "status"] {
        let mut thin = Command::new(ours(&format!("chancery-{role}")));
        succeed(thin.args(["--config", &format!("{role}.toml"), "--check"]).current_dir(folder.path()));
    }
}

/// A CA for tests says that it is one: in the ceremony's output, in its transcript, and in every CA's certificate but the node CA's.
#[test]
fn a_test_ca_is_marked_by_its_ceremony() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ceremony.toml");
    let sample = std::fs::read_to_string(root().join("deploy/ceremony.toml")).unwrap();
    std::fs::write(&file, &sample).unwrap();
    tokens(folder.path());
    let plain = std::fs::read_to_string(&file).unwrap();
    let marked = plain.replace("# test_ca = true", "test_ca = true");
    assert_ne!(marked, plain);
    let ceremony = |json: &[&str]| {
        let mut command = Command::new(ours("chancery"));
        command.args(["ceremony", "run", "ceremony.toml"]).args(json).current_dir(folder.path());
        command
    };
    let said = |command: &mut Command| String::from_utf8(succeed(command).stdout).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let is_test_ca = |name: &str| pki::chain::from_pem(&read(name)).unwrap()[0].is_test_ca();

    assert!(!said(&mut ceremony(&[])).contains("test CA"));
    assert!(!read("ca/transcript.jsonl").contains("test_ca"));
    assert!(!is_test_ca("ca/root-x1.pem") && !is_test_ca("ca/tls-e1.pem"));
    // The certificates that are there stay what they are.
    std::fs::write(&file, &marked).unwrap();
    let refused = ceremony(&[]).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("begun with another ceremony file"));

    std::fs::write(&file, marked.replace("output = \"ca\"", "output = \"test-ca\"")).unwrap();
    assert!(said(&mut ceremony(&[])).contains("This is a test CA"));
    let again: serde_json::Value = serde_json::from_str(&said(&mut ceremony(&["--json"]))).unwrap();
    assert!(again["test_ca"] == true && again["signed"] == 0, "{again}");
    assert!(read("test-ca/transcript.jsonl").contains("\"test_ca\":true"));
    assert!(is_test_ca("test-ca/root-x1.pem") && is_test_ca("test-ca/tls-e1.pem"));
    assert!(!is_test_ca("test-ca/node-ca.pem"));
    let shown = succeed(
        Command::new("openssl")
            .args(["x509", "-noout", "-text", "-in", "test-ca/tls-e1.pem"])
            .current_dir(folder.path()),
    );
    assert!(
        String::from_utf8(shown.stdout)
            .unwrap()
            .contains("1.2.840.113556.1.8000.2554.8159.42.15363.17507.42332.4744162.16393338")
    );
}

/// The signer's `--check` holds directories to the marks of their issuers.
#[test]
fn a_policy_is_checked_against_the_marks_of_its_issuers() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ceremony.toml", "signer.toml", "policy.toml"] {
        std::fs::copy(root().join("deploy").join(name), folder.path().join(name)).unwrap();
    }
    tokens(folder.path());
    succeed(
        Command::new(ours("chancery")).args(["ceremony", "run", "ceremony.toml"]).current_dir(folder.path()),
    );
    let file = folder.path().join("policy.toml");
    let policy = std::fs::read_to_string(&file).unwrap();
    let name = "name = \"open\"\n";
    assert!(policy.contains(name));
    std::fs::write(&file, policy.replace(name, &format!("{name}always_valid = true\n"))).unwrap();
    let mut check = Command::new(ours("chancery"));
    let output = check
        .args(["signer", "--config", "signer.toml", "--check"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("directory \"open\" has always_valid, but the certificate of issuer \"tls-e1\""),
        "{said}"
    );
}

#[test]
fn a_misspelt_key_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("front.toml");
    let text = std::fs::read_to_string(root().join("deploy/front.toml")).unwrap();
    std::fs::write(&file, text.replace("base_urls", "base_url")).unwrap();
    let output =
        Command::new(ours("chancery")).args(["front", "--check", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("line 4") && said.contains("base_url"), "{said}");
}

/// Two SoftHSM tokens with the samples' labels, and their PINs in the samples' files.
fn tokens(folder: &Path) {
    let conf = folder.join("softhsm2.conf");
    let store = folder.join("tokens");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(&conf, format!("directories.tokendir = {}\nlog.level = ERROR\n", store.display()))
        .unwrap();
    for label in ["root", "signer"] {
        let mut command = Command::new("softhsm2-util");
        command.args(["--init-token", "--free", "--label", &format!("example-{label}")]);
        succeed(command.args(["--pin", "1234", "--so-pin", "12345678"]).env("SOFTHSM2_CONF", &conf));
        let pin = folder.join(format!("{label}.pin"));
        std::fs::write(&pin, "1234\n").unwrap();
        succeed(Command::new("chmod").arg("600").arg(&pin));
    }
    // The one thing that the samples cannot know: where this test's tokens are.
    let file = folder.join("ceremony.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let environment = format!("environment = {{ SOFTHSM2_CONF = {:?} }}\n", conf.display().to_string());
    let text = ["root", "signer"].iter().fold(text, |text, label| {
        let line = format!("pin_file = \"{label}.pin\"\n");
        text.replace(&line, &format!("{line}{environment}"))
    });
    std::fs::write(&file, text).unwrap();
}
