//! Requests of an operator, as they come to the admin service.

use std::sync::Arc;

use pki::{Serial, Timestamp};
use rpc::{Peer, PeerIdentity, Role};
use tonic::{Request, Status};

/// A request of the operator alice.
pub(crate) fn by_alice<T>(message: T) -> Request<T> {
    let identity = PeerIdentity {
        role: Role::Operator,
        name: "alice".parse().unwrap(),
        serial: Serial::from_random([5; 16]),
        not_before: Timestamp::from_unix(0),
        not_after: Timestamp::from_unix(4_000_000_000),
    };
    let mut request = Request::new(message);
    let address = "127.0.0.1:1".parse().unwrap();
    request.extensions_mut().insert(Peer { address, identity: Some(Arc::new(identity)) });
    request
}

#[track_caller]
pub(crate) fn detail<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    rpc::refusal(&answer.unwrap_err()).unwrap().problem.detail
}
