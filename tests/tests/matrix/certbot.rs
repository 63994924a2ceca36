//! certbot, PyPI's newest.

use e2e::matrix::{Feature, Run};
use e2e::program::root;

#[test]
fn certbot_by_its_recipes() {
    let run = Run::start("certbot");
    let certbot = root().join(".tools/python-certbot/bin/certbot");
    assert!(certbot.exists(), "{} is missing: .ci/setup test installs it", certbot.display());
    // Its own file of defaults holds what only this machine needs.
    let etc = run.path("etc/letsencrypt").display().to_string();
    run.wrap("certbot", &format!("exec {} --config {etc}/cli.ini \"$@\"", certbot.display()));
    std::fs::create_dir_all(&etc).unwrap();
    let defaults = format!(
        "config-dir = {etc}\nwork-dir = {etc}/work\nlogs-dir = {etc}/log\nhttp-01-address = 127.0.0.1\nhttp-01-port = {}\n",
        run.demo.http_01_port
    );
    std::fs::write(format!("{etc}/cli.ini"), defaults).unwrap();

    let chain = "etc/letsencrypt/live/www.example.com/fullchain.pem";
    let names = ["www.example.com", "example.com"];
    run.sh("http-01");
    let first = run.has(Feature::Http01, chain, &names);
    run.sh("renew");
    let second = run.has(Feature::Renewal, chain, &names);
    assert_ne!(first, second);
    run.sh("revoke");
    run.is_revoked(&second);

    run.sh("dns-01");
    let wild = "etc/letsencrypt/live/wild/fullchain.pem";
    let third = run.has(Feature::Dns01, wild, &["*.example.com"]);
    let incident = run.open_incident(&third);
    run.sh("ari");
    assert_ne!(run.has(Feature::Dns01, wild, &["*.example.com"]), third);
    run.has_followed(&incident, "renewed");

    run.sh("profile");
    let short = "etc/letsencrypt/live/short.example.com/fullchain.pem";
    let _ = run.has(Feature::Profile, short, &["short.example.com"]);
    run.is_short(short);
    let unknown = run.text("profile").replace("short.example.com", "other.example.com");
    let unknown = unknown.replace("profile short", "profile no-such-profile");
    assert!(run.refused(&unknown).contains("does not offer profile"));

    run.sh("ip");
    let _ = run.has(Feature::Ip, "etc/letsencrypt/live/address/fullchain.pem", &["127.0.0.1"]);

    run.sh_managed("eab");
    let chain = "etc/letsencrypt/live/eab.example.com/fullchain.pem";
    let _ = run.has(Feature::Eab, chain, &["eab.example.com"]);
    run.finish();
}
