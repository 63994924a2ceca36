//! dehydrated, uacme and acmetool: clients whose http-01 answers a web server serves.

use e2e::client::FileServer;
use e2e::matrix::{Feature, Run};

const NAMES: [&str; 2] = ["www.example.com", "example.com"];

#[test]
fn dehydrated_by_its_recipes() {
    let run = Run::start("dehydrated");
    dehydrated(&run);
    run.finish();
}

/// What every version of it can.
pub fn dehydrated(run: &Run) {
    let _server = web_server(run);
    run.file("config", "etc/dehydrated/config", "");
    run.file("hook.sh", "etc/dehydrated/hook.sh", "");
    let chain = "etc/dehydrated/certs/www.example.com/fullchain.pem";
    run.sh("http-01");
    let first = run.has(Feature::Http01, chain, &NAMES);
    run.sh("renew");
    let second = run.has(Feature::Renewal, chain, &NAMES);
    assert_ne!(first, second);
    run.sh("revoke");
    run.is_revoked(&second);

    run.sh("dns-01");
    let _ = run.has(Feature::Dns01, "etc/dehydrated/certs/wild/fullchain.pem", &["*.example.com"]);
    run.sh("tls-alpn-01");
    let alpn = "etc/dehydrated/certs/alpn.example.com/fullchain.pem";
    let _ = run.has(Feature::TlsAlpn01, alpn, &["alpn.example.com"]);
    // The same again, where nobody gets in without a key.
    std::fs::remove_dir_all(run.path("etc/dehydrated/certs")).unwrap();
    run.file("config", "etc/dehydrated/config", &run.text("config-eab"));
    run.sh_managed("http-01");
    let _ = run.has(Feature::Eab, chain, &NAMES);
}

#[test]
fn uacme_by_its_recipes() {
    let run = Run::start("uacme");
    uacme(&run);
    run.finish();
}

/// What every version of it can.
pub fn uacme(run: &Run) {
    let _server = web_server(run);
    // It trusts the system's store alone: a mount namespace of its own has one with the demo's root.
    let store = "/etc/ssl/certs/ca-certificates.crt";
    in_own_mounts(run, "uacme", &format!("mount --bind \"$CA_ROOT\" {store}"), "/usr/bin/uacme");
    run.file("hook.sh", "etc/ssl/uacme/hook.sh", "");
    let chain = "etc/ssl/uacme/www.example.com/cert.pem";
    run.sh("http-01");
    let first = run.has(Feature::Http01, chain, &NAMES);
    run.sh("renew");
    let second = run.has(Feature::Renewal, chain, &NAMES);
    assert_ne!(first, second);
    run.sh("dns-01");
    let _ = run.has(Feature::Dns01, "etc/ssl/uacme/dns.example.com/cert.pem", &["*.dns.example.com"]);
    {
        let (port, socket) = (run.demo.tls_alpn_01_port, run.path("ualpn.sock"));
        run.wrap("ualpn", &format!("exec /usr/bin/ualpn --sock {} \"$@\"", socket.display()));
        let pid = run.path("ualpn.pid");
        let server =
            format!("exec ualpn --bind 127.0.0.1@{port} --connect 127.0.0.1@9 --pidfile {}", pid.display());
        let _server = run.serve(run.shell(&server), "ualpn.log");
        run.wait("listened", "ualpn.log", || socket.exists().then_some(()));
        run.sh("tls-alpn-01");
        let chain = "etc/ssl/uacme/alpn.example.com/cert.pem";
        let _ = run.has(Feature::TlsAlpn01, chain, &["alpn.example.com"]);
    }
    run.sh("ip");
    let _ = run.has(Feature::Ip, "etc/ssl/uacme/127.0.0.1/cert.pem", &["127.0.0.1"]);

    let old = std::fs::read(run.path("etc/ssl/uacme/private/key.pem")).unwrap();
    run.sh("key-change");
    assert_ne!(std::fs::read(run.path("etc/ssl/uacme/private/key.pem")).unwrap(), old);
    // With the new key.
    run.sh("revoke");
    run.is_revoked(&second);
    // With the old one.
    let folder = run.path("etc/ssl/former");
    std::fs::create_dir_all(folder.join("private")).unwrap();
    std::fs::write(folder.join("private/key.pem"), old).unwrap();
    let again = run.text("renew").replace("ssl/uacme --type", "ssl/former --type");
    assert!(run.refused(&again).contains("key"));
    run.did(Feature::KeyChange);

    run.sh_managed("eab");
    let _ = run.has(Feature::Eab, "etc/ssl/uacme-eab/eab.example.com/cert.pem", &["eab.example.com"]);
}

#[test]
fn acmetool_by_its_recipes() {
    let run = Run::start("acmetool");
    let _server = web_server(&run);
    let acmetool = e2e::program::root().join(".tools/acmetool/usr/bin/acmetool");
    assert!(acmetool.exists(), "{} is missing: .ci/setup test installs it", acmetool.display());
    // It writes its answers into /run/acme as well.
    in_own_mounts(&run, "acmetool", "mount -t tmpfs tmpfs /run", &acmetool.display().to_string());
    run.file("target", "var/lib/acme/conf/target", "");
    run.file("responses", "var/lib/acme/conf/responses", "");
    std::fs::create_dir_all(run.path("var/lib/acme/desired")).unwrap();
    run.sh("http-01");
    let _ = run.has(Feature::Http01, "var/lib/acme/live/www.example.com/fullchain", &NAMES);
    run.file("dns", "etc/acme/hooks/dns", "");
    run.sh("dns-01");
    let _ = run.has(Feature::Dns01, "var/lib/acme/live/*.example.com/fullchain", &["*.example.com"]);
    run.finish();
}

/// Puts a program before the client's that gives it a view of the file system of its own.
fn in_own_mounts(run: &Run, name: &str, mount: &str, program: &str) {
    let here = format!("{mount} && exec {program} \"$@\"");
    if run.has_own_mounts() {
        return run.wrap(name, &here);
    }
    let own = "if [ \"$(id -u)\" = 0 ]; then own='unshare -m'; else own='unshare -cm --keep-caps'; fi";
    run.wrap(name, &format!("{own}\nexec $own sh -c '{here}' sh \"$@\""));
}

pub fn web_server(run: &Run) -> FileServer {
    std::fs::create_dir_all(run.path("var/www/html/.well-known/acme-challenge")).unwrap();
    FileServer::start(&run.path("var/www/html"), run.demo.http_01_port)
}
