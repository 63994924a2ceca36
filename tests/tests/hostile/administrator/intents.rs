//! Intents that want to be taken over: the row of a certificate that nobody asked for, lease run out.

use std::time::{Duration, Instant};

use rpc::proto::signer::v1 as wire;

use crate::front::scene::Scene;
use crate::support::Database;

/// What takes orphans over looks every ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Intents {
    /// Serials of the rows, hexadecimal.
    serials: Vec<String>,
    statements: Vec<String>,
}

/// Statements for intents that no signer made, and a certificate that nobody touches.
pub(super) async fn prepare(scene: &mut Scene, database: &Database) -> (Intents, wire::IssueRequest) {
    let client = scene.client().await;
    let ready = scene.ready(&client, &["untouched.victim.test"]).await;
    let untouched = ready.finalized_by(&client);
    scene.issue(untouched.clone()).await.expect("a certificate");
    let model = format!("FROM journal WHERE order_id = '{}'", ready.order);
    let tbs = database.texts(format!("SELECT hex(tbs) {model}")).await.remove(0).to_lowercase();
    // The name in the bytes becomes another of the same length.
    let (from, to) = (hex::encode("untouched.victim.test"), hex::encode("www.thegreatbank.test"));
    let forged = tbs.replace(&from, &to);
    assert_ne!(tbs, forged, "the name is in the bytes");
    let mut intents = Intents { serials: Vec::new(), statements: Vec::new() };
    // Of a client, of the CA's own servers, and of a node: each door has its own key.
    for (at, (kind, issuer)) in
        [("final", "issuer"), ("server", "issuer"), ("node", "'node-ca'")].iter().enumerate()
    {
        let serial = format!("{:02x}{}", at + 1, "5a".repeat(15));
        intents.statements.push(format!(
            "INSERT INTO journal (serial, kind, order_id, new_order, directory, account, issuer, profile, shard, \
             spki_sha256, csr_sha256, not_before, not_after, tbs, created_at, signature, signed_at, abandoned_at, \
             mac_version, mac, owner, lease_until_ms, name_count, counted) SELECT x'{serial}', '{kind}', order_id || '{at}', \
             randomblob(32), directory, account, {issuer}, profile, shard, spki_sha256, csr_sha256, not_before, \
             not_after, x'{forged}', created_at, NULL, NULL, NULL, mac_version, mac, 1, 0, 0, 1 {model}"
        ));
        intents.serials.push(serial);
    }
    // A certificate that is signed already, as if it were not: other bytes under a genuine serial.
    let ready = scene.ready(&client, &["reopened.victim.test"]).await;
    scene.issue(ready.finalized_by(&client)).await.expect("a certificate");
    let row = format!("order_id = '{}'", ready.order);
    let sql = format!("SELECT lower(hex(serial)) FROM journal WHERE {row}");
    intents.serials.push(database.texts(sql).await.remove(0));
    intents.statements.push(format!(
        "UPDATE journal SET tbs = x'{forged}', signature = NULL, signed_at = NULL, owner = 1, lease_until_ms = 0 \
         WHERE {row}"
    ));
    (intents, untouched)
}

impl Intents {
    pub(super) async fn write(&self, database: &Database) {
        for sql in &self.statements {
            assert_eq!(database.run(sql.clone()).await, 1, "{sql}");
        }
    }

    /// None is signed, and each is in the audit trail.
    pub(super) async fn judge(&self, scene: &mut Scene, database: &Database) -> Vec<String> {
        let started = Instant::now();
        let mut faults = Vec::new();
        loop {
            let reported = database.audited("row.tampered").await;
            let missing =
                self.serials.iter().filter(|serial| !reported.iter().any(|row| row.starts_with(*serial)));
            let missing: Vec<_> = missing.collect();
            if missing.is_empty() {
                break;
            }
            if started.elapsed() > PATIENCE {
                faults.push(format!("intents {missing:?} are not in the audit trail: {reported:?}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for serial in &self.serials {
            let sql =
                format!("SELECT count(*) FROM journal WHERE serial = x'{serial}' AND signature IS NULL");
            if database.number(sql).await != 1 {
                faults.push(format!("INTENT {serial} WAS SIGNED"));
            }
        }
        if scene.system.logged().contains("takeover.failed") {
            faults.push("a takeover failed otherwise".to_owned());
        }
        faults
    }
}
