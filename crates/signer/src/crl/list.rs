//! The CRLs that are published, for operators.

use ca_store::{CrlRow, CrlShardRow};
use pki::Timestamp;
use pki::crl::Crl;

use super::due::Kind;
use crate::ca::Ca;
use crate::refusal::Outcome;

/// A published CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlState {
    /// Id of the issuer, or name of the root.
    pub authority: String,
    /// Shard.
    pub shard: u32,
    /// `complete`, `delta` or `imported`.
    pub kind: &'static str,
    /// Where status nodes serve it.
    pub path: String,
    /// Its number.
    pub number: u64,
    /// Of a delta the number of its base.
    pub base: Option<u64>,
    /// Revocations up to this revision are in it.
    pub revision: u64,
    /// The revision of the shard now.
    pub shard_revision: u64,
    /// Its entries.
    pub entries: u64,
    /// thisUpdate.
    pub this_update: Timestamp,
    /// nextUpdate.
    pub next_update: Timestamp,
}

impl Ca {
    /// The published CRLs of the policy's issuers and roots.
    ///
    /// # Errors
    /// By the store.
    pub async fn list_crls(&self) -> Outcome<Vec<CrlState>> {
        let rows = self.store.crl_shards(None).await?;
        let mut list: Vec<CrlState> = rows.iter().flat_map(|row| self.of_shard(row)).collect();
        let imported = self.store.imported_crls().await?;
        for root in self.registry.roots() {
            let authority = hex::encode(root.certificate.key_id().unwrap_or_default());
            let row = imported.iter().find(|row| row.authority == authority);
            let file = root.crl.as_deref().and_then(|der| Crl::from_der(der).ok());
            let row = row.and_then(|row| Crl::from_der(&row.der).ok());
            let Some(crl) = row.into_iter().chain(file).max_by_key(Crl::number) else { continue };
            list.push(CrlState {
                authority: root.name.clone(),
                shard: 0,
                kind: "imported",
                path: root.crl_path(),
                number: crl.number(),
                base: None,
                revision: 0,
                shard_revision: 0,
                entries: crl.entry_count(),
                this_update: crl.this_update(),
                next_update: crl.next_update(),
            });
        }
        Ok(list)
    }

    fn of_shard(&self, row: &CrlShardRow) -> Vec<CrlState> {
        let Some(entry) = self.registry.issuer(&row.shard.issuer) else { return Vec::new() };
        let state = |crl: &CrlRow| CrlState {
            authority: entry.id.clone(),
            shard: row.shard.shard,
            kind: Kind::of(crl).as_str(),
            path: Kind::of(crl).path(entry, row.shard.shard),
            number: crl.key.number,
            base: crl.base,
            revision: crl.revision,
            shard_revision: row.revision,
            entries: crl.entries,
            this_update: crl.this_update,
            next_update: crl.next_update,
        };
        let delta = row.published_delta.iter().filter(|_| entry.deltas.is_some());
        row.published.iter().chain(delta).map(state).collect()
    }
}
