//! The bytes of a CRL: entries once out of the database, or of the CRL before, into a file, then the TBSCertList around them, whose header says
//! how long they are.

use std::io::{self, Write};
use std::sync::Arc;

use ca_store::CrlRow;
use pki::crl::{CrlParameters, CrlScope, CrlTotals, CrlWriter};
use pki::{Issuer, SignatureAlgorithm, lint};

use super::CrlMaker;
use super::pieces::Pieces;
use super::spool::{self, Draft, Listed, Written, blocking};
use crate::journal::CrlDigester;
use crate::refusal::{Failure, Outcome};
use crate::registry::IssuerEntry;

/// Keys that sign messages take the whole list into the token's session: more than this would be refused there.
const MESSAGE_CAP: u64 = 4 << 20;
/// Lists up to this length are linted whole: some 400,000 entries.
const LINT_CAP: u64 = 16 << 20;

impl CrlMaker {
    /// The to-be-signed bytes, into a file; memory stays flat.
    pub(super) async fn write(&self, entry: &Arc<IssuerEntry>, row: &CrlRow) -> Outcome<Written> {
        let (mut listing, mut pieces) = match self.copied(row).await? {
            Some(begun) => begun,
            None => (self.spool.listing(&row.key, row.this_update).await?, Pieces::of(&self.ca.store, row)),
        };
        while let Some(piece) = pieces.next().await? {
            listing = blocking(move || {
                listing.add(&piece)?;
                Ok(listing)
            })
            .await?;
        }
        let clamped = pieces.clamped();
        let (entry, row, spool) = (Arc::clone(entry), row.clone(), Arc::clone(&self.spool));
        blocking(move || {
            let listed = listing.close(clamped)?;
            let parameters = parameters(&entry.issuer, &row);
            let tbs_len =
                CrlWriter::start(&parameters, listed.totals, io::sink()).map_err(unmakeable)?.tbs_len();
            let algorithm = entry.issuer.signature();
            if algorithm == SignatureAlgorithm::Ed25519 && tbs_len > MESSAGE_CAP {
                let detail =
                    "the CRL is longer than a key that signs messages takes; give the issuer more shards";
                return Err(Failure::Unmakeable { detail: detail.to_owned() });
            }
            let draft = spool.draft(&row.key, spool::expected_prefix(tbs_len, algorithm))?;
            let both = Both { draft, digester: CrlDigester::new(algorithm) };
            let mut writer = CrlWriter::start(&parameters, listed.totals, both).map_err(unmakeable)?;
            writer.entries_from(&listed.file).map_err(unmakeable)?;
            let (Both { draft, digester }, tbs) = writer.finish().map_err(unmakeable)?;
            Ok(Written { draft, tbs, digester, listed })
        })
        .await
    }

    /// An independent parse of the very bytes, before they are journaled. Of a list that is too long to be held in memory: of
    /// one that is the same but for its entries, of which some from its beginning, middle and end are left.
    pub(super) async fn lint(
        &self,
        entry: &Arc<IssuerEntry>,
        row: &CrlRow,
        previous_number: Option<u64>,
        mut written: Written,
    ) -> Outcome<Written> {
        let (entry, row) = (Arc::clone(entry), row.clone());
        blocking(move || {
            let bytes = if written.tbs.len <= LINT_CAP {
                written.draft.read(&written.tbs)?
            } else {
                sample(&entry.issuer, &row, &mut written.listed)?
            };
            let url = entry.issuer.crl_url(row.key.shard.shard);
            let delta_url = entry.issuer.delta_crl_url(row.key.shard.shard);
            let findings = lint::check_crl(
                &bytes,
                &lint::CrlLintContext {
                    issuer: entry.issuer.certificate(),
                    signed_at: row.this_update,
                    url: url.as_deref(),
                    delta_url: delta_url.as_deref(),
                    previous_number,
                    publicly_trusted: false,
                },
            );
            if lint::stops(&findings) {
                let said: Vec<_> = findings.iter().map(|found| found.lint).collect();
                return Err(Failure::Unmakeable { detail: format!("CRL: {}", said.join(", ")) });
            }
            Ok(written)
        })
        .await
    }
}

/// A TBSCertList with some of the entries.
fn sample(issuer: &Issuer, row: &CrlRow, listed: &mut Listed) -> Outcome<Vec<u8>> {
    let (octets, totals): (_, CrlTotals) = listed.sample()?;
    let mut writer = CrlWriter::start(&parameters(issuer, row), totals, Vec::new()).map_err(unmakeable)?;
    writer.entries_from(octets.as_slice()).map_err(unmakeable)?;
    Ok(writer.finish().map_err(unmakeable)?.0)
}

/// The file and the digests at once.
struct Both {
    draft: Draft,
    digester: CrlDigester,
}

impl Write for Both {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.draft.write_all(octets)?;
        self.digester.write_all(octets)?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()
    }
}

fn parameters<'a>(issuer: &'a Issuer, row: &CrlRow) -> CrlParameters<'a> {
    CrlParameters {
        issuer,
        number: row.key.number,
        this_update: row.this_update,
        next_update: row.next_update,
        scope: CrlScope::Shard(row.key.shard.shard),
        delta_base: row.base,
    }
}

pub(super) fn unmakeable(error: pki::crl::CrlError) -> Failure {
    match error {
        pki::crl::CrlError::Io(error) => Failure::Spool { path: "crl".to_owned(), detail: error.to_string() },
        error => Failure::Unmakeable { detail: error.to_string() },
    }
}
