//! The demo's name server: every name is at the demo's own address. It exists so that a validator with real name resolution
//! finds the client on this host without anyone touching the host's own resolver.
//!
//! Other records are files in a folder, read at each query: a client's hook writes `_acme-challenge.example.org` there. Each
//! line is a record: `TXT value` or `CNAME target`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// Seconds that an answer may be kept: none, since a demo's addresses may change with the next start.
const TTL_SECONDS: u32 = 0;
/// Aliases followed.
const ALIASES: usize = 8;
/// Bytes of a record file that are read.
const FILE_BYTES: usize = 64 * 1024;

/// What the folder of records says about itself.
const README: &str =
    "Records of the demo's name server. A file is a name in lower case, without a dot at the end;
each of its lines is a record:

    TXT value
    CNAME target

For dns-01:  echo \"TXT $VALUE\" >> _acme-challenge.www.demo.test
Remove the file when you are done. Every name has the address 127.0.0.1 without a file.
";

/// A running name server; dropped, it stops.
pub(crate) struct NameServer {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    /// Answers every A query with `answer` (IPv4), and other queries from the files in `folder`, on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When no port can be bound, or the folder not be written.
    pub(crate) async fn start(answer: Ipv4Addr, folder: PathBuf) -> std::io::Result<Self> {
        std::fs::write(folder.join("README"), README)?;
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await?;
        let address = socket.local_addr()?;
        let task = tokio::spawn(serve(socket, Records { answer, folder }));
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

async fn serve(socket: UdpSocket, records: Records) {
    let mut packet = [0_u8; 1232];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut packet).await else { continue };
        let Some(reply) = packet.get(..length).and_then(|query| records.respond(query)) else { continue };
        // A lost answer is asked for again: that is what DNS clients do.
        let _ = socket.send_to(&reply, peer).await;
    }
}

/// What there is to answer with.
struct Records {
    answer: Ipv4Addr,
    folder: PathBuf,
}

impl Records {
    /// The answer to one query; `None` for what is no query.
    fn respond(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.metadata.response_code = ResponseCode::NoError;
        for question in &query.queries {
            if question.query_class() == DNSClass::IN {
                for record in self.find(question.name(), question.query_type()) {
                    reply.add_answer(record);
                }
            }
            reply.add_query(question.clone());
        }
        reply.to_vec().ok()
    }

    /// The records of a name, after those aliases that lead there.
    fn find(&self, name: &Name, kind: RecordType) -> Vec<Record> {
        let mut found = Vec::new();
        let mut name = name.clone();
        for _ in 0..ALIASES {
            let here = read(&self.folder, &name);
            let alias = here.iter().find_map(|data| match data {
                RData::CNAME(target) if kind != RecordType::CNAME => Some(target.0.clone()),
                _ => None,
            });
            let wanted = here.into_iter().filter(|data| {
                data.record_type() == kind || (alias.is_some() && data.record_type() == RecordType::CNAME)
            });
            found.extend(wanted.map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data)));
            match alias {
                Some(target) => name = target,
                None => break,
            }
        }
        if kind == RecordType::A {
            found.push(Record::from_rdata(name, TTL_SECONDS, RData::A(A(self.answer))));
        }
        found
    }
}

/// The records in the file of a name. What is no record is passed over.
fn read(folder: &Path, name: &Name) -> Vec<RData> {
    let name = name.to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        return Vec::new();
    }
    let Ok(text) = std::fs::read_to_string(folder.join(name)) else { return Vec::new() };
    text.get(..FILE_BYTES).unwrap_or(&text).lines().filter_map(record).collect()
}

fn record(line: &str) -> Option<RData> {
    let (kind, value) = line.trim().split_once(' ')?;
    let value = value.trim();
    match kind {
        "TXT" => {
            let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            Some(RData::TXT(TXT::from_bytes(value.as_bytes().chunks(255).collect())))
        }
        "CNAME" => {
            let mut target = Name::from_ascii(value).ok()?;
            target.set_fqdn(true);
            Some(RData::CNAME(CNAME(target)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(records: &Records, name: &str) -> Vec<String> {
        let name = Name::from_ascii(name).unwrap();
        let texts = records.find(&name, RecordType::TXT).into_iter().filter_map(|record| match record.data {
            RData::TXT(text) => Some(String::from_utf8(text.txt_data.concat()).unwrap()),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn records_are_the_lines_of_a_names_file() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records { answer: Ipv4Addr::LOCALHOST, folder: folder.path().to_owned() };
        assert_eq!(texts(&records, "_acme-challenge.www.demo.test."), Vec::<String>::new());
        std::fs::write(folder.path().join("_acme-challenge.www.demo.test"), "TXT one\nTXT \"two\"\nother\n")
            .unwrap();
        std::fs::write(folder.path().join("_acme-challenge.a.test"), "CNAME _acme-challenge.www.demo.test\n")
            .unwrap();
        assert_eq!(texts(&records, "_ACME-challenge.www.demo.test."), ["one", "two"]);
        assert_eq!(texts(&records, "_acme-challenge.a.test."), ["one", "two"]);
        // Every name has the address, whether it has a file or not.
        for name in ["a.test.", "_acme-challenge.a.test."] {
            let found = records.find(&Name::from_ascii(name).unwrap(), RecordType::A);
            assert_eq!(found.last().unwrap().data, RData::A(A(Ipv4Addr::LOCALHOST)), "{name}");
        }
        // No name leads out of the folder.
        std::fs::write(folder.path().join("README"), "TXT no").unwrap();
        for name in ["..\\.\\.\\/etc\\/passwd.", ".", "a\\/b."] {
            if let Ok(name) = Name::from_ascii(name) {
                assert!(records.find(&name, RecordType::TXT).is_empty(), "{name}");
            }
        }
    }
}
