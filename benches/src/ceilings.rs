//! The single costs that a certificate cannot do without, each measured alone, in the same run.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use sqlx::{Connection as _, Executor as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::connection::Server;
use crate::processes::cost_of;

/// A cost measured alone.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Ceiling {
    /// How often a second.
    pub per_second: f64,
    /// Microseconds of CPU each, kernel included.
    pub cpu_us: f64,
}

/// How long each is measured.
const TIME: Duration = Duration::from_millis(2000);

/// CPU seconds of this process so far.
fn own_cpu() -> f64 {
    cost_of(std::process::id()).cpu_seconds
}

fn ceiling(count: u64, began: Instant, cpu_seconds: f64) -> Ceiling {
    let count = count.max(1) as f64;
    Ceiling { per_second: count / began.elapsed().as_secs_f64(), cpu_us: cpu_seconds * 1e6 / count }
}

/// Bare `C_Sign` with a key of this algorithm (`ecdsa-p256` or `rsa-2048`), so many threads.
///
/// # Errors
///
/// When the example of `hsm` is not built, or SoftHSM is missing.
pub fn token(algorithm: &str, threads: usize) -> anyhow::Result<Ceiling> {
    let program = std::env::current_exe()?.with_file_name("examples").join("bare_sign");
    let missing = || format!("{}: cargo build --release -p hsm --example bare_sign", program.display());
    let output = Command::new(&program)
        .args([&TIME.as_millis().to_string(), &threads.to_string(), algorithm])
        .output()
        .with_context(missing)?;
    ensure!(output.status.success(), "bare_sign: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Verifications of ES256, one thread.
///
/// # Errors
///
/// When there is no randomness.
pub fn verifications() -> anyhow::Result<Ceiling> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
    let message = [7; 700];
    let signature = key.sign(&random, &message)?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref().to_vec());
    let (began, before, mut count) = (Instant::now(), own_cpu(), 0);
    while began.elapsed() < TIME {
        public.verify(&message, signature.as_ref())?;
        count += 1;
    }
    Ok(ceiling(count, began, own_cpu() - before))
}

/// Commits of one row of a thousand bytes, one after another, as durable as the CA's.
///
/// # Errors
///
/// When the database does not work.
pub async fn sqlite_commits(folder: &Path) -> anyhow::Result<Ceiling> {
    let url = format!("sqlite://{}?mode=rwc", folder.join("bare.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await?;
    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL").await?;
    connection.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT").await?;
    let body = vec![7_u8; 1000];
    let (began, before, mut count) = (Instant::now(), own_cpu(), 0);
    while began.elapsed() < TIME {
        sqlx::query("INSERT INTO bare (body) VALUES (?)").bind(&body).execute(&mut connection).await?;
        count += 1;
    }
    let ceiling = ceiling(count, began, own_cpu() - before);
    connection.close().await?;
    Ok(ceiling)
}

/// As [`sqlite_commits`], on a server; `server_cpu` says how much it has used so far, seconds.
///
/// # Errors
///
/// When the server does not answer.
pub async fn postgres_commits(url: &str, server_cpu: impl Fn() -> f64) -> anyhow::Result<Ceiling> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    connection.execute("CREATE TABLE public.bare (id BIGSERIAL PRIMARY KEY, body BYTEA NOT NULL)").await?;
    let body = vec![7_u8; 1000];
    let (began, before, mut count) = (Instant::now(), own_cpu() + server_cpu(), 0);
    while began.elapsed() < TIME {
        let insert = sqlx::query("INSERT INTO public.bare (body) VALUES ($1)").bind(&body);
        insert.execute(&mut connection).await?;
        count += 1;
    }
    let ceiling = ceiling(count, began, own_cpu() + server_cpu() - before);
    connection.execute("DROP TABLE public.bare").await?;
    connection.close().await?;
    Ok(ceiling)
}

/// POST requests over TLS, 32 connections kept alive, to a handler that does nothing. The CPU is that of both ends.
///
/// # Errors
///
/// When a connection fails.
pub async fn tls_requests(folder: &Path) -> anyhow::Result<Ceiling> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
    let root = folder.join("bare.pem");
    std::fs::write(&root, certificate.pem())?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut tls = rustls::ServerConfig::builder_with_provider(rpc::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let server = Server::new(listener.local_addr()?, &root)?;
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
                    let body = request.into_body().collect().await?.to_bytes();
                    Ok::<_, hyper::Error>(http::Response::new(Full::new(body)))
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let mut connections = Vec::new();
    for _ in 0..32 {
        connections.push(server.connect().await?);
    }
    let (began, before) = (Instant::now(), own_cpu());
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in connections {
        tasks.spawn(async move {
            let mut count = 0_u64;
            while began.elapsed() < TIME {
                connection.send("/", Some(vec![b'x'; 700].into())).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(task) = tasks.join_next().await {
        count += task??;
    }
    let ceiling = ceiling(count, began, own_cpu() - before);
    serving.abort();
    Ok(ceiling)
}
