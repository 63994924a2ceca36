//! Web servers that get their own certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::matrix::{Feature, Run};
use e2e::program::{root, succeed};

#[test]
fn caddy_by_its_recipes() {
    let run = Run::start("caddy");
    let program = root().join(".tools/caddy/usr/bin/caddy");
    assert!(program.exists(), "{} is missing: .ci/setup test installs it", program.display());
    caddy(&run, &program.display().to_string(), "", &[]);
    run.finish();
}

/// What every version of it can, with more sites of the caller's.
pub fn caddy(run: &Run, program: &str, also: &str, also_names: &[&str]) {
    let (http, tls) = (run.demo.http_01_port, run.demo.tls_alpn_01_port);
    let own = format!("{{\n\thttp_port {http}\n\thttps_port {tls}\n\tadmin off\n\tskip_install_trust\n");
    let text = run.text("Caddyfile").replacen("{\n", &own, 1) + &run.text("sites") + also;
    std::fs::create_dir_all(run.path("etc/caddy")).unwrap();
    std::fs::write(run.path("etc/caddy/Caddyfile"), text).unwrap();
    let command = |arguments: &str| {
        let mut command = run.shell(&format!("exec {program} {arguments}"));
        let facts = &run.demo.facts;
        command.env("EAB_DIRECTORY", &facts.eab_directory);
        command.env("EAB_KID", &facts.eab_kid).env("EAB_HMAC_KEY", &facts.eab_hmac_key);
        command
    };
    {
        let _server = run.serve(command("run --config etc/caddy/Caddyfile"), "caddy.log");
        let names =
            ["www.example.com", "http.example.com", "alpn.example.com", "eab.example.com", "127.0.0.1"];
        for name in names.iter().chain(also_names) {
            let _ = run.wait("got its certificates", "caddy.log", || caddys_chain(run, name));
        }
    }
    let file = |name: &str| caddys_chain(run, name).unwrap();
    let _ = run.has(Feature::Http01, file("http.example.com"), &["http.example.com"]);
    let _ = run.has(Feature::TlsAlpn01, file("alpn.example.com"), &["alpn.example.com"]);
    let _ = run.has(Feature::Ip, file("127.0.0.1"), &["127.0.0.1"]);
    let _ = run.has(Feature::Eab, file("eab.example.com"), &["eab.example.com"]);
    let first = run.has(Feature::Http01, file("www.example.com"), &["www.example.com"]);

    // When the whole life is the window, it renews what it finds at its start.
    let adapted = succeed(&mut command("adapt --config etc/caddy/Caddyfile")).stdout;
    let mut adapted: serde_json::Value = serde_json::from_slice(&adapted).unwrap();
    for policy in adapted["apps"]["tls"]["automation"]["policies"].as_array_mut().unwrap() {
        policy["renewal_window_ratio"] = serde_json::json!(0.999_999_9);
    }
    std::fs::write(run.path("etc/caddy/eager.json"), adapted.to_string()).unwrap();
    let before = std::fs::read(file("www.example.com")).unwrap();
    let _server = run.serve(command("run --config etc/caddy/eager.json"), "caddy.log");
    run.wait("renewed", "caddy.log", || {
        (std::fs::read(file("www.example.com")).ok()? != before).then_some(())
    });
    let second = run.has(Feature::Renewal, file("www.example.com"), &["www.example.com"]);
    assert_ne!(first, second);
}

/// Where it keeps the certificate of a site, once it has one.
pub fn caddys_chain(run: &Run, name: &str) -> Option<PathBuf> {
    let folder = run.path("home/data/caddy/certificates");
    let output = Command::new("find").arg(folder).args(["-name", &format!("{name}.crt")]).output().ok()?;
    let found = String::from_utf8(output.stdout).ok()?;
    found.lines().next().map(Into::into)
}

/// The sites of Apache's second recipe.
const SITES: [&str; 5] =
    ["http.example.com", "dns.example.com", "alpn.example.com", "short.example.com", "eab.example.com"];

#[test]
fn apache_by_its_recipes() {
    let run = Run::start("apache");
    let (http, tls) = (run.demo.http_01_port, run.demo.tls_alpn_01_port);
    run.file("md.conf", "etc/apache2/md.conf", &run.text("sites.conf"));
    run.file("dns.sh", "etc/apache2/dns.sh", "");
    let here = run.path("etc/apache2");
    let modules: String = ["mpm_event", "authz_core", "md", "ssl", "socache_shmcb"]
        .iter()
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .collect();
    let hosts: String = SITES
        .iter()
        .map(|name| format!("<VirtualHost *:{tls}>\nServerName {name}\nSSLEngine on\n</VirtualHost>\n"))
        .collect();
    let md = std::fs::read_to_string(here.join("md.conf")).unwrap().replace("*:443", &format!("*:{tls}"));
    std::fs::write(here.join("md.conf"), md).unwrap();
    let conf = format!(
        "{modules}ServerRoot {here}\nServerName localhost\nPidFile {here}/pid\nErrorLog {here}/error.log\n\
         LogLevel warn md:info\nListen 127.0.0.1:{http}\nListen 127.0.0.1:{tls}\nMutex file:{here} default\n\
         DefaultRuntimeDir {here}\nSSLSessionCache none\nDocumentRoot {html}\n\
         MDPortMap http:{http} https:{tls}\nMDStoreDir {here}/md\nMDRenewWindow 100d\nMDCheckInterval 3s\nMDRetryDelay 5s\n\
         {hosts}Include {here}/md.conf\n",
        here = here.display(),
        html = run.path("var/www/html").display(),
    );
    std::fs::write(here.join("apache2.conf"), conf).unwrap();
    let command = |arguments: &str| {
        let mut command =
            run.shell(&format!("exec /usr/sbin/apache2 -f {}/apache2.conf {arguments}", here.display()));
        let facts = &run.demo.facts;
        command.env("EAB_DIRECTORY", &facts.eab_directory);
        command.env("EAB_KID", &facts.eab_kid).env("EAB_HMAC_KEY", &facts.eab_hmac_key);
        command
    };
    let log = "etc/apache2/error.log";
    let server = run.serve(command("-DFOREGROUND"), "apache.out");
    // It says so when a certificate waits for the next reload.
    let staged = |name: &str, times: usize| {
        let said = std::fs::read_to_string(run.path(log)).unwrap_or_default();
        (said.matches(&format!("The Managed Domain {name} has been setup")).count() >= times).then_some(())
    };
    let all = SITES.iter().chain(&["www.example.com"]);
    for name in all.clone() {
        run.wait("got its certificates", log, || staged(name, 1));
    }
    succeed(&mut command("-k graceful"));
    let file = |name: &str| format!("etc/apache2/md/domains/{name}/pubcert.pem");
    for name in all.clone() {
        run.wait("took its certificates into use", log, || exists(run.path(&file(name))));
    }
    let first = run.has(Feature::Http01, file("www.example.com"), &["www.example.com"]);
    let _ = run.has(Feature::Http01, file("http.example.com"), &["http.example.com"]);
    let _ = run.has(Feature::Dns01, file("dns.example.com"), &["dns.example.com"]);
    let _ = run.has(Feature::TlsAlpn01, file("alpn.example.com"), &["alpn.example.com"]);
    let _ = run.has(Feature::Eab, file("eab.example.com"), &["eab.example.com"]);
    let _ = run.has(Feature::Profile, file("short.example.com"), &["short.example.com"]);
    run.is_short(file("short.example.com"));

    // The window is longer than a certificate's life: it renews at once, and takes the new one at the next reload.
    run.wait("renewed", log, || staged("www.example.com", 2));
    let before = std::fs::read(run.path(&file("www.example.com"))).unwrap();
    succeed(&mut command("-k graceful"));
    run.wait("took the new certificate into use", log, || {
        (std::fs::read(run.path(&file("www.example.com"))).ok()? != before).then_some(())
    });
    let second = run.has(Feature::Renewal, file("www.example.com"), &["www.example.com"]);
    assert_ne!(first, second);
    drop(server);
    run.finish();
}

fn exists(path: impl AsRef<Path>) -> Option<()> {
    path.as_ref().exists().then_some(())
}
