//! Joining and renewal as gRPC (`Enrollment`, `Membership`); what they do is in [`crate::node`].

use std::sync::Arc;

use bytes::Bytes;
use rpc::PeerIdentity;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::enrollment_server::Enrollment;
use rpc::proto::signer::v1::membership_server::Membership;
use tonic::{Request, Response, Status};

use crate::ca::Ca;
use crate::service::status_of;

/// On the port that authenticates the server alone.
#[derive(Debug, Clone)]
pub struct EnrollmentService(Arc<Ca>);

/// For every node with a certificate.
#[derive(Debug, Clone)]
pub struct MembershipService(Arc<Ca>);

impl EnrollmentService {
    /// Of this CA.
    #[must_use]
    pub const fn new(ca: Arc<Ca>) -> Self {
        Self(ca)
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
        let request = request.into_inner();
        let joined = self.0.join(&request.token, &request.csr, &request.receipt_key).await;
        let chain = self.0.observe(joined).map_err(|failure| status_of(&failure))?;
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
