//! OCSP answers a second of the status node, and of `openssl ocsp` as a responder.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Scene;
use super::plain::Plain;
use super::wrk::{self, Counted, Method};
use crate::processes::{Cost, Costs};

/// Answers a second, and what one costs.
#[derive(Debug, Clone)]
pub struct Rate {
    /// What wrk counted.
    pub counted: Counted,
    /// Microseconds of CPU an answer, by role.
    pub cpu_us: Vec<(String, f64)>,
}

/// Connections of the generator.
const CONNECTIONS: usize = 32;
/// Nonces that go round: a request with one is never answered from the cache.
const NONCES: usize = 4096;

/// Octets by which signed answers about certificates of one issuer differ, and more: an OCSP error is a thousand shorter.
const SLACK: f64 = 8.0;

/// Asks for each once, so that it is kept.
///
/// # Errors
///
/// When an answer is an error.
pub async fn warm(scene: &Scene, serials: &[pki::Serial]) -> anyhow::Result<()> {
    let mut connection = Plain::connect(&scene.authority).await?;
    for serial in serials {
        let answer = connection.ask(&scene.path, Some(scene.request(serial))).await?;
        ensure!(matches!(pki::ocsp::read(&answer)?, pki::ocsp::Answer::Successful(_)), "no answer");
    }
    Ok(())
}

/// Cached answers, asked for in the path.
///
/// # Errors
///
/// By [`wrk::run`].
pub async fn cached_get(scene: &Scene, serials: &[pki::Serial], seconds: u64) -> anyhow::Result<Rate> {
    let path = |serial| {
        let encoded = STANDARD.encode(scene.request(serial));
        // As RFC 6960 A.1 has it: URL-encoded.
        let encoded = encoded.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        format!("{}/{encoded}", scene.path)
    };
    let lines: Vec<String> = serials.iter().map(path).collect();
    rate(scene, Method::Get, lines, seconds).await
}

/// Cached answers, asked for in the body.
///
/// # Errors
///
/// By [`wrk::run`].
pub async fn cached_post(scene: &Scene, serials: &[pki::Serial], seconds: u64) -> anyhow::Result<Rate> {
    let lines: Vec<String> = serials.iter().map(|serial| hex::encode(scene.request(serial))).collect();
    rate(scene, Method::Post, lines, seconds).await
}

/// Answers that are signed for the request: it has a nonce.
///
/// # Errors
///
/// By [`wrk::run`].
pub async fn live(scene: &Scene, serials: &[pki::Serial], seconds: u64) -> anyhow::Result<Rate> {
    let lines = (0..NONCES).zip(serials.iter().cycle()).map(|(number, serial)| {
        let nonce = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &number.to_be_bytes());
        hex::encode(pki::ocsp::encode_request(&[scene.cert_id(serial)], Some(nonce.as_ref())))
    });
    rate(scene, Method::Post, lines.collect(), seconds).await
}

async fn rate(scene: &Scene, method: Method, lines: Vec<String>, seconds: u64) -> anyhow::Result<Rate> {
    let expected = octets(scene, method, lines.first().context("no certificates")?).await?;
    let scene = scene.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let before = (scene.costs)();
        let counted =
            wrk::run(&scene.folder, &scene.authority, method, &scene.path, &lines, (CONNECTIONS, seconds))?;
        anyhow::Ok(Rate { counted, cpu_us: spent(&before, &(scene.costs)(), counted.requests) })
    });
    let rate = measured.await??;
    ensure!(rate.counted.errors == 0.0, "{:?}", rate.counted);
    // An OCSP error is a 200 too.
    let each = rate.counted.octets / rate.counted.requests;
    ensure!(each > expected - SLACK, "{each:.1} octets an answer, and one that was read has {expected}");
    Ok(rate)
}

/// What an answer has, header and body, as it stands on the wire.
async fn octets(scene: &Scene, method: Method, line: &str) -> anyhow::Result<f64> {
    let mut connection = Plain::connect(&scene.authority).await?;
    let answer = match method {
        Method::Get => connection.ask_whole(line, None).await?,
        Method::Post => connection.ask_whole(&scene.path, Some(hex::decode(line)?)).await?,
    };
    let read = pki::ocsp::read(answer.body())?;
    ensure!(matches!(read, pki::ocsp::Answer::Successful(_)), "no answer");
    let headers: usize =
        answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    Ok(("HTTP/1.1 200 OK\r\n".len() + headers + 2 + answer.body().len()) as f64)
}

fn spent(before: &Costs, after: &Costs, requests: f64) -> Vec<(String, f64)> {
    let used = |role: &str, cost: &Cost| {
        (cost.cpu_seconds - before.get(role).map_or(0.0, |cost| cost.cpu_seconds)) * 1e6 / requests
    };
    after.iter().map(|(role, cost)| (role.clone(), used(role, cost))).filter(|(_, us)| *us >= 0.05).collect()
}

/// `openssl ocsp` with an index of these serials, as many processes as there are cores; killed when dropped.
struct OpenSsl(Child);

impl Drop for OpenSsl {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // Its children too: on SIGTERM it would first wait for one of them to end.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// What OpenSSL's responder does with the same requests, each signed for it: it keeps none, and closes each connection.
///
/// # Errors
///
/// When `openssl` does not come up.
pub fn openssl(scene: &Scene, serials: &[pki::Serial], seconds: u64) -> anyhow::Result<Counted> {
    let folder = scene.folder.join("openssl");
    std::fs::create_dir_all(&folder)?;
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::OcspSigning];
    let certificate = parameters.self_signed(&key)?;
    std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
    std::fs::write(folder.join("signer.pem"), certificate.pem())?;
    let index: String = serials
        .iter()
        .map(|serial| {
            format!("V\t350101000000Z\t\t{0}\tunknown\t/CN={0}\n", serial.to_string().to_uppercase())
        })
        .collect();
    std::fs::write(folder.join("index.txt"), index)?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let log = std::fs::File::create(folder.join("log"))?;
    let responder = OpenSsl(
        Command::new("openssl")
            .args(["ocsp", "-ignore_err", "-port", &port.to_string(), "-multi", &cores.to_string()])
            .args(["-index", "index.txt", "-rsigner", "signer.pem", "-rkey", "key.pem", "-CA"])
            .arg(&scene.issuer_file)
            .current_dir(&folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("openssl is missing")?,
    );
    let authority = format!("127.0.0.1:{port}");
    wait_for(&folder.join("log"))?;
    let lines: Vec<String> = serials.iter().map(|serial| hex::encode(scene.request(serial))).collect();
    let counted = wrk::run(&scene.folder, &authority, Method::Post, "/", &lines, (CONNECTIONS, seconds));
    drop(responder);
    counted
}

/// Until it says that it listens: a connection without a request would end one of its processes, and the next comes half a minute
/// later.
fn wait_for(log: &Path) -> anyhow::Result<()> {
    for _ in 0..200 {
        if std::fs::read_to_string(log)?.contains("ACCEPT") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("openssl ocsp: {}", std::fs::read_to_string(log)?)
}
