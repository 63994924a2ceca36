//! A server on another host shows who it is.

use ca_store::{CaStore, StoreError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::ConnectOptions;
use testkit::ClusterSettings;

use super::{Server, incarnation};
use crate::{Ca, Options};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn a_server_is_verified() {
    let settings = ClusterSettings { durable: true, tcp: true, settings: Vec::new() };
    let mut server = Server::start_with(&settings).await;
    let (trusted, other) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &trusted).unwrap();
    let files = [
        ("ssl_cert_file", server.cluster.give("server.pem", &certificate.pem())),
        ("ssl_key_file", server.cluster.give("server.key", &key.serialize_pem())),
    ];
    let mut settings = vec!["ssl=on".to_owned()];
    settings.extend(files.map(|(name, file)| format!("{name}={}", file.display())));
    server.cluster.restart_with(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    let options = |host: &str, root: &CertifiedIssuer<'_, KeyPair>, name: &str| {
        let file = server.cluster.folder().join(name);
        std::fs::write(&file, root.pem()).unwrap();
        let url = format!(
            "postgres://signer_1@{host}:{}/postgres?sslmode=verify-full&sslrootcert={}",
            server.cluster.port(),
            file.display()
        );
        Options::from_url(&url).unwrap()
    };
    let good = options("localhost", &trusted, "trusted.pem");
    Ca::open(good.clone(), incarnation(1)).await.unwrap().close().await;
    let mut session = good.reading("ca").connect().await.unwrap();
    let is_encrypted: bool = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert!(is_encrypted);
    // Another's certificate, and a name that is not in it.
    for (n, bad) in
        [(2, options("localhost", &other, "other.pem")), (3, options("127.0.0.1", &trusted, "t.pem"))]
    {
        let refused = Ca::open(bad, incarnation(n)).await.err();
        assert!(matches!(refused, Some(StoreError::Unavailable(_))), "{refused:?}");
    }
}
