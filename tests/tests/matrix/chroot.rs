//! Clients that Debian's stable release does not have, or not new enough. `make clients-chroot` runs them.

use e2e::matrix::{Feature, Run, wait_for_port};

use super::{lego, servers, shell};

#[test]
fn acme_sh_by_its_recipes() {
    let run = Run::start_newer("acme.sh", "acme.sh");
    let (http, tls) = (run.demo.http_01_port, run.demo.tls_alpn_01_port);
    run.wrap(
        "acme.sh",
        &format!("exec /usr/bin/acme.sh --no-color --httpport {http} --tlsport {tls} \"$@\""),
    );
    let names = ["www.example.com", "example.com"];
    let chain = "etc/acme.sh/www.example.com_ecc/fullchain.cer";
    run.sh("http-01");
    let first = run.has(Feature::Http01, chain, &names);
    run.sh("renew");
    let second = run.has(Feature::Renewal, chain, &names);
    assert_ne!(first, second);
    run.file("dns_mine.sh", "etc/acme.sh/dnsapi/dns_mine.sh", "");
    run.sh("dns-01");
    let _ = run.has(Feature::Dns01, "etc/acme.sh/*.example.com_ecc/fullchain.cer", &["*.example.com"]);
    run.sh("tls-alpn-01");
    let alpn = "etc/acme.sh/alpn.example.com_ecc/fullchain.cer";
    let alpn_first = run.has(Feature::TlsAlpn01, alpn, &["alpn.example.com"]);
    run.sh("profile");
    let short = "etc/acme.sh/short.example.com_ecc/fullchain.cer";
    let _ = run.has(Feature::Profile, short, &["short.example.com"]);
    run.is_short(short);
    run.sh("ip");
    let _ = run.has(Feature::Ip, "etc/acme.sh/127.0.0.1_ecc/fullchain.cer", &["127.0.0.1"]);

    let incident = run.open_incident(&alpn_first);
    run.sh("ari");
    assert_ne!(run.has(Feature::TlsAlpn01, alpn, &["alpn.example.com"]), alpn_first);
    run.has_followed(&incident, "replaced");

    run.sh("key-change");
    run.did(Feature::KeyChange);
    // With the new key.
    run.sh("revoke");
    run.is_revoked(&second);
    run.sh_managed("eab");
    let _ = run.has(Feature::Eab, "etc/acme.sh-eab/eab.example.com_ecc/fullchain.cer", &["eab.example.com"]);
    run.finish();
}

#[test]
fn haproxy_by_its_recipes() {
    let run = Run::start_newer("haproxy", "haproxy");
    let (http, tls) = (run.demo.http_01_port, run.demo.tls_alpn_01_port);
    std::fs::create_dir_all(run.path("etc/haproxy")).unwrap();
    std::fs::create_dir_all(run.path("var/run")).unwrap();
    run.sh("first");
    let text = run.text("haproxy.cfg").replace("*:80", &format!("127.0.0.1:{http}"));
    let text = text.replace("*:443", &format!("127.0.0.1:{tls}"));
    // It compares names alone, and the demo's directory is at an address.
    let text =
        text.replace("httpclient.ssl.ca-file", "httpclient.ssl.verify none\n    httpclient.ssl.ca-file");
    std::fs::write(run.path("etc/haproxy/haproxy.cfg"), text).unwrap();
    let _server = run.serve(run.shell("exec haproxy -db -f etc/haproxy/haproxy.cfg"), "haproxy.log");
    wait_for_port(http);
    let names = ["www.example.com", "example.com"];
    let issued = |before: &str| {
        run.sh("renew");
        run.wait("got its certificate", "haproxy.log", || {
            run.sh("dump");
            let dumped = std::fs::read_to_string(run.path("etc/haproxy/new.pem")).ok()?;
            // The key comes first.
            let chain = &dumped[dumped.find("-----BEGIN CERTIFICATE")?..];
            (chain.matches("BEGIN").count() == 2 && chain != before).then(|| chain.to_owned())
        })
    };
    let chain = issued("");
    std::fs::write(run.path("chain.pem"), &chain).unwrap();
    let first = run.has(Feature::Http01, "chain.pem", &names);
    std::fs::write(run.path("chain.pem"), issued(&chain)).unwrap();
    let second = run.has(Feature::Renewal, "chain.pem", &names);
    assert_ne!(first, second);
    run.finish();
}

#[test]
fn newer_lego_by_its_recipes() {
    let run = Run::start_newer("lego", "lego (sid)");
    lego::whole(&run);
    run.sh("ip");
    let _ = run.has(Feature::Ip, "etc/lego/certificates/127.0.0.1.crt", &["127.0.0.1"]);
    run.sh("profile");
    let short = "etc/lego/certificates/short.example.com.crt";
    let _ = run.has(Feature::Profile, short, &["short.example.com"]);
    run.is_short(short);
    let first = run.has(Feature::Ip, "etc/lego/certificates/127.0.0.1.crt", &["127.0.0.1"]);
    let incident = run.open_incident(&first);
    run.sh("ari");
    assert_ne!(run.has(Feature::Ip, "etc/lego/certificates/127.0.0.1.crt", &["127.0.0.1"]), first);
    run.has_followed(&incident, "replaced");
    run.finish();
}

#[test]
fn newer_uacme_by_its_recipes() {
    let run = Run::start_newer("uacme", "uacme (sid)");
    shell::uacme(&run);
    let _server = shell::web_server(&run);
    run.sh("profile");
    let short = "etc/ssl/uacme/short.example.com/cert.pem";
    let first = run.has(Feature::Profile, short, &["short.example.com"]);
    run.is_short(short);
    let incident = run.open_incident(&first);
    // Without --force it asks whether it is time.
    run.sh("profile");
    assert_ne!(run.has(Feature::Profile, short, &["short.example.com"]), first);
    // It reads renewal information, and says nothing of `replaces`.
    run.has_followed(&incident, "renewed");
    run.finish();
}

#[test]
fn newer_dehydrated_by_its_recipes() {
    let run = Run::start_newer("dehydrated", "dehydrated (sid)");
    shell::dehydrated(&run);
    let _server = shell::web_server(&run);
    std::fs::remove_dir_all(run.path("etc/dehydrated/certs")).unwrap();
    run.file("config", "etc/dehydrated/config", "");
    run.sh("ip");
    let _ = run.has(Feature::Ip, "etc/dehydrated/certs/address/fullchain.pem", &["127.0.0.1"]);
    run.sh("profile");
    let short = "etc/dehydrated/certs/short.example.com/fullchain.pem";
    let _ = run.has(Feature::Profile, short, &["short.example.com"]);
    run.is_short(short);
    run.finish();
}

#[test]
fn newer_caddy_by_its_recipes() {
    let run = Run::start_newer("caddy", "caddy (sid)");
    let also = run.text("profile");
    servers::caddy(&run, "/usr/bin/caddy", &also, &["short.example.com"]);
    let short = servers::caddys_chain(&run, "short.example.com").unwrap();
    let _ = run.has(Feature::Profile, &short, &["short.example.com"]);
    run.is_short(&short);
    run.finish();
}
