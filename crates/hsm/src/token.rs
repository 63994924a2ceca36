//! A token as the rest of the program sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use pki::{KeyAlgorithm, PublicKey};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;
use crate::frame::{NewKey, NewKeyKind, TokenKey};
use crate::key::{Attributes, FoundKey, GeneratedKey, Key, KeyEntry, KeyHealth, KeyQuery, KeyRef, KeySpec};
use crate::link::{Control, KeysReply};
use crate::process::{Executor, Launcher};
use crate::queue::{Made, Queues, Refusal, Waiting};
use crate::supervisor::Supervisor;
use crate::telemetry::Telemetry;
use crate::verify;
use crate::{Deadline, HsmError, Job, Lane, TokenConfig, WorkerCommand};

/// One token and the worker that serves it. Cheap to clone; the worker ends when the last clone and the last [`Key`] are
/// gone, and at [`Token::shutdown`].
#[derive(Debug, Clone)]
pub struct Token(Arc<Handle>);

/// Whether the token can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenState {
    /// A worker is on its way; jobs wait for it.
    Starting,
    /// Logged in.
    Ready(TokenInfo),
    /// Away, for this reason; jobs are refused at once. The supervisor goes on trying.
    Down(Fault),
}

/// What the token says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its serial number.
    pub serial: String,
    /// Its manufacturer.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Sessions that the worker has opened.
    pub sessions: u16,
}

/// The token's state and that of its keys, for readiness checks and operators.
#[derive(Debug, Clone)]
pub struct Health {
    /// Whether the token can be used.
    pub state: TokenState,
    /// Declared keys by `CKA_ID`.
    pub keys: Vec<(Vec<u8>, KeyHealth)>,
    /// Workers that ended since the start.
    pub respawns: u64,
    /// Jobs that wait now.
    pub waiting: usize,
}

impl Health {
    /// Whether the token is ready and every declared key can sign.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, TokenState::Ready(_))
            && self.keys.iter().all(|(_, health)| matches!(health, KeyHealth::Ready(_)))
    }
}

impl Token {
    /// Starts the supervisor of a token, in the current tokio runtime. Returns at once: the token may be away, and is
    /// picked up when it comes.
    pub fn start(config: TokenConfig, command: WorkerCommand) -> Token {
        let launcher = Box::new(Executor { config: config.clone(), command });
        Token::start_with(config, launcher)
    }

    pub(crate) fn start_with(config: TokenConfig, launcher: Box<dyn Launcher>) -> Token {
        let (control, controls) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queues: Mutex::new(Queues::new(config.queue_capacity, config.lane_capacity)),
            telemetry: Telemetry::new(&config.label),
            config,
            work: Notify::new(),
            probe: Notify::new(),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            state: watch::Sender::new(TokenState::Starting),
            keys: RwLock::new(Vec::new()),
            respawns: AtomicU64::new(0),
            nanos_per_signature: AtomicU64::new(0),
        });
        tokio::spawn(Supervisor { shared: Arc::clone(&shared), launcher, controls }.run());
        Token(Arc::new(Handle { shared, control }))
    }

    /// The token's label.
    pub fn label(&self) -> &str {
        self.0.label()
    }

    /// The state now.
    pub fn health(&self) -> Health {
        let shared = &self.0.shared;
        Health {
            state: shared.state.borrow().clone(),
            keys: shared
                .keys
                .read()
                .iter()
                .map(|key| (key.declared.id.clone(), key.health.borrow().clone()))
                .collect(),
            respawns: shared.respawns.load(Ordering::Relaxed),
            waiting: shared.queues.lock().waiting(),
        }
    }

    /// The state as it changes.
    pub fn watch(&self) -> watch::Receiver<TokenState> {
        self.0.shared.state.subscribe()
    }

    /// Waits until the token is ready.
    ///
    /// # Errors
    /// Why it is down, or that it is not ready by the deadline.
    pub async fn ready(&self, deadline: Deadline) -> Result<(), HsmError> {
        self.0.ready(deadline).await
    }

    /// Declares a key. The token is asked about it now, or when it comes; the same declaration gives the same key.
    pub fn key(&self, declared: KeyRef) -> Key {
        let mut keys = self.0.shared.keys.write();
        let entry = keys.iter().find(|key| key.declared == declared).cloned().unwrap_or_else(|| {
            let index = u32::try_from(keys.len()).unwrap_or(u32::MAX);
            let health = watch::Sender::new(KeyHealth::Unknown);
            let entry = Arc::new(KeyEntry { index, declared, health });
            keys.push(Arc::clone(&entry));
            entry
        });
        drop(keys);
        let _ = self.0.control.send(Control::Declare(entry.index));
        Key { token: Arc::clone(&self.0), entry }
    }

    /// Looks for private keys.
    ///
    /// # Errors
    /// When the token is away or a call fails.
    pub async fn find(&self, query: KeyQuery) -> Result<Vec<FoundKey>, HsmError> {
        let keys = self.0.ask(|reply| Control::Find(query, reply)).await?;
        Ok(keys.into_iter().map(found).collect())
    }

    /// Makes a key pair in the token and reads it back. Replaces nothing.
    ///
    /// # Errors
    /// [`Fault::KeyExists`] when the id or the label is taken; [`Fault::Attribute`] when the token made a key that is not
    /// as it was asked for.
    pub async fn generate(&self, spec: KeySpec) -> Result<GeneratedKey, HsmError> {
        let kind = match spec.algorithm {
            KeyAlgorithm::EcdsaP256 => NewKeyKind::P256,
            KeyAlgorithm::EcdsaP384 => NewKeyKind::P384,
            KeyAlgorithm::Ed25519 => NewKeyKind::Ed25519,
            KeyAlgorithm::Rsa { bits: bits @ (2048 | 3072 | 4096) } => NewKeyKind::Rsa { bits },
            key => return Err(HsmError::Unverifiable { key }),
        };
        let key = NewKey { kind, label: spec.label.clone(), id: spec.id.clone() };
        let unreadable = || {
            let id = hex::encode(&spec.id);
            HsmError::Token(Fault::PublicKeyUnreadable { id, reason: "not told by the token".to_owned() })
        };
        let made = self.0.ask(|reply| Control::Generate(key, reply)).await?;
        let FoundKey { id, label, public_key, attributes } =
            made.into_iter().map(found).next().ok_or_else(unreadable)?;
        let public_key = public_key.ok_or_else(unreadable)?;
        if public_key.algorithm() != spec.algorithm {
            return Err(unreadable());
        }
        tracing::info!(target: "hsm", token = self.label(), id = hex::encode(&id), algorithm = %spec.algorithm, "key generated");
        Ok(GeneratedKey { id, label, public_key, attributes })
    }

    /// Tries a token that is down again now; a new PIN file, for instance, is there.
    pub fn probe(&self) {
        self.0.shared.probe.notify_one();
    }

    /// Refuses new jobs, ends the worker properly, and waits for that.
    pub async fn shutdown(&self) {
        self.0.shared.stop.cancel();
        self.0.shared.ended.cancelled().await;
    }
}

/// What tokens and keys hold; when the last is gone the supervisor ends.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    control: mpsc::UnboundedSender<Control>,
}

impl Handle {
    pub(crate) fn label(&self) -> &str {
        self.shared.label()
    }

    /// Signs and verifies. A wrong signature is counted, its session replaced, and the job done once more.
    #[tracing::instrument(name = "hsm.sign", level = "debug", skip_all, fields(token = self.label(), lane = lane.as_str()))]
    pub(crate) async fn sign(
        &self,
        entry: &KeyEntry,
        lane: Lane,
        job: Job,
        deadline: Deadline,
    ) -> Result<Vec<u8>, HsmError> {
        let public_key = &entry.declared.public_key;
        let algorithm = public_key.algorithm();
        if !verify::is_verifiable(algorithm) {
            return Err(HsmError::Unverifiable { key: algorithm });
        }
        let mechanism = job.check(algorithm)?;
        if let KeyHealth::Refused(fault) = &*entry.health.borrow() {
            return Err(HsmError::Token(fault.clone()));
        }
        for _ in 0..VERIFICATIONS_MAX {
            let made = self.submit(entry, lane, mechanism, &job, deadline).await.inspect_err(|error| {
                self.shared.telemetry.refused(error.reason());
            })?;
            if verify::verifies(public_key, mechanism, job.data(), &made.signature) {
                return Ok(made.signature);
            }
            self.shared.telemetry.self_check_failures.increment(1);
            tracing::error!(
                target: "hsm",
                token = self.label(),
                id = hex::encode(&entry.declared.id),
                session = made.session,
                "the token's signature does not verify: discarded, session replaced"
            );
            let Made { session, life, .. } = made;
            let _ = self.control.send(Control::Recycle { life, session, key: entry.index });
        }
        self.shared.telemetry.refused(HsmError::WrongSignature.reason());
        Err(HsmError::WrongSignature)
    }

    async fn submit(
        &self,
        entry: &KeyEntry,
        lane: Lane,
        mechanism: crate::job::Mechanism,
        job: &Job,
        deadline: Deadline,
    ) -> Result<Made, HsmError> {
        let now = Instant::now();
        if deadline.instant() <= now {
            return Err(HsmError::Expired);
        }
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            key: entry.index,
            lane,
            mechanism,
            data: job.data().clone(),
            deadline,
            since: now,
            attempts: 0,
            reply,
        };
        let admitted = self.shared.queues.lock().push(waiting, now);
        admitted.map_err(|refusal| self.shared.refusal(refusal))?;
        self.shared.work.notify_one();
        match tokio::time::timeout_at(deadline.instant().into(), answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(HsmError::ShutDown),
            Err(_) => Err(HsmError::DeadlineExceeded),
        }
    }

    pub(crate) async fn ready(&self, deadline: Deadline) -> Result<(), HsmError> {
        let mut state = self.shared.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, TokenState::Starting));
        match tokio::time::timeout_at(deadline.instant().into(), settled).await {
            Ok(Ok(state)) => match &*state {
                TokenState::Down(fault) => Err(self.shared.unavailable(fault)),
                _ => Ok(()),
            },
            _ => Err(self.shared.unavailable(&Fault::Starting)),
        }
    }

    pub(crate) async fn key_ready(
        &self,
        entry: &KeyEntry,
        deadline: Deadline,
    ) -> Result<Attributes, HsmError> {
        self.ready(deadline).await?;
        let mut health = entry.health.subscribe();
        let settled = health.wait_for(|health| !matches!(health, KeyHealth::Unknown));
        match tokio::time::timeout_at(deadline.instant().into(), settled).await {
            Ok(Ok(health)) => match &*health {
                KeyHealth::Ready(attributes) => Ok(*attributes),
                KeyHealth::Refused(fault) => Err(HsmError::Token(fault.clone())),
                KeyHealth::Unknown => Err(HsmError::DeadlineExceeded),
            },
            _ => Err(HsmError::DeadlineExceeded),
        }
    }

    /// Asks the worker something that is not a signature. Not repeated when the worker dies: keys are not made twice.
    async fn ask(&self, control: impl FnOnce(KeysReply) -> Control) -> Result<Vec<TokenKey>, HsmError> {
        self.ready(Deadline::after(self.shared.config.start_timeout)).await?;
        let (reply, answer) = oneshot::channel();
        self.control.send(control(reply)).map_err(|_| HsmError::ShutDown)?;
        match tokio::time::timeout(QUESTION_MAX, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) if self.shared.stop.is_cancelled() => Err(HsmError::ShutDown),
            Ok(Err(_)) => {
                Err(self.shared.unavailable(&Fault::Died { status: "while it was asked".to_owned() }))
            }
            Err(_) => Err(HsmError::DeadlineExceeded),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("label", &self.label())
            .field("state", &*self.shared.state.borrow())
            .finish_non_exhaustive()
    }
}

/// What the handles and the supervisor share.
pub(crate) struct Shared {
    pub(crate) config: TokenConfig,
    pub(crate) queues: Mutex<Queues>,
    pub(crate) telemetry: Telemetry,
    /// A job was admitted.
    pub(crate) work: Notify,
    /// Somebody wants a token that is down to be tried again.
    pub(crate) probe: Notify,
    /// Nobody needs the token any more.
    pub(crate) stop: CancellationToken,
    ended: CancellationToken,
    pub(crate) state: watch::Sender<TokenState>,
    pub(crate) keys: RwLock<Vec<Arc<KeyEntry>>>,
    respawns: AtomicU64,
    /// Smoothed, over all sessions: what one more job in the queue costs.
    nanos_per_signature: AtomicU64,
}

impl Shared {
    pub(crate) fn label(&self) -> &str {
        &self.config.label
    }

    /// How often the link looks for hung workers.
    pub(crate) fn tick(&self) -> Duration {
        let limit = self.config.hang_timeout.min(self.config.start_timeout);
        (limit / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    pub(crate) fn key_found(&self, index: u32, outcome: Result<Attributes, Fault>) {
        let Some(key) = self.keys.read().get(index as usize).cloned() else { return };
        let health = match outcome {
            Ok(attributes) => KeyHealth::Ready(attributes),
            // Nothing about the key: it will be asked for again, and each signature finds out for itself.
            Err(fault @ Fault::Call { .. }) => {
                tracing::warn!(target: "hsm", token = self.label(), %fault, "cannot look for the key");
                return;
            }
            Err(fault) => KeyHealth::Refused(fault),
        };
        let changed = key.health.send_if_modified(|known| {
            let changed = *known != health;
            known.clone_from(&health);
            changed
        });
        let id = hex::encode(&key.declared.id);
        match health {
            KeyHealth::Refused(fault) if changed => {
                tracing::error!(target: "hsm", token = self.label(), id, %fault, "key refused");
            }
            KeyHealth::Ready(_) if changed => {
                tracing::info!(target: "hsm", token = self.label(), id, "key is ready")
            }
            _ => {}
        }
    }

    pub(crate) fn service_is(&self, micros: f64, sessions: usize) {
        let nanos = micros * 1000.0 / sessions as f64;
        self.nanos_per_signature.store(nanos as u64, Ordering::Relaxed);
    }

    pub(crate) fn tell_depths(&self) {
        let queues = self.queues.lock();
        for lane in Lane::ALL {
            self.telemetry.depth(lane, queues.waiting_in(lane));
        }
    }

    pub(crate) fn buried(&self) {
        self.respawns.fetch_add(1, Ordering::Relaxed);
    }

    /// Refuses everything until a worker is ready again. What is known about the keys is void.
    pub(crate) fn is_down(&self, fault: Fault) {
        let error = self.unavailable(&fault);
        self.queues.lock().close(&fault, &error);
        for key in self.keys.read().iter() {
            key.health.send_replace(KeyHealth::Unknown);
        }
        self.state.send_replace(TokenState::Down(fault));
    }

    pub(crate) fn ended(&self) {
        self.queues.lock().shut_down();
        self.telemetry.up.set(0.0);
        self.state.send_replace(TokenState::Down(Fault::Died { status: "shut down".to_owned() }));
        self.ended.cancel();
    }

    fn unavailable(&self, cause: &Fault) -> HsmError {
        HsmError::Unavailable { token: self.config.label.clone(), cause: cause.clone() }
    }

    fn refusal(&self, refusal: Refusal) -> HsmError {
        match refusal {
            Refusal::Full { waiting } => {
                let nanos = self.nanos_per_signature.load(Ordering::Relaxed).saturating_mul(waiting as u64);
                let retry_after = Duration::from_nanos(nanos).max(RETRY_AFTER_MIN);
                HsmError::QueueFull { token: self.config.label.clone(), retry_after }
            }
            Refusal::Closed(fault) => self.unavailable(&fault),
            Refusal::ShutDown => HsmError::ShutDown,
        }
    }
}

fn found(key: TokenKey) -> FoundKey {
    let public_key = key.spki.and_then(|spki| PublicKey::from_spki_der(&spki).ok());
    FoundKey { id: key.id, label: key.label, public_key, attributes: key.attributes }
}

/// A wrong signature is asked for once more, then it is an error.
const VERIFICATIONS_MAX: usize = 2;

/// No hint says "at once".
const RETRY_AFTER_MIN: Duration = Duration::from_millis(10);

/// RSA keys of 4096 bits take network HSMs a minute.
const QUESTION_MAX: Duration = Duration::from_secs(180);
