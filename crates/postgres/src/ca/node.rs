//! Nodes, join tokens, blocked keys, read.

use ca_store::{BlockedAfter, BlockedKeyRow, Digest, JoinTokenRow, NodeRow, NodeState, Sealed};
use sqlx::PgConnection;

use crate::{
    failure::Failure,
    stored::{Table, seconds},
};

const NODES: Table = Table("nodes");
const JOIN_TOKENS: Table = Table("join_tokens");
const BLOCKED_KEYS: Table = Table("blocked_keys");

pub(super) async fn nodes(connection: &mut PgConnection) -> Result<Vec<Sealed<NodeRow>>, Failure> {
    let rows = sqlx::query!(
        "SELECT role, name, settings, receipt_key, server_names, state, created_at, version, mac_version, mac
         FROM nodes ORDER BY role, name"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let node = NodeRow {
                role: row.role,
                name: row.name,
                settings: row.settings,
                receipt_key: row.receipt_key,
                server_names: row.server_names,
                state: NODES.word("state", &row.state, NodeState::from_word)?,
                created_at: NODES.time("created_at", row.created_at)?,
                version: NODES.unsigned("version", row.version)?,
            };
            Ok(Sealed::from_stored(node, NODES.mac(row.mac_version, row.mac)?))
        })
        .collect()
}

pub(super) async fn join_token(
    connection: &mut PgConnection,
    digest: &Digest,
) -> Result<Option<Sealed<JoinTokenRow>>, Failure> {
    let key = digest.as_slice();
    let row = sqlx::query!(
        "SELECT role, name, server_names, settings, expires_at, used_at, created_at, version, mac_version, mac
         FROM join_tokens WHERE digest = $1",
        key
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let token = JoinTokenRow {
            digest: *digest,
            role: row.role,
            name: row.name,
            server_names: row.server_names,
            settings: row.settings,
            expires_at: JOIN_TOKENS.time("expires_at", row.expires_at)?,
            used_at: JOIN_TOKENS.optional_time("used_at", row.used_at)?,
            created_at: JOIN_TOKENS.time("created_at", row.created_at)?,
            version: JOIN_TOKENS.unsigned("version", row.version)?,
        };
        Ok(Sealed::from_stored(token, JOIN_TOKENS.mac(row.mac_version, row.mac)?))
    })
    .transpose()
}

pub(super) async fn blocked_keys(
    connection: &mut PgConnection,
    keys: &[Digest],
) -> Result<Vec<BlockedKeyRow>, Failure> {
    let wanted: Vec<&[u8]> = keys.iter().map(<[u8; 32]>::as_slice).collect();
    let rows = sqlx::query!(
        "SELECT spki_sha256, reason, source, at FROM blocked_keys WHERE spki_sha256 = ANY($1)",
        &wanted as &[&[u8]]
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| blocked_key(row.spki_sha256, row.reason, row.source, row.at)).collect()
}

pub(super) async fn blocked_after(
    connection: &mut PgConnection,
    after: &BlockedAfter,
) -> Result<Vec<BlockedKeyRow>, Failure> {
    let (at, key, limit) = (seconds(after.at), after.key.as_slice(), i64::from(after.limit));
    let rows = sqlx::query!(
        "SELECT spki_sha256, reason, source, at FROM blocked_keys
         WHERE (at, spki_sha256) > ($1, $2) ORDER BY at, spki_sha256 LIMIT $3",
        at,
        key,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| blocked_key(row.spki_sha256, row.reason, row.source, row.at)).collect()
}

fn blocked_key(key: Vec<u8>, reason: String, source: String, at: i64) -> Result<BlockedKeyRow, Failure> {
    Ok(BlockedKeyRow {
        spki_sha256: BLOCKED_KEYS.digest("spki_sha256", key)?,
        reason,
        source,
        at: BLOCKED_KEYS.time("at", at)?,
    })
}
