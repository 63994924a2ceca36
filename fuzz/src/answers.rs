//! What targets of validations answer: web servers and name servers, real ones on loopback that say just what they are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use pki::DnsName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;
use url::Host;
use validator::{
    AddressConfig, AddressPolicy, Dns01, DnsSettings, Http01, Http01Attempt, Http01Settings, Resolver,
    Resolvers, TextLookUp,
};

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const KEY_AUTHORIZATION: &str =
    "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// base64url(SHA-256(KEY_AUTHORIZATION)).
const DIGEST: &str = "lCM7cZyQXcVHK2nnW3jjAhNT3Fvm18UN-kWZZknKoYM";
/// A server that says nothing that is an answer is not waited for.
const PATIENCE: Duration = Duration::from_millis(40);

struct Network {
    runtime: Runtime,
    answer: Arc<Mutex<Vec<u8>>>,
    http_01: Http01,
    dns_01: Dns01,
    resolver: Resolver,
}

static NETWORK: LazyLock<Mutex<Network>> = LazyLock::new(|| Mutex::new(Network::new()));

impl Network {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = Arc::new(Mutex::new(Vec::new()));
        let (web, names) = runtime.block_on(async {
            let local = (Ipv4Addr::LOCALHOST, 0);
            (TcpListener::bind(local).await.unwrap(), UdpSocket::bind(local).await.unwrap())
        });
        let port = web.local_addr().unwrap().port();
        let servers = vec![names.local_addr().unwrap()];
        runtime.spawn(serve_web(web, Arc::clone(&answer)));
        runtime.spawn(serve_names(names, Arc::clone(&answer)));
        let (http_01, dns_01, resolver) = runtime.block_on(async { methods(port, servers) });
        Self { runtime, answer, http_01, dns_01, resolver }
    }

    fn tell(&self, octets: &[u8]) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = octets.to_vec();
    }
}

fn methods(port: u16, servers: Vec<SocketAddr>) -> (Http01, Dns01, Resolver) {
    let resolver = Resolver::new(&Resolvers::Servers(servers), PATIENCE).unwrap();
    // Nothing but loopback, whatever a redirect or a record says.
    let policy = AddressPolicy::new(AddressConfig {
        public: false,
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        refuse: Vec::new(),
    });
    let settings = Http01Settings {
        port,
        redirect_ports: Vec::new(),
        redirects: 3,
        connect_timeout: PATIENCE,
        total_timeout: 4 * PATIENCE,
        body_bytes: 1024,
        header_bytes: 16 * 1024,
        per_address: 16,
    };
    let http_01 = Http01::new(settings, resolver.clone(), policy).unwrap();
    let look_up = TextLookUp::new(DnsSettings { records: 32, total_timeout: 4 * PATIENCE }, resolver.clone());
    (http_01, Dns01::new(look_up), resolver)
}

/// Reads the request's head, says what it was told, and hangs up.
async fn serve_web(listener: TcpListener, answer: Arc<Mutex<Vec<u8>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_buf(&mut head).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        });
    }
}

/// Repeats the id of a query, and where the first octet is even also its question; the rest is as it was told.
async fn serve_names(socket: UdpSocket, answer: Arc<Mutex<Vec<u8>>>) {
    let mut query = [0; 1500];
    while let Ok((length, peer)) = socket.recv_from(&mut query).await {
        let Some(query) = query.get(..length).filter(|query| query.len() > 12) else { continue };
        let told = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((how, rest)) = told.split_first() else { continue };
        let mut message = query[..2].to_vec();
        if how % 2 == 0 {
            // The head's flags and counts of records, then the question as it came, then the records.
            let (head, records) = rest.split_at(rest.len().min(8));
            let mut head = head.to_vec();
            head.resize(8, 0);
            let question = question(query);
            message.extend([head[0] | 0x80, head[1], 0, 1]);
            message.extend(&head[2..8]);
            message.extend(question);
            message.extend(records);
        } else {
            message.extend(rest);
        }
        message.truncate(1400);
        let _ = socket.send_to(&message, peer).await;
    }
}

/// Name, type and class of a query's one question.
fn question(query: &[u8]) -> &[u8] {
    let mut at = 12;
    while let Some(length) = query.get(at).copied().filter(|length| *length > 0) {
        at += 1 + usize::from(length);
    }
    query.get(12..at + 5).unwrap_or_default()
}

/// A web server's answer never makes http-01 panic, and shows control only if the key authorization is in it.
pub fn http_01(octets: &[u8]) {
    let network = NETWORK.lock().unwrap_or_else(PoisonError::into_inner);
    network.tell(octets);
    let attempt = Http01Attempt {
        host: Host::Ipv4(Ipv4Addr::LOCALHOST),
        token: TOKEN,
        key_authorization: KEY_AUTHORIZATION,
    };
    let mut contacted = Vec::new();
    let outcome = network.runtime.block_on(network.http_01.observe(&attempt, &mut contacted));
    assert!(contacted.iter().all(IpAddr::is_loopback), "{contacted:?}");
    // A body may come in chunks: the token is looked for in pieces.
    let holds = |text: &str| octets.windows(text.len()).any(|window| window == text.as_bytes());
    let whole =
        holds(KEY_AUTHORIZATION) || octets.to_ascii_lowercase().windows(7).any(|window| window == b"chunked");
    assert!(outcome.is_err() || whole, "control was shown by something else");
}

/// A name server's answer never makes a look-up panic, and shows control only if the digest is in it.
pub fn dns(octets: &[u8]) {
    let network = NETWORK.lock().unwrap_or_else(PoisonError::into_inner);
    network.tell(octets);
    let name = DnsName::parse("www.example.org").unwrap();
    network.runtime.block_on(async {
        let (shown, caa, addresses) = tokio::join!(
            network.dns_01.observe(&name, None, KEY_AUTHORIZATION),
            network.resolver.caa(name.as_str()),
            network.resolver.addresses(name.as_str()),
        );
        // A value may come in several strings.
        let told = |text: &str| text.as_bytes().iter().all(|octet| octets.contains(octet));
        assert!(shown.is_err() || told(DIGEST), "control was shown by something else");
        if let Ok(Some(set)) = caa {
            assert!(!set.records.is_empty());
        }
        if let Ok(addresses) = addresses {
            assert!(!addresses.v4.is_empty() || !addresses.v6.is_empty());
        }
    });
}
