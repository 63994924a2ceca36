//! Relying parties: what a revocation does to CRL and OCSP, and what is left of both when every signer is dead.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::demo::signal;
use e2e::program::{free_port, ours, run, succeed};
use e2e::{Demo, client, oracle};

const PATIENCE: Duration = Duration::from_secs(60);

/// A leaf that certbot got.
struct Leaf {
    file: PathBuf,
    serial: String,
}

fn leaf(demo: &Demo, name: &str) -> Leaf {
    let folder = demo.client_folder(name);
    let chain = client::certbot(demo, &folder, &[&format!("{name}.demo.test")]);
    let file = oracle::first_of(&chain, &folder);
    let said = succeed(Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(&file)).stdout;
    let serial = String::from_utf8(said).unwrap().trim().trim_start_matches("serial=").to_lowercase();
    Leaf { file, serial }
}

/// What `openssl ocsp` says of a certificate: it verifies the answer, its times and the responder's certificate.
fn ocsp(demo: &Demo, url: &str, leaf: &Leaf, more: &[&str]) -> String {
    let mut command = Command::new("openssl");
    // The digest has to stand before the certificate.
    command.arg("ocsp").args(more).args(["-url", url, "-issuer"]).arg(&demo.facts.issuer);
    command.arg("-cert").arg(&leaf.file).arg("-CAfile").arg(&demo.facts.root);
    let output = run(&mut command);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    said(&output.stdout) + &said(&output.stderr)
}

fn is(said: &str, state: &str) -> bool {
    said.contains("Response verify OK") && said.contains(&format!(": {state}"))
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn url(demo: &Demo) -> String {
    demo.facts.ocsp.clone().expect("the demo answers OCSP")
}

/// The line beside a word in what openssl prints.
fn beside<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(word))
        .unwrap_or_else(|| panic!("no {word}: {text}"))
}

#[test]
fn l8_f7_a_revocation_reaches_crl_and_ocsp_and_both_say_the_same() {
    let demo = Demo::start();
    let (victim, other, url) = (leaf(&demo, "victim"), leaf(&demo, "other"), url(&demo));
    // The URL that relying parties use is the one in the certificate.
    let said =
        succeed(Command::new("openssl").args(["x509", "-noout", "-ocsp_uri", "-in"]).arg(&victim.file));
    assert_eq!(String::from_utf8(said.stdout).unwrap().trim(), url);
    for leaf in [&victim, &other] {
        for more in [&["-no_nonce"][..], &["-nonce"], &["-no_nonce", "-sha256"]] {
            let said = ocsp(&demo, &url, leaf, more);
            assert!(is(&said, "good"), "{more:?}: {said}");
        }
    }
    succeed(demo.operator().args(["revoke", &victim.serial, "--reason", "superseded", "--yes"]));
    wait_for("revoked by OCSP", || is(&ocsp(&demo, &url, &victim, &["-no_nonce"]), "revoked"));
    demo.wait_for_crl("has it", |der| {
        let serial = hex::decode(&victim.serial).unwrap();
        der.windows(serial.len()).any(|window| window == serial)
    });
    let by_ocsp = ocsp(&demo, &url, &victim, &["-no_nonce"]);
    let folder = demo.client_folder("oracle");
    let crl = oracle::crl_to_pem(&demo.crl(), &folder, "crl");
    let text = succeed(Command::new("openssl").args(["crl", "-noout", "-text", "-in"]).arg(&crl)).stdout;
    let by_crl = String::from_utf8(text).unwrap();
    assert_eq!(beside(&by_ocsp, "Reason: "), "superseded");
    assert!(by_crl.contains("Superseded"), "{by_crl}");
    assert_eq!(beside(&by_ocsp, "Revocation Time: "), beside(&by_crl, "Revocation Date: "));
    // The neighbour is as good as before, in both.
    assert!(is(&ocsp(&demo, &url, &other, &["-no_nonce"]), "good"));
    assert!(!by_crl.to_lowercase().contains(&other.serial));
    // Never good for what was not issued.
    let mut unknown = Command::new("openssl");
    unknown
        .args(["ocsp", "-url", &url, "-issuer"])
        .arg(&demo.facts.issuer)
        .arg("-CAfile")
        .arg(&demo.facts.root);
    let said = run(unknown.args(["-serial", "0x41424344454647484142434445464748"])).stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains(": unknown") && !said.contains("good"), "{said}");
}

/// A status node started by hand, on a copy of the demo's configuration; killed when dropped.
struct Alone {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Alone {
    fn start(state: &Path) -> Self {
        let (port, text) = (free_port(), std::fs::read_to_string(state.join("status.toml")).unwrap());
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("listen", _)) => format!("listen = \"127.0.0.1:{port}\""),
            _ => line.to_owned(),
        });
        let config = state.join("status-alone.toml");
        std::fs::write(&config, lines.collect::<Vec<_>>().join("\n")).unwrap();
        let log = state.join("log/status-alone.log");
        let child = Command::new(ours("chancery-status"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        wait_for("the status node listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, log }
    }

    fn url(&self, of: &str) -> String {
        let path = of.strip_prefix("http://").unwrap().split_once('/').unwrap().1;
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    fn stop(mut self) -> String {
        signal(self.child.id(), "TERM");
        let _ = self.child.wait();
        std::fs::read_to_string(&self.log).unwrap()
    }
}

fn fetch(url: &str) -> Option<Vec<u8>> {
    let output = run(Command::new("curl").args(["--silent", "--fail", url]));
    output.status.success().then_some(output.stdout)
}

#[test]
fn with_every_signer_dead_all_that_was_known_is_served_on_and_nothing_that_was_tampered_with() {
    let demo = Demo::start();
    let (victim, other, url) = (leaf(&demo, "victim"), leaf(&demo, "other"), url(&demo));
    succeed(demo.operator().args(["revoke", &victim.serial, "--reason", "superseded", "--yes"]));
    wait_for("revoked by OCSP", || is(&ocsp(&demo, &url, &victim, &["-no_nonce"]), "revoked"));
    assert!(is(&ocsp(&demo, &url, &other, &["-no_nonce"]), "good"));
    let serial = hex::decode(&victim.serial).unwrap();
    let lists = |crl: &[u8]| crl.windows(serial.len()).any(|window| window == serial);
    demo.wait_for_crl("has it", lists);

    // Whoever would start it again stands still.
    signal(demo.process_id(), "STOP");
    for word in ["hsm-worker", "signer"] {
        signal(demo.process_of(word), "KILL");
    }
    let holds = |ocsp_url: &str, crl_url: &str| {
        assert!(is(&ocsp(&demo, ocsp_url, &victim, &["-no_nonce"]), "revoked"));
        assert!(is(&ocsp(&demo, ocsp_url, &other, &["-no_nonce"]), "good"));
        assert!(lists(&fetch(crl_url).expect("the CRL")));
    };
    holds(&url, &demo.facts.crl);
    // What only a signer knows is not made up.
    let said = ocsp(&demo, &url, &other, &["-nonce"]);
    assert!(said.contains("trylater") || said.contains("internalerror"), "{said}");

    // Its process dies too: the spool is all there is.
    signal(demo.process_of("status"), "KILL");
    let state = demo.state();
    let alone = Alone::start(&state);
    holds(&alone.url(&url), &alone.url(&demo.facts.crl));
    drop(alone.stop());

    // Every file of the spool is changed in its middle.
    let mut folders = vec![state.join("status/spool")];
    let mut changed = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            if bytes.len() > 100 {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                changed += 1;
            }
        }
    }
    assert!(changed >= 2, "the spool has {changed} files");
    let alone = Alone::start(&state);
    assert_eq!(fetch(&alone.url(&demo.facts.crl)), None, "a changed CRL is served");
    for leaf in [&victim, &other] {
        let said = ocsp(&demo, &alone.url(&url), leaf, &["-no_nonce"]);
        assert!(!said.contains(": good") && !said.contains(": revoked"), "{said}");
    }
    let log = alone.stop();
    for refused in ["status.spool_refused", "status.ocsp_spool_refused"] {
        assert!(log.contains(refused), "{refused}: {log}");
    }
    signal(demo.process_id(), "CONT");
}
