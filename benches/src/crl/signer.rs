//! A signer with so many revocations, as far as its CRLs need it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use acme::{TierSecret, TierSecrets};
use anyhow::{Context, ensure};
use ca_store::{CaStore, Incarnation};
use hsm::{Deadline, KeySpec, Token};
use pki::tbs::{self, IntermediateRequest, RootRequest};
use pki::{
    Certificate, DistinguishedName, Issuer, KeyAlgorithm, Period, PublicKey, Serial, SignatureAlgorithm, Tbs,
    Timestamp, Validity,
};
use runtime::{Clock as _, SystemClock};
use signer::config::{Limits, TokenSection};
use signer::crl::CrlMaker;
use signer::doors::{Doors, Tokens};
use signer::policy::Policy;
use signer::publication::Objects;
use signer::{Ca, Parts, Registry, Secrets, SigningClock, SystemRandomness, WeakKeys};
use sqlx::Executor as _;
use tempfile::TempDir;
use testkit::signing::SoftKey;
use testkit::token::TestToken;
use testkit::{Cluster, ClusterSettings};

use super::{Database, Made};
use crate::processes::cost_of;

const ISSUER: &str = "bench";
const KEY_ID: [u8; 1] = [1];

const POLICY: &str = r#"
version = 1
[[issuer]]
name = "bench"
certificate = "issuer.pem"
token = "soft"
key_id = "01"
pool = "bench"
crl_url_base = "http://status.test/crl"
"#;

/// A signer at work.
pub(super) struct Bench {
    ca: Arc<Ca>,
    tokens: Tokens,
    entries: u64,
    revision: u64,
    folder: TempDir,
    cluster: Option<Cluster>,
    _softhsm: TestToken,
}

/// Out of what a CRL is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The journal: a signer's first one of the shard.
    Journal,
    /// The one before, and the journal's revocations since then.
    Previous,
}

/// So many more certificates are revoked before each CRL.
const MORE: u64 = 10;
/// And so many entries are raised to keyCompromise, from one end of the list to the other.
const RAISED: u64 = 100;

impl Bench {
    /// With this many revocations.
    pub(super) async fn start(database: Database, entries: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let softhsm = TestToken::create("bench");
        let public_key = generate(&softhsm).await?;
        let now = Timestamp::from_unix(u64::try_from(SystemClock.now().unix_timestamp())?);
        certify(folder.path(), &public_key, now)?;
        fs::write(folder.path().join("policy.toml"), POLICY)?;
        let (cluster, store) = match database {
            Database::Sqlite => (None, on_sqlite(folder.path(), entries, now).await?),
            Database::Postgres => {
                let cluster = Cluster::start_with(&ClusterSettings {
                    durable: true,
                    // What a server has of its own.
                    settings: vec!["shared_buffers=128MB".to_owned()],
                    ..ClusterSettings::default()
                });
                let store = on_postgres(&cluster, entries, now).await?;
                (Some(cluster), store)
            }
        };
        let tokens = Tokens::start(&[section(&softhsm)], folder.path(), &testkit::token::worker());
        let policy: Policy = runtime::config::load(&folder.path().join("policy.toml"))?;
        let registry = Registry::from_policy(policy, &BTreeSet::from(["soft"]))?;
        let doors = Doors::open(&tokens, registry.door_plans(), None, Duration::from_secs(20))?;
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random)?;
        let secret = TierSecret::new(1, random).context("a tier secret")?;
        let limits = Limits::default();
        let ca = Ca::start(Parts {
            store,
            registry,
            doors,
            node_ca: None,
            secrets: Secrets::new(TierSecrets::new(vec![secret])?)?,
            clock: SigningClock::new(Arc::new(SystemClock), limits.clock_skew()),
            random: Arc::new(SystemRandomness::new()),
            weak_keys: WeakKeys::default(),
            limits,
            node: "bench".to_owned(),
        })
        .await?;
        Ok(Self { ca, tokens, entries, revision: entries, folder, cluster, _softhsm: softhsm })
    }

    /// The middle of some rounds, after one that warms everything up.
    pub(super) async fn make(&mut self, from: From, rounds: usize) -> anyhow::Result<Made> {
        let objects = Objects::of(self.ca.registry());
        let (ca, spool) = (Arc::clone(&self.ca), self.folder.path().join("crl"));
        let maker = || CrlMaker::new(Arc::clone(&ca), objects.clone(), spool.clone());
        let mut at_work = maker()?;
        at_work.make_now(ISSUER, 0).await?;
        let (mut seconds, mut peak) = (Vec::new(), 0.0_f64);
        for _ in 0..rounds.max(1) {
            self.revoke_more().await?;
            if from == From::Journal {
                at_work = maker()?;
            }
            // What the one before has left to be written to the disk is not this one's.
            rustix::fs::sync();
            let own = std::process::id();
            let idle = cost_of(own).now_mib;
            // The peak is forgotten: proc(5), "reset the peak resident set size".
            fs::write("/proc/self/clear_refs", "5")?;
            seconds.push(at_work.make_now(ISSUER, 0).await?.as_secs_f64());
            peak = peak.max(cost_of(own).peak_mib - idle);
        }
        seconds.sort_by(f64::total_cmp);
        let seconds = *seconds.get(seconds.len() / 2).context("no round")?;
        let path = self.ca.registry().issuer(ISSUER).context("the issuer")?.crl_path(0);
        let octets = objects.size(&path).context("the CRL")?;
        let row = self.ca.store().crl_shards(Some(ISSUER)).await?.pop().context("the shard")?;
        let listed = row.published.context("the CRL's row")?.entries;
        ensure!(listed == self.entries, "{listed} entries, not {}", self.entries);
        Ok(Made { entries: self.entries, seconds, memory: peak, octets })
    }

    async fn revoke_more(&mut self) -> anyhow::Result<()> {
        let (first, last) = (self.revision + 1, self.revision + MORE);
        let now = SystemClock.now().unix_timestamp();
        // Every so many-th that was not raised before.
        let (step, round) = (self.entries / RAISED, self.revision % (self.entries / RAISED));
        (self.entries, self.revision) = (self.entries + MORE, last + RAISED);
        let (revision, text) = (self.revision, |ca: &str| {
            format!(
                "UPDATE {ca}revocations SET upgrade_revision = {last} + 1 + (revision - 1) / {step}, upgraded_at = {now}
                 WHERE revision <= {step} * {RAISED} AND revision % {step} = {round} AND upgrade_revision IS NULL"
            )
        });
        if let Some(cluster) = &self.cluster {
            cluster.sql("postgres", &insert_into_postgres(first, last, now));
            cluster.sql("postgres", &text("ca."));
            cluster.sql("postgres", &format!("UPDATE ca.crl_shards SET revision = {revision}"));
            return Ok(());
        }
        let pool = connect(&self.folder.path().join("ca.db")).await?;
        insert_into_sqlite(&pool, first, last, now).await?;
        pool.execute(sqlx::query(sqlx::AssertSqlSafe(text("")))).await?;
        let shard = sqlx::query("UPDATE crl_shards SET revision = ?");
        pool.execute(shard.bind(i64::try_from(revision)?)).await?;
        pool.close().await;
        Ok(())
    }

    pub(super) async fn end(self) {
        self.tokens.shutdown().await;
        self.ca.store().close().await;
    }
}

async fn generate(softhsm: &TestToken) -> anyhow::Result<PublicKey> {
    let token = Token::start(softhsm.config(), testkit::token::worker());
    token.ready(Deadline::after(Duration::from_secs(30))).await?;
    let algorithm = KeyAlgorithm::EcdsaP256;
    let spec = KeySpec { algorithm, label: ISSUER.to_owned(), id: KEY_ID.to_vec() };
    let key = token.generate(spec).await?;
    token.shutdown().await;
    Ok(key.public_key)
}

/// A root with a key in memory, and the issuer's certificate under it.
fn certify(folder: &Path, public_key: &PublicKey, now: Timestamp) -> anyhow::Result<()> {
    let validity = Validity {
        not_before: now.minus(Period::from_days(1)),
        not_after: now.plus(Period::from_days(3650)),
    };
    let (key, subject) = (SoftKey::generate(), DistinguishedName::new(Some("XX"), Some("Bench"), "Root")?);
    let signature = SignatureAlgorithm::EcdsaSha256;
    let serial = Serial::from_random([1; 16]);
    let public = key.public();
    let root =
        RootRequest { serial, subject: &subject, public_key: public, signature, validity, test_ca: false };
    let root = signed(&tbs::root(root)?, &key)?;
    let above = Issuer::new(root, signature)?.with_crl_url_base("http://status.test/crl")?;
    let subject = DistinguishedName::new(Some("XX"), Some("Bench"), "Issuer")?;
    let issuer = IntermediateRequest {
        serial: Serial::from_random([2; 16]),
        subject: &subject,
        public_key,
        validity,
        shard: 0,
        path_length: Some(0),
        extended_key_usages: &[],
        policies: &[],
        test_ca: false,
    };
    let issuer = signed(&tbs::intermediate(&above, issuer)?, &key)?;
    fs::write(folder.join("issuer.pem"), issuer.pem())?;
    Ok(())
}

fn signed(tbs: &Tbs, key: &SoftKey) -> anyhow::Result<Certificate> {
    Ok(Certificate::from_der(&pki::assemble(tbs, &key.sign_message(tbs.as_bytes())))?)
}

fn section(softhsm: &TestToken) -> TokenSection {
    let environment =
        BTreeMap::from([("SOFTHSM2_CONF".to_owned(), softhsm.conf().to_string_lossy().into_owned())]);
    TokenSection {
        name: "soft".to_owned(),
        label: softhsm.label().to_owned(),
        serial: None,
        module: softhsm.module().into(),
        pin_file: softhsm.pin_file().into(),
        sessions: Some(2),
        hang_timeout_milliseconds: None,
        respawn_max_milliseconds: None,
        environment,
        user: None,
        group: None,
    }
}

fn incarnation(life: u8) -> Incarnation {
    Incarnation { id: [life; 16], node: "bench".to_owned() }
}

async fn connect(file: &Path) -> anyhow::Result<sqlx::SqlitePool> {
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    Ok(pool.connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(file)).await?)
}

/// Half of the entries have a reason, as the handbook's have.
async fn insert_into_sqlite(pool: &sqlx::SqlitePool, first: u64, last: u64, now: i64) -> anyhow::Result<()> {
    let revoke = sqlx::query(
        "WITH RECURSIVE n (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
         INSERT INTO revocations (issuer, shard, serial, revision, revoked_at, reason, not_after)
         SELECT ?3, 0, CAST(x'40' || randomblob(15) AS BLOB), n, ?4 - n % 86400, n % 2 * 4, ?4 + 8640000 FROM n",
    );
    pool.execute(revoke.bind(i64::try_from(first)?).bind(i64::try_from(last)?).bind(ISSUER).bind(now))
        .await?;
    Ok(())
}

/// As [`insert_into_sqlite`].
fn insert_into_postgres(first: u64, last: u64, now: i64) -> String {
    format!(
        "INSERT INTO ca.revocations (issuer, shard, serial, revision, revoked_at, reason, not_after)
         SELECT '{ISSUER}', 0, '\\x40'::bytea || substr(sha256(n::text::bytea), 1, 15), n,
                {now} - n % 86400, n % 2 * 4, {now} + 8640000
         FROM generate_series({first}, {last}) AS n"
    )
}

async fn on_sqlite(folder: &Path, entries: u64, now: Timestamp) -> anyhow::Result<Arc<dyn CaStore>> {
    let file = folder.join("ca.db");
    // The schema.
    sqlite::Ca::open(sqlite::Options::new(file.clone()), incarnation(1)).await?.close().await;
    let pool = connect(&file).await?;
    insert_into_sqlite(&pool, 1, entries, i64::try_from(now.unix())?).await?;
    let shard = sqlx::query("INSERT INTO crl_shards (issuer, shard, revision, number) VALUES (?, 0, ?, 1)");
    pool.execute(shard.bind(ISSUER).bind(i64::try_from(entries)?)).await?;
    pool.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    pool.close().await;
    Ok(Arc::new(sqlite::Ca::open(sqlite::Options::new(file), incarnation(2)).await?))
}

async fn on_postgres(cluster: &Cluster, entries: u64, now: Timestamp) -> anyhow::Result<Arc<dyn CaStore>> {
    let options = postgres::Options::from_url(&cluster.owner_url())?;
    postgres::Ca::migrate(&options).await?;
    cluster.sql("postgres", &insert_into_postgres(1, entries, i64::try_from(now.unix())?));
    cluster.sql(
        "postgres",
        &format!(
            "INSERT INTO ca.crl_shards (issuer, shard, revision, number) VALUES ('{ISSUER}', 0, {entries}, 1)"
        ),
    );
    cluster.sql("postgres", "VACUUM ANALYZE ca.revocations");
    cluster.sql("postgres", "CHECKPOINT");
    Ok(Arc::new(postgres::Ca::open(options, incarnation(2)).await?))
}
