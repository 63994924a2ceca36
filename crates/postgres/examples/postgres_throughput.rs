//! How many certificates a second the two databases alone can keep, and what each costs them:
//! `cargo run --release -p postgres --example postgres_throughput -- [clients] [certificates]`.
//! The server is one of its own, and flushes every commit.
//!
//! Each client does, one after another, what the path of a certificate asks of the stores (DESIGN
//! §3): order and authorization created, validated, finalized; intent, signature; outcome.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use acme_store::{
    AcmeStore, AuthorizationChange, AuthorizationRow, AuthorizationStatus, Identifier, NewOrder, OrderChange,
    OrderRow, OrderStatus, SaveOutcome, Unit,
};
use ca_store::{
    AccountKeyRow, AccountRow, AccountStatus, AuditEvent, CaStore, Citation, CitedTable, Evidence,
    Incarnation, IntentOutcome, JournalKind, JournalRow, NewAccount, NewIntent, RecordOutcome, RowMacKeys,
    SignedRow,
};
use ca_store::{Serial, Timestamp};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit as Of,
};
use postgres::Options;
use testkit::{Cluster, ClusterSettings};

/// Counts the samples of each database's commits.
#[derive(Default)]
struct Commits {
    ca: Arc<Samples>,
    acme: Arc<Samples>,
}

#[derive(Default)]
struct Samples {
    count: AtomicU64,
    micros: AtomicU64,
}

impl HistogramFn for Samples {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive time")]
    fn record(&self, seconds: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }
}

impl Recorder for Commits {
    fn describe_counter(&self, _: KeyName, _: Option<Of>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Of>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Of>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name() != "chancery_store_commit_seconds" {
            return Histogram::noop();
        }
        let of_ca = key.labels().any(|label| label.value() == "ca");
        Histogram::from_arc(if of_ca { self.ca.clone() } else { self.acme.clone() })
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let clients: u64 = arguments.next().map_or(32, |it| it.parse().unwrap());
    let certificates: u64 = arguments.next().map_or(20_000, |it| it.parse().unwrap());
    let commits = Commits::default();
    let (of_ca, of_acme) = (commits.ca.clone(), commits.acme.clone());
    metrics::set_global_recorder(commits).map_err(|_| ()).unwrap();

    let incarnation = Incarnation { id: [1; 16], node: "bench".to_owned() };
    let settings = ["shared_buffers=256MB", "max_wal_size=4GB"].map(str::to_owned).to_vec();
    let cluster =
        Cluster::start_with(&ClusterSettings { durable: true, settings, ..ClusterSettings::default() });
    let options = Options::from_url(&cluster.owner_url()).unwrap();
    postgres::Ca::migrate(&options).await.unwrap();
    postgres::Acme::migrate(&options).await.unwrap();
    let ca = Arc::new(postgres::Ca::open(options.clone(), incarnation).await.unwrap());
    let acme = Arc::new(postgres::Acme::open(options).await.unwrap());
    let keys = Arc::new(RowMacKeys::new([(1, &[7; 32])]).unwrap());
    for client in 0..clients {
        register(&*ca, &keys, client).await;
    }

    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (ca, acme, keys) = (ca.clone(), acme.clone(), keys.clone());
            tokio::spawn(async move {
                for tag in (client..certificates).step_by(usize::try_from(clients).unwrap()) {
                    certificate(&*ca, &*acme, &keys, client, tag).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let elapsed = begun.elapsed();
    let count = |samples: &Samples| samples.count.load(Ordering::Relaxed);
    let cpu = cpu_ms();
    ca.close().await;
    acme.close().await;
    let size = |schema: &str| -> u64 {
        let sum = format!(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class AS c
             JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.nspname = '{schema}' AND c.relkind = 'r'"
        );
        cluster.sql("postgres", &sum).parse::<u64>().unwrap() / certificates
    };
    println!(
        "{clients} clients: {:.0} certificates/s, {:.2} ms CPU each (both stores and this loop)",
        certificates as f64 / elapsed.as_secs_f64(),
        cpu / certificates as f64
    );
    for (name, samples) in [("ca", &of_ca), ("acme", &of_acme)] {
        println!(
            "{name}: {:.2} commits a certificate, {:.0} µs each; {} bytes kept a certificate",
            count(samples) as f64 / certificates as f64,
            samples.micros.load(Ordering::Relaxed) as f64 / count(samples) as f64,
            size(name)
        );
    }
    let relations = cluster.sql(
        "postgres",
        "SELECT c.relname, pg_relation_size(c.oid) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('ca', 'acme', 'pg_toast') ORDER BY 2 DESC LIMIT 16",
    );
    for (name, size) in relations.lines().filter_map(|line| line.split_once('|')) {
        println!("  {name}: {}", size.parse::<u64>().unwrap() / certificates);
    }
}

/// User and system time of this process.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // In ticks of ten milliseconds.
    fields.iter().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() * 10.0).sum()
}

fn now() -> Timestamp {
    Timestamp::from_unix(1_800_000_000)
}

fn account(client: u64) -> AccountRow {
    AccountRow {
        id: format!("{client:043}"),
        directory: "main".to_owned(),
        status: AccountStatus::Valid,
        contacts: vec![],
        terms_agreed_at: None,
        terms_agreed: None,
        registration: None,
        eab_kid: None,
        key: digest(client),
        created_at: now(),
        version: 1,
    }
}

async fn register(ca: &dyn CaStore, keys: &RowMacKeys, client: u64) {
    let row = account(client);
    let key = AccountKeyRow {
        directory: row.directory.clone(),
        thumbprint: row.key,
        account: row.id.clone(),
        jwk: "{}".to_owned(),
        valid_from: now(),
        valid_until: None,
    };
    let new = NewAccount {
        account: keys.seal(row),
        key: keys.seal(key),
        spki_sha256: digest(client ^ 1 << 42),
        eab: None,
        cites: vec![],
        audit: vec![],
    };
    ca.register_account(new).await.unwrap();
}

/// Sixteen octets that look random.
fn scrambled(tag: u64) -> [u8; 16] {
    let first = (tag ^ 0x9e37_79b9).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let second = (first ^ (first >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (u128::from(first) << 64 | u128::from(second ^ (second >> 29))).to_be_bytes()
}

fn digest(tag: u64) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&scrambled(tag));
    digest[16..].copy_from_slice(&scrambled(!tag));
    digest
}

/// An id as the signers make them: what is alike in many first, sixty characters.
fn id(kind: char, tag: u64) -> String {
    let random: String = digest(tag.rotate_left(8)).iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{kind}{:014x}{}", tag / 1000, &random[..45])
}

fn event(kind: &str, tag: u64) -> AuditEvent {
    AuditEvent {
        at: now(),
        kind: kind.to_owned(),
        actor: format!("{:043}", tag % 32),
        subject: Serial::from_random(scrambled(tag)).to_string(),
        detail: r#"{"directory":"main","issuer":"r1","quorum":{"n.example.org":"1/1"}}"#.to_owned(),
    }
}

async fn certificate(ca: &dyn CaStore, acme: &dyn AcmeStore, keys: &RowMacKeys, client: u64, tag: u64) {
    let jws = "j".repeat(700);
    let receipt = "r".repeat(750);
    let (order, authorization) = (id('o', tag), id('a', tag));
    let state = |more: &str| format!("{{\"names\":[\"n{tag}.example.org\"],\"newOrder\":\"{jws}\"{more}}}");
    order_and_authorization(acme, client, tag, state("")).await;
    let save = async |orders, authorizations| {
        let outcome = acme.save(vec![Unit { orders, authorizations }]).await.unwrap();
        assert_eq!(outcome, [SaveOutcome::Saved]);
    };
    let change = |expected, status, state, lease| OrderChange {
        id: order.clone(),
        expected,
        status,
        state,
        expires_at: now(),
        lease,
    };
    let validated = AuthorizationChange {
        id: authorization,
        expected: 1,
        status: AuthorizationStatus::Valid,
        state: format!("{{\"created_by\":\"{}\",\"receipts\":[\"{receipt}\"]}}", id('c', tag)),
        expires_at: now(),
    };
    save(vec![change(1, OrderStatus::Ready, state(""), None)], vec![validated]).await;
    let finalize = state(&format!(",\"finalize\":\"{jws}{jws}\""));
    let lease = Some(Duration::from_secs(10));
    save(vec![change(2, OrderStatus::Processing, finalize, lease)], vec![]).await;
    issue(ca, keys, client, tag).await;
    let done =
        format!("{{\"names\":[\"n{tag}.example.org\"],\"profile\":\"default\",\"serial\":\"{tag:032x}\"}}");
    save(vec![change(3, OrderStatus::Valid, done, None)], vec![]).await;
}

async fn order_and_authorization(acme: &dyn AcmeStore, client: u64, tag: u64, state: String) {
    let (directory, account) = ("main".to_owned(), account(client).id);
    let authorization = AuthorizationRow {
        id: id('a', tag),
        directory: directory.clone(),
        account: account.clone(),
        identifier: Identifier { value: format!("n{tag}.example.org"), wildcard: false },
        status: AuthorizationStatus::Pending,
        state: "{\"challenges\":[{\"type\":\"http-01\"}]}".to_owned(),
        created_at: now(),
        expires_at: now(),
        version: 1,
    };
    let order = OrderRow {
        id: id('o', tag),
        directory,
        account,
        status: OrderStatus::Pending,
        authorizations: vec![authorization.id.clone()],
        replaces: None,
        state,
        created_at: now(),
        expires_at: now(),
        lease_until_ms: None,
        version: 1,
    };
    acme.create_orders(vec![NewOrder { order, authorizations: vec![authorization], bound: None }])
        .await
        .unwrap();
}

async fn issue(ca: &dyn CaStore, keys: &RowMacKeys, client: u64, tag: u64) {
    let row = JournalRow {
        serial: Serial::from_random(scrambled(tag)),
        kind: JournalKind::Final,
        order: Some(id('o', tag)),
        new_order: Some(digest(tag ^ 1 << 40)),
        directory: Some("main".to_owned()),
        account: Some(account(client).id),
        issuer: "r1".to_owned(),
        profile: "default".to_owned(),
        shard: 3,
        spki_sha256: digest(tag ^ 1 << 41),
        csr_sha256: Some(digest(tag ^ 1 << 42)),
        not_before: now(),
        not_after: Timestamp::from_unix(now().unix() + tag),
        tbs: vec![0x30; 680],
        created_at: now(),
        signature: None,
        signed_at: None,
        abandoned_at: None,
        replaces: None,
        counted: true,
    };
    let cited = keys.seal(account(client));
    let intent = NewIntent {
        row: keys.seal(row.clone()),
        names: vec![format!("n{tag}.example.org")],
        domains: vec!["example.org".to_owned()],
        evidence: Some(Evidence {
            new_order: vec![1; 700],
            finalize: vec![2; 1500],
            receipts: vec![3; 1000],
            lints: vec![4; 100],
        }),
        cites: vec![Citation { table: CitedTable::Account, key: account(client).id, mac: cited.mac().mac }],
        authorizations: vec![id('a', tag)],
        account_key: None,
        past: vec![],
        limits: vec![],
        lease: Duration::from_secs(30),
        audit: vec![event("certificate.intended", tag)],
    };
    assert_eq!(ca.commit_intents(vec![intent]).await.unwrap(), [IntentOutcome::Committed]);
    let row = JournalRow { signature: Some(vec![5; 71]), signed_at: Some(now()), ..row };
    let signed = SignedRow { row: keys.seal(row), audit: vec![] };
    assert_eq!(ca.record_certificates(vec![signed]).await.unwrap(), [RecordOutcome::Recorded]);
}
