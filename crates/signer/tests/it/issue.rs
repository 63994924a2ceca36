//! From newOrder to certificate, and everything that must not lead there.

use crate::support::World;

#[tokio::test]
async fn the_happy_path() {
    let world = World::start().await;
    let client = world.client().await;
    let ready = world.ready(&client, &["example.org", "www.example.org"]).await;
    let issued = world.issue(ready.finalized_by(&client)).await.unwrap();

    let certificate = pki::Certificate::from_der(&issued.certificate).unwrap();
    certificate.verify_signed_by(world.authorities.issuer.public_key()).unwrap();
    assert_eq!(certificate.serial(), issued.serial);
    let names: Vec<_> = certificate.names().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["example.org", "www.example.org"]);
    assert_eq!(world.issuer_key.signed().len(), 1);
    let rows = world.journal().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].account, Some(client.account.unwrap().to_string()));
    assert!(world.audit_kinds().await.contains(&"certificate.intended".to_owned()));
}
