//! An authoritative-looking DNS server on a free loopback port, UDP and TCP, whose answers a test sets.
//!
//! It copies the question as it came (resolvers randomise its case), follows CNAMEs among its own names, and knows no
//! compression, no EDNS and no zone: what it was not told is NXDOMAIN. What is too long for UDP it sends by TCP.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// The server. It ends when it is dropped.
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Mutex<Zone>>,
    tasks: [JoinHandle<()>; 2],
}

/// What a name has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// An alias.
    Cname(String),
    /// TXT, of one string or (longer than 255 bytes) of several.
    Text(Vec<u8>),
    /// Any other type: number and RDATA.
    Other(u16, Vec<u8>),
}

/// How a name is answered when not by records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// SERVFAIL, as when DNSSEC fails behind a validating resolver.
    Servfail,
    /// REFUSED.
    Refused,
    /// No answer at all.
    Silence,
}

impl DnsServer {
    /// On a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had for both transports.
    pub async fn start() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        // The port that UDP gets may be taken for TCP.
        for _ in 0..16 {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = udp.local_addr()?;
            match TcpListener::bind(address).await {
                Ok(tcp) => return Ok(Self::serve(address, udp, tcp)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn serve(address: SocketAddr, udp: UdpSocket, tcp: TcpListener) -> Self {
        let shared = Arc::new(Mutex::new(Zone::default()));
        let tasks = [
            tokio::spawn(serve_udp(udp, Arc::clone(&shared))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&shared))),
        ];
        Self { address, shared, tasks }
    }

    /// Where it listens, UDP and TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives a name one more record. A name that begins with `*.` stands for every name below that has none of its own.
    pub fn add(&self, name: &str, record: Record) {
        self.zone().names.entry(key(name)).or_default().records.push(record);
    }

    /// Gives a name one more address.
    pub fn address_of(&self, name: &str, address: IpAddr) {
        self.add(name, Record::Address(address));
    }

    /// Gives a name one more TXT record.
    pub fn text_of(&self, name: &str, value: impl Into<Vec<u8>>) {
        self.add(name, Record::Text(value.into()));
    }

    /// Makes a name exist (perhaps without any record), or answers it badly for one record type or (0) for all.
    pub fn mood(&self, name: &str, record_type: u16, mood: Mood) {
        self.zone().names.entry(key(name)).or_default().moods.insert(record_type, mood);
    }

    /// Forgets a name.
    pub fn remove(&self, name: &str) {
        self.zone().names.remove(&key(name));
    }

    /// The questions so far: lower-case name and type.
    #[must_use]
    pub fn questions(&self) -> Vec<(String, u16)> {
        self.zone().asked.clone()
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A record type's number (RFC 1035 §3.2.2).
pub const A: u16 = 1;
/// As [`A`].
pub const CNAME: u16 = 5;
/// As [`A`].
pub const TXT: u16 = 16;
/// As [`A`] (RFC 3596).
pub const AAAA: u16 = 28;

#[derive(Default)]
struct Zone {
    names: HashMap<String, Node>,
    asked: Vec<(String, u16)>,
}

#[derive(Default, Clone)]
struct Node {
    records: Vec<Record>,
    moods: HashMap<u16, Mood>,
}

impl Zone {
    fn find(&self, name: &str) -> Option<&Node> {
        if let Some(node) = self.names.get(name) {
            return Some(node);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(node) = self.names.get(&format!("*.{parent}")) {
                return Some(node);
            }
            rest = parent;
        }
        None
    }

    /// `None`: no answer.
    fn answer(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let question = Question::parse(query)?;
        self.asked.push((question.name.clone(), question.record_type));
        let mut answers = Vec::new();
        let mut code = 0;
        let mut name = question.name.clone();
        for hop in 0..8 {
            let Some(node) = self.find(&name) else {
                code = if hop == 0 { NXDOMAIN } else { code };
                break;
            };
            match node.moods.get(&question.record_type).or_else(|| node.moods.get(&0)) {
                Some(Mood::Silence) => return None,
                Some(Mood::Servfail) => return Some(question.response(SERVFAIL, &[])),
                Some(Mood::Refused) => return Some(question.response(REFUSED, &[])),
                None => {}
            }
            let mut alias = None;
            for record in &node.records {
                if record.record_type() == question.record_type || record.record_type() == CNAME {
                    answers.push((name.clone(), record.clone()));
                }
                if let Record::Cname(target) = record {
                    alias = Some(key(target));
                }
            }
            match alias {
                Some(target) if question.record_type != CNAME => name = target,
                _ => break,
            }
        }
        Some(question.response(code, &answers))
    }
}

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

impl Record {
    fn record_type(&self) -> u16 {
        match self {
            Self::Address(IpAddr::V4(_)) => A,
            Self::Address(IpAddr::V6(_)) => AAAA,
            Self::Cname(_) => CNAME,
            Self::Text(_) => TXT,
            Self::Other(number, _) => *number,
        }
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Self::Address(IpAddr::V4(address)) => address.octets().to_vec(),
            Self::Address(IpAddr::V6(address)) => address.octets().to_vec(),
            Self::Cname(target) => wire_name(&key(target)),
            Self::Text(value) if value.is_empty() => vec![0],
            Self::Text(value) => value
                .chunks(255)
                .flat_map(|part| [&[u8::try_from(part.len()).unwrap_or(255)], part].concat())
                .collect(),
            Self::Other(_, data) => data.clone(),
        }
    }
}

struct Question {
    id: [u8; 2],
    /// As it came: the response repeats it.
    bytes: Vec<u8>,
    name: String,
    record_type: u16,
}

impl Question {
    fn parse(query: &[u8]) -> Option<Self> {
        let id = query.get(..2)?.try_into().ok()?;
        let body = query.get(12..)?;
        let mut at = 0;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*body.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(body.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        let record_type = u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?);
        Some(Self { id, bytes: body.get(..at + 4)?.to_vec(), name: labels.join("."), record_type })
    }

    fn response(&self, code: u8, answers: &[(String, Record)]) -> Vec<u8> {
        let mut out = self.id.to_vec();
        // QR, AA, RD; RA and the code.
        out.extend([0x85, 0x80 | code]);
        let count = u16::try_from(answers.len()).unwrap_or(u16::MAX);
        for section in [1, count, 0, 0] {
            out.extend(section.to_be_bytes());
        }
        out.extend(&self.bytes);
        for (name, record) in answers {
            let data = record.data();
            // The question's own name in its own case, by a pointer to it: resolvers compare.
            if *name == self.name {
                out.extend([0xc0, 12]);
            } else {
                out.extend(wire_name(name));
            }
            out.extend(record.record_type().to_be_bytes());
            out.extend(1u16.to_be_bytes());
            out.extend(60u32.to_be_bytes());
            out.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend(data);
        }
        out
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap_or(63));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

/// What resolvers ask for by EDNS (DNS flag day 2020).
const UDP_BYTES: usize = 1232;

async fn serve_udp(socket: UdpSocket, shared: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let answer = buffer
            .get(..length)
            .and_then(|query| shared.lock().unwrap_or_else(PoisonError::into_inner).answer(query));
        if let Some(mut answer) = answer {
            if answer.len() > UDP_BYTES {
                // TC: ask again by TCP. Nothing but the question.
                let question = answer.iter().skip(12).take_while(|length| **length != 0).count() + 12 + 5;
                answer.truncate(question);
                answer[2] |= 2;
                answer[6..12].fill(0);
            }
            // A peer that went away is no concern of the server's.
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Mutex<Zone>>) {
    let mut running = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        running.spawn(serve_stream(stream, Arc::clone(&shared)));
        while running.try_join_next().is_some() {}
    }
}

async fn serve_stream(mut stream: TcpStream, shared: Arc<Mutex<Zone>>) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let answer = shared.lock().unwrap_or_else(PoisonError::into_inner).answer(&query);
        match answer {
            Some(answer) => {
                stream.write_u16(u16::try_from(answer.len()).unwrap_or(u16::MAX)).await?;
                stream.write_all(&answer).await?;
            }
            None => std::future::pending().await,
        }
    }
}
