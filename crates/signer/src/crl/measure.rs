//! How CRLs are, for those who watch: their age, size and end; an alarm when one should have been made and was not.

use std::collections::BTreeSet;
use std::time::Duration;

use ca_store::{CrlRow, CrlShardRow};
use pki::Timestamp;
use tokio::time::Instant;

use super::due::Kind;
use crate::ca::Ca;
use crate::publication::Objects;
use crate::registry::IssuerEntry;

/// The CRLs of one issuer that are late.
#[derive(Debug, Default)]
pub(super) struct Late(BTreeSet<(u32, Kind)>);

impl Late {
    /// Shows where the published CRLs of an issuer stand. `over`: nothing follows them.
    pub(super) fn look(
        &mut self,
        ca: &Ca,
        objects: &Objects,
        entry: &IssuerEntry,
        rows: &[CrlShardRow],
        over: bool,
    ) {
        let now = ca.clock.reading();
        for row in rows {
            let shard = row.shard.shard;
            let kinds = [Kind::Complete, Kind::Delta];
            for (kind, published) in kinds.into_iter().filter_map(|kind| Some((kind, kind.published(row)?))) {
                if kind == Kind::Delta && entry.deltas.is_none() {
                    continue;
                }
                show(entry, kind, published, objects.size(&kind.path(entry, shard)), now);
                // Half of the time that there is for a failure to pass.
                let (interval, lifetime) = (kind.interval(entry).seconds(), kind.lifetime(entry).seconds());
                let patience = interval + lifetime.saturating_sub(interval) / 2;
                let late = !over && now.since(published.this_update).seconds() > patience;
                if late && self.0.insert((shard, kind)) {
                    let path = kind.path(entry, shard);
                    ca.warn_operators(&format!(
                        "{path} is late: it was made {} ago",
                        now.since(published.this_update)
                    ));
                } else if !late {
                    self.0.remove(&(shard, kind));
                }
            }
        }
        let late = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        metrics::gauge!("chancery_crls_late", "issuer" => entry.id.clone()).set(late);
    }
}

fn show(entry: &IssuerEntry, kind: Kind, row: &CrlRow, size: Option<u64>, now: Timestamp) {
    let labels = [
        ("issuer", entry.id.clone()),
        ("shard", row.key.shard.shard.to_string()),
        ("kind", kind.as_str().to_owned()),
    ];
    let set = |name: &'static str, value: f64| metrics::gauge!(name, &labels).set(value);
    set("chancery_crl_age_seconds", float(now.since(row.this_update).seconds()));
    set("chancery_crl_remaining_seconds", float(row.next_update.since(now).seconds()));
    set("chancery_crl_entries", float(row.entries));
    if let Some(size) = size {
        set("chancery_crl_octets", float(size));
    }
}

/// Gauges are floating-point numbers: exact for anything that there is.
#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// How long a CRL took to make.
pub(super) fn made(kind: Kind, took: Duration) {
    metrics::histogram!("chancery_crl_build_seconds", "kind" => kind.as_str()).record(took.as_secs_f64());
}

/// How long a revocation of this signer waited for its CRL.
pub(super) fn revocation_is_out(since: Instant) {
    metrics::histogram!("chancery_revocation_to_crl_seconds").record(since.elapsed().as_secs_f64());
}
