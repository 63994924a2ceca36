//! Whether a resolver validates DNSSEC: it says so of the root, which is signed, in the AD bit (RFC 4035 §3.2.3).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;

/// Asks one server; nothing if it does not answer in time.
pub(super) async fn validates(server: SocketAddr, patience: Duration) -> Option<bool> {
    tokio::time::timeout(patience, ask(server)).await.ok().flatten()
}

async fn ask(server: SocketAddr) -> Option<bool> {
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).ok()?;
    let id = u16::from_be_bytes(id);
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(&query(id)?).await.ok()?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.ok()?;
        let answer = Message::from_vec(buffer.get(..length)?).ok();
        // Others' answers are passed over.
        if let Some(answer) = answer.filter(|answer| answer.metadata.id == id) {
            let found = answer.metadata.response_code == ResponseCode::NoError && !answer.answers.is_empty();
            return Some(found && answer.metadata.authentic_data);
        }
    }
}

fn query(id: u16) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.authentic_data = true;
    message.add_query(Query::query(Name::root(), RecordType::SOA));
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_dnssec_ok(true);
    message.set_edns(edns);
    message.to_vec().ok()
}
