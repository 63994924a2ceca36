//! An operator's way to a signer: `operator.toml` and the channel made from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rpc::proto::admin::v1::admin_client::AdminClient;
use rpc::{Channel, NodeCredentials, NodeFiles, Role};
use serde::Deserialize;

/// `operator.toml`, `version = 1`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    version: u32,
    signer: Signer,
    node: Node,
}

/// The signers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signer {
    /// `"host:port"` each.
    addresses: Vec<String>,
}

/// The operator's certificate. Its holder can do all that an operator can; each act is audited under its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

/// A connection to a signer's admin service.
pub(crate) type Connection = AdminClient<Channel>;

/// An operator at a signer, with what renews its certificate.
pub(crate) struct Access {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
    pub(crate) credentials: Arc<NodeCredentials>,
}

/// Connects as `file` says.
///
/// # Errors
///
/// As [`access`].
pub(crate) fn connect(file: &Path) -> anyhow::Result<Connection> {
    Ok(access(file)?.connection)
}

/// As [`connect`], with the channel and the certificate.
///
/// # Errors
///
/// When the file or the certificate cannot be read. That no signer answers shows at the first call.
pub(crate) fn access(file: &Path) -> anyhow::Result<Access> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read {}: it says where the signers are and who you are (see docs/operations.md); name another file \
             with --operator or CHANCERY_OPERATOR",
            file.display()
        )
    })?;
    let config: Config =
        toml::from_str(&text).map_err(|error| anyhow::anyhow!("{}:\n{error}", file.display()))?;
    anyhow::ensure!(config.version == 1, "{}: this program reads version = 1", file.display());
    let folder = file.parent().unwrap_or(Path::new("."));
    let credentials = NodeCredentials::load(NodeFiles {
        certificate: folder.join(config.node.certificate),
        key: folder.join(config.node.key),
        authority: folder.join(config.node.authority),
    })?;
    let channel = Channel::connect_lazy(config.signer.addresses, Role::Signer, Arc::clone(&credentials))?;
    Ok(Access { connection: AdminClient::new(channel.clone()), channel, credentials })
}

/// What a refused or failed call means for the person who typed it.
pub(crate) fn explain(status: tonic::Status) -> anyhow::Error {
    let advice = match status.code() {
        tonic::Code::Unavailable => "\nIs the signer running, and are the addresses in operator.toml right?",
        tonic::Code::PermissionDenied => "\nOnly nodes of the role `operator` may do this.",
        tonic::Code::Unauthenticated | tonic::Code::Unknown => {
            "\nThe signer may have refused your certificate: has it expired or been revoked?"
        }
        _ => "",
    };
    anyhow::anyhow!("{}{advice}", status.message())
}
