//! What status nodes ask about single certificates (`chancery.status.v1.Responder`).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use ca_store::CrlShard;
use futures::Stream;
use parking_lot::Mutex;
use rpc::PeerIdentity;
use rpc::proto::status::v1 as wire;
use rpc::proto::status::v1::responder_server::Responder as ResponderApi;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::notices::{Revisions, Teller, message};
use super::{Answered, Responder};
use crate::ca::Ca;
use crate::service::status_of;

/// Questions of one call.
const MOST_QUESTIONS: usize = 256;
/// Streams of notices that one node may have: a connection that broke may not be known to have done so.
const MOST_STREAMS: usize = 8;
/// Notices on their way to a node that does not read them.
const AHEAD: usize = 16;

/// The service. Who may call it is the access table's business.
#[derive(Debug, Clone)]
pub struct ResponderService {
    ca: Arc<Ca>,
    responder: Arc<Responder>,
    revisions: Arc<Revisions>,
    streams: Streams,
    draining: CancellationToken,
}

impl ResponderService {
    /// `draining` ends its streams.
    #[must_use]
    pub fn new(responder: Arc<Responder>, draining: CancellationToken) -> Self {
        let ca = Arc::clone(&responder.ca);
        Self { ca, responder, revisions: Arc::default(), streams: Streams::default(), draining }
    }
}

#[tonic::async_trait]
impl ResponderApi for ResponderService {
    #[tracing::instrument(name = "rpc.answer", skip_all)]
    async fn answer(
        &self,
        request: Request<wire::AnswerRequest>,
    ) -> Result<Response<wire::AnswerResponse>, Status> {
        let questions = request.into_inner().questions;
        if questions.len() > MOST_QUESTIONS {
            return Err(Status::invalid_argument("a call has at most 256 questions"));
        }
        let answers =
            questions.iter().map(|question| self.responder.answer(&question.request, question.ahead));
        let answers = futures::future::join_all(answers).await;
        fail::fail_point!("signer.ocsp.before-reply");
        Ok(Response::new(wire::AnswerResponse { answers: answers.into_iter().map(answer).collect() }))
    }

    async fn list_revisions(
        &self,
        _: Request<wire::ListRevisionsRequest>,
    ) -> Result<Response<wire::ListRevisionsResponse>, Status> {
        let revisions = self.revisions.read(&self.ca).await.map_err(|failure| status_of(&failure))?;
        let shards = revisions.iter().map(|(shard, revision)| message(shard, *revision)).collect();
        Ok(Response::new(wire::ListRevisionsResponse { shards }))
    }

    type WatchRevocationsStream = Pin<Box<dyn Stream<Item = Result<wire::RevocationNotice, Status>> + Send>>;

    async fn watch_revocations(
        &self,
        request: Request<wire::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let place = self.streams.enter(PeerIdentity::of(&request)?.name.as_str());
        let place =
            place.ok_or_else(|| Status::resource_exhausted("this node has as many streams as it may"))?;
        // Subscribed first, so that nothing revoked in between is missed.
        let changes = self.ca.events.subscribe();
        if !self.ca.hears_others() {
            return Err(Status::unavailable("changes of other signers are not heard"));
        }
        let known = request.into_inner().known.into_iter();
        let known =
            known.map(|known| (CrlShard { issuer: known.issuer_id, shard: known.shard }, known.revision));
        let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
        let teller = Teller {
            ca: Arc::clone(&self.ca),
            revisions: Arc::clone(&self.revisions),
            changes,
            known: known.collect(),
            sender,
        };
        let draining = self.draining.clone();
        // A node that reads nothing does not hold up the drain either.
        tokio::spawn(async move {
            draining.run_until_cancelled(teller.tell()).await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn answer(answered: Answered) -> wire::Answer {
    let bases = answered.basis.map(|(issuer, places)| {
        let basis = |place: Option<crate::ledger::Place>| wire::Basis {
            issuer_id: issuer.clone(),
            assigned: place.is_some(),
            shard: place.map_or(0, |place| place.shard),
            revision: place.map_or(0, |place| place.revision),
        };
        places.into_iter().map(basis).collect()
    });
    wire::Answer { response: answered.response, bases: bases.unwrap_or_default() }
}

/// Streams by node.
#[derive(Debug, Clone, Default)]
struct Streams(Arc<Mutex<BTreeMap<String, usize>>>);

/// A stream, until it is dropped.
struct StreamPlace {
    node: String,
    streams: Streams,
}

impl Streams {
    fn enter(&self, node: &str) -> Option<StreamPlace> {
        let mut counts = self.0.lock();
        let count = counts.entry(node.to_owned()).or_default();
        if *count >= MOST_STREAMS {
            return None;
        }
        *count += 1;
        Some(StreamPlace { node: node.to_owned(), streams: self.clone() })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut counts = self.streams.0.lock();
        if let Some(count) = counts.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.node);
            }
        }
    }
}
