//! Client libraries of other languages, by one small program each, which all understand the same words:
//! `register [eab]`, `issue METHOD FILE NAME…`, `revoke FILE`, `key-change`, `former-key`. A program's account is in the folder
//! `$STATE`.

use std::net::SocketAddr;
use std::time::Duration;

use acme::renewal::CertificateId;
use e2e::library::{self, finalize};
use e2e::matrix::{Feature, Run};
use e2e::program::root;
use instant_acme::{
    Account, CertificateIdentifier, ChallengeType, Identifier, NewOrder, OrderStatus, RevocationReason,
};
use testkit::alpn::{AlpnCertificate, AlpnResponder};
use testkit::challenge::ChallengeResponder;

/// For an incident to show: a front of another kind than the demo's keeps answers for a minute (`limits.renewal_info_seconds`).
const PATIENCE: Duration = Duration::from_secs(90);

const NAMES: [&str; 2] = ["www.example.com", "example.com"];

#[test]
fn go_x_crypto_acme() {
    let run = Run::start("x/crypto/acme");
    let program = root().join(".tools/bin/client-go");
    assert!(program.exists(), "{} is missing: .ci/setup test builds it", program.display());
    run.wrap("client", &format!("exec {} \"$@\"", program.display()));
    whole_life(&run, &[Feature::Dns01, Feature::TlsAlpn01], true);
    run.finish();
}

#[test]
fn node_acme_client() {
    let run = Run::start("acme-client");
    let modules = root().join(".tools/node/node_modules");
    assert!(modules.exists(), "{} is missing: .ci/setup test installs it", modules.display());
    let program = root().join("tests/clients/node/client.js");
    run.wrap(
        "client",
        &format!(
            "export NODE_EXTRA_CA_CERTS=\"$CA_ROOT\" NODE_PATH={}\nexec node {} \"$@\"",
            modules.display(),
            program.display()
        ),
    );
    whole_life(&run, &[Feature::Dns01, Feature::TlsAlpn01], true);
    run.finish();
}

#[test]
fn python_acme() {
    let run = Run::start("acme");
    let python = root().join(".tools/python-certbot/bin/python");
    assert!(python.exists(), "{} is missing: .ci/setup test installs it", python.display());
    let program = root().join("tests/clients/python/client.py");
    run.wrap(
        "client",
        &format!(
            "export REQUESTS_CA_BUNDLE=\"$CA_ROOT\"\nexec {} {} \"$@\"",
            python.display(),
            program.display()
        ),
    );
    whole_life(&run, &[Feature::Dns01], false);
    let mut command = run.shell("client renew-when-due http-01 short.pem short.example.com");
    command.env("STATE", run.path("account"));
    assert_eq!(e2e::program::run(&mut command).status.code(), Some(3), "it was not due");
    let first = run.has(Feature::Profile, "short.pem", &["short.example.com"]);
    let incident = run.open_incident(&first);
    let started = std::time::Instant::now();
    while e2e::program::run(&mut command).status.code() != Some(0) {
        assert!(started.elapsed() < PATIENCE, "it is never due");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_ne!(run.has(Feature::Profile, "short.pem", &["short.example.com"]), first);
    run.has_followed(&incident, "renewed");
    run.finish();
}

/// What each program does; a library without key change leaves that out.
fn whole_life(run: &Run, methods: &[Feature], key_change: bool) {
    let script = |script: &str| {
        let mut command = run.shell(script);
        command.env("STATE", run.path("account"));
        e2e::program::succeed(&mut command)
    };
    script("client register");
    script("client issue http-01 chain.pem www.example.com example.com");
    let first = run.has(Feature::Http01, "chain.pem", &NAMES);
    script("client issue http-01 chain.pem www.example.com example.com");
    let second = run.has(Feature::Renewal, "chain.pem", &NAMES);
    assert_ne!(first, second);
    for method in methods {
        let word = match method {
            Feature::Dns01 => "dns-01",
            Feature::TlsAlpn01 => "tls-alpn-01",
            _ => continue,
        };
        script(&format!("client issue {word} {word}.pem {word}.example.com"));
        let _ = run.has(*method, format!("{word}.pem"), &[&format!("{word}.example.com")]);
    }
    script("client issue http-01 address.pem 127.0.0.1");
    let _ = run.has(Feature::Ip, "address.pem", &["127.0.0.1"]);
    script("PROFILE=short client issue http-01 short.pem short.example.com");
    let _ = run.has(Feature::Profile, "short.pem", &["short.example.com"]);
    run.is_short("short.pem");
    let account = run.path("account").display().to_string();
    let unknown = format!("STATE={account} PROFILE=none client issue http-01 none.pem none.example.com");
    assert!(run.refused(&unknown).contains("rofile"));
    if key_change {
        script("client key-change");
        let said = run.refused(&format!("STATE={account} client former-key"));
        assert!(said.contains("account"), "{said}");
        run.did(Feature::KeyChange);
    }
    script("client revoke chain.pem");
    run.is_revoked(&second);

    let mut bound = run.shell("client register eab && client issue http-01 eab.pem eab.example.com");
    run.managed(&mut bound).env("STATE", run.path("bound"));
    e2e::program::succeed(&mut bound);
    let _ = run.has(Feature::Eab, "eab.pem", &["eab.example.com"]);
    let unbound = format!("STATE={account} ACME_DIRECTORY={} client register", run.demo.facts.eab_directory);
    assert!(run.refused(&unbound).contains("external"));
}

#[test]
fn rust_instant_acme() {
    let run = Run::start("instant-acme");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let responder = library::responder(&run.demo).await;
        let builder = || Account::builder_with_root(&run.demo.facts.endpoint_ca).unwrap();
        let created = builder().create(&library::NEW_ACCOUNT, run.demo.facts.directory.clone(), None).await;
        let (mut account, former) = created.unwrap();
        let chain = library::issue(&account, &responder, &NAMES).await;
        std::fs::write(run.path("chain.pem"), chain).unwrap();
        let first = run.has(Feature::Http01, "chain.pem", &NAMES);
        let chain = library::issue(&account, &responder, &NAMES).await;
        std::fs::write(run.path("chain.pem"), &chain).unwrap();
        let second = run.has(Feature::Renewal, "chain.pem", &NAMES);
        assert_ne!(first, second);

        let wild = [Identifier::Dns("*.example.com".to_owned())];
        let mut order = account.new_order(&NewOrder::new(&wild)).await.unwrap();
        let record = run.demo.facts.names.join("_acme-challenge.example.com");
        {
            let mut authorizations = order.authorizations();
            let mut authorization = authorizations.next().await.unwrap().unwrap();
            let mut challenge = authorization.challenge(ChallengeType::Dns01).unwrap();
            let value = challenge.key_authorization().dns_value();
            std::fs::write(&record, format!("TXT {value}\n")).unwrap();
            challenge.set_ready().await.unwrap();
        }
        assert_eq!(order.poll_ready(&library::patience()).await.unwrap(), OrderStatus::Ready);
        std::fs::remove_file(record).unwrap();
        let chain_of_wild = finalize(&mut order, &library::request(&["*.example.com"])).await;
        std::fs::write(run.path("wild.pem"), chain_of_wild).unwrap();
        let _ = run.has(Feature::Dns01, "wild.pem", &["*.example.com"]);

        let alpn = [Identifier::Dns("alpn.example.com".to_owned())];
        let mut order = account.new_order(&NewOrder::new(&alpn)).await.unwrap();
        let answering = {
            let mut authorizations = order.authorizations();
            let mut authorization = authorizations.next().await.unwrap().unwrap();
            let mut challenge = authorization.challenge(ChallengeType::TlsAlpn01).unwrap();
            let digest = challenge.key_authorization().digest().as_ref().try_into().unwrap();
            let shown = AlpnCertificate::new("alpn.example.com", &digest).sign();
            let address = SocketAddr::from(([127, 0, 0, 1], run.demo.tls_alpn_01_port));
            let answering = AlpnResponder::start_on(address, &shown).await.unwrap();
            challenge.set_ready().await.unwrap();
            answering
        };
        assert_eq!(order.poll_ready(&library::patience()).await.unwrap(), OrderStatus::Ready);
        drop(answering);
        let chain_of_alpn = finalize(&mut order, &library::request(&["alpn.example.com"])).await;
        std::fs::write(run.path("alpn.pem"), chain_of_alpn).unwrap();
        let _ = run.has(Feature::TlsAlpn01, "alpn.pem", &["alpn.example.com"]);

        for (feature, identifier, profile) in [
            (Feature::Ip, Identifier::Ip("127.0.0.1".parse().unwrap()), None),
            (Feature::Profile, Identifier::Dns("short.example.com".to_owned()), Some("short")),
        ] {
            let identifiers = [identifier];
            let mut wanted = NewOrder::new(&identifiers);
            if let Some(profile) = profile {
                wanted = wanted.profile(profile);
            }
            let mut order = account.new_order(&wanted).await.unwrap();
            library::answer(&mut order, &responder).await;
            assert_eq!(order.poll_ready(&library::patience()).await.unwrap(), OrderStatus::Ready);
            let name = if profile.is_some() { "short.example.com" } else { "127.0.0.1" };
            let chain = finalize(&mut order, &library::request(&[name])).await;
            std::fs::write(run.path("other.pem"), chain).unwrap();
            let _ = run.has(feature, "other.pem", &[name]);
        }
        run.is_short("other.pem");

        renews_when_asked_to(&run, &account, &responder).await;

        let leaf = library::leaf(&chain);
        let _ = account.update_key().await.unwrap();
        let former = builder().from_credentials(former).await.unwrap();
        let refusal = former.update_contacts(&[]).await.unwrap_err();
        assert!(format!("{refusal:?}").contains("signature does not verify"), "{refusal:?}");
        run.did(Feature::KeyChange);
        library::revoke(&account, leaf.der(), Some(RevocationReason::Superseded)).await.unwrap();
        run.is_revoked(&second);

        let bound: Account = library::granted_account(&run.demo).await;
        let chain = library::issue(&bound, &responder, &["eab.example.com"]).await;
        std::fs::write(run.path("eab.pem"), chain).unwrap();
        let _ = run.has(Feature::Eab, "eab.pem", &["eab.example.com"]);
    });
    run.finish();
}

/// By renewal information (RFC 9773): the window moves, the new order names what it replaces.
#[expect(clippy::disallowed_methods, reason = "the demo's clock is this host's")]
async fn renews_when_asked_to(run: &Run, account: &Account, responder: &ChallengeResponder) {
    let first = library::leaf(&library::issue(account, responder, &["ari.example.com"]).await);
    let (key, serial) = (first.authority_key_id().unwrap().to_vec(), first.serial());
    let id = CertificateId { authority_key_id: key, serial }.to_string();
    let (key, serial) = id.split_once('.').unwrap();
    let id = CertificateIdentifier { authority_key_identifier: key.into(), serial: serial.into() };
    let (usual, _) = account.renewal_info(&id).await.unwrap();
    let now = std::time::SystemTime::now();
    assert!(usual.suggested_window.start > now && usual.explanation_url.is_none());

    let incident = run.open_incident(&first.serial());
    let mut moved = account.renewal_info(&id).await.unwrap().0;
    let started = std::time::Instant::now();
    while moved.suggested_window.end > now {
        assert!(started.elapsed() < PATIENCE, "the window did not move");
        tokio::time::sleep(Duration::from_millis(500)).await;
        moved = account.renewal_info(&id).await.unwrap().0;
    }
    assert_eq!(moved.explanation_url.as_deref(), Some("https://ca.example/incidents/7"));

    let identifiers = [Identifier::Dns("ari.example.com".to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers).replaces(id)).await.unwrap();
    library::answer(&mut order, responder).await;
    let chain = finalize(&mut order, &library::request(&["ari.example.com"])).await;
    assert_ne!(library::leaf(&chain).serial(), first.serial());
    run.has_followed(&incident, "replaced");
}
