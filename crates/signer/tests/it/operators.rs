//! What operators do through the admin service, and what comes of it for clients.

use acme::base64url;
use pki::Period;
use rpc::proto::admin::v1 as admin;
use rpc::proto::admin::v1::admin_server::Admin as _;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::authority_server::Authority as _;
use rpc::{PeerIdentity, Role};
use serde_json::json;
use signer::{AdminService, AuthorityService, Reason};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::support::operator::{by_alice, detail};
use crate::support::{Client, MANAGED, OPEN, Peek as _, World, reason};

struct Office {
    world: World,
    admin: AdminService,
}

impl Office {
    async fn open() -> Self {
        let world = World::start().await;
        let admin = AdminService::new(world.ca.clone(), None);
        Self { world, admin }
    }

    async fn register(&self, directory: &str, name: &str) -> Result<admin::Registration, Status> {
        let request = admin::CreateRegistrationRequest {
            directory: directory.to_owned(),
            name: name.to_owned(),
            profiles: Vec::new(),
        };
        self.admin.create_registration(by_alice(request)).await.map(tonic::Response::into_inner)
    }

    async fn grant(
        &self,
        registration: &str,
        kind: admin::GrantKind,
        value: &str,
    ) -> Result<admin::Grant, Status> {
        let request = admin::AddGrantRequest {
            registration_id: registration.to_owned(),
            kind: kind.into(),
            value: value.to_owned(),
        };
        self.admin.add_grant(by_alice(request)).await.map(tonic::Response::into_inner)
    }

    async fn permit(
        &self,
        registration: &str,
        kind: admin::GrantKind,
        value: &str,
    ) -> Result<admin::Permit, Status> {
        let request = admin::AddPermitRequest {
            registration_id: registration.to_owned(),
            kind: kind.into(),
            value: value.to_owned(),
        };
        self.admin.add_permit(by_alice(request)).await.map(tonic::Response::into_inner)
    }

    async fn eab(
        &self,
        registration: &str,
        uses: u32,
        lifetime: u64,
    ) -> Result<admin::CreateEabKeyResponse, Status> {
        let request = admin::CreateEabKeyRequest {
            registration_id: registration.to_owned(),
            uses,
            lifetime_seconds: lifetime,
        };
        self.admin.create_eab_key(by_alice(request)).await.map(tonic::Response::into_inner)
    }

    /// A client registers with an EAB key through the service that fronts use.
    async fn register_client(&self, key: &admin::CreateEabKeyResponse) -> Result<Client, Reason> {
        let service = AuthorityService::new(self.world.ca.clone(), CancellationToken::new());
        let client = Client::new(MANAGED);
        let secret = base64url::decode(&key.hmac_key).unwrap();
        let request = wire::RegisterAccountRequest {
            new_account_jws: client.new_account_with_eab(&key.kid, &secret).into(),
        };
        let Ok(answer) = service.register_account(Request::new(request.clone())).await else {
            return Err(reason(self.world.ca.register_account(&request.new_account_jws).await));
        };
        let answer = answer.into_inner();
        let account: rpc::Account = answer.account.unwrap().try_into().unwrap();
        Ok(client.of_account(account.id))
    }

    /// Whether a client gets a certificate for a name without any validation.
    async fn gets(&self, client: &Client, name: &str) -> Result<(), Reason> {
        let order = self.world.ca.authorize_order(&client.new_order(&[name])).await;
        if order.is_err() {
            return Err(reason(order));
        }
        let mut ready = self.world.ready_one(client, name).await;
        ready.evidence[0].receipts.clear();
        match self.world.issue(ready.finalized_by(client)).await {
            Ok(_) => Ok(()),
            refused => Err(reason(refused)),
        }
    }
}

#[tokio::test]
async fn from_registration_to_certificate_without_a_challenge() {
    let office = Office::open().await;
    let registration = office.register(MANAGED, " Example Corp ").await.unwrap();
    assert_eq!((registration.name.as_str(), registration.created_by.as_str()), ("Example Corp", "alice"));
    let grant = office.grant(&registration.id, admin::GrantKind::Subtree, "Corp.Example").await.unwrap();
    assert_eq!(grant.value, "corp.example");
    let key = office.eab(&registration.id, 0, 0).await.unwrap();
    assert_eq!(key.expires_at, rpc::seconds(office.world.now().plus(Period::from_days(30))));

    let client = office.register_client(&key).await.unwrap();
    assert_eq!(office.gets(&client, "www.corp.example").await, Ok(()));
    assert_eq!(office.gets(&client, "*.corp.example").await, Ok(()));
    assert_eq!(office.gets(&client, "corp.example.evil.example").await, Err(Reason::QuorumMissed));
    // One use by default.
    assert_eq!(office.register_client(&key).await.err(), Some(Reason::EabUsedUp));

    let removed = admin::RemoveGrantRequest { grant_id: grant.id.clone() };
    assert!(!office.admin.remove_grant(by_alice(removed.clone())).await.unwrap().into_inner().in_force);
    assert_eq!(office.gets(&client, "www.corp.example").await, Err(Reason::QuorumMissed));
    assert!(detail(office.admin.remove_grant(by_alice(removed)).await).contains("no grant"));

    // Every act under the operator's name.
    let mut acts = Vec::new();
    for head in ca_store::CaStore::audit_heads(&office.world.store).await.unwrap() {
        for record in ca_store::CaStore::audit(&office.world.store, head.number, 0, 1000).await.unwrap() {
            if record.event.actor == "operator/alice" {
                acts.push((record.event.kind, record.event.subject));
            }
        }
    }
    let expected = [
        ("registration.created", &registration.id),
        ("grant.added", &grant.id),
        ("eab.created", &key.kid),
        ("grant.removed", &grant.id),
    ];
    assert_eq!(acts, expected.map(|(kind, subject)| (kind.to_owned(), subject.clone())));
}

#[tokio::test]
async fn the_secret_of_an_eab_key_is_nowhere_but_in_the_answer() {
    let office = Office::open().await;
    let registration = office.register(MANAGED, "corp").await.unwrap();
    let key = office.eab(&registration.id, 1, 60).await.unwrap();
    assert_eq!(base64url::decode(&key.hmac_key).unwrap().len(), 32);
    let row = office.world.store.eab_key_of(&key.kid).await;
    assert!(!format!("{row:?}").contains(&key.hmac_key));
    for file in ["ca.db", "ca.db-wal"] {
        let bytes = std::fs::read(office.world.folder.path().join(file)).unwrap_or_default();
        let secret = base64url::decode(&key.hmac_key).unwrap();
        assert!(!bytes.windows(32).any(|window| window == secret), "{file}");
        assert!(!bytes.windows(key.hmac_key.len()).any(|window| window == key.hmac_key.as_bytes()), "{file}");
    }
    // Its minute is over.
    office.world.clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(office.register_client(&key).await.err(), Some(Reason::EabExpired));
}

#[tokio::test]
async fn an_eab_key_has_bounds_and_can_be_revoked() {
    let office = Office::open().await;
    let registration = office.register(MANAGED, "corp").await.unwrap();
    assert!(detail(office.eab(&registration.id, 1_000_001, 0).await).contains("uses"));
    assert!(detail(office.eab(&registration.id, 1, 3651 * 86_400).await).contains("10 years"));
    assert!(detail(office.eab("nobody", 1, 0).await).contains("no registration"));
    let key = office.eab(&registration.id, 3, 0).await.unwrap();
    let client = office.register_client(&key).await.unwrap();
    office.register_client(&key).await.unwrap();
    let revoke = admin::RevokeEabKeyRequest { kid: key.kid.clone() };
    office.admin.revoke_eab_key(by_alice(revoke.clone())).await.unwrap();
    assert_eq!(office.register_client(&key).await.err(), Some(Reason::EabRevoked));
    assert!(detail(office.admin.revoke_eab_key(by_alice(revoke)).await).contains("in force"));
    // Whoever registered before stays.
    office.world.ca.authorize_order(&client.new_order(&["example.org"])).await.unwrap();
    // The key of one directory is no use in another.
    let other = Client::new(OPEN);
    let key = office.eab(&registration.id, 1, 0).await.unwrap();
    let secret = base64url::decode(&key.hmac_key).unwrap();
    let registered = office.world.ca.register_account(&other.new_account_with_eab(&key.kid, &secret)).await;
    assert_eq!(reason(registered), Reason::EabDirectory);
}

#[tokio::test]
async fn registrations_are_unique_and_their_pages_complete() {
    let office = Office::open().await;
    assert!(detail(office.register("nowhere", "corp").await).contains("no directory"));
    assert!(detail(office.register("Not A Name", "corp").await).contains("directory name"));
    for bad in ["", "  ", "a\u{7}", &"x".repeat(201)] {
        assert!(detail(office.register(MANAGED, bad).await).contains("printable"), "{bad:?}");
    }
    let mut made = Vec::new();
    for at in 0..7 {
        made.push(office.register(MANAGED, &format!("corp {at}")).await.unwrap().id);
    }
    made.push(office.register(OPEN, "corp 0").await.unwrap().id);
    assert!(detail(office.register(MANAGED, " corp 3").await).contains("already"));
    // Two at once make one.
    let twins =
        futures::future::join(office.register(MANAGED, "twin"), office.register(MANAGED, "twin")).await;
    let mut twins: Vec<String> = [twins.0, twins.1].into_iter().flatten().map(|made| made.id).collect();
    twins.dedup();
    assert_eq!(twins.len(), 1);
    made.append(&mut twins);

    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = admin::ListRegistrationsRequest { directory: String::new(), page_token, page_size: 2 };
        let page = office.admin.list_registrations(by_alice(request)).await.unwrap().into_inner();
        assert!(page.registrations.len() <= 2);
        listed.extend(page.registrations.into_iter().map(|row| row.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    made.sort();
    listed.sort();
    assert_eq!(listed, made);
    let request = admin::ListRegistrationsRequest { directory: OPEN.to_owned(), ..Default::default() };
    let open = office.admin.list_registrations(by_alice(request)).await.unwrap().into_inner();
    assert_eq!(open.registrations.len(), 1);
}

#[tokio::test]
async fn grants_are_written_in_one_spelling() {
    let office = Office::open().await;
    let id = office.register(MANAGED, "corp").await.unwrap().id;
    use admin::GrantKind::{Exact, IpRange, Subtree, Unspecified, Wildcard};
    for (kind, value, said) in [
        (Exact, "not a name", "DNS name"),
        (Exact, "*.example.org", "without"),
        (Wildcard, "*.example.org", "without"),
        (Wildcard, "192.0.2.1", ""),
        (Subtree, "", ""),
        (IpRange, "192.0.2.1", "range"),
        (IpRange, "192.0.2.1/24", "192.0.2.0/24"),
        (IpRange, "example.org", "range"),
        (Unspecified, "example.org", "which kind"),
    ] {
        let detail = detail(office.grant(&id, kind, value).await);
        assert!(detail.contains(said), "{kind:?} {value:?}: {detail}");
    }
    for (kind, value, spelled) in [
        (Exact, "WWW.Example.ORG", "www.example.org"),
        (Exact, "2001:DB8:0::1", "2001:db8::1"),
        (Wildcard, "Example.org", "example.org"),
        (IpRange, "2001:DB8::/32", "2001:db8::/32"),
    ] {
        let grant = office.grant(&id, kind, value).await.unwrap();
        assert_eq!(grant.value, spelled);
        assert_eq!(grant.id.rsplit_once('-').unwrap().0, id);
        assert!(detail(office.grant(&id, kind, spelled).await).contains("in force"), "twice the same");
    }
    assert!(detail(office.grant("nobody", Exact, "example.org").await).contains("no registration"));
    for grant_id in ["", "nobody", "-", &format!("{id}-"), &format!("{id}-00"), "nobody-00"] {
        let request = admin::RemoveGrantRequest { grant_id: grant_id.to_owned() };
        office.admin.remove_grant(by_alice(request)).await.unwrap_err();
    }
    let request = admin::ListGrantsRequest { registration_id: id };
    let grants = office.admin.list_grants(by_alice(request)).await.unwrap().into_inner().grants;
    assert_eq!(grants.len(), 4);
    assert!(grants.iter().all(|grant| grant.in_force));
}

#[tokio::test]
async fn a_permit_whose_row_is_gone_allows_nothing() {
    let office = Office::open().await;
    let id = office.register(MANAGED, "corp").await.unwrap().id;
    office.grant(&id, admin::GrantKind::Subtree, "corp.example").await.unwrap();
    office.permit(&id, admin::GrantKind::Subtree, "a.corp.example").await.unwrap();
    let key = office.eab(&id, 1, 0).await.unwrap();
    let client = office.register_client(&key).await.unwrap();
    office.world.store.alter_authority(|authority| {
        authority.map(|mut authority| {
            authority.permits.clear();
            authority
        })
    });
    for name in ["a.corp.example", "b.corp.example"] {
        let order = office.world.ca.authorize_order(&client.new_order(&[name])).await;
        assert_eq!(reason(order), Reason::NameRejected, "{name}");
    }
}

#[tokio::test]
async fn a_permit_narrows_what_was_decided_before_it() {
    let office = Office::open().await;
    let id = office.register(MANAGED, "corp").await.unwrap().id;
    let client = office.register_client(&office.eab(&id, 1, 0).await.unwrap()).await.unwrap();
    office.grant(&id, admin::GrantKind::Subtree, "corp.example").await.unwrap();
    assert_eq!(office.gets(&client, "a.corp.example").await, Ok(()));
    let mut ready = office.world.ready_one(&client, "b.corp.example").await;
    ready.evidence[0].receipts.clear();
    let before = office.world.store.authority_of(&id).await.registration.unverified().version;
    let permit = office.permit(&id, admin::GrantKind::Exact, "a.corp.example").await.unwrap();
    assert_eq!((permit.kind(), permit.value.as_str()), (admin::GrantKind::Exact, "a.corp.example"));
    let after = office.world.store.authority_of(&id).await.registration.unverified().version;
    assert_eq!(after, before + 1, "intents cite the registration: they must see that it changed");
    assert_eq!(office.gets(&client, "a.corp.example").await, Ok(()));
    assert_eq!(office.gets(&client, "b.corp.example").await, Err(Reason::NameRejected));
    assert_eq!(office.world.refusal(ready.finalized_by(&client)).await, Reason::NameRejected);
    assert!(detail(office.permit(&id, admin::GrantKind::Exact, "*.x").await).contains("without"));
}

#[tokio::test]
async fn a18_a_registration_has_limits_of_its_own() {
    let world = World::start().await;
    let world = world
        .with_policy(
            "external_account_required = true",
            "external_account_required = true\nlimits = { certificates_per_domain = \"1 in 7d\" }",
        )
        .await;
    let office = Office { admin: AdminService::new(world.ca.clone(), None), world };
    let made = office.register(MANAGED, "acme corp").await.unwrap();
    office.grant(&made.id, admin::GrantKind::Subtree, "example.org").await.unwrap();
    let key = office.eab(&made.id, 1, 3600).await.unwrap();
    let client = office.register_client(&key).await.unwrap();
    let set = |limits: &[(&str, &str)]| {
        let limit = |(name, rate): &(&str, &str)| admin::LimitSetting {
            name: (*name).to_owned(),
            rate: (*rate).to_owned(),
        };
        let limits = limits.iter().map(limit).collect();
        office
            .admin
            .set_limits(by_alice(admin::SetLimitsRequest { registration_id: made.id.clone(), limits }))
    };
    let list = async |id: &str| {
        let request = admin::ListLimitsRequest { registration_id: id.to_owned() };
        let limits = office.admin.list_limits(by_alice(request)).await?.into_inner().limits;
        Ok::<_, Status>(limits.into_iter().map(|it| (it.name, it.rate, it.own)).collect::<Vec<_>>())
    };
    let line = |name: &str, rate: &str, own| (name.to_owned(), rate.to_owned(), own);
    let before = list(&made.id).await.unwrap();
    assert_eq!(before.len(), acme::limit::LimitName::ALL.len() - 1);
    assert!(before.contains(&line("certificates_per_domain", "1 in 7d", false)), "{before:?}");
    assert!(before.contains(&line("failures_until_paused", "none", false)), "{before:?}");

    assert_eq!(office.gets(&client, "a.example.org").await, Ok(()));
    assert_eq!(office.gets(&client, "b.example.org").await, Err(Reason::RateLimited));
    // Nothing of a setting holds that is wrong in part.
    for (bad, said) in [
        (
            ("certificates_per_domains", "2 in 7d"),
            "there is no such limit; there are certificates_per_domain, ",
        ),
        (("certificates_per_domain", "2"), "a limit is text such as"),
        (("accounts_per_address", "none"), "policy.toml"),
    ] {
        let refused = detail(set(&[("certificates_per_domain", "none"), bad]).await);
        assert!(refused.contains(said), "{refused}");
    }
    assert_eq!(detail(set(&[]).await), "no limit is named");
    assert_eq!(list(&made.id).await.unwrap(), before);
    assert!(detail(list("nobody").await).contains("no registration"));

    let wide = [("certificates_per_domain", "2 in 7d"), ("orders_per_account", "9 in 1h")];
    let after = set(&wide).await.unwrap().into_inner().limits;
    assert!(after.iter().any(|it| it.name == "certificates_per_domain" && it.rate == "2 in 7d" && it.own));
    let order = office.world.ca.authorize_order(&client.new_order(&["b.example.org"])).await.unwrap();
    assert_eq!(order.limits.orders_per_account, "9 in 1h".parse().ok(), "fronts hear of theirs");
    assert_eq!(office.gets(&client, "b.example.org").await, Ok(()));
    assert_eq!(office.gets(&client, "c.example.org").await, Err(Reason::RateLimited));
    set(&[("certificates_per_domain", "none")]).await.unwrap();
    assert_eq!(office.gets(&client, "c.example.org").await, Ok(()));
    // What was issued without a limit fills the limits of others all the same.
    set(&[("certificates_per_domain", "4 in 7d")]).await.unwrap();
    assert_eq!(office.gets(&client, "d.example.org").await, Ok(()));
    assert_eq!(office.gets(&client, "e.example.org").await, Err(Reason::RateLimited));
    set(&[("certificates_per_domain", "default")]).await.unwrap();
    assert_eq!(office.gets(&client, "e.example.org").await, Err(Reason::RateLimited));
    let last = list(&made.id).await.unwrap();
    assert!(last.contains(&line("certificates_per_domain", "1 in 7d", false)), "{last:?}");
    assert!(last.contains(&line("orders_per_account", "9 in 1h", true)), "{last:?}");
    let kinds = office.world.audit_kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "registration.limits").count(), 4);
}

#[tokio::test]
async fn i4_a_registration_may_be_held_to_some_profiles() {
    let office = Office::open().await;
    let directory = MANAGED.to_owned();
    let create = |name: &str, profiles: &[&str]| {
        let profiles = profiles.iter().map(ToString::to_string).collect();
        let request = admin::CreateRegistrationRequest {
            directory: directory.clone(),
            name: name.to_owned(),
            profiles,
        };
        office.admin.create_registration(by_alice(request))
    };
    let unknown = create("acme corp", &["short", "stapled"]).await.unwrap_err();
    assert!(unknown.message().contains("does not offer profile \"stapled\""), "{}", unknown.message());
    let made = create("acme corp", &["short"]).await.unwrap().into_inner();
    assert_eq!(made.profiles, ["short"]);
    let key = office.eab(&made.id, 1, 3600).await.unwrap();
    let client = office.register_client(&key).await.unwrap();
    let order = |profile: Option<&str>| {
        let payload = profile.map_or_else(|| json!({}), |profile| json!({ "profile": profile }));
        let request = client.new_order_with(&["example.org"], payload);
        let ca = office.world.ca.clone();
        async move { ca.authorize_order(&request).await.map(|order| order.profile) }
    };
    // Without a word it is the first that it may use.
    assert_eq!(order(None).await.unwrap(), "short");
    assert_eq!(order(Some("short")).await.unwrap(), "short");
    match order(Some("tls")).await {
        Err(signer::Failure::Refused(refusal)) => {
            assert_eq!(refusal.reason, Reason::ProfileForbidden);
            assert_eq!(refusal.problem.kind, acme::problem::ErrorType::InvalidProfile);
            assert!(refusal.problem.detail.contains("but: short"), "{}", refusal.problem.detail);
        }
        other => panic!("{other:?}"),
    }
    let set = |profiles: &[&str]| {
        let profiles = profiles.iter().map(ToString::to_string).collect();
        let request = admin::SetProfilesRequest { registration_id: made.id.clone(), profiles };
        office.admin.set_profiles(by_alice(request))
    };
    assert!(set(&["front"]).await.is_err());
    assert!(set(&[]).await.unwrap().into_inner().profiles.is_empty());
    assert_eq!(order(None).await.unwrap(), "tls");
    assert_eq!(order(Some("short")).await.unwrap(), "short");
    // What was ordered with another profile is not issued any more.
    office.grant(&made.id, admin::GrantKind::Exact, "example.org").await.unwrap();
    let ready = office.world.ready(&client, &["example.org"]).await;
    assert_eq!(set(&["short", "short"]).await.unwrap().into_inner().profiles, ["short"]);
    assert_eq!(office.world.refusal(ready.finalized_by(&client)).await, Reason::ProfileMismatch);
    assert_eq!(office.gets(&client, "example.org").await, Ok(()));
    assert!(office.world.audit_kinds().await.contains(&"registration.profiles".to_owned()));
}

#[tokio::test]
async fn certificates_are_listed_and_revoked() {
    let office = Office::open().await;
    let client = office.world.client().await;
    let mut serials = Vec::new();
    for name in ["a.example", "b.example", "b.example"] {
        let ready = office.world.ready_one(&client, name).await;
        serials.push(office.world.issue(ready.finalized_by(&client)).await.unwrap().serial.to_string());
    }
    let other = office.world.client().await;
    let ready = office.world.ready_one(&other, "c.example").await;
    serials.push(office.world.issue(ready.finalized_by(&other)).await.unwrap().serial.to_string());
    // A node's certificate is none of them.
    let created = office.world.ca.create_join_token(
        "alice",
        Role::Status,
        "s",
        Vec::new(),
        std::time::Duration::from_secs(60),
    );
    let token = created.await.unwrap().0;
    let csr = rpc::enroll::KeyPair::generate().unwrap().request().unwrap();
    let chain = office.world.ca.join(&token.secret(), &csr, &[]).await.unwrap();

    let list = async |request: admin::ListCertificatesRequest| {
        let mut found = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = admin::ListCertificatesRequest { page_token, page_size: 2, ..request.clone() };
            let page = office.admin.list_certificates(by_alice(request)).await.unwrap().into_inner();
            found.extend(page.certificates);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    };
    let serials_of = |found: &[admin::CertificateState]| {
        let mut found: Vec<_> = found.iter().map(|one| one.serial.clone()).collect();
        found.sort();
        found
    };
    let sorted = |serials: &[String]| {
        let mut serials = serials.to_vec();
        serials.sort();
        serials
    };
    let all = list(admin::ListCertificatesRequest::default()).await;
    assert_eq!(serials_of(&all), sorted(&serials));
    assert!(all.iter().all(|one| one.state == "issued" && one.names.len() == 1));
    let named = admin::ListCertificatesRequest { name: "B.Example".to_owned(), ..Default::default() };
    assert_eq!(serials_of(&list(named).await), sorted(&serials[1..3]));
    let account = client.account.unwrap().to_string();
    let of = admin::ListCertificatesRequest { account_id: account.clone(), ..Default::default() };
    assert_eq!(serials_of(&list(of).await), sorted(&serials[..3]));
    let issuer = admin::ListCertificatesRequest { issuer_id: "tls-1".to_owned(), ..Default::default() };
    assert_eq!(list(issuer).await.len(), 4);
    let both = admin::ListCertificatesRequest {
        account_id: account,
        name: "a.example".to_owned(),
        ..Default::default()
    };
    assert!(detail(office.admin.list_certificates(by_alice(both)).await).contains("several"));

    let revoke = |serial: &str, reason| {
        let request = admin::RevokeCertificateRequest { serial: serial.to_owned(), reason };
        office.admin.revoke_certificate(by_alice(request))
    };
    let revoked = revoke(&serials[0], 9).await.unwrap().into_inner();
    assert_eq!(revoked.revoked_at, rpc::seconds(office.world.now()));
    let all = list(admin::ListCertificatesRequest::default()).await;
    assert_eq!(all.iter().find(|one| one.serial == serials[0]).unwrap().state, "revoked");
    let show = async |serial: &str| {
        let request = admin::ShowCertificateRequest { serial: serial.to_owned() };
        office.admin.show_certificate(by_alice(request)).await
    };
    for (serial, state, revoked_at, reason) in
        [(&serials[0], "revoked", revoked.revoked_at, 9), (&serials[1], "issued", 0, 0)]
    {
        let shown = show(serial).await.unwrap().into_inner();
        assert_eq!(shown.state.unwrap().state, state);
        assert_eq!((shown.revoked_at, shown.reason), (revoked_at, reason));
        let certificate = pki::Certificate::from_der(&shown.certificate).unwrap();
        assert_eq!(certificate.serial().to_string(), *serial);
    }
    for serial in ["zz", "00", "7b"] {
        detail(show(serial).await);
    }
    for (serial, reason) in [("zz", 0), (serials[1].as_str(), 6), (serials[1].as_str(), 7), ("00", 0)] {
        detail(revoke(serial, reason).await);
    }
    // Nodes are revoked as nodes.
    let node = PeerIdentity::from_certificate(&chain[0]).unwrap().serial.to_string();
    assert!(detail(revoke(&node, 0).await).contains("no such certificate"));
    assert!(detail(show(&node).await).contains("no such certificate"));
}

#[tokio::test]
async fn the_overview_and_the_nodes_are_what_there_is() {
    let office = Office::open().await;
    let overview = office.admin.overview(by_alice(admin::OverviewRequest {})).await.unwrap().into_inner();
    assert_eq!(overview.signer, "signer-1");
    assert_eq!(overview.directories, [MANAGED, OPEN, "other", "strict"]);
    assert_eq!(overview.issuers.len(), 1);
    assert!(overview.issuers[0].healthy);
    // The operator has no row: its certificate is the ceremony's. From its first act on it is listed.
    let nodes = office.admin.list_nodes(by_alice(admin::ListNodesRequest {})).await.unwrap().into_inner();
    let alice = nodes.nodes.iter().find(|node| node.name == "alice").unwrap();
    assert_eq!(
        (alice.role.as_str(), alice.state.as_str(), alice.not_after),
        ("operator", "active", 4_000_000_000)
    );
    // Nobody without an identity acts.
    let anonymous = office.admin.list_nodes(Request::new(admin::ListNodesRequest {})).await;
    assert_eq!(anonymous.unwrap_err().code(), tonic::Code::Unauthenticated);
}
