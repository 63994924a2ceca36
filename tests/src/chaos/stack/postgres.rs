//! The demo's CA on PostgreSQL: schemas, nodes, registration and grant, made by the operator's own commands.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use testkit::Cluster;

use super::{GRANTED, arm_file, listen};
use crate::program::{ours, run, succeed};

/// What was made.
pub(super) struct Made {
    /// Key id and MAC key, for very many accounts.
    pub(super) eab: (String, String),
    /// The second signer's socket.
    pub(super) second: Option<TcpListener>,
}

/// Schemas, roles that may log in, and the programs' configurations.
pub(super) fn configure(state: &Path, cluster: &Cluster) -> anyhow::Result<()> {
    succeed(Command::new(ours("chancery")).args(["database", "migrate", "--url", &cluster.owner_url()]));
    cluster.sql("postgres", "CREATE ROLE chaos_signer LOGIN IN ROLE chancery_signer");
    cluster.sql("postgres", "CREATE ROLE chaos_front LOGIN IN ROLE chancery_front");
    // What is killed here is never the server: whether it flushes makes no difference.
    for (file, old, role, more) in [
        ("signer.toml", "sqlite = \"signer/ca.db\"", "chaos_signer", "\naccept_lost_commits = true"),
        ("front.toml", "sqlite = \"front/acme.db\"", "chaos_front", ""),
    ] {
        let path = state.join(file);
        let text = std::fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(old), "{file} has no {old}");
        let new = format!("postgres = \"{}\"{more}", cluster.url("postgres", role));
        std::fs::write(path, text.replace(old, &new))?;
    }
    Ok(())
}

/// The nodes join, the registration is made: the new database knows nothing of the demo's.
pub(super) fn populate(
    state: &Path,
    enrollment: SocketAddr,
    authority: &str,
    signers: u8,
    first: SocketAddr,
) -> anyhow::Result<Made> {
    patiently(state, &["overview"])?;
    for (role, name, folder) in [
        ("validator", "validator-1", "validator"),
        ("front", "front-1", "front"),
        ("status", "status-1", "status"),
        ("signer", "signer-2", "signer-2"),
    ] {
        if role == "signer" && signers < 2 {
            continue;
        }
        join(state, enrollment, authority, (role, name, &state.join(folder)))?;
    }
    let registration =
        text(&operator(state, &["registration", "create", "--directory", "managed", "chaos"])?, "id")?;
    operator(state, &["grant", "add", "--registration", &registration, "--subtree", GRANTED])?;
    let key = operator(state, &["eab", "create", "--registration", &registration, "--uses", "1000000"])?;
    let eab = (text(&key, "kid")?, text(&key, "hmac_key")?);
    let second = if signers < 2 { None } else { Some(second_signer(state, first)?) };
    Ok(Made { eab, second })
}

fn join(
    state: &Path,
    enrollment: SocketAddr,
    authority: &str,
    (role, name, folder): (&str, &str, &Path),
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for file in ["node.pem", "node.key", "node-ca.pem", "receipt.key"] {
        let _ = std::fs::remove_file(folder.join(file));
    }
    let mut arguments = vec!["node", "token", "--role", role, "--name", name];
    if role == "front" {
        arguments.extend(["--server-name", authority, "--server-name", "localhost"]);
    }
    let token = text(&operator(state, &arguments)?, "token")?;
    let mut command = Command::new(ours("chancery"));
    command.args(["node", "join", "--signer", &enrollment.to_string(), "--folder"]).arg(folder);
    if role == "validator" {
        command.args(["--receipt-key", name]);
    }
    succeed(command.arg(token));
    Ok(())
}

/// Its configuration, and its address in everybody else's.
fn second_signer(state: &Path, first: SocketAddr) -> anyhow::Result<TcpListener> {
    let (socket, address) = listen(0)?;
    let text = std::fs::read_to_string(state.join("signer.toml"))?;
    let (before, after) = (arm_file(state, "signer"), arm_file(state, "signer-2"));
    let text = text
        .replace("enrollment_listen = \"inherited:1\"\n", "")
        .replace("state = \"signer\"", "state = \"signer-2\"")
        .replace("ca/signer-signer-1.pem", "signer-2/node.pem")
        .replace("ca/signer-signer-1.key", "signer-2/node.key")
        .replace(&before.display().to_string(), &after.display().to_string());
    std::fs::write(state.join("signer-2.toml"), text)?;
    for file in ["front.toml", "validator.toml", "status.toml", "operator.toml"] {
        let path = state.join(file);
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(path, text.replace(&format!("\"{first}\""), &format!("\"{first}\", \"{address}\"")))?;
    }
    Ok(socket)
}

fn operator(state: &Path, arguments: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new(ours("chancery"));
    command.args(arguments).arg("--json").env("CHANCERY_OPERATOR", state.join("operator.toml"));
    Ok(serde_json::from_slice(&succeed(&mut command).stdout)?)
}

fn patiently(state: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let mut command = Command::new(ours("chancery"));
        let output =
            run(command.args(arguments).arg("--json").env("CHANCERY_OPERATOR", state.join("operator.toml")));
        // The node CA's key is in the token, whose worker takes a moment more.
        if output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"healthy\":true") {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "the signer: {output:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn text(object: &Value, member: &str) -> anyhow::Result<String> {
    Ok(object[member].as_str().with_context(|| format!("no {member} in {object}"))?.to_owned())
}
