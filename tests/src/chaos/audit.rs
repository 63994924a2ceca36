//! Looks whether anything was lost, doubled or stuck: by SQL of its own, which shares nothing with the programs but the
//! tables, and by what the clients hold. While the clients pause and every process is left alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use pki::{Serial, Tbs};

use super::client::Got;
use super::http;
use super::ledger::{Database, Ledger};
use super::load::Held;
use super::relying::Relying;
use super::stack::Stack;

/// What an audit remembers until the next one.
#[derive(Debug, Default)]
pub struct Auditor {
    /// The last entry of the journal that was looked at.
    entry: i64,
    /// The highest CRL number that was served.
    crl: [u64; 2],
    /// Audits made.
    pub audits: u64,
}

/// How long what was interrupted may take to be brought to its end by those who live.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a revocation may take into the CRL that is served.
const CRL_PATIENCE: Duration = Duration::from_secs(30);

/// Groups that must have one member. `abandoned_at`: what was given up is no certificate.
const UNIQUE: &[(&str, &str)] = &[
    (
        "two certificates of one order",
        "SELECT order_id, CAST(COUNT(*) AS TEXT) FROM journal WHERE order_id IS NOT NULL AND abandoned_at IS NULL
         GROUP BY order_id, kind HAVING COUNT(*) > 1",
    ),
    (
        "two certificates of one newOrder",
        "SELECT hex(new_order), CAST(COUNT(*) AS TEXT) FROM journal WHERE new_order IS NOT NULL AND abandoned_at IS NULL
         GROUP BY new_order, kind HAVING COUNT(*) > 1",
    ),
    ("a serial twice", "SELECT hex(serial), CAST(COUNT(*) AS TEXT) FROM journal GROUP BY serial, kind HAVING COUNT(*) > 1"),
    (
        "a gap in the audit of one life of a signer",
        "SELECT CAST(incarnation AS TEXT), CAST(MAX(sequence) - COUNT(*) AS TEXT) FROM audit
         GROUP BY incarnation HAVING MAX(sequence) - MIN(sequence) + 1 <> COUNT(*)",
    ),
    (
        "a CRL whose thisUpdate is not after that of the number before",
        "SELECT a.issuer || '/' || a.shard || ' ' || a.number, CAST(b.number AS TEXT) FROM crls a JOIN crls b
         ON a.issuer = b.issuer AND a.shard = b.shard AND a.number < b.number
         WHERE a.signature IS NOT NULL AND b.signature IS NOT NULL
         AND (a.this_update >= b.this_update OR a.revision > b.revision)",
    ),
    (
        "a CRL number that was not given out",
        "SELECT c.issuer || '/' || c.shard, CAST(c.number AS TEXT) FROM crls c JOIN crl_shards s
         ON c.issuer = s.issuer AND c.shard = s.shard WHERE c.number > s.number",
    ),
];

impl Auditor {
    /// Everything that is wrong, in words.
    ///
    /// # Errors
    ///
    /// When it could not look.
    pub async fn audit(&mut self, stack: &Stack, held: &mut Held) -> anyhow::Result<Vec<String>> {
        let mut faults = Vec::new();
        let mut ca = stack.database.ca().await?;
        let mut acme = stack.database.acme().await?;
        self.audits += 1;
        faults.extend(
            ends(
                &mut ca,
                "intents that nobody signs",
                "signature IS NULL AND abandoned_at IS NULL",
                "journal",
            )
            .await?,
        );
        faults.extend(
            ends(&mut acme, "orders that stay in processing", "status = 'processing'", "orders").await?,
        );
        for (what, query) in UNIQUE {
            faults.extend(ca.rows(query).await?.iter().map(|row| format!("{what}: {}", row.join(" "))));
        }
        let journaled = self.journaled(&mut ca).await?;
        faults.extend(compare(&journaled, held));
        faults.extend(orders(&mut acme, &held.fresh).await?);
        faults.extend(self.crl(stack, held).await?);
        faults.extend(Relying::of(&stack.facts)?.audit(held).await?);
        for got in held.fresh.drain(..) {
            held.audited.insert(got.serial, sha256(&got.certificate));
        }
        ca.close().await?;
        acme.close().await?;
        Ok(faults)
    }

    /// The databases are whole. Slow: for the end.
    ///
    /// # Errors
    ///
    /// When it could not look.
    pub async fn integrity(&self, stack: &Stack) -> anyhow::Result<Vec<String>> {
        let mut faults = Vec::new();
        // A PostgreSQL server was not killed, and its files are its own affair.
        if let Database::Sqlite { .. } = stack.database {
            for mut ledger in [stack.database.ca().await?, stack.database.acme().await?] {
                for row in ledger.rows("SELECT integrity_check FROM pragma_integrity_check").await? {
                    faults.extend(row.into_iter().filter(|said| said != "ok"));
                }
                for row in ledger.rows("SELECT \"table\" FROM pragma_foreign_key_check").await? {
                    faults.push(format!("a reference of {} leads nowhere", row.concat()));
                }
            }
        }
        Ok(faults)
    }

    /// Signed clients' certificates of the journal that are new since the last audit: by serial, with their order.
    async fn journaled(&mut self, ca: &mut Ledger) -> anyhow::Result<HashMap<Vec<u8>, (String, Vec<u8>)>> {
        let query = format!(
            "SELECT CAST(id AS TEXT), hex(serial), order_id, hex(tbs), hex(signature) FROM journal
             WHERE id > {} AND kind = 'final' AND signature IS NOT NULL ORDER BY journal.id",
            self.entry
        );
        let mut found = HashMap::new();
        for row in ca.rows(&query).await? {
            let [id, serial, order, tbs, signature] = &row[..] else { anyhow::bail!("five columns") };
            self.entry = id.parse()?;
            let tbs = Tbs::from_der(&hex::decode(tbs)?)
                .map_err(|error| anyhow::anyhow!("a journaled TBS: {error}"))?;
            let certificate = pki::assemble(&tbs, &hex::decode(signature)?);
            found.insert(hex::decode(serial)?, (order.clone(), certificate));
        }
        Ok(found)
    }

    /// The CRLs that are served, and published to a folder: their numbers never fall, and every revocation comes into them.
    async fn crl(&mut self, stack: &Stack, held: &Held) -> anyhow::Result<Vec<String>> {
        let issuer = pki::chain::from_pem(&std::fs::read_to_string(&stack.facts.issuer)?)?;
        let issuer = issuer.first().context("no issuer")?;
        let published = stack.published(&stack.facts.crl)?;
        let mut found = Vec::new();
        let end = Instant::now() + CRL_PATIENCE;
        for place in 0..self.crl.len() {
            loop {
                let der = match place {
                    0 => http::get(&stack.facts.crl).await,
                    _ => std::fs::read(&published).map_err(Into::into),
                };
                match self.judge(place, der, issuer, held) {
                    Ok(()) => break,
                    Err(Fault { mends: true, .. }) if Instant::now() < end => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(fault) => {
                        found.push(fault.detail);
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// A CRL as it is at one of the places.
    fn judge(
        &mut self,
        place: usize,
        der: anyhow::Result<Vec<u8>>,
        issuer: &pki::Certificate,
        held: &Held,
    ) -> Result<(), Fault> {
        let wrong = |detail: String| Fault { detail: format!("{}: {detail}", PLACES[place]), mends: false };
        let missing = |detail: String| Fault { mends: true, ..wrong(detail) };
        let der = der.map_err(|error| missing(format!("there is no CRL: {error:#}")))?;
        let crl = pki::crl::Crl::from_der(&der).map_err(|error| wrong(format!("no CRL: {error}")))?;
        crl.verify_issued_by(issuer)
            .map_err(|error| wrong(format!("a CRL that the issuer has not signed: {error}")))?;
        let number = crl.number();
        if number < self.crl[place] {
            return Err(wrong(format!("CRL {number} after {}", self.crl[place])));
        }
        self.crl[place] = number;
        let listed: std::collections::HashSet<Vec<u8>> =
            crl.entries().filter_map(Result::ok).map(|entry| entry.serial.as_bytes().to_vec()).collect();
        match held.revoked.iter().filter(|serial| !listed.contains(*serial)).count() {
            0 => Ok(()),
            lost => Err(missing(format!("{lost} revocations are not in CRL {number}"))),
        }
    }
}

/// Where CRLs are looked at.
const PLACES: [&str; 2] = ["served", "published"];

struct Fault {
    detail: String,
    /// Whether it may be right a moment later.
    mends: bool,
}

/// No certificate outside the journal, and none in it that its client has not got.
fn compare(journaled: &HashMap<Vec<u8>, (String, Vec<u8>)>, held: &Held) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen = HashMap::new();
    for got in &held.fresh {
        let serial = hex::encode(&got.serial);
        if held.audited.contains_key(&got.serial) || seen.insert(&got.serial, &got.order).is_some() {
            faults.push(format!("{serial} was delivered twice"));
        }
        match journaled.get(&got.serial) {
            None => faults.push(format!("{serial} was delivered and is not in the journal")),
            Some((order, _)) if *order != got.order => {
                faults.push(format!("{serial} was delivered for {} and journaled for {order}", got.order));
            }
            Some((_, certificate)) if *certificate != got.certificate => {
                faults.push(format!("{serial} was delivered with other bytes than the journal's"));
            }
            Some(_) => {}
        }
    }
    for (serial, (order, _)) in journaled {
        if !seen.contains_key(serial) {
            faults
                .push(format!("{} of {order} is in the journal and was not delivered", hex::encode(serial)));
        }
    }
    faults
}

/// The fronts' database says of each order what the signers' does.
async fn orders(acme: &mut Ledger, fresh: &[Got]) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for got in fresh {
        // An id is base64url: nothing to escape.
        let query = format!("SELECT status, COALESCE(state, '') FROM orders WHERE id = '{}'", got.order);
        let row = acme.rows(&query).await?.pop().unwrap_or_default().join(" ");
        let serial = Serial::from_bytes(&got.serial).map(|serial| serial.to_string()).unwrap_or_default();
        if !row.starts_with("valid ") || !row.contains(&serial) {
            faults.push(format!("{} is {row:?}, its certificate {serial}", got.order));
        }
    }
    Ok(faults)
}

/// Waits until no row is left of which this holds.
async fn ends(ledger: &mut Ledger, what: &str, condition: &str, table: &str) -> anyhow::Result<Vec<String>> {
    let end = Instant::now() + PATIENCE;
    let query = format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table} WHERE {condition}");
    loop {
        let left = ledger.rows(&query).await?.concat().concat();
        if left == "0" {
            return Ok(Vec::new());
        }
        if Instant::now() > end {
            return Ok(vec![format!("{what}: {left}")]);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
