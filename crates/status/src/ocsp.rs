//! OCSP (RFC 6960, profiled by RFC 9919) over HTTP: a cache in front of the signers, true to their notices.
//!
//! Nothing is signed here. An answer is kept when it was verified with its issuer's certificate, and until its `nextUpdate`;
//! it is never served past that, and never after a notice that names its certificate. What is kept is served without a signer.

mod answer;
mod asker;
mod cache;
mod issuers;
mod log;
mod notices;
mod path;
mod queue;
mod spool;
mod sweep;
mod truth;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use metrics::Counter;
use pki::Certificate;
use pki::ocsp::{ErrorStatus, MAX_REQUEST_OCTETS};
use rpc::proto::status::v1::responder_client::ResponderClient;
use runtime::{Failure, Lifecycle, Peer, Rates, SharedClock, Shares};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{CacheSection, LimitsSection, OcspSection};
use crate::http::{Reply, not_allowed};
use crate::shelf::Shelf;
use answer::{Dress, Kept, error, failed, passed};
use asker::{Asker, Line};
use cache::{Cache, Slot};
use issuers::Issuers;
use notices::Notices;
use queue::{Outcome, Question};
use spool::Writer;
use sweep::Sweeper;
use truth::Truth;

/// Answers OCSP requests.
pub(crate) struct Responder {
    asker: Arc<Asker>,
    clock: SharedClock,
    dress: Dress,
    rates: Rates,
    /// Requests that wait for a signer, and those among them whose answer cannot be kept.
    waiting: Semaphore,
    waiting_unkept: Semaphore,
    bodies: Semaphore,
    bodies_by_client: Shares,
    body_patience: std::time::Duration,
    is_settled: Arc<AtomicBool>,
    counts: Counts,
}

/// What became of requests; found without a look-up.
struct Counts {
    hit: Counter,
    miss: Counter,
    unkept: Counter,
    malformed: Counter,
    unauthorized: Counter,
    limited: Counter,
    late: Counter,
    stale: Counter,
}

impl Counts {
    fn new() -> Self {
        let of = |outcome| metrics::counter!("chancery_status_ocsp_requests_total", "outcome" => outcome);
        Self {
            hit: of("hit"),
            miss: of("miss"),
            unkept: of("unkept"),
            malformed: of("malformed"),
            unauthorized: of("unauthorized"),
            limited: of("limited"),
            late: of("late"),
            stale: of("stale"),
        }
    }
}

/// What a responder is made of.
pub(crate) struct Parts {
    pub(crate) settings: OcspSection,
    pub(crate) limits: LimitsSection,
    pub(crate) cache: CacheSection,
    pub(crate) channel: rpc::Channel,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) anchors: Vec<Certificate>,
    /// Ends what works in the background, after the port.
    pub(crate) done: CancellationToken,
}

impl Responder {
    /// Reads the spool, and starts what works in the background.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub(crate) fn start(parts: Parts, folder: &Path, lifecycle: &Lifecycle) -> std::io::Result<Self> {
        let Parts { settings, limits, cache: freshness, channel, shelf, anchors, done } = parts;
        let clock = lifecycle.clock();
        let readiness = lifecycle.readiness();
        let cache = Arc::new(Cache::new(settings.answers.get(), settings.answers_bytes()));
        let truth = Arc::new(Truth::new(settings.recent_revocations.get()));
        let (log, condition) = spool::load(folder, &cache, &truth, clock.now().unix_timestamp())?;
        if condition.damaged > 0 {
            warn!(places = condition.damaged, "status.ocsp_spool_refused");
            let refused = metrics::counter!("chancery_status_refused_total", "reason" => "ocsp_spool");
            refused.increment(condition.damaged as u64);
        }
        info!(answers = cache.len(), torn_bytes = condition.torn, "status.ocsp_spool_read");
        let disk = readiness.notice("ocsp spool writes");
        let (journal, writer) = Writer::new(log, condition, Arc::clone(&cache), Arc::clone(&truth), disk);
        let client = ResponderClient::new(channel);
        let asker = Arc::new(Asker {
            client: client.clone(),
            settings: settings.clone(),
            cache,
            truth,
            issuers: Arc::new(Issuers::new(shelf, anchors)),
            journal,
            clock: Arc::clone(&clock),
            signers: readiness.notice("ocsp signers"),
            line: Line::new(),
        });
        // With nothing kept, there is nothing that could be out of date.
        let is_settled = Arc::new(AtomicBool::new(asker.cache.len() == 0));
        let notices = Notices { client, asker: Arc::clone(&asker), is_settled: Arc::clone(&is_settled) };
        let sweeper = Sweeper { asker: Arc::clone(&asker), renewal: readiness.notice("ocsp renewal") };
        until(lifecycle, "ocsp calls", &done, Arc::clone(&asker).run(done.clone()));
        until(lifecycle, "ocsp notices", &done, notices.run());
        until(lifecycle, "ocsp renewal", &done, sweeper.run());
        until(lifecycle, "ocsp spool proof", &done, Arc::clone(&asker).prove_all());
        let stop = done.clone();
        lifecycle.spawn("ocsp spool", async move {
            writer.run(stop).await;
            Ok::<(), Failure>(())
        });
        Ok(Self {
            asker,
            clock,
            dress: Dress::new(freshness.ocsp_seconds),
            rates: Rates::new(limits.live_per_second.get(), limits.live_burst.get()),
            waiting: Semaphore::new(settings.waiting.get()),
            waiting_unkept: Semaphore::new(settings.waiting_unkept.get()),
            bodies: Semaphore::new(limits.bodies.get()),
            bodies_by_client: Shares::new(limits.bodies_per_peer()),
            body_patience: std::time::Duration::from_secs(limits.body_seconds.get().into()),
            is_settled,
            counts: Counts::new(),
        })
    }

    /// Answers a request; its path from `at` on stands after `…/ocsp`.
    pub(crate) async fn respond(&self, peer: &Peer, at: usize, request: Request<Incoming>) -> Reply {
        let path = request.uri().path();
        let rest = path.get(at..).unwrap_or_default();
        match *request.method() {
            Method::POST if rest.len() <= 1 => self.post(peer, request).await,
            Method::GET | Method::HEAD if rest.len() > 1 => {
                let asked = Asked { peer, method: request.method(), headers: request.headers() };
                if let Some(reply) = self.recalled(rest.as_bytes(), &asked) {
                    return reply;
                }
                match path::request(rest) {
                    Some(der) => self.answer(&asked, rest.as_bytes(), der.into()).await,
                    None => self.malformed(&asked),
                }
            }
            _ if rest.len() <= 1 => not_allowed("POST"),
            _ => not_allowed("GET, HEAD"),
        }
    }

    async fn post(&self, peer: &Peer, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        if head.headers.get(CONTENT_TYPE).is_some_and(|kind| !is_request(kind)) {
            return failed(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let der = match self.read(body, peer.client(&head.headers)).await {
            Ok(der) => der,
            Err(status) => return failed(status),
        };
        let asked = Asked { peer, method: &head.method, headers: &head.headers };
        match self.recalled(&der, &asked) {
            Some(reply) => reply,
            None => self.answer(&asked, &der.clone(), der).await,
        }
    }

    /// A whole body, of what a request may have and within its time.
    async fn read(&self, mut body: Incoming, client: Option<IpAddr>) -> Result<Bytes, StatusCode> {
        if body.size_hint().lower() > MAX_REQUEST_OCTETS as u64 {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let share =
            client.map(|client| self.bodies_by_client.take(client).ok_or(StatusCode::SERVICE_UNAVAILABLE));
        let _share = share.transpose()?;
        let _place = self.bodies.try_acquire().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let read = async {
            let mut whole = Bytes::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
                if whole.len() + data.len() > MAX_REQUEST_OCTETS {
                    return Err(StatusCode::PAYLOAD_TOO_LARGE);
                }
                // Nearly always there is one piece.
                whole = if whole.is_empty() { data } else { joined(&whole, &data) };
            }
            Ok(whole)
        };
        timeout(self.body_patience, read).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
    }

    /// What is kept for a request that was seen before, octet by octet.
    fn recalled(&self, spelling: &[u8], asked: &Asked<'_>) -> Option<Reply> {
        let kept = self.asker.cache.recall(spelling)?.kept()?;
        let now = self.clock.now().unix_timestamp();
        self.is_fresh(&kept, now).then(|| self.hit(&kept, asked, now))
    }

    /// Whether an answer is served without asking for a newer one.
    fn is_fresh(&self, kept: &Arc<Kept>, now: i64) -> bool {
        let is_due = now >= kept.due || !self.is_settled.load(Ordering::Relaxed);
        now < kept.next_update && (!is_due || self.asker.is_silent()) && self.asker.is_proven(kept, now)
    }

    fn hit(&self, kept: &Kept, asked: &Asked<'_>, now: i64) -> Reply {
        self.counts.hit.increment(1);
        self.dress.kept(kept, asked.method, asked.headers, now)
    }

    async fn answer(&self, asked: &Asked<'_>, spelling: &[u8], der: Bytes) -> Reply {
        let Ok(request) = pki::ocsp::Request::from_der(&der) else { return self.malformed(asked) };
        let ids = request.cert_ids();
        let [id] = ids else { return self.unkept(asked, der, ids).await };
        if request.nonce().is_some() {
            return self.unkept(asked, der, ids).await;
        }
        let slot = self.asker.cache.find(id);
        let now = self.clock.now().unix_timestamp();
        let kept = slot.as_ref().and_then(|slot| slot.kept());
        if let (Some(slot), Some(kept)) = (&slot, &kept)
            && self.is_fresh(kept, now)
        {
            self.learn(spelling, slot);
            return self.hit(kept, asked, now);
        }
        if kept.is_none()
            && let Some(reply) = self.stranger(asked, std::slice::from_ref(id))
        {
            return reply;
        }
        self.counts.miss.increment(1);
        match self.live(asked, Question::about(id), &self.waiting).await {
            Outcome::Kept(kept) => {
                if let Some(slot) = self.asker.cache.find(id) {
                    self.learn(spelling, &slot);
                }
                self.dress.kept(&kept, asked.method, asked.headers, self.clock.now().unix_timestamp())
            }
            Outcome::Passed(body) => passed(body, asked.method),
            Outcome::Silence => self.older(asked, id),
        }
    }

    fn learn(&self, spelling: &[u8], slot: &Arc<Slot>) {
        self.asker.cache.learn(spelling, slot);
    }

    /// No newer one came: what there is, is still true as far as anybody told.
    fn older(&self, asked: &Asked<'_>, id: &pki::ocsp::CertId) -> Reply {
        let now = self.clock.now().unix_timestamp();
        // Looked up again: a notice may have come.
        let kept = self.asker.cache.find(id).and_then(|slot| slot.kept());
        match kept.filter(|kept| now < kept.next_update && self.asker.is_proven(kept, now)) {
            Some(kept) => {
                self.counts.stale.increment(1);
                self.dress.kept(&kept, asked.method, asked.headers, now)
            }
            None => {
                self.counts.late.increment(1);
                error(ErrorStatus::TryLater, asked.method)
            }
        }
    }

    /// With a nonce, or about several certificates.
    async fn unkept(&self, asked: &Asked<'_>, der: Bytes, ids: &[pki::ocsp::CertId]) -> Reply {
        if let Some(reply) = self.stranger(asked, ids) {
            return reply;
        }
        self.counts.unkept.increment(1);
        // Not what holds on to the buffer of a connection.
        let request = Bytes::copy_from_slice(&der);
        let question = Question { request, ids: ids.into(), is_plain: false };
        match self.live(asked, question, &self.waiting_unkept).await {
            Outcome::Kept(kept) => passed(kept.body.clone(), asked.method),
            Outcome::Passed(body) => passed(body, asked.method),
            Outcome::Silence => {
                self.counts.late.increment(1);
                error(ErrorStatus::TryLater, asked.method)
            }
        }
    }

    /// What is said when none of the certificates is of an issuer that is known here: nobody is asked.
    fn stranger(&self, asked: &Asked<'_>, ids: &[pki::ocsp::CertId]) -> Option<Reply> {
        let issuers = &self.asker.issuers;
        if ids.iter().any(|id| issuers.of(id).is_some()) {
            return None;
        }
        if issuers.is_empty() {
            self.counts.late.increment(1);
            return Some(error(ErrorStatus::TryLater, asked.method));
        }
        self.counts.unauthorized.increment(1);
        Some(error(ErrorStatus::Unauthorized, asked.method))
    }

    /// Asks a signer, within the limits.
    async fn live(&self, asked: &Asked<'_>, question: Question, places: &Semaphore) -> Outcome {
        let client = asked.peer.client(asked.headers);
        if client.is_some_and(|client| !self.rates.allow(client, Instant::now())) {
            self.counts.limited.increment(1);
            return Outcome::Silence;
        }
        let Ok(_place) = places.try_acquire() else {
            self.counts.limited.increment(1);
            return Outcome::Silence;
        };
        let waiting = self.asker.ask(question);
        match timeout(self.asker.settings.wait(), waiting).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome::Silence,
        }
    }

    fn malformed(&self, asked: &Asked<'_>) -> Reply {
        self.counts.malformed.increment(1);
        error(ErrorStatus::MalformedRequest, asked.method)
    }
}

/// What of an HTTP request matters to its answer.
struct Asked<'a> {
    peer: &'a Peer,
    method: &'a Method,
    headers: &'a HeaderMap,
}

/// RFC 6960 §A.1. Whoever says nothing of the type is believed.
fn is_request(kind: &HeaderValue) -> bool {
    let kind = kind.to_str().unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/ocsp-request"))
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    both.freeze()
}

/// Runs a task that ends with everything else.
fn until(
    lifecycle: &Lifecycle,
    name: &'static str,
    done: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let done = done.clone().cancelled_owned();
    lifecycle.spawn(name, async move {
        tokio::select! {
            () = task => {}
            () = done => {}
        }
        Ok::<(), Failure>(())
    });
}
