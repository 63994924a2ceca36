//! Nonces (RFC 8555 §6.5): made here without a write, redeemed here, or at the front that made them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use acme::nonce::{FrontId, NonceKey, NonceWindow, Redemption};
use rpc::proto::front::v1::nonces_client::NoncesClient;
use rpc::proto::front::v1::nonces_server;
use rpc::proto::front::v1::{RedeemRequest, RedeemResponse};

/// How long another front may take. Beyond it the client gets `badNonce` and a nonce of this front: no worse than one
/// more round trip.
const PEER_DEADLINE: Duration = Duration::from_secs(2);

/// The fronts of one service, as far as nonces go.
pub(crate) struct Nonces {
    window: NonceWindow,
    peers: HashMap<FrontId, NoncesClient<rpc::Channel>>,
}

impl Nonces {
    /// `epoch` must be another one at each start: the used bits of an earlier run are gone, so its nonces must be too.
    pub(crate) fn new(
        key: NonceKey,
        name: &str,
        epoch: u64,
        window: u32,
        peers: impl IntoIterator<Item = (String, rpc::Channel)>,
    ) -> Self {
        let peers =
            peers.into_iter().map(|(id, channel)| (FrontId::from_name(&id), NoncesClient::new(channel)));
        Self {
            window: NonceWindow::new(key, FrontId::from_name(name), epoch, window),
            peers: peers.collect(),
        }
    }

    /// A fresh one.
    pub(crate) fn issue(&self) -> String {
        self.window.issue()
    }

    /// True once in the whole cluster for each nonce that a front of it has made.
    pub(crate) async fn redeem(&self, nonce: &str) -> bool {
        let outcome = match self.window.redeem(nonce) {
            Redemption::Fresh => "fresh",
            Redemption::Used => "used",
            Redemption::TooOld => "old",
            Redemption::Unknown => "unknown",
            Redemption::NotMine(maker) => {
                if self.redeem_at(maker, nonce).await {
                    "fresh_elsewhere"
                } else {
                    "refused_elsewhere"
                }
            }
        };
        metrics::counter!("chancery_front_nonces_total", "outcome" => outcome).increment(1);
        outcome.starts_with("fresh")
    }

    async fn redeem_at(&self, maker: FrontId, nonce: &str) -> bool {
        // A front that is not in the configuration, perhaps one that has been taken out: `badNonce`.
        let Some(peer) = self.peers.get(&maker) else { return false };
        let mut request = tonic::Request::new(RedeemRequest { nonce: nonce.to_owned() });
        request.set_timeout(PEER_DEADLINE);
        match tokio::time::timeout(PEER_DEADLINE, peer.clone().redeem(request)).await {
            Ok(Ok(response)) => response.into_inner().fresh,
            Ok(Err(status)) => {
                tracing::warn!(code = ?status.code(), "another front does not redeem its nonce");
                false
            }
            Err(_) => {
                tracing::warn!("another front does not redeem its nonce in time");
                false
            }
        }
    }
}

/// What other fronts ask.
pub(crate) struct PeerService(pub(crate) Arc<Nonces>);

#[async_trait::async_trait]
impl nonces_server::Nonces for PeerService {
    async fn redeem(
        &self,
        request: tonic::Request<RedeemRequest>,
    ) -> Result<tonic::Response<RedeemResponse>, tonic::Status> {
        // Never passed on to a third: a front answers for its own nonces alone, and two cannot send one in circles.
        let fresh = self.0.window.redeem(&request.get_ref().nonce) == Redemption::Fresh;
        Ok(tonic::Response::new(RedeemResponse { fresh }))
    }
}
