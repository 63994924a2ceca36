//! The demo's name server: every name is at the demo's own address. It exists so that a validator with real name resolution
//! finds the client on this host without anyone touching the host's own resolver.
//!
//! Other records are files in a folder, read at each query: a client's hook writes `_acme-challenge.example.org` there. Each
//! line is a record, see [`README`].

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CAA, CNAME, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// Seconds that an answer may be kept: none, since a demo's addresses may change with the next start.
const TTL_SECONDS: u32 = 0;
/// Aliases followed.
const ALIASES: usize = 8;
/// Bytes of a record file that are read.
const FILE_BYTES: usize = 64 * 1024;
/// Questions that are remembered, for those who ask which there were.
const REMEMBERED: usize = 10_000;

/// What the folder of records says about itself.
const README: &str =
    "Records of the demo's name server. A file is a name in lower case, without a dot at the end;
each of its lines is a record:

    TXT value
    CNAME target
    A 192.0.2.1
    AAAA 2001:db8::1
    CAA 0 issue ca.example

A line SILENT makes the name server keep quiet about the name, a line SERVFAIL makes it fail.

For dns-01:  echo \"TXT $VALUE\" >> _acme-challenge.www.demo.test
Remove the file when you are done. A name without A and AAAA has the address 127.0.0.1.
";

/// A running name server; dropped, it stops.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Zone>,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    /// Answers from `zone` at `listen`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When the port cannot be bound, or the zone's folder not be written.
    pub(crate) async fn start(listen: SocketAddr, zone: Arc<Zone>) -> anyhow::Result<Self> {
        std::fs::write(zone.folder.join("README"), README)?;
        let socket =
            UdpSocket::bind(listen).await.with_context(|| format!("cannot serve names on {listen}"))?;
        let address = socket.local_addr()?;
        let task = tokio::spawn(serve(socket, Arc::clone(&zone)));
        Ok(Self { address, zone, task })
    }

    pub(crate) fn zone(&self) -> &Arc<Zone> {
        &self.zone
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

async fn serve(socket: UdpSocket, zone: Arc<Zone>) {
    let mut packet = [0_u8; 1232];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut packet).await else { continue };
        let Some(reply) = packet.get(..length).and_then(|query| zone.respond(query)) else { continue };
        // A lost answer is asked for again: that is what DNS clients do.
        let _ = socket.send_to(&reply, peer).await;
    }
}

/// What there is to answer with.
pub(crate) struct Zone {
    folder: PathBuf,
    defaults: Mutex<Defaults>,
    asked: Mutex<VecDeque<Asked>>,
}

/// The addresses of names that have none of their own.
#[derive(Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// A question that came.
#[derive(Clone)]
pub(crate) struct Asked {
    /// In lower case, with a dot at the end.
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

/// The name cannot have a file.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no name: letters, digits, hyphens, underscores and dots")]
pub(crate) struct NoName(String);

impl Zone {
    /// Records are files in `folder`; every name has the address `answer`, unless its file says another.
    pub(crate) fn new(folder: PathBuf, answer: Ipv4Addr) -> Self {
        let defaults = Defaults { ipv4: Some(answer), ipv6: None };
        Self { folder, defaults: Mutex::new(defaults), asked: Mutex::default() }
    }

    /// The addresses of names without their own, to be read and changed.
    pub(crate) fn defaults(&self) -> MutexGuard<'_, Defaults> {
        self.defaults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was asked, oldest first, to be read and changed.
    pub(crate) fn asked(&self) -> MutexGuard<'_, VecDeque<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the lines of a name's file. Without lines there is no file.
    ///
    /// # Errors
    ///
    /// When the name can have no file, or the file cannot be written.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<String>)) -> anyhow::Result<()> {
        let path = self.path(name).ok_or_else(|| NoName(name.to_owned()))?;
        // One change at a time.
        let _one = self.defaults();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        if !lines.is_empty() {
            return Ok(runtime::files::write_atomically(&path, (lines.join("\n") + "\n").as_bytes(), 0o644)?);
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The answer to one query; `None` for what is no query, and for names whose server keeps quiet.
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
            self.remember(question.name(), question.query_type().into(), question.query_class().into());
            if self.says(question.name(), "SILENT") {
                return None;
            }
            if self.says(question.name(), "SERVFAIL") {
                reply.metadata.response_code = ResponseCode::ServFail;
            } else if question.query_class() == DNSClass::IN {
                for record in self.find(question.name(), question.query_type()) {
                    reply.add_answer(record);
                }
            }
            reply.add_query(question.clone());
        }
        reply.to_vec().ok()
    }

    fn remember(&self, name: &Name, kind: u16, class: u16) {
        let mut asked = self.asked();
        if asked.len() == REMEMBERED {
            asked.pop_front();
        }
        let name = format!("{}.", name.to_ascii().to_ascii_lowercase().trim_end_matches('.'));
        asked.push_back(Asked { name, kind, class });
    }

    /// The records of a name, after those aliases that lead there.
    fn find(&self, name: &Name, kind: RecordType) -> Vec<Record> {
        let mut found = Vec::new();
        let mut name = name.clone();
        let mut here = Vec::new();
        for _ in 0..ALIASES {
            here = self.read(&name);
            let alias = here.iter().find_map(|data| match data {
                RData::CNAME(target) if kind != RecordType::CNAME => Some(target.0.clone()),
                _ => None,
            });
            // An alias stands alone (RFC 1034 §3.6.2).
            let here_kind = if alias.is_some() { RecordType::CNAME } else { kind };
            let wanted = here.iter().filter(|data| data.record_type() == here_kind);
            found.extend(wanted.map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data.clone())));
            match alias {
                Some(target) => name = target,
                None => break,
            }
        }
        // A name with an address of its own has no other, of neither family.
        let own = here.iter().any(|data| matches!(data, RData::A(_) | RData::AAAA(_)));
        let defaults = *self.defaults();
        let address = match kind {
            RecordType::A => defaults.ipv4.map(|address| RData::A(A(address))),
            RecordType::AAAA => defaults.ipv6.map(|address| RData::AAAA(AAAA(address))),
            _ => None,
        };
        found.extend(address.filter(|_| !own).map(|data| Record::from_rdata(name, TTL_SECONDS, data)));
        found
    }

    /// The records in the file of a name. What is no record is passed over.
    fn read(&self, name: &Name) -> Vec<RData> {
        self.file(name).map(|text| text.lines().filter_map(record).collect()).unwrap_or_default()
    }

    fn says(&self, name: &Name, word: &str) -> bool {
        self.file(name).is_some_and(|text| text.lines().any(|line| line.trim() == word))
    }

    /// What the file of a name says, if there is one.
    fn file(&self, name: &Name) -> Option<String> {
        let mut text = std::fs::read_to_string(self.path(&name.to_ascii())?).ok()?;
        if text.len() > FILE_BYTES {
            text = text.get(..FILE_BYTES)?.to_owned();
        }
        Some(text)
    }

    /// Where a name's file is; none: the name can have no file.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
        let good = !name.is_empty() && !name.starts_with('.') && name.len() <= 253 && name.bytes().all(plain);
        good.then(|| self.folder.join(name))
    }
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
        "A" => Some(RData::A(A(value.parse().ok()?))),
        "AAAA" => Some(RData::AAAA(AAAA(value.parse().ok()?))),
        "CAA" => {
            let mut words = value.splitn(3, ' ');
            let flags: u8 = words.next()?.parse().ok()?;
            let tag = words.next()?.to_owned();
            let mut caa = CAA::new_issue(flags & 0x80 != 0, None, Vec::new());
            caa.reserved_flags = flags & 0x7f;
            caa.tag = tag;
            caa.value = words.next().unwrap_or_default().as_bytes().to_vec();
            Some(RData::CAA(caa))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(records: &Zone, name: &str) -> Vec<String> {
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
        let records = Zone::new(folder.path().to_owned(), Ipv4Addr::LOCALHOST);
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
    #[test]
    fn addresses_and_caa_of_a_name_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let zone = Zone::new(folder.path().to_owned(), Ipv4Addr::LOCALHOST);
        let find = |name: &str, kind| {
            let found =
                zone.find(&Name::from_ascii(name).unwrap(), kind).into_iter().map(|record| record.data);
            found.map(|data| data.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(find("a.test.", RecordType::A), ["127.0.0.1"]);
        assert!(find("a.test.", RecordType::AAAA).is_empty());
        zone.edit("A.test.", |lines| lines.push("AAAA 2001:db8::1".to_owned())).unwrap();
        assert_eq!(find("a.test.", RecordType::AAAA), ["2001:db8::1"]);
        assert!(find("a.test.", RecordType::A).is_empty());
        zone.edit("a.test", |lines| lines.push("CAA 128 issue other.test; x=y".to_owned())).unwrap();
        let caa = find("a.test.", RecordType::CAA);
        assert!(caa[0].starts_with("128 issue") && caa[0].contains("other.test; x=y"), "{caa:?}");
        zone.edit("a.test", Vec::clear).unwrap();
        assert!(!folder.path().join("a.test").exists());
        zone.defaults().ipv6 = Some(Ipv6Addr::LOCALHOST);
        assert_eq!(find("a.test.", RecordType::AAAA), ["::1"]);
        for name in ["", "../a", "a/b", ".a", "a b"] {
            assert!(zone.edit(name, |_| {}).is_err(), "{name}");
        }
    }
}
