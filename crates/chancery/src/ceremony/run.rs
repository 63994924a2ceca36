//! The ceremony itself: every object goes plan → key → to-be-signed bytes → transcript → signature → transcript → file.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SecureRandom;
use hsm::WorkerCommand;
use pki::{Certificate, Issuer, PublicKey, Serial, SignatureAlgorithm, Tbs, Timestamp};
use runtime::Clock;

use super::keys::{Keys, signature_of};
use super::objects;
use super::plan::{Intermediate, KeyPlan, Node, NodeCa, Plan, Root};
use super::transcript::{Entry, Transcript, stamp};

/// What a run did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Objects signed now.
    pub(crate) signed: usize,
    /// Objects that were there already.
    pub(crate) kept: usize,
    /// Files of the output folder.
    pub(crate) files: Vec<PathBuf>,
    /// Whether the roots and intermediates are marked as a test CA's.
    pub(crate) test_ca: bool,
}

/// Runs a ceremony file to its end.
///
/// # Errors
///
/// When the file is wrong, a token is away or refuses, or the transcript cannot be written. Nothing is lost then: the next
/// run goes on.
pub(crate) async fn run(file: &Path, worker: WorkerCommand, clock: &dyn Clock) -> anyhow::Result<Outcome> {
    let plan = Plan::read(file)?;
    std::fs::create_dir_all(&plan.output)
        .with_context(|| format!("cannot make the output folder {}", plan.output.display()))?;
    let mut transcript = Transcript::open(&plan.output.join("transcript.jsonl"))?;
    let plan_sha256 = hex::encode(digest(&SHA256, &std::fs::read(file)?));
    transcript.check_plan(&plan_sha256)?;
    let complete = transcript.is_complete();
    if !complete {
        transcript.append(Entry::Began {
            at: stamp(clock.now()),
            title: plan.title.clone(),
            test_ca: plan.test_ca,
            plan_sha256,
            program: concat!("chancery ", env!("CARGO_PKG_VERSION")).to_owned(),
        })?;
    }
    let mut ceremony = Ceremony {
        keys: Keys::new(&plan, worker, &plan.output),
        output: &plan.output,
        transcript,
        clock,
        outcome: Outcome { signed: 0, kept: 0, files: Vec::new(), test_ca: plan.test_ca },
    };
    let done = ceremony.all(&plan).await;
    let Ceremony { keys, mut transcript, outcome, .. } = ceremony;
    keys.close().await;
    done?;
    if !complete {
        transcript.append(Entry::Ended {
            at: stamp(clock.now()),
            signed: outcome.signed,
            kept: outcome.kept,
        })?;
    }
    Ok(outcome)
}

struct Ceremony<'a> {
    keys: Keys<'a>,
    output: &'a Path,
    transcript: Transcript,
    clock: &'a dyn Clock,
    outcome: Outcome,
}

/// Who signs an object.
struct Hand<'a> {
    key: &'a KeyPlan,
    public_key: PublicKey,
}

impl Hand<'_> {
    fn algorithm(&self) -> SignatureAlgorithm {
        signature_of(self.key.algorithm)
    }
}

impl Ceremony<'_> {
    async fn all(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for root in &plan.roots {
            let issuer =
                self.root(root, plan.test_ca).await.with_context(|| format!("root {:?}", root.name))?;
            for intermediate in plan.intermediates.iter().filter(|one| one.issuer == root.name) {
                self.intermediate(intermediate, root, &issuer)
                    .await
                    .with_context(|| format!("intermediate {:?}", intermediate.name))?;
            }
        }
        for key in &plan.responder_keys {
            self.hand(key).await.with_context(|| format!("responder key {:?}", key.label))?;
        }
        if let Some(node_ca) = &plan.node_ca {
            let issuer = self.node_ca(node_ca).await.context("node CA")?;
            for node in &plan.nodes {
                self.node(node, node_ca, &issuer)
                    .await
                    .with_context(|| format!("node {}/{}", node.role, node.name))?;
            }
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.clock.now().unix_timestamp().try_into().unwrap_or(0))
    }

    async fn root(&mut self, plan: &Root, test_ca: bool) -> anyhow::Result<Issuer> {
        let hand = self.hand(&plan.key).await?;
        let (now, serial) = (self.now(), serial()?);
        let object = format!("certificate {}", plan.name);
        let der = self
            .certificate(&object, &hand, || objects::root(plan, test_ca, &hand.public_key, serial, now))
            .await?;
        let certificate = Certificate::from_der(&der)?;
        self.write(&format!("{}.pem", plan.name), certificate.pem().as_bytes(), 0o644)?;
        let mut issuer = Issuer::new(certificate, hand.algorithm())?.with_crl_url_base(&plan.crl_url_base)?;
        if let Some(url) = &plan.ca_issuers_url {
            issuer = issuer.with_ca_issuers_url(url)?;
        }
        let crl = self.crl(&format!("crl {}", plan.name), &hand, &issuer, None, plan.crl_lifetime).await?;
        self.write(&format!("{}.crl", plan.name), &crl, 0o644)?;
        Ok(issuer)
    }

    async fn intermediate(
        &mut self,
        plan: &Intermediate,
        root: &Root,
        issuer: &Issuer,
    ) -> anyhow::Result<()> {
        let own = self.hand(&plan.key).await?;
        let hand = Hand { key: &root.key, public_key: issuer.certificate().public_key().clone() };
        let (now, serial) = (self.now(), serial()?);
        let object = format!("certificate {}", plan.name);
        let der = self
            .certificate(&object, &hand, || objects::intermediate(plan, issuer, &own.public_key, serial, now))
            .await?;
        let certificate = Certificate::from_der(&der)?;
        self.write(&format!("{}.pem", plan.name), certificate.pem().as_bytes(), 0o644)?;
        let own_issuer = Issuer::new(certificate, own.algorithm())?.with_crl_url_base(&plan.crl_url_base)?;
        for shard in 0..plan.shards {
            let object = format!("crl {} shard {shard}", plan.name);
            let crl = self.crl(&object, &own, &own_issuer, Some(shard), plan.crl_lifetime).await?;
            self.write(&format!("{}-{shard}.crl", plan.name), &crl, 0o644)?;
        }
        Ok(())
    }

    async fn node_ca(&mut self, plan: &NodeCa) -> anyhow::Result<Issuer> {
        let hand = self.hand(&plan.key).await?;
        let (now, serial) = (self.now(), serial()?);
        let der = self
            .certificate("certificate node-ca", &hand, || {
                objects::node_ca(&plan.common_name, plan.validity, &hand.public_key, serial, now)
            })
            .await?;
        let certificate = Certificate::from_der(&der)?;
        self.write("node-ca.pem", certificate.pem().as_bytes(), 0o644)?;
        Ok(Issuer::new(certificate, hand.algorithm())?)
    }

    /// A node's key is a file, made before its certificate is meant; a later run takes the same key.
    async fn node(&mut self, plan: &Node, node_ca: &NodeCa, issuer: &Issuer) -> anyhow::Result<()> {
        let stem = format!("{}-{}", plan.role, plan.name);
        let key_file = self.output.join(format!("{stem}.key"));
        let key = match key_file.exists() {
            true => rpc::enroll::KeyPair::from_pem(&rpc::files::read_secret(&key_file)?)?,
            false => {
                let key = rpc::enroll::KeyPair::generate()?;
                self.write(&format!("{stem}.key"), key.pem()?.as_bytes(), 0o600)?;
                key
            }
        };
        let public_key = PublicKey::from_spki_der(&key.spki_der()?)?;
        let hand = Hand { key: &node_ca.key, public_key: issuer.certificate().public_key().clone() };
        let (now, serial) = (self.now(), serial()?);
        let object = format!("certificate node {}/{}", plan.role, plan.name);
        let der = self
            .certificate(&object, &hand, || objects::node(plan, issuer, &public_key, serial, now))
            .await?;
        let certificate = Certificate::from_der(&der)?;
        ensure!(
            *certificate.public_key() == public_key,
            "{} is not the key of this node's certificate; was the file replaced?",
            key_file.display()
        );
        // A node that has renewed itself since is left alone.
        if !self.output.join(format!("{stem}.pem")).exists() {
            self.write(&format!("{stem}.pem"), certificate.pem().as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// The key, once its origin stands in the transcript. A key that stands there already is not looked for again, so that
    /// its token may be away.
    async fn hand<'k>(&mut self, key: &'k KeyPlan) -> anyhow::Result<Hand<'k>> {
        if let Some(spki) = self.transcript.key(&key.token, &key.id)? {
            return Ok(Hand { key, public_key: PublicKey::from_spki_der(&spki)? });
        }
        let found = self.keys.make(key).await?;
        let mut attributes = found.attributes;
        attributes.insert("generated_now".into(), found.generated.to_string());
        self.transcript.append(Entry::Key {
            at: stamp(self.clock.now()),
            token: key.token.clone(),
            id: key.id.clone(),
            label: key.label.clone(),
            algorithm: key.algorithm.to_string(),
            spki_sha256: hex::encode(found.public_key.sha256()),
            spki: hex::encode(found.public_key.spki_der()),
            attributes,
        })?;
        Ok(Hand { key, public_key: found.public_key })
    }

    async fn certificate(
        &mut self,
        object: &str,
        hand: &Hand<'_>,
        build: impl FnOnce() -> anyhow::Result<Tbs>,
    ) -> anyhow::Result<Vec<u8>> {
        let assemble = |tbs: &[u8], signature: &[u8]| Ok(pki::assemble(&Tbs::from_der(tbs)?, signature));
        self.object(object, hand, || Ok(build()?.as_bytes().to_vec()), assemble).await
    }

    async fn crl(
        &mut self,
        object: &str,
        hand: &Hand<'_>,
        issuer: &Issuer,
        shard: Option<u32>,
        lifetime: pki::Period,
    ) -> anyhow::Result<Vec<u8>> {
        let now = self.now();
        let algorithm = hand.algorithm();
        let assemble = |tbs: &[u8], signature: &[u8]| Ok(pki::crl::assemble(tbs, algorithm, signature));
        self.object(object, hand, || objects::first_crl(issuer, shard, lifetime, now), assemble).await
    }

    /// One object: as it was signed before, or signed now from the bytes that stand in the transcript.
    async fn object(
        &mut self,
        object: &str,
        hand: &Hand<'_>,
        build: impl FnOnce() -> anyhow::Result<Vec<u8>>,
        assemble: impl FnOnce(&[u8], &[u8]) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Vec<u8>> {
        if let Some(der) = self.transcript.signed(object)? {
            self.outcome.kept += 1;
            return Ok(der);
        }
        let tbs = match self.transcript.intent(object)? {
            Some(tbs) => tbs,
            None => {
                let tbs = build()?;
                self.transcript.append(Entry::Intent {
                    at: stamp(self.clock.now()),
                    object: object.to_owned(),
                    signer: hand.key.label.clone(),
                    tbs_sha256: hex::encode(digest(&SHA256, &tbs)),
                    tbs: hex::encode(&tbs),
                })?;
                tbs
            }
        };
        let signature = self.keys.sign(hand.key, &hand.public_key, hand.algorithm(), &tbs).await?;
        let der = assemble(&tbs, &signature)?;
        self.transcript.append(Entry::Signed {
            at: stamp(self.clock.now()),
            object: object.to_owned(),
            sha256: hex::encode(digest(&SHA256, &der)),
            der: hex::encode(&der),
        })?;
        self.outcome.signed += 1;
        Ok(der)
    }

    /// Writes a file of the output folder, unless it is there with the same content.
    fn write(&mut self, name: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
        let path = self.output.join(name);
        if !std::fs::read(&path).is_ok_and(|there| there == content) {
            rpc::files::write_atomically(&path, content, mode)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.outcome.files.push(path);
        Ok(())
    }
}

fn serial() -> anyhow::Result<Serial> {
    let mut random = [0; 16];
    aws_lc_rs::rand::SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| anyhow::anyhow!("the operating system gave no randomness"))?;
    Ok(Serial::from_random(random))
}
