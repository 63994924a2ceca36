//! Two signers and two fronts on one PostgreSQL server, each a process of its own, behind one address.

use std::fs;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::ClusterSettings;

use crate::demo::{Demo, Facts};
use crate::program::{free_port, ours, succeed};

/// How long a role may take to come up on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running roles; dropped, they end.
pub struct Cluster {
    roles: Vec<Role>,
    switch: Switch,
    /// What the clients need to know.
    pub facts: Facts,
    /// Where the validator looks for http-01 answers.
    pub http_01_port: u16,
    /// The server.
    pub server: testkit::Cluster,
    folder: TempDir,
}

struct Role {
    name: &'static str,
    health: u16,
    command: Vec<String>,
    child: Child,
}

impl Cluster {
    /// Starts it: keys, certificates and policy are a demo's; nodes, accounts and certificates begin anew.
    ///
    /// # Panics
    ///
    /// When something does not come up.
    #[must_use]
    pub fn start(resolver: std::net::SocketAddr) -> Self {
        let demo = Demo::start();
        let facts = demo.facts.clone();
        let folder = demo.stop();
        let server =
            testkit::Cluster::start_with(&ClusterSettings { durable: true, ..ClusterSettings::default() });
        succeed(Command::new(ours("chancery")).args(["database", "migrate", "--url", &server.owner_url()]));
        server.sql(
            "postgres",
            "CREATE ROLE signer LOGIN IN ROLE chancery_signer; CREATE ROLE front LOGIN IN ROLE chancery_front",
        );
        let authority = facts.directory.strip_prefix("https://").and_then(|url| url.split('/').next());
        let authority: std::net::SocketAddr =
            authority.and_then(|text| text.parse().ok()).expect("an address");
        let (http_01_port, front_ports) = (free_port(), [free_port(), free_port()]);
        let switch = Switch::start(authority.port(), front_ports[0]);
        let mut cluster = Self { roles: Vec::new(), switch, facts, http_01_port, server, folder };
        let signers = [0, 1].map(|_| (free_port(), free_port()));
        cluster.signers(signers);
        cluster.others(signers, resolver, front_ports);
        cluster
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn database(&self, role: &str) -> String {
        format!("[database]\npostgres = \"{}\"", self.server.url("postgres", role))
    }

    fn edit(&self, from: &str, to: &str, changes: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.state().join(from)).expect(from);
        for (old, new) in changes {
            assert!(text.contains(old), "{from} has no {old}");
            text = text.replace(old, new);
        }
        fs::write(self.state().join(to), text).expect(to);
    }

    /// The first with the ceremony's certificate; the second joins it.
    fn signers(&mut self, ports: [(u16, u16); 2]) {
        let database = self.database("signer");
        let operator = fs::read_to_string(self.state().join("operator.toml")).expect("operator.toml");
        let old = operator.lines().find(|line| line.starts_with("addresses")).expect("the signer's address");
        let new = format!("addresses = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]", ports[0].0, ports[1].0);
        self.edit("operator.toml", "operator.toml", &[(old, &new)]);
        let node = "[node]\ncertificate = \"ca/signer-signer-1.pem\"\nkey = \"ca/signer-signer-1.key\"\nauthority = \"ca/node-ca.pem\"";
        for (at, (port, enrollment)) in ports.into_iter().enumerate() {
            let name = ["signer-1", "signer-2"][at];
            let own = format!(
                "[node]\ncertificate = \"{name}/node.pem\"\nkey = \"{name}/node.key\"\nauthority = \"{name}/node-ca.pem\""
            );
            let health = free_port();
            let health_section = format!("[health]\nlisten = \"127.0.0.1:{health}\"\n\n{database}");
            self.edit(
                "signer.toml",
                &format!("{name}.toml"),
                &[
                    ("\"inherited:0\"", &format!("\"127.0.0.1:{port}\"")),
                    ("\"inherited:1\"", &format!("\"127.0.0.1:{enrollment}\"")),
                    ("state = \"signer\"", &format!("state = \"{name}\"")),
                    (node, if at == 0 { node } else { &own }),
                    ("[database]\nsqlite = \"signer/ca.db\"", &health_section),
                ],
            );
            if at == 1 {
                self.join("signer", name, ports[0].1, &[]);
            }
            self.run(name, "chancery", &["signer"], health);
        }
    }

    fn others(&mut self, signers: [(u16, u16); 2], resolver: std::net::SocketAddr, ports: [u16; 2]) {
        let addresses = |first: usize| {
            format!("\"127.0.0.1:{}\", \"127.0.0.1:{}\"", signers[first].0, signers[1 - first].0)
        };
        let (validator, health) = (free_port(), free_port());
        self.join("validator", "validator-1", signers[0].1, &["--receipt-key", "validator-1"]);
        let text = format!(
            "version = 1\nlisten = \"127.0.0.1:{validator}\"\nreceipt_key = \"validator-1/receipt.key\"\n\
             signers = [{}]\nresolver = \"{resolver}\"\n[node]\ncertificate = \"validator-1/node.pem\"\n\
             key = \"validator-1/node.key\"\nauthority = \"validator-1/node-ca.pem\"\n\
             [http_01]\nport = {}\n[addresses]\nallow = [\"127.0.0.0/8\"]\n\
             [health]\nlisten = \"127.0.0.1:{health}\"\n",
            addresses(0),
            self.http_01_port
        );
        fs::write(self.state().join("validator-1.toml"), text).expect("validator-1.toml");
        self.run("validator-1", "chancery", &["validator"], health);
        let base_url = self.facts.directory.split("/acme/").next().expect("the base URL").to_owned();
        let peers = [free_port(), free_port()];
        for (at, name) in ["front-1", "front-2"].into_iter().enumerate() {
            self.join("front", name, signers[1].1, &[]);
            let health = free_port();
            let other = ["front-2", "front-1"][at];
            let text = format!(
                "version = 1\nlisten = \"127.0.0.1:{}\"\nbase_urls = [\"{base_url}\"]\nstate = \"{name}\"\n\
                 nonce_key = \"nonce-key\"\npeer_listen = \"127.0.0.1:{}\"\n[node]\n\
                 certificate = \"{name}/node.pem\"\nkey = \"{name}/node.key\"\nauthority = \"{name}/node-ca.pem\"\n\
                 [signer]\naddresses = [{}]\n[validator]\naddresses = [\"127.0.0.1:{validator}\"]\n{}\n\
                 [https]\nmode = \"self\"\n[[peer]]\nid = \"{other}\"\naddresses = [\"127.0.0.1:{}\"]\n\
                 [health]\nlisten = \"127.0.0.1:{health}\"\n",
                ports[at],
                peers[at],
                addresses(at),
                self.database("front"),
                peers[1 - at]
            );
            fs::write(self.state().join(format!("{name}.toml")), text).expect(name);
            // One as the whole program, one as the thin one.
            let (program, words): (&str, &[&str]) =
                if at == 0 { ("chancery", &["front"]) } else { ("chancery-front", &[]) };
            self.run(name, program, words, health);
        }
        self.switch.ports = ports;
    }

    /// What an operator and the node's administrator do.
    fn join(&self, role: &str, name: &str, enrollment: u16, more: &[&str]) {
        let mut token = Command::new(ours("chancery"));
        token.env("CHANCERY_OPERATOR", self.state().join("operator.toml"));
        token.args(["node", "--json", "token", "--role", role, "--name", name]);
        if role == "front" {
            token.args(["--server-name", "127.0.0.1"]);
        }
        let said = succeed(&mut token).stdout;
        let said: serde_json::Value = serde_json::from_slice(&said).expect("JSON");
        let mut join = Command::new(ours("chancery"));
        join.args(["node", "join", said["token"].as_str().expect("a token")]);
        join.args(["--signer", &format!("127.0.0.1:{enrollment}"), "--folder", name]).args(more);
        succeed(join.current_dir(self.state()));
    }

    fn run(&mut self, name: &'static str, program: &str, words: &[&str], health: u16) {
        let mut command = vec![ours(program).display().to_string()];
        command.extend(words.iter().map(|&word| word.to_owned()));
        let config = self.state().join(format!("{name}.toml"));
        command.extend(["--config".to_owned(), config.display().to_string()]);
        let child = spawn(&self.state(), name, &command);
        self.roles.push(Role { name, health, command, child });
        self.wait_for(name);
    }

    fn role(&mut self, name: &str) -> &mut Role {
        self.roles.iter_mut().find(|role| role.name == name).expect("a role of this name")
    }

    fn wait_for(&mut self, name: &str) {
        let started = Instant::now();
        let state = self.state();
        let role = self.role(name);
        while !ready(role.health) {
            let ended = role.child.try_wait().expect("its state");
            if ended.is_some() || started.elapsed() > PATIENCE {
                panic!("{name} did not come up: {ended:?}\n{}", log(&state, name));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills a role.
    ///
    /// # Panics
    ///
    /// When there is none of this name.
    pub fn kill(&mut self, name: &str) {
        let role = self.role(name);
        role.child.kill().expect("a running process");
        role.child.wait().expect("its end");
    }

    /// Starts a role that was killed.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn revive(&mut self, name: &str) {
        let state = self.state();
        let role = self.role(name);
        role.child = spawn(&state, role.name, &role.command);
        self.wait_for(name);
    }

    /// Leads clients to the first front (0) or the second (1) from now on; their connections end.
    pub fn lead_to(&self, front: usize) {
        self.switch.lead_to(front);
    }

    /// A counter of a role's metrics, 0 when it was never raised.
    ///
    /// # Panics
    ///
    /// When the role does not answer.
    #[must_use]
    pub fn metric(&self, name: &str, metric: &str) -> f64 {
        let role = self.roles.iter().find(|role| role.name == name).expect("a role of this name");
        let url = format!("http://127.0.0.1:{}/metrics", role.health);
        let text = succeed(Command::new("curl").args(["--silent", "--fail", &url])).stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let state = self.state();
        for role in self.roles.iter_mut().rev() {
            _ = role.child.kill();
            _ = role.child.wait();
            if std::thread::panicking() {
                eprintln!("--- {}\n{}", role.name, log(&state, role.name));
            }
        }
    }
}

fn spawn(state: &Path, name: &str, command: &[String]) -> Child {
    let log = fs::File::options().create(true).append(true).open(state.join(format!("{name}.log")));
    Command::new(&command[0])
        .args(&command[1..])
        .current_dir(state)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("a log"))
        .spawn()
        .expect("one of our programs")
}

fn log(state: &Path, name: &str) -> String {
    let text = fs::read_to_string(state.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn ready(health: u16) -> bool {
    let url = format!("http://127.0.0.1:{health}/health/ready");
    let asked = Command::new("curl").args(["--silent", "--fail", "--output", "/dev/null", &url]).status();
    asked.expect("curl; .ci/setup test installs it").success()
}

/// What stands before the fronts: one address, led to one of them at a time.
struct Switch {
    own: u16,
    ports: [u16; 2],
    target: Arc<AtomicU16>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    ended: Arc<AtomicBool>,
}

impl Switch {
    fn start(own: u16, first: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", own)).expect("the port that stands in the URLs");
        let switch = Self {
            own,
            ports: [first; 2],
            target: Arc::new(AtomicU16::new(first)),
            open: Arc::default(),
            ended: Arc::default(),
        };
        let (target, open, ended) =
            (Arc::clone(&switch.target), Arc::clone(&switch.open), Arc::clone(&switch.ended));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(front) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst))) else {
                    continue;
                };
                let ways = [(client.try_clone(), front.try_clone()), (front.try_clone(), client.try_clone())];
                open.lock().expect("the list").extend([client, front]);
                for (from, to) in ways {
                    let (mut from, mut to) = (from.expect("a socket"), to.expect("a socket"));
                    std::thread::spawn(move || {
                        _ = std::io::copy(&mut from, &mut to);
                        _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        switch
    }

    fn lead_to(&self, front: usize) {
        self.target.store(self.ports[front], Ordering::SeqCst);
        for socket in self.open.lock().expect("the list").drain(..) {
            _ = socket.shutdown(Shutdown::Both);
        }
        // So that clients see it before they ask again.
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        _ = TcpStream::connect(("127.0.0.1", self.own));
        for socket in self.open.lock().expect("the list").drain(..) {
            _ = socket.shutdown(Shutdown::Both);
        }
    }
}
