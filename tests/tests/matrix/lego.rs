//! lego, Debian's.

use e2e::matrix::{Feature, Run};

#[test]
fn lego_by_its_recipes() {
    let run = Run::start("lego");
    whole(&run);
    run.finish();
}

/// What every version of it can.
pub fn whole(run: &Run) {
    let (http, tls) = (run.demo.http_01_port, run.demo.tls_alpn_01_port);
    let ports = format!("--http.port 127.0.0.1:{http} --tls.port 127.0.0.1:{tls}");
    // It looks whether the record is there.
    let resolver = format!("--dns.resolvers {}", run.demo.resolver());
    run.wrap("lego", &format!("exec /usr/bin/lego {ports} {resolver} \"$@\""));
    let chain = "etc/lego/certificates/example.com.crt";
    let names = ["example.com", "www.example.com"];
    run.sh("http-01");
    let first = run.has(Feature::Http01, chain, &names);
    run.sh("renew");
    let second = run.has(Feature::Renewal, chain, &names);
    assert_ne!(first, second);
    run.sh("revoke");
    run.is_revoked(&second);

    run.file("dns.sh", "etc/lego/dns.sh", "");
    run.sh("dns-01");
    let _ = run.has(Feature::Dns01, "etc/lego/certificates/_.example.com.crt", &["*.example.com"]);
    run.sh("tls-alpn-01");
    let chain = "etc/lego/certificates/alpn.example.com.crt";
    let _ = run.has(Feature::TlsAlpn01, chain, &["alpn.example.com"]);
    run.sh_managed("eab");
    let _ = run.has(Feature::Eab, "etc/lego-eab/certificates/eab.example.com.crt", &["eab.example.com"]);
}
