//! A bucket: s3s-fs behind a port of this host. It checks signatures, digests, `If-None-Match` and `If-Match` itself, but
//! one after another: requests take turns here, so that a condition and what follows from it are one, as in S3. On request it
//! answers with errors, late, or not at all.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{AUTHORIZATION, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore as _};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub(crate) const BUCKET: &str = "crl-example";
/// What a publisher tries conditions on.
pub(crate) const TRIAL: &str = "conditional-put";
pub(crate) const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub(crate) const SECRET_KEY: &str = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY";

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// An answer of the store's own.
    Status(u16),
    /// Nothing for a while, then as if nothing had been.
    Late(Duration),
    /// Done, and the connection is cut before anybody hears of it.
    CutAfter,
    /// The connection is cut in the middle of the answer's body.
    CutBody,
}

/// The bucket. It ends with this.
pub(crate) struct DoubleBucket {
    inner: Arc<Inner>,
    pub(crate) endpoint: String,
    task: tokio::task::JoinHandle<()>,
}

struct Inner {
    service: S3Service,
    folder: TempDir,
    turn: Semaphore,
    faults: parking_lot::Mutex<Vec<(Method, Fault)>>,
    /// Everything that was written: key and content, in the order in which it came to be there.
    history: parking_lot::Mutex<Vec<(String, Vec<u8>)>>,
    /// Puts with a condition wait while this is true.
    held: watch::Sender<bool>,
    waiting: AtomicUsize,
    unchanged: AtomicUsize,
    ignores_conditions: AtomicBool,
}

impl DoubleBucket {
    /// One that wants its callers to sign.
    pub(crate) async fn start() -> Self {
        Self::serve(true, false).await
    }

    /// One of the kind that takes every put, whatever its condition.
    pub(crate) async fn that_ignores_conditions() -> Self {
        Self::serve(false, true).await
    }

    async fn serve(signed: bool, ignores_conditions: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        if signed {
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let inner = Arc::new(Inner {
            service: builder.build(),
            folder,
            turn: Semaphore::new(1),
            faults: parking_lot::Mutex::default(),
            history: parking_lot::Mutex::default(),
            held: watch::Sender::new(false),
            waiting: AtomicUsize::new(0),
            unchanged: AtomicUsize::new(0),
            ignores_conditions: AtomicBool::new(ignores_conditions),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(accept(listener, Arc::clone(&inner)));
        Self { inner, endpoint, task }
    }

    /// The next requests of this method go wrong.
    pub(crate) fn fail(&self, method: &Method, faults: &[Fault]) {
        self.inner.faults.lock().extend(faults.iter().map(|fault| (method.clone(), *fault)));
    }

    /// How many of them are still to come.
    pub(crate) fn faults_left(&self) -> usize {
        self.inner.faults.lock().len()
    }

    /// Puts with a condition have been sent, and wait.
    pub(crate) fn hold_puts(&self) {
        self.inner.held.send_replace(true);
    }

    pub(crate) fn held_puts(&self) -> usize {
        self.inner.waiting.load(Ordering::SeqCst)
    }

    pub(crate) fn release_puts(&self) {
        self.inner.held.send_replace(false);
    }

    /// How often somebody was told that what he has is what is there.
    pub(crate) fn unchanged(&self) -> usize {
        self.inner.unchanged.load(Ordering::SeqCst)
    }

    /// What lies under a key.
    pub(crate) fn content(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.inner.folder.path().join(BUCKET).join(key)).ok()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.inner.history.lock().iter().map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    pub(crate) fn written(&self, key: &str) -> Vec<Vec<u8>> {
        let history = self.inner.history.lock();
        history.iter().filter(|(of, _)| of == key).map(|(_, content)| content.clone()).collect()
    }

    /// Somebody else with rights in it, who gives no conditions.
    pub(crate) fn somebody(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .build()
            .unwrap()
    }

    pub(crate) async fn overwrite(&self, key: &str, content: &[u8]) {
        self.somebody()
            .put_opts(&Path::from(key), content.to_vec().into(), Default::default())
            .await
            .unwrap();
    }

    pub(crate) async fn delete(&self, key: &str) {
        use object_store::ObjectStoreExt as _;
        self.somebody().delete(&Path::from(key)).await.unwrap();
    }
}

impl Drop for DoubleBucket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&inner), request));
            let connection = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            drop(connection.serve_connection(TokioIo::new(socket), service).await);
        });
    }
}

/// No answer: hyper cuts the connection.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<s3s::Body>, Cut> {
    // What conditions are tried on is left in peace.
    let trial = request.uri().path().ends_with(TRIAL);
    let fault = {
        let mut faults = inner.faults.lock();
        let of = |(method, _): &(Method, Fault)| !trial && method == request.method();
        let at = faults.iter().position(of);
        at.map(|at| faults.remove(at).1)
    };
    match fault {
        Some(Fault::Status(status)) => {
            let body =
                "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            let response = Response::builder().status(status).body(s3s::Body::from(body.to_owned()));
            return Ok(response.unwrap());
        }
        Some(Fault::Late(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let conditional = [IF_MATCH, IF_NONE_MATCH].iter().any(|name| request.headers().contains_key(name));
    let is_put = request.method() == Method::PUT;
    if is_put && conditional && !trial && *inner.held.borrow() {
        inner.waiting.fetch_add(1, Ordering::SeqCst);
        drop(inner.held.subscribe().wait_for(|held| !held).await);
        inner.waiting.fetch_sub(1, Ordering::SeqCst);
    }
    let response = one_after_another(&inner, request).await?;
    match fault {
        Some(Fault::CutAfter) => Err(Cut),
        Some(Fault::CutBody) => Ok(response.map(|body| s3s::Body::http_body(Torn(body)))),
        _ => Ok(response),
    }
}

async fn one_after_another(
    inner: &Inner,
    mut request: Request<Incoming>,
) -> Result<Response<s3s::Body>, Cut> {
    let _turn = inner.turn.acquire().await.map_err(|_| Cut)?;
    if inner.ignores_conditions.load(Ordering::SeqCst) {
        request.headers_mut().remove(IF_MATCH);
        request.headers_mut().remove(IF_NONE_MATCH);
        // Made with them.
        request.headers_mut().remove(AUTHORIZATION);
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let unless = request.headers().get(IF_NONE_MATCH).cloned();
    let response = inner.service.call(request.map(s3s::Body::http_body)).await.map_err(|_| Cut)?;
    if method == Method::PUT && response.status() == StatusCode::OK {
        let key = path.trim_start_matches('/').trim_start_matches(BUCKET).trim_start_matches('/');
        let content: PathBuf = inner.folder.path().join(BUCKET).join(key);
        inner.history.lock().push((key.to_owned(), std::fs::read(content).unwrap()));
    }
    // The one condition that s3s-fs leaves out.
    if method == Method::GET && unless.is_some() && response.headers().get(ETAG) == unless.as_ref() {
        inner.unchanged.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(s3s::Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    Ok(response)
}

/// The first piece of a body, and no more.
struct Torn(s3s::Body);

impl hyper::body::Body for Torn {
    type Data = bytes::Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        let frame = std::task::ready!(std::pin::Pin::new(&mut self.0).poll_frame(context));
        std::task::Poll::Ready(Some(match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.len() > 1 => Ok(hyper::body::Frame::data(data.slice(..1))),
                _ => Err(Box::new(Cut)),
            },
            _ => Err(Box::new(Cut)),
        }))
    }
}
