//! Plain HTTP as far as the audits need it: one request a connection.

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The body at a URL.
///
/// # Errors
///
/// When the answer is not 200.
pub(super) async fn get(url: &str) -> anyhow::Result<Vec<u8>> {
    exchange(url, "GET", "", &[]).await
}

/// What is answered to a body.
///
/// # Errors
///
/// When the answer is not 200.
pub(super) async fn post(url: &str, media_type: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let headers = format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len());
    exchange(url, "POST", &headers, body).await
}

async fn exchange(url: &str, method: &str, headers: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let rest = url.strip_prefix("http://").context("http")?;
    let (authority, path) = rest.split_once('/').context("a path")?;
    let mut stream = TcpStream::connect(authority).await?;
    let head =
        format!("{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no header")?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..at]));
    Ok(answer.split_off(at + 4))
}
