//! Joining and renewal as gRPC (`Enrollment`, `Membership`); what they do is in [`crate::node`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rpc::PeerIdentity;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::enrollment_server::Enrollment;
use rpc::proto::signer::v1::membership_server::Membership;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::ca::Ca;
use crate::service::status_of;

/// Joins at once. A token's secret has 256 bits, so guesses are hopeless however many there are; what a stranger could
/// take is the database's time, and this bounds it, together with the port's own limits.
const JOINS: usize = 4;
/// When a stranger may try again.
const JOIN_RETRY: Duration = Duration::from_secs(1);

/// On the port that authenticates the server alone.
#[derive(Debug, Clone)]
pub struct EnrollmentService {
    ca: Arc<Ca>,
    joins: Arc<Semaphore>,
}

/// For every node with a certificate.
#[derive(Debug, Clone)]
pub struct MembershipService(Arc<Ca>);

impl EnrollmentService {
    /// Of this CA.
    #[must_use]
    pub fn new(ca: Arc<Ca>) -> Self {
        Self { ca, joins: Arc::new(Semaphore::new(JOINS)) }
    }
}

impl MembershipService {
    /// Of this CA.
    #[must_use]
    pub const fn new(ca: Arc<Ca>) -> Self {
        Self(ca)
    }
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        let Ok(_join) = self.joins.try_acquire() else {
            return Err(rpc::busy("as many nodes are joining as may at once", JOIN_RETRY));
        };
        let request = request.into_inner();
        let joined = self.ca.join(&request.token, &request.csr, &request.receipt_key).await;
        let chain = self.ca.observe(joined).map_err(|failure| status_of(&failure))?;
        Ok(Response::new(wire::JoinResponse { chain: chain.into_iter().map(Bytes::from).collect() }))
    }
}

#[tonic::async_trait]
impl Membership for MembershipService {
    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::RenewResponse>, Status> {
        let peer = PeerIdentity::of(&request)?.clone();
        let renewed = self.0.renew(&peer, &request.into_inner().csr).await;
        let chain = self.0.observe(renewed).map_err(|failure| status_of(&failure))?;
        Ok(Response::new(wire::RenewResponse { chain: chain.into_iter().map(Bytes::from).collect() }))
    }
}
