//! Who gets in, who does not, and who is thrown out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pki::ErrorClass;
use rcgen::ExtendedKeyUsagePurpose;
use rpc::{
    AccessTable, NodeCredentials, Revoked, Role,
    proto::{
        front::v1::nonces_server::NoncesServer,
        validator::v1::{ValidateRequest, validator_client::ValidatorClient},
    },
    status_class,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use support::{Port, client, redeem};
use testkit::nodes::{NodeAuthority, Wish, node_name};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{Code, service::Routes};

#[tokio::test]
async fn a_good_node_is_served_and_known_by_name() {
    let authority = NodeAuthority::new();
    let port = Port::front(authority.node(Role::Front, "a")).await;
    let mut client = port.client(&authority.node(Role::Front, "b"));
    assert!(redeem(&mut client, "x").await.unwrap());
    let callers = port.nonces.callers.lock().unwrap();
    assert_eq!(callers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["front/b"]);
}

#[tokio::test]
async fn the_wrong_role_and_the_unlisted_call_are_denied() {
    let authority = NodeAuthority::new();
    let port = Port::front(authority.node(Role::Front, "a")).await;
    for role in [Role::Status, Role::Validator, Role::Signer, Role::Operator] {
        let refused = redeem(&mut port.client(&authority.node(role, "b")), "x").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{role}");
        assert_eq!(status_class(&refused), ErrorClass::Fatal);
    }
    assert!(port.nonces.callers.lock().unwrap().is_empty());

    let channel = rpc::Channel::connect_lazy(
        vec![port.address.to_string()],
        Role::Front,
        authority.node(Role::Front, "c"),
    );
    let refused = ValidatorClient::new(channel.unwrap()).validate(ValidateRequest { target: None }).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);

    // The handler is there, the path is not in the table: denied all the same.
    let empty = Port::serving(authority.node(Role::Front, "d"), AccessTable::default(), |nonces| {
        Routes::new(NoncesServer::new(nonces))
    });
    let empty = empty.await;
    let refused = redeem(&mut empty.client(&authority.node(Role::Front, "b")), "x").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_role_or_authority_or_time() {
    let authority = NodeAuthority::new();
    let me = authority.node(Role::Front, "me");
    let bad = |name: &str, change: &dyn Fn(&mut Wish)| {
        let files = authority.paths(Role::Front, name);
        let mut wish = Wish::of(Role::Front, name);
        change(&mut wish);
        authority.write(&files, &wish);
        NodeCredentials::load(files).unwrap()
    };
    let servers = [
        ("role", authority.node(Role::Status, "x")),
        ("authority", NodeAuthority::new().node(Role::Front, "x")),
        ("expired", bad("old", &|wish| wish.not_after = wish.not_before + Duration::from_secs(60))),
        ("early", bad("early", &|wish| wish.not_before = wish.not_after - Duration::from_secs(60))),
    ];
    for (what, server) in servers {
        let port = Port::front(server).await;
        let refused = redeem(&mut port.client(&me), "x").await.unwrap_err();
        assert_eq!(status_class(&refused), ErrorClass::Transient, "{what}: {refused:?}");
        assert!(port.nonces.callers.lock().unwrap().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn the_handshake_refuses_what_is_no_node() {
    let authority = NodeAuthority::new();
    let port = Port::front(authority.node(Role::Front, "a")).await;
    assert!(knock(port.address, Some(identity(&authority, &Wish::of(Role::Front, "good")))).await);
    assert!(!knock(port.address, None).await, "no certificate");
    let stranger = NodeAuthority::new();
    assert!(!knock(port.address, Some(identity(&stranger, &Wish::of(Role::Front, "b")))).await, "another CA");
    let changes: [(&str, Change); 8] = [
        ("two URIs", &|wish| wish.uris.push("chancery://status/b".to_owned())),
        ("a second URI of another scheme", &|wish| wish.uris.push("https://b.example/".to_owned())),
        ("no URI", &|wish| wish.uris.clear()),
        ("no such role", &|wish| wish.uris = vec!["chancery://root/b".to_owned()]),
        ("no name", &|wish| wish.uris = vec!["chancery://front/".to_owned()]),
        ("expired", &|wish| wish.not_after = wish.not_before + Duration::from_secs(60)),
        ("not yet valid", &|wish| wish.not_before = wish.not_after - Duration::from_secs(60)),
        ("not for clients", &|wish| wish.usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
    ];
    for (what, change) in changes {
        let mut wish = Wish::of(Role::Front, "b");
        change(&mut wish);
        assert!(!knock(port.address, Some(identity(&authority, &wish))).await, "{what}");
    }
}

#[tokio::test]
async fn a_revoked_node_loses_its_connection_and_its_way_back() {
    let authority = NodeAuthority::new();
    let port = Port::front(authority.node(Role::Front, "a")).await;
    let (bad, good) = (authority.node(Role::Front, "bad"), authority.node(Role::Front, "good"));
    let (mut victim, mut other) = (port.client(&bad), port.client(&good));
    assert!(redeem(&mut victim, "x").await.unwrap());
    assert!(redeem(&mut other, "x").await.unwrap());
    let under_way = tokio::spawn({
        let mut victim = victim.clone();
        async move { redeem(&mut victim, "slow").await }
    });
    port.nonces.started.notified().await;

    port.revocations.revoke(Revoked::Node(Role::Front, node_name("bad")));

    let cut = under_way.await.unwrap().unwrap_err();
    assert_eq!(status_class(&cut), ErrorClass::Transient, "{cut:?}");
    assert!(redeem(&mut victim, "x").await.is_err());
    assert!(redeem(&mut other, "x").await.unwrap(), "others stay");
    assert_eq!(port.nonces.callers.lock().unwrap().len(), 4);

    // By serial: the certificate alone is gone; and the list can shrink again.
    port.revocations.replace([Revoked::Certificate(good.identity().serial)]);
    assert!(redeem(&mut other, "x").await.is_err());
    assert!(redeem(&mut port.client(&bad), "x").await.unwrap());
}

#[tokio::test]
async fn an_idle_connection_of_a_revoked_node_is_closed() {
    let authority = NodeAuthority::new();
    let port = Port::front(authority.node(Role::Front, "a")).await;
    let known = identity(&authority, &Wish::of(Role::Front, "b"));
    let mut stream = handshake(port.address, Some(known)).await.unwrap();
    let mut buffer = [0; 4096];
    assert!(stream.read(&mut buffer).await.unwrap() > 0, "the server's settings");
    port.revocations.revoke(Revoked::Node(Role::Front, node_name("b")));
    let end = async { while stream.read(&mut buffer).await.is_ok_and(|size| size > 0) {} };
    timeout(Duration::from_secs(20), end).await.expect("still open");
    let again = identity(&authority, &Wish::of(Role::Front, "b"));
    assert!(!knock(port.address, Some(again)).await, "the handshake looks at the list");
}

#[tokio::test]
async fn a_reloaded_certificate_counts_from_the_next_connection_on() {
    let authority = NodeAuthority::new();
    let port = Port::front(authority.node(Role::Front, "a")).await;
    let files = authority.files(Role::Front, "b");
    let me = NodeCredentials::load(files.clone()).unwrap();
    let old = me.identity().serial;
    let mut standing = port.client(&me);
    redeem(&mut standing, "x").await.unwrap();

    authority.write(&files, &Wish::of(Role::Front, "b"));
    me.reload().unwrap();
    let new = me.identity().serial;
    assert_ne!(old, new);
    redeem(&mut standing, "x").await.unwrap();
    redeem(&mut port.client(&me), "x").await.unwrap();
    let serials: Vec<_> = port.nonces.callers.lock().unwrap().iter().map(|peer| peer.serial).collect();
    assert_eq!(serials, [old, old, new]);

    // Another node's files, or half of a pair, do not replace a good identity.
    authority.write(&files, &Wish::of(Role::Status, "b"));
    assert!(matches!(me.reload(), Err(rpc::CredentialsError::OtherNode { .. })));
    std::fs::write(
        &files.certificate,
        std::fs::read(&authority.files(Role::Front, "c").certificate).unwrap(),
    )
    .unwrap();
    assert!(matches!(me.reload(), Err(rpc::CredentialsError::Tls { .. })));
    assert_eq!(me.identity().serial, new);
}

#[tokio::test]
async fn a_servers_reloaded_certificate_is_shown_to_new_clients() {
    let authority = NodeAuthority::new();
    let files = authority.files(Role::Front, "a");
    let server = NodeCredentials::load(files.clone()).unwrap();
    let port = Port::front(Arc::clone(&server)).await;
    let shown = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        rpc::PeerIdentity::from_certificate(&leaf).unwrap().serial
    };
    let wish = Wish::of(Role::Front, "b");
    let first = handshake(port.address, Some(identity(&authority, &wish))).await.unwrap();
    authority.write(&files, &Wish::of(Role::Front, "a"));
    server.reload().unwrap();
    let second = handshake(port.address, Some(identity(&authority, &wish))).await.unwrap();
    assert_ne!(shown(&first), shown(&second));
    assert_eq!(shown(&second), server.identity().serial);
}

#[tokio::test]
async fn what_is_no_identity_is_not_loaded() {
    let authority = NodeAuthority::new();
    let files = authority.files(Role::Front, "a");
    std::fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(NodeCredentials::load(files), Err(rpc::CredentialsError::Secret(_))));
    let half = authority.paths(Role::Front, "half");
    let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    authority.write(&half, &Wish { usages, ..Wish::of(Role::Front, "half") });
    assert!(
        matches!(NodeCredentials::load(half), Err(rpc::CredentialsError::Chain { .. })),
        "not for servers"
    );
    let mut foreign = authority.files(Role::Front, "b");
    foreign.authority = NodeAuthority::new().files(Role::Front, "x").authority;
    assert!(NodeCredentials::load(foreign).is_err(), "the file of a folder that is gone");
    let stranger = NodeAuthority::new();
    let mut foreign = authority.files(Role::Front, "b");
    foreign.authority = stranger.files(Role::Front, "x").authority;
    assert!(matches!(NodeCredentials::load(foreign), Err(rpc::CredentialsError::Chain { .. })));
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused() {
    let authority = NodeAuthority::new();
    let port = Port::front(authority.node(Role::Front, "a")).await;
    let mut client = port.client(&authority.node(Role::Front, "b"));
    assert!(redeem(&mut client, &"x".repeat(1_000_000)).await.unwrap());
    let refused = redeem(&mut client, &"x".repeat(1_100_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(port.nonces.callers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_takes_nothing_new() {
    let authority = NodeAuthority::new();
    let mut port = Port::front(authority.node(Role::Front, "a")).await;
    let me = authority.node(Role::Front, "b");
    let mut busy = port.client(&me);
    let under_way = tokio::spawn(async move { redeem(&mut busy, "slow").await });
    port.nonces.started.notified().await;
    port.shutdown.cancel();
    while TcpStream::connect(port.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!port.served.is_finished());
    port.nonces.finish.notify_one();
    assert!(under_way.await.unwrap().unwrap());
    (&mut port.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_spread_over_living_addresses_and_skip_dead_ones() {
    let authority = NodeAuthority::new();
    let one = Port::front(authority.node(Role::Front, "one")).await;
    let two = Port::front(authority.node(Role::Front, "two")).await;
    let addresses = [support::dead_address().await, one.address, two.address];
    let mut client = client(&addresses, Role::Front, &authority.node(Role::Front, "me"));
    for _ in 0..9 {
        assert!(redeem(&mut client, "x").await.unwrap());
    }
    let calls = |port: &Port| port.nonces.callers.lock().unwrap().len();
    assert_eq!(calls(&one) + calls(&two), 9);
    assert!(calls(&one) >= 3 && calls(&two) >= 3, "{} and {}", calls(&one), calls(&two));

    // One goes away: calls may fail while they find out, never for long.
    two.shutdown.cancel();
    let mut good = 0;
    for _ in 0..100 {
        good += usize::from(redeem(&mut client, "x").await.is_ok());
        if good == 9 {
            break;
        }
    }
    assert_eq!(good, 9);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_an_absent_role_is_transient() {
    let authority = NodeAuthority::new();
    let port = Port::front(authority.node(Role::Front, "a")).await;
    let me = authority.node(Role::Front, "b");
    let mut request = tonic::Request::new(rpc::proto::front::v1::RedeemRequest { nonce: "slow".to_owned() });
    request.set_timeout(Duration::from_millis(50));
    let late = port.client(&me).redeem(request).await.unwrap_err();
    assert_eq!(status_class(&late), ErrorClass::Transient, "{late:?}");
    let absent = [support::dead_address().await];
    let refused = redeem(&mut client(&absent, Role::Front, &me), "x").await.unwrap_err();
    assert_eq!(status_class(&refused), ErrorClass::Transient, "{refused:?}");
    assert_eq!(refused.code(), Code::Unavailable);
}

type Change = &'static dyn Fn(&mut Wish);
type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn identity(authority: &NodeAuthority, wish: &Wish) -> Identity {
    let files = authority.paths(Role::Front, "knocking");
    authority.write(&files, wish);
    let certificate = CertificateDer::from_pem_file(&files.certificate).unwrap();
    (certificate, PrivateKeyDer::from_pem_file(&files.key).unwrap())
}

/// Whether a server speaks to a client with this identity. TLS 1.3 tells a refused client only after its handshake.
async fn knock(address: SocketAddr, identity: Option<Identity>) -> bool {
    let Ok(mut stream) = handshake(address, identity).await else { return false };
    stream.read(&mut [0; 1]).await.is_ok_and(|size| size == 1)
}

async fn handshake(
    address: SocketAddr,
    identity: Option<Identity>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_provider(rpc::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("anybody.example").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Trusts every server: these tests look at what the server does.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rpc::provider().signature_verification_algorithms.supported_schemes()
    }
}
