//! What relying parties see of a revocation, and how many of them a status node bears: the demo's real programs, keys in SoftHSM.

pub mod delay;
pub mod ocsp;
pub mod plain;
pub mod rates;
pub mod wrk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use pki::ocsp::{CertId, CertIdHash, IssuerHashes};
use pki::{Certificate, Serial};
use rpc::proto::admin::v1::ListCertificatesRequest;
use tempfile::TempDir;

use crate::connection::Server;
use crate::load::{self, Measured, Round, Target};
use crate::operator::{self, Operator};
use crate::processes::{Costs, Demo};
use crate::responder::Responder;

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "revocation")]
pub struct Arguments {
    /// Seconds that each rate of OCSP answers is measured for.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Certificates that OCSP is asked about.
    #[arg(long, default_value_t = 1000)]
    pub certificates: usize,
    /// Revocations that are followed to CRL and OCSP, each more than a second after the one before.
    #[arg(long, default_value_t = 100)]
    pub revocations: usize,
    /// As many as these in a stream, for which a shard's one CRL a second is too few.
    #[arg(long, default_value_t = 300)]
    pub streamed: usize,
    /// Milliseconds from one revocation of the stream to the next.
    #[arg(long, default_value_t = 100)]
    pub pause_ms: u64,
    /// ACME clients that get certificates meanwhile.
    #[arg(long, default_value_t = 8)]
    pub clients: usize,
}

/// A running demo with what issues and asks.
pub struct World {
    /// The demo as its relying parties know it.
    pub scene: Scene,
    demo: Demo,
    server: Server,
    responder: Responder,
    _folder: TempDir,
}

impl World {
    /// Starts it; `more` is for the demo.
    ///
    /// # Errors
    ///
    /// When the demo does not come up.
    pub async fn start(more: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let responder = Responder::start(port).await?;
        let more: Vec<String> =
            ["--unlimited-status"].iter().chain(more).map(|word| (*word).to_owned()).collect();
        let state = folder.path().join("demo");
        let demo = tokio::task::spawn_blocking(move || Demo::start(&state, port, &more)).await??;
        let authority = demo.facts.directory.split('/').nth(2).context("the directory's host")?;
        let server = Server::new(authority.parse()?, &demo.facts.root)?;
        let scene = Scene::of(&demo, folder.path())?;
        Ok(Self { scene, demo, server, responder, _folder: folder })
    }

    /// Issues certificates in a closed loop.
    ///
    /// # Errors
    ///
    /// When a client does not get one.
    pub async fn issue(&self, round: Round) -> anyhow::Result<Measured> {
        let costs = self.demo.costs_later();
        let target = Target {
            directory: &self.demo.facts.directory,
            server: &self.server,
            responder: &self.responder,
            costs: &costs,
            disk: None,
        };
        load::run(round, &target).await
    }

    /// Serials of certificates that were issued now, as many as are wanted.
    ///
    /// # Errors
    ///
    /// When a client does not get one.
    pub async fn certificates(&self, count: usize) -> anyhow::Result<Vec<Serial>> {
        let mut made = 0.0;
        while made < count as f64 {
            made +=
                self.issue(Round { clients: 16, names: 1, seconds: 2, every: Duration::ZERO }).await?.count;
        }
        self.scene.serials(count).await
    }
}

/// A demo as a relying party and its operator know it.
#[derive(Clone)]
pub struct Scene {
    /// `host:port` of the status node.
    pub authority: String,
    /// Where it answers OCSP.
    pub path: String,
    /// Where it serves the first shard's CRL.
    pub crl: String,
    /// The issuer's certificate, PEM.
    pub issuer_file: PathBuf,
    /// The operator.
    pub operator: Operator,
    /// For files of generators.
    pub folder: PathBuf,
    /// What the programs have used so far.
    pub costs: Arc<dyn Fn() -> Costs + Send + Sync>,
    issuer: Arc<IssuerHashes>,
}

/// Certificates in one answer of the operator's list.
const PAGE: u32 = 1000;

impl Scene {
    /// Of a running demo; `folder` is for files of generators.
    ///
    /// # Errors
    ///
    /// When the demo answers no OCSP, or its files cannot be read.
    pub fn of(demo: &Demo, folder: &Path) -> anyhow::Result<Self> {
        let (authority, path) = parts(&demo.facts.ocsp)?;
        let (_, crl) = parts(&demo.facts.crl)?;
        let pem = std::fs::read_to_string(&demo.facts.issuer)?;
        let issuer: Certificate = pki::chain::from_pem(&pem)?.into_iter().next().context("no issuer")?;
        let costs = demo.costs_later();
        Ok(Self {
            authority,
            path,
            crl,
            issuer_file: demo.facts.issuer.clone(),
            operator: operator::connect(&demo.state)?,
            folder: folder.to_owned(),
            costs: Arc::new(costs),
            issuer: Arc::new(IssuerHashes::of(&issuer)),
        })
    }

    /// A certificate's certID, SHA-1 as clients have it.
    #[must_use]
    pub fn cert_id(&self, serial: &Serial) -> CertId {
        CertId::new(CertIdHash::Sha1, &self.issuer, serial)
    }

    /// A request without nonce.
    #[must_use]
    pub fn request(&self, serial: &Serial) -> Vec<u8> {
        pki::ocsp::encode_request(&[self.cert_id(serial)], None)
    }

    /// Serials that clients have got, at least `count` of them.
    ///
    /// # Errors
    ///
    /// When there are fewer.
    pub async fn serials(&self, count: usize) -> anyhow::Result<Vec<Serial>> {
        let (mut serials, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListCertificatesRequest {
                page_token: page_token.clone(),
                page_size: PAGE,
                ..ListCertificatesRequest::default()
            };
            let answer = self.operator.clone().list_certificates(request).await?.into_inner();
            for certificate in answer.certificates {
                if certificate.state == "issued" && !certificate.account_id.is_empty() {
                    serials.push(certificate.serial.parse::<Serial>()?);
                }
            }
            page_token = answer.next_page_token;
            if serials.len() >= count || page_token.is_empty() {
                break;
            }
        }
        ensure!(serials.len() >= count, "{} certificates of clients, {count} are needed", serials.len());
        serials.truncate(count);
        Ok(serials)
    }
}

/// `host:port` and path of a plain URL.
fn parts(url: &str) -> anyhow::Result<(String, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url:?} is no plain URL"))?;
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    Ok((authority.to_owned(), path.to_owned()))
}
