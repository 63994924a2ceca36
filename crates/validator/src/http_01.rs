//! http-01 (RFC 8555 §8.3, BR 3.2.2.4.19): asks the identifier's own web server for the key authorization.
//!
//! Every hop resolves its host anew, judges each address by the [`AddressPolicy`], and connects to the very address that
//! was judged: a second look-up by a library could be answered differently. IPv6 is tried first; IPv4 follows only when
//! no connection comes about.

mod fetch;
mod redirect;

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use url::{Host, Url};

use self::fetch::{Answer, FetchError, Fetcher};
use self::redirect::{Trail, short};
use crate::address::AddressPolicy;
use crate::connect::candidates;
use crate::failure::{Ending, Failure, FailureKind, LocalFault, excerpt};
use crate::resolver::Resolver;
use crate::slots::Slots;

/// What http-01 may do; see the fields of [`crate::Config`] for the defaults.
#[derive(Debug, Clone)]
pub struct Http01Settings {
    /// The port of the first request.
    pub port: u16,
    /// The ports that redirects may lead to; `port` is always among them.
    pub redirect_ports: Vec<u16>,
    /// Redirects followed.
    pub redirects: usize,
    /// For one TCP connection.
    pub connect_timeout: Duration,
    /// For the whole attempt, from the first query to the last byte.
    pub total_timeout: Duration,
    /// Of a body.
    pub body_bytes: usize,
    /// Of an answer's header.
    pub header_bytes: usize,
    /// Connections at once to one address, over all attempts.
    pub per_address: usize,
}

/// The method, ready to run.
pub struct Http01 {
    settings: Http01Settings,
    resolver: Resolver,
    policy: AddressPolicy,
    fetcher: Fetcher,
    addresses: Slots<IpAddr>,
}

/// Whom an attempt asks, and for what.
#[derive(Debug, Clone)]
pub struct Http01Attempt<'a> {
    /// A DNS name, or an IP address (RFC 8738 §4: the Host header is the literal).
    pub host: Host<&'a str>,
    /// The challenge's token.
    pub token: &'a str,
    /// What the body has to be.
    pub key_authorization: &'a str,
}

impl Http01 {
    /// A method over its own TLS configuration.
    ///
    /// # Errors
    /// When the TLS provider does not work.
    pub fn new(
        settings: Http01Settings,
        resolver: Resolver,
        policy: AddressPolicy,
    ) -> Result<Self, rustls::Error> {
        let fetcher = Fetcher::new(settings.connect_timeout, settings.body_bytes, settings.header_bytes)?;
        let addresses = Slots::new(settings.per_address);
        let mut settings = settings;
        settings.redirect_ports.push(settings.port);
        Ok(Self { settings, resolver, policy, fetcher, addresses })
    }

    /// Looks. `contacted` gets every address that a connection was made or tried to, in order, also of a failed attempt.
    ///
    /// # Errors
    /// What was found instead of the key authorization.
    pub async fn observe(
        &self,
        attempt: &Http01Attempt<'_>,
        contacted: &mut Vec<IpAddr>,
    ) -> Result<(), Ending> {
        let deadline = Instant::now() + self.settings.total_timeout;
        let start = self.start(attempt)?;
        let mut trail = Trail::new(&start, &self.settings.redirect_ports, self.settings.redirects);
        let mut url = start;
        loop {
            let (address, answer) = self.hop(&url, deadline, contacted).await?;
            if !answer.status.is_redirection() {
                return judge(&answer, attempt.key_authorization)
                    .map_err(|(kind, cause)| hop_failure(kind, address, &url, cause).into());
            }
            url = trail.follow(&url, answer.status.as_u16(), answer.location.as_deref()).map_err(
                |refused| hop_failure(FailureKind::IncorrectResponse, address, &url, refused.to_string()),
            )?;
        }
    }

    fn start(&self, attempt: &Http01Attempt<'_>) -> Result<Url, Failure> {
        let authority = match self.settings.port {
            80 => attempt.host.to_string(),
            port => format!("{}:{port}", attempt.host),
        };
        let text = format!("http://{authority}/.well-known/acme-challenge/{}", attempt.token);
        Url::parse(&text)
            .map_err(|_| Failure::new(FailureKind::Dns, format!("{authority} is not a host of a URL")))
    }

    async fn hop(
        &self,
        url: &Url,
        deadline: Instant,
        contacted: &mut Vec<IpAddr>,
    ) -> Result<(IpAddr, Answer), Ending> {
        let Some(host) = url.host() else {
            return Err(Failure::new(FailureKind::Dns, format!("{} has no host", short(url))).into());
        };
        let found = candidates(&self.resolver, &self.policy, &host);
        let candidates = match tokio::time::timeout_at(deadline, found).await {
            Ok(candidates) => candidates?,
            Err(_) if !self.resolver.answers().await => return Err(LocalFault::Resolver.into()),
            Err(_) => {
                let detail = format!("looking up the host of {}: no answer in time", short(url));
                return Err(Failure::new(FailureKind::Dns, detail).into());
            }
        };
        let mut causes = Vec::new();
        for address in candidates {
            // Half of what is left at most: a late slot must not make a hurried attempt that then fails its client.
            let patience = deadline.saturating_duration_since(Instant::now()) / 2;
            let slot = tokio::time::timeout(patience, self.addresses.wait(address)).await;
            let _slot = slot.map_err(|_| LocalFault::Busy)?;
            contacted.push(address);
            match tokio::time::timeout_at(deadline, self.fetcher.get(url, address)).await {
                Ok(Ok(answer)) => return Ok((address, answer)),
                Ok(Err(FetchError::Connect(cause))) => causes.push(format!("{address}: {cause}")),
                Ok(Err(FetchError::After(kind, cause))) => {
                    return Err(hop_failure(kind, address, url, cause).into());
                }
                Err(_) => {
                    let cause = "no complete answer in time".to_owned();
                    return Err(hop_failure(FailureKind::Connection, address, url, cause).into());
                }
            }
        }
        let detail = format!("fetching {}: {}", short(url), causes.join("; "));
        Err(Failure::new(FailureKind::Connection, detail).into())
    }
}

fn hop_failure(kind: FailureKind, address: IpAddr, url: &Url, cause: String) -> Failure {
    Failure::new(kind, format!("{address}: fetching {}: {cause}", short(url)))
}

/// RFC 8555 §8.3: a 2xx answer whose body is the key authorization, trailing white space ignored.
fn judge(answer: &Answer, key_authorization: &str) -> Result<(), (FailureKind, String)> {
    if !answer.status.is_success() {
        let cause = format!("status {}, body {}", answer.status.as_u16(), excerpt(&answer.body));
        return Err((FailureKind::Unauthorized, cause));
    }
    if let Some(encoding) =
        answer.encoding.as_deref().filter(|encoding| !encoding.eq_ignore_ascii_case(b"identity"))
    {
        let cause = format!("the body is encoded ({}) although it must not be", excerpt(encoding));
        return Err((FailureKind::IncorrectResponse, cause));
    }
    if answer.oversize {
        let cause = format!("the body is longer than {} bytes: {}", answer.body.len(), excerpt(&answer.body));
        return Err((FailureKind::IncorrectResponse, cause));
    }
    if answer.body.trim_ascii_end() == key_authorization.as_bytes() {
        return Ok(());
    }
    let cause =
        format!("the body is not the key authorization {key_authorization}: {}", excerpt(&answer.body));
    Err((FailureKind::Unauthorized, cause))
}
