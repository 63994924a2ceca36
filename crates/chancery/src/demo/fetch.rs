//! One GET, over HTTP or HTTPS, for the demo to see that its services answer. Not a general client: HTTP/1.1, one request
//! a connection, no redirects.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

/// An answer larger than this is none of the demo's.
const LIMIT: u64 = 1 << 20;

/// A 200 answer.
pub(crate) struct Answer {
    /// In lower case.
    header: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, in lower case. `name` is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.header.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| *field == name).map(|(_, value)| value.trim()).next()
    }
}

/// The body of a 200 answer. `root`: PEM that an HTTPS server must chain to.
///
/// # Errors
///
/// When nobody answers, TLS fails, or the answer is not 200.
pub(crate) async fn get(url: &str, root: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(fetch(url, root).await?.body)
}

/// As [`get`], with the header.
///
/// # Errors
///
/// As [`get`].
pub(crate) async fn fetch(url: &str, root: &Path) -> anyhow::Result<Answer> {
    let url: Url = url.parse()?;
    let host = url.host_str().context("no host")?.to_owned();
    let port = url.port_or_known_default().context("no port")?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\nAccept: */*\r\n\r\n",
        url.path()
    );
    let answer = if url.scheme() == "https" {
        let mut roots = RootCertStore::empty();
        for certificate in pki::chain::from_pem(&std::fs::read_to_string(root)?)? {
            roots.add(certificate.der().to_vec().into())?;
        }
        let config = ClientConfig::builder_with_provider(rpc::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        exchange(connector.connect(ServerName::try_from(host)?, stream).await?, &request).await?
    } else {
        exchange(stream, &request).await?
    };
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no header")?;
    let (header, body) = answer.split_at(end + 4);
    let header = String::from_utf8_lossy(header).to_lowercase();
    let status = header.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{url} answered {status}");
    ensure!(!header.contains("transfer-encoding"), "{url} answered in pieces");
    Ok(Answer { body: body.to_vec(), header })
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &str,
) -> anyhow::Result<Vec<u8>> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    match stream.take(LIMIT).read_to_end(&mut answer).await {
        Ok(_) => {}
        // A server that closes without TLS' goodbye has said all it had to say.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(answer)
}
