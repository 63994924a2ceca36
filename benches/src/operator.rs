//! The operator's way to the signer of a demo.

use std::path::Path;

use anyhow::Context;
use rpc::proto::admin::v1::admin_client::AdminClient;
use rpc::{Channel, NodeCredentials, NodeFiles, Role};

/// The demo's operator.
pub type Operator = AdminClient<Channel>;

/// Connects to the signer of the demo in this folder.
///
/// # Errors
///
/// When the folder is no demo's.
pub fn connect(state: &Path) -> anyhow::Result<Operator> {
    let text = std::fs::read_to_string(state.join("operator.toml"))?;
    let address = text
        .lines()
        .find_map(|line| line.strip_prefix("addresses = [\"")?.split('"').next())
        .context("operator.toml names no signer")?;
    let credentials = NodeCredentials::load(NodeFiles {
        certificate: state.join("ca/operator-demo.pem"),
        key: state.join("ca/operator-demo.key"),
        authority: state.join("ca/node-ca.pem"),
    })?;
    Ok(AdminClient::new(Channel::connect_lazy(vec![address.to_owned()], Role::Signer, credentials)?))
}
