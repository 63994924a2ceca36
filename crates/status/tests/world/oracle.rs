//! A signer's OCSP half: it knows certificates and revocations, and answers with real signatures.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::Stream;
use pki::ocsp::{
    CertId, CertIdHash, CertStatus, ErrorStatus, IssuerHashes, Request as OcspRequest, Single, assemble,
    error, response_data,
};
use pki::{Certificate, Reason, Serial, SignatureAlgorithm, Timestamp};
use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rcgen::{SerialNumber, SigningKey};
use rpc::proto::status::v1::responder_server::Responder;
use rpc::proto::status::v1::{
    Answer, AnswerRequest, AnswerResponse, Basis, ListRevisionsRequest, ListRevisionsResponse,
    RevocationNotice, ShardRevision, WatchRevocationsRequest,
};
use testkit::TestClock;
use tokio::sync::{broadcast, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Ca, DAY, at};

pub const ISSUER: &str = "issuer-1";

/// How questions are answered.
#[derive(Clone)]
pub enum Mood {
    /// As things are.
    True,
    /// With an OCSP error.
    Error(ErrorStatus),
    /// The call fails.
    Fails(tonic::Code),
    /// By a responder that another CA made.
    Stranger(Arc<Key>),
    /// `good` for what nobody was given, and said to be unassigned.
    Lies,
    /// About another certificate than asked.
    Crossed,
}

/// A responder's key and certificate.
pub struct Key {
    pair: KeyPair,
    certificate: Certificate,
}

impl Key {
    pub fn new(issuer: &Ca) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Test responder");
        params.serial_number = Some(SerialNumber::from(77));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        params.use_authority_key_identifier_extension = true;
        params.not_before = at(super::NOW - DAY);
        params.not_after = at(super::NOW + 600 * DAY);
        // id-pkix-ocsp-nocheck (RFC 6960 §4.2.2.2.1).
        let nocheck = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 5], vec![0x05, 0x00]);
        params.custom_extensions = vec![nocheck];
        let pair = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&pair, &issuer.issuer).unwrap();
        Self { pair, certificate: Certificate::from_der(certificate.der()).unwrap() }
    }

    pub fn sign(&self, singles: &[Single<'_>], produced_at: Timestamp, nonce: Option<&[u8]>) -> Bytes {
        let data = response_data(self.certificate.public_key(), produced_at, singles, nonce);
        let signature = self.pair.sign(&data).unwrap();
        let certificates: &[&[u8]] = &[self.certificate.der()];
        assemble(&data, SignatureAlgorithm::EcdsaSha256, &signature, certificates).into()
    }
}

/// What was asked in one call.
#[derive(Debug, Clone)]
pub struct Call {
    pub serials: Vec<Vec<Serial>>,
    pub is_ahead: bool,
}

struct State {
    certificates: BTreeMap<Serial, (u32, Option<(Timestamp, Reason)>)>,
    /// Shard, revision, serial.
    history: Vec<(u32, u64, Serial)>,
    revisions: BTreeMap<u32, u64>,
    calls: Vec<Call>,
    streams: usize,
    mood: Mood,
    validity: u64,
}

/// Clones are one, and one database behind every signer of a test.
#[derive(Clone)]
pub struct Oracle {
    state: Arc<Mutex<State>>,
    key: Arc<Key>,
    hashes: Arc<IssuerHashes>,
    clock: TestClock,
    notices: broadcast::Sender<RevocationNotice>,
    gate: Arc<watch::Sender<bool>>,
    stop: CancellationToken,
}

pub fn serial(number: u16) -> Serial {
    let mut random = [7; 16];
    random[14..].copy_from_slice(&number.to_be_bytes());
    Serial::from_random(random)
}

impl Oracle {
    pub fn new(issuer: &Ca, clock: &TestClock) -> Self {
        let state = State {
            certificates: BTreeMap::new(),
            history: Vec::new(),
            revisions: [(0, 10), (1, 10)].into(),
            calls: Vec::new(),
            streams: 0,
            mood: Mood::True,
            validity: 48 * 3600,
        };
        let certificate = Certificate::from_der(&issuer.der).unwrap();
        Self {
            state: Arc::new(Mutex::new(state)),
            key: Arc::new(Key::new(issuer)),
            hashes: Arc::new(IssuerHashes::of(&certificate)),
            clock: clock.clone(),
            notices: broadcast::Sender::new(4096),
            gate: Arc::new(watch::Sender::new(true)),
            stop: CancellationToken::new(),
        }
    }

    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// Certificates of shard 0 that nobody has revoked.
    pub fn assign(&self, numbers: impl IntoIterator<Item = u16>) {
        let mut state = self.state.lock().unwrap();
        state.certificates.extend(numbers.into_iter().map(|number| (serial(number), (0, None))));
    }

    pub fn id(&self, number: u16) -> CertId {
        CertId::new(CertIdHash::Sha1, &self.hashes, &serial(number))
    }

    pub fn id_sha256(&self, number: u16) -> CertId {
        CertId::new(CertIdHash::Sha256, &self.hashes, &serial(number))
    }

    /// The DER of a request about one certificate.
    pub fn request(&self, number: u16) -> Vec<u8> {
        pki::ocsp::encode_request(&[self.id(number)], None)
    }

    pub fn set_mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    pub fn set_validity(&self, seconds: u64) {
        self.state.lock().unwrap().validity = seconds;
    }

    /// Holds answers back after they were made.
    pub fn hold(&self, held: bool) {
        self.gate.send_replace(!held);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.calls().iter().map(|call| call.serials.len()).sum()
    }

    /// Streams of notices that were opened so far.
    pub fn streams(&self) -> usize {
        self.state.lock().unwrap().streams
    }

    /// Revokes in one transaction, and tells nobody. Answers with the notice.
    pub fn revoke_silently(&self, numbers: &[u16]) -> RevocationNotice {
        let mut state = self.state.lock().unwrap();
        let now = Timestamp::from_unix(self.clock.shared().now().unix_timestamp() as u64);
        let revision = state.revisions[&0] + 1;
        state.revisions.insert(0, revision);
        for number in numbers {
            state.certificates.insert(serial(*number), (0, Some((now, Reason::KeyCompromise))));
            state.history.push((0, revision, serial(*number)));
        }
        notice(0, revision, numbers.iter().map(|number| serial(*number)))
    }

    pub fn revoke(&self, numbers: &[u16]) {
        let notice = self.revoke_silently(numbers);
        self.tell(notice);
    }

    pub fn tell(&self, notice: RevocationNotice) {
        let _ = self.notices.send(notice);
    }

    pub fn revision(&self) -> u64 {
        self.state.lock().unwrap().revisions[&0]
    }

    /// The database goes back: revocations since then are lost, and its revisions.
    pub fn rewind(&self, to: u64) {
        let mut state = self.state.lock().unwrap();
        state.revisions.insert(0, to);
        let lost: Vec<_> = state.history.iter().filter(|(_, at, _)| *at > to).map(|entry| entry.2).collect();
        state.history.retain(|(_, at, _)| *at <= to);
        for serial in lost {
            state.certificates.insert(serial, (0, None));
        }
    }

    /// An answer as it would be made now.
    pub fn answer_to(&self, number: u16, by: &Key) -> Bytes {
        let id = self.id(number);
        by.sign(&[self.single(&id, CertStatus::Good)], self.now(), None)
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.clock.shared().now().unix_timestamp() as u64)
    }

    fn single<'a>(&self, id: &'a CertId, status: CertStatus) -> Single<'a> {
        let validity = self.state.lock().unwrap().validity;
        let next_update = Timestamp::from_unix(self.now().unix() + validity);
        Single { id, status, this_update: self.now(), next_update, archive_cutoff: None }
    }

    fn answer(&self, der: &[u8]) -> Answer {
        let failed = |status| Answer { response: Bytes::from_static(error(status)), bases: Vec::new() };
        let Ok(request) = OcspRequest::from_der(der) else { return failed(ErrorStatus::MalformedRequest) };
        let (mood, revision) = {
            let state = self.state.lock().unwrap();
            (state.mood.clone(), state.revisions[&0])
        };
        if let Mood::Error(status) = mood {
            return failed(status);
        }
        let mut bases = Vec::new();
        let mut singles = Vec::new();
        let other = self.id(60_000);
        for id in request.cert_ids() {
            if !id.is_of(&self.hashes) {
                return failed(ErrorStatus::Unauthorized);
            }
            let found =
                id.serial().and_then(|one| self.state.lock().unwrap().certificates.get(&one).copied());
            let status = match found {
                Some((_, None)) => CertStatus::Good,
                Some((_, Some((at, reason)))) => CertStatus::Revoked { at, reason },
                None if matches!(mood, Mood::Lies) => CertStatus::Good,
                None => CertStatus::Unknown,
            };
            bases.push(Basis {
                issuer_id: ISSUER.to_owned(),
                assigned: found.is_some(),
                shard: found.map_or(0, |(shard, _)| shard),
                revision: if found.is_some() { revision } else { 0 },
            });
            let id = if matches!(mood, Mood::Crossed) { &other } else { id };
            singles.push(self.single(id, status));
        }
        let key = match &mood {
            Mood::Stranger(key) => key,
            _ => &self.key,
        };
        Answer { response: key.sign(&singles, self.now(), request.nonce()), bases }
    }

    fn note(&self, request: &AnswerRequest) {
        let serials = |der: &[u8]| {
            let request = OcspRequest::from_der(der);
            request.map(|one| one.cert_ids().iter().filter_map(CertId::serial).collect()).unwrap_or_default()
        };
        let call = Call {
            serials: request.questions.iter().map(|question| serials(&question.request)).collect(),
            is_ahead: request.questions.iter().any(|question| question.ahead),
        };
        self.state.lock().unwrap().calls.push(call);
    }
}

pub fn notice(shard: u32, revision: u64, serials: impl Iterator<Item = Serial>) -> RevocationNotice {
    RevocationNotice {
        shard: Some(ShardRevision { issuer_id: ISSUER.to_owned(), shard, revision }),
        serials: serials.map(|serial| Bytes::copy_from_slice(serial.as_bytes())).collect(),
        reset: false,
    }
}

#[tonic::async_trait]
impl Responder for Oracle {
    async fn answer(&self, request: Request<AnswerRequest>) -> Result<Response<AnswerResponse>, Status> {
        let request = request.into_inner();
        self.note(&request);
        let mood = self.state.lock().unwrap().mood.clone();
        if let Mood::Fails(code) = mood {
            return Err(Status::new(code, "as the test wants it"));
        }
        let answers =
            request.questions.iter().map(|question| Self::answer(self, &question.request)).collect();
        let mut gate = self.gate.subscribe();
        gate.wait_for(|open| *open).await.map_err(|_| Status::unavailable("gone"))?;
        Ok(Response::new(AnswerResponse { answers }))
    }

    async fn list_revisions(
        &self,
        _: Request<ListRevisionsRequest>,
    ) -> Result<Response<ListRevisionsResponse>, Status> {
        let state = self.state.lock().unwrap();
        let shards = state.revisions.iter().map(|(shard, revision)| ShardRevision {
            issuer_id: ISSUER.to_owned(),
            shard: *shard,
            revision: *revision,
        });
        Ok(Response::new(ListRevisionsResponse { shards: shards.collect() }))
    }

    type WatchRevocationsStream = Pin<Box<dyn Stream<Item = Result<RevocationNotice, Status>> + Send>>;

    async fn watch_revocations(
        &self,
        request: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let live = BroadcastStream::new(self.notices.subscribe()).filter_map(Result::ok);
        let mut state = self.state.lock().unwrap();
        state.streams += 1;
        let mut missed = Vec::new();
        for known in request.into_inner().known {
            let Some(current) = state.revisions.get(&known.shard).copied() else { continue };
            if known.revision > current {
                missed.push(RevocationNotice { reset: true, ..notice(known.shard, current, [].into_iter()) });
                continue;
            }
            let since = state
                .history
                .iter()
                .filter(|(shard, revision, _)| *shard == known.shard && *revision > known.revision);
            let since: Vec<_> = since.map(|entry| entry.2).collect();
            if !since.is_empty() {
                missed.push(notice(known.shard, current, since.into_iter()));
            }
        }
        let stop = self.stop.clone().cancelled_owned();
        let all = tokio_stream::iter(missed).chain(live).map(Ok);
        Ok(Response::new(Box::pin(futures::StreamExt::take_until(all, stop))))
    }
}
