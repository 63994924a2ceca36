//! The demo's name server: every name is at the demo's own address, nothing else exists. It exists so that a validator with
//! real name resolution finds the client on this host without anyone touching the host's own resolver.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// Seconds that an answer may be kept: none, since a demo's addresses may change with the next start.
const TTL_SECONDS: u32 = 0;

/// A running name server; dropped, it stops.
pub(crate) struct NameServer {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    /// Answers every A query with `answer` (IPv4), on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub(crate) async fn start(answer: Ipv4Addr) -> std::io::Result<Self> {
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await?;
        let address = socket.local_addr()?;
        let task = tokio::spawn(serve(socket, answer));
        Ok(Self { address, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, answer: Ipv4Addr) {
    let mut packet = [0_u8; 1232];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut packet).await else { continue };
        let Some(reply) = packet.get(..length).and_then(|query| respond(query, answer)) else { continue };
        // A lost answer is asked for again: that is what DNS clients do.
        let _ = socket.send_to(&reply, peer).await;
    }
}

/// The answer to one query; `None` for what is no query.
fn respond(query: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = ResponseCode::NoError;
    for question in &query.queries {
        if question.query_type() == RecordType::A && question.query_class() == DNSClass::IN {
            reply.add_answer(Record::from_rdata(question.name().clone(), TTL_SECONDS, RData::A(A(answer))));
        }
        reply.add_query(question.clone());
    }
    reply.to_vec().ok()
}
