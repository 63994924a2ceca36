//! The operators' commands, as a person types them.

use std::path::PathBuf;
use std::process::Command;

use e2e::program::{free_port, ours, run, succeed};
use e2e::{Demo, client, oracle};
use serde_json::Value;

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&succeed(command.arg("--json")).stdout).expect("one JSON object")
}

fn text(object: &Value, member: &str) -> String {
    object[member].as_str().unwrap_or_else(|| panic!("no {member} in {object}")).to_owned()
}

#[test]
fn a_registration_with_grants_and_an_eab_key_gets_its_names_without_a_challenge() {
    let mut demo = Demo::start();
    let registration =
        json(demo.operator().args(["registration", "create", "payments", "--directory", "managed"]));
    let id = text(&registration, "id");
    for (name, kind) in [("pay.test", "--exact"), ("wild.test", "--wildcard"), ("tree.test", "--subtree")] {
        json(demo.operator().args(["grant", "add", name, kind, "--registration", &id]));
    }
    let listed = json(demo.operator().args(["grant", "list", "--registration", &id]));
    assert_eq!(listed["items"].as_array().unwrap().len(), 3, "{listed}");

    let key = json(demo.operator().args(["eab", "create", "--registration", &id]));
    demo.facts.eab_kid = text(&key, "kid");
    demo.facts.eab_hmac_key = text(&key, "hmac_key");
    let folder = demo.client_folder("lego");
    let crl = oracle::crl_to_pem(&demo.crl(), &folder, "crl");
    // One client, one account: the key has one use. Nothing answers a challenge at this port.
    for name in ["pay.test", "deep.below.tree.test"] {
        let chain = client::lego(&demo, &folder, name, true, free_port());
        oracle::openssl_verifies(&chain, &demo.facts.root, &crl);
    }
    let another = demo.client_folder("another");
    let refused = run(&mut client::lego_command(&demo, &another, "pay.test", true, free_port()));
    assert!(!refused.status.success(), "an EAB key of one use registered a second account");

    // A grant that was taken back grants nothing.
    let grant = listed["items"].as_array().unwrap().iter().find(|row| row["value"] == "pay.test").unwrap();
    json(demo.operator().args(["grant", "remove", &text(grant, "id")]));
    let renewed = run(&mut client::lego_command(&demo, &folder, "pay.test", true, free_port()));
    assert!(!renewed.status.success(), "a grant that was taken back still grants");
}

#[test]
fn a_node_joins_once_and_is_revoked() {
    let demo = Demo::start();
    let token = json(demo.operator().args(["node", "token", "--role", "status", "--name", "second"]));
    let token = text(&token, "token");
    let address = demo.said("nodes join at");
    let join = |folder: PathBuf| {
        let mut command = Command::new(ours("chancery"));
        command.args(["node", "join", &token, "--signer", &address, "--folder"]).arg(folder);
        command
    };
    let first = demo.client_folder("node");
    succeed(&mut join(first.clone()));
    for (file, mode) in [("node.pem", None), ("node-ca.pem", None), ("node.key", Some(0o600))] {
        let found = std::fs::metadata(first.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        if let Some(mode) = mode {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
        }
    }
    let again = run(&mut join(demo.client_folder("thief")));
    assert!(!again.status.success(), "a token was used twice");

    // Its certificate is a status node's: an operator's commands are not for it.
    let operator = first.join("operator.toml");
    let addresses = std::fs::read_to_string(demo.state().join("operator.toml")).unwrap();
    let signer = addresses.lines().find(|line| line.starts_with("addresses")).unwrap();
    std::fs::write(
        &operator,
        format!(
            "version = 1\n[signer]\n{signer}\n[node]\ncertificate = \"node.pem\"\nkey = \"node.key\"\n\
             authority = \"node-ca.pem\"\n"
        ),
    )
    .unwrap();
    let denied = run(Command::new(ours("chancery")).args(["node", "list", "--operator"]).arg(&operator));
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(!denied.status.success() && said.contains("role"), "{said}");

    json(demo.operator().args(["node", "revoke", "status", "second"]));
    let listed = json(demo.operator().args(["node", "list"]));
    let row = listed["items"].as_array().unwrap().iter().find(|row| row["name"] == "second").unwrap();
    assert_eq!(row["state"], "revoked", "{listed}");
}
