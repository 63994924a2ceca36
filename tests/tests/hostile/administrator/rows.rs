//! The trials: for each column of each table an honest row of its own, its change, and the request that it would serve.

use rpc::Channel;
use rpc::enroll::KeyPair;
use rpc::proto::admin::v1 as admin;
use rpc::proto::signer::v1 as wire;
use rpc::proto::signer::v1::enrollment_client::EnrollmentClient;
use serde_json::json;
use tonic::Status;

use super::alter::{columns, update};
use super::{Ask, Trial};
use crate::front::scene::{Ready, Scene};
use crate::support::{Client, Database, csr_for};

pub(super) async fn all(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = accounts(scene, database).await;
    trials.extend(account_keys(scene, database).await);
    trials.extend(registrations(scene, database).await);
    trials.extend(eab_keys(scene, database).await);
    trials.extend(permits(scene, database).await);
    trials.extend(grants(scene, database).await);
    trials.extend(validators(scene, database).await);
    trials.extend(fronts(scene).await);
    trials.extend(join_tokens(scene, database).await);
    trials.extend(certificates(scene, database).await);
    trials.extend(inserted(scene).await);
    trials.push(deactivation(scene).await);
    trials
}

/// A deactivation that no client asked for takes an authorization away, and gives nothing.
async fn deactivation(scene: &mut Scene) -> Trial {
    let client = scene.client().await;
    let ready = scene.ready(&client, &["deactivation.victim.test"]).await;
    let sql = format!(
        "INSERT INTO deactivations VALUES ('{}', '{}', x'00', 1, 1, zeroblob(32))",
        ready.evidence[0].authorization_id,
        client.account.expect("an account"),
    );
    let ask = Ask::Issue(ready.finalized_by(&client));
    Trial::new("deactivations", "(inserted)", sql, ask).lost("authorization-deactivated")
}

fn account_of(client: &Client) -> String {
    format!("id = '{}'", client.account.expect("an account"))
}

/// An account with a column changed orders something. One that was given up is valid again; one of an open directory is a
/// customer's.
async fn accounts(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    for column in columns(database, "accounts").await {
        let client = scene.client().await;
        if column == "status" {
            scene.update(client.update(&json!({ "status": "deactivated" }))).await.expect("a deactivation");
        }
        let ask = Ask::Order(client.new_order(&["account.victim.test"]));
        let trial = Trial::new("accounts", &column, update("accounts", &column, &account_of(&client)), ask);
        trials.push(if column == "id" { trial.lost("account-unknown") } else { trial });
    }
    trials
}

/// A key that was changed is in force again, or another one is filed under the account.
async fn account_keys(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    for column in columns(database, "account_keys").await {
        let client = scene.client().await;
        let current = client.pretender();
        scene.change_key(client.key_change(&current)).await.expect("a key change");
        let row = format!(
            "account = '{}' AND thumbprint = x'{}'",
            client.account.expect("an account"),
            hex::encode(client.thumbprint().as_bytes())
        );
        let ask = Ask::Order(current.new_order(&["key.victim.test"]));
        let trial = Trial::new("account_keys", &column, update("account_keys", &column, &row), ask);
        // A former key under another account is one that this account has lost: what it signs now is good as before. The
        // trial of that column is below.
        if column != "account" {
            trials.push(trial);
        }
    }
    // The key in force, filed under another account: this one has none, and the other one a foreign one.
    let (client, other) = (scene.client().await, scene.client().await);
    let (from, to) = (client.account.expect("an account"), other.account.expect("an account"));
    let sql = format!("UPDATE account_keys SET account = '{to}' WHERE account = '{from}'");
    let ask = Ask::Order(other.new_order(&["key.victim.test"]));
    trials.push(Trial::new("account_keys", "account", sql, ask));
    trials
}

struct Customer {
    registration: String,
    client: Client,
}

async fn customer(scene: &mut Scene, name: &str) -> Customer {
    let (registration, kid, key) = scene.system.registration("managed-2", name, 1).await;
    let client = scene.stranger("managed-2");
    let request = client.new_account_with_binding(&client.binding((&kid, &key)));
    let client = scene.registered(client, request).await;
    Customer { registration, client }
}

async fn registrations(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    for column in columns(database, "registrations").await {
        let Customer { registration, client } = customer(scene, &format!("registration {column}")).await;
        let row = format!("id = '{registration}'");
        let ask = Ask::Order(client.new_order(&["registration.victim.test"]));
        let trial = Trial::new("registrations", &column, update("registrations", &column, &row), ask);
        // The id is where the row is found: the account's registration is missing then.
        trials.push(if column == "id" { trial.missing() } else { trial });
    }
    trials
}

/// A key that is used up, revoked or expired serves once more.
async fn eab_keys(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    for column in columns(database, "eab_keys").await {
        let (_, kid, key) = scene.system.registration("managed", &format!("eab {column}"), 1).await;
        match column.as_str() {
            "state" => {
                let request = admin::RevokeEabKeyRequest { kid: kid.clone() };
                scene.system.operator().revoke_eab_key(request).await.expect("a revocation");
            }
            "uses" | "max_uses" => {
                let client = scene.stranger("managed");
                let request = client.new_account_with_binding(&client.binding((&kid, &key)));
                scene.registered(client, request).await;
            }
            _ => {}
        }
        let client = scene.stranger("managed");
        let ask = Ask::Register(client.new_account_with_binding(&client.binding((&kid, &key))));
        let row = format!("kid = '{kid}'");
        let mut sql = update("eab_keys", &column, &row);
        if column == "registration" {
            let other = customer(scene, "eab of another").await.registration;
            sql = format!("UPDATE eab_keys SET registration = '{other}' WHERE {row}");
        }
        let trial = Trial::new("eab_keys", &column, sql, ask);
        trials.push(if column == "kid" { trial.lost("eab-unknown") } else { trial });
    }
    trials
}

/// A customer that may ask for one name asks for another; and one whose permit is gone.
async fn permits(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    for column in columns(database, "permits").await {
        let Customer { registration, client } = customer(scene, &format!("permit {column}")).await;
        scene.system.permit(&registration, "permitted.test").await;
        let row = format!("registration = '{registration}'");
        let ask = Ask::Order(client.new_order(&["bank.test"]));
        let trial = Trial::new("permits", &column, update("permits", &column, &row), ask);
        trials.push(if column == "registration" { trial.lost("name-rejected") } else { trial });
    }
    let Customer { registration, client } = customer(scene, "permit deleted").await;
    scene.system.permit(&registration, "permitted.test").await;
    let sql = format!("DELETE FROM permits WHERE registration = '{registration}'");
    let ask = Ask::Order(client.new_order(&["bank.test"]));
    trials.push(Trial::new("permits", "(deleted)", sql, ask).lost("name-rejected"));
    trials
}

/// A grant that was taken back, of another name, wider, longer, or another customer's.
async fn grants(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    let others = customer(scene, "grant of another").await;
    for column in columns(database, "grants").await {
        let Customer { registration, client } = customer(scene, &format!("grant {column}")).await;
        let name = "granted.test";
        let owner = if column == "registration" { &others.registration } else { &registration };
        let grant = scene.system.grant(owner, name).await;
        let wanted = match column.as_str() {
            "name" => "bank.test",
            "scope" => "below.granted.test",
            _ => name,
        };
        if column == "state" {
            let request = admin::RemoveGrantRequest { grant_id: grant.clone() };
            scene.system.operator().remove_grant(request).await.expect("its removal");
        }
        let mut ready = scene.ready(&client, &[wanted]).await;
        ready.evidence[0].receipts.clear();
        let row = format!("id = '{grant}'");
        let mut sql = update("grants", &column, &row);
        if column == "registration" {
            sql = format!("UPDATE grants SET registration = '{registration}' WHERE {row}");
        }
        trials.push(Trial::new("grants", &column, sql, Ask::Issue(ready.finalized_by(&client))));
    }
    trials
}

/// An order whose only receipt is of this perspective. Of an active validator that the quorum does not know it would be
/// "quorum-missed".
async fn seen_by(scene: &mut Scene, key: &acme::receipt::ReceiptKey) -> wire::IssueRequest {
    let client = scene.client().await;
    let mut ready: Ready = scene.ready(&client, &["node.victim.test"]).await;
    let name = ready.names[0].parse().expect("a name");
    let receipt = scene.receipt(&client, &name, ready.authorization());
    let receipt = acme::receipt::Receipt { perspective: key.perspective().clone(), ..receipt };
    ready.evidence[0].receipts = vec![key.sign(&receipt).expect("a receipt")];
    ready.finalized_by(&client)
}

/// A validator whose row was changed has no receipts that count, nor has one whose row was put in.
async fn validators(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (at, column) in columns(database, "nodes").await.into_iter().enumerate() {
        let name = format!("v-{at}");
        let key = acme::receipt::ReceiptKey::from_seed(name.parse().unwrap(), &[at as u8 + 50; 32]).unwrap();
        scene.system.join("validator", &name, Some(*key.public_key())).await;
        if column == "state" {
            let request = admin::RevokeNodeRequest { role: "validator".to_owned(), name: name.clone() };
            scene.system.operator().revoke_node(request).await.expect("its revocation");
        }
        let row = format!("role = 'validator' AND name = '{name}'");
        let ask = Ask::Issue(seen_by(scene, &key).await);
        let trial = Trial::new("nodes", &column, update("nodes", &column, &row), ask);
        trials.push(trial.lost("receipt-unregistered"));
    }
    let key = acme::receipt::ReceiptKey::from_seed("evil-1".parse().unwrap(), &[200; 32]).unwrap();
    let sql = format!(
        "INSERT INTO nodes SELECT role, 'evil-1', settings, x'{}', server_names, state, created_at, version, \
         mac_version, mac FROM nodes WHERE role = 'validator' AND name = 'p-1'",
        hex::encode(key.public_key())
    );
    let ask = Ask::Issue(seen_by(scene, &key).await);
    trials.push(Trial::new("nodes", "(inserted)", sql, ask).lost("receipt-unregistered"));
    trials
}

/// A front with one name more.
async fn fronts(scene: &mut Scene) -> Vec<Trial> {
    let files = scene.system.join("front", "front-2", None).await;
    let sql = update("nodes", "server_names", "role = 'front' AND name = 'front-2'");
    let ask = Ask::ServerCertificate(files, csr_for(&["bank.test"]));
    vec![Trial::new("nodes", "server_names of a front", sql, ask).shut_out()]
}

async fn token(scene: &mut Scene, name: &str) -> rpc::enroll::JoinToken {
    let request = admin::CreateJoinTokenRequest {
        role: "front".to_owned(),
        name: name.to_owned(),
        ..admin::CreateJoinTokenRequest::default()
    };
    let answer = scene.system.operator().create_join_token(request).await.expect("a token");
    answer.into_inner().token.parse().expect("a token")
}

/// Asks the enrolment port, as a stranger does.
pub(super) async fn join(scene: &Scene, secret: &str) -> Result<(), Status> {
    let authority =
        std::fs::read_to_string(scene.system.state().join("ca/node-ca.pem")).expect("the node CA");
    let authority = pki::chain::from_pem(&authority).expect("PEM").remove(0);
    let fingerprint = rpc::enroll::Fingerprint::of(authority.der());
    let channel =
        Channel::connect_pinned(vec![scene.system.enrollment.clone()], fingerprint).expect("an address");
    let csr = KeyPair::generate().expect("a key").request().expect("a CSR").into();
    let request = wire::JoinRequest { token: secret.to_owned(), csr, receipt_key: bytes::Bytes::new() };
    EnrollmentClient::new(channel).join(request).await.map(drop)
}

/// A front's token that is an operator's, that lives longer, or that is as if it had not been used.
async fn join_tokens(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    for column in columns(database, "join_tokens").await {
        let name = format!("t-{}", column.replace('_', "-"));
        let token = token(scene, &name).await;
        if column == "used_at" {
            join(scene, &token.secret()).await.expect("it joins");
        }
        let row = format!("digest = x'{}'", hex::encode(token.digest()));
        let ask = Ask::Join(token.secret());
        let trial = Trial::new("join_tokens", &column, update("join_tokens", &column, &row), ask);
        trials.push(if column == "digest" { trial.lost("join-token") } else { trial });
    }
    trials
}

/// A certificate whose row was changed is not given out, nor made again.
async fn certificates(scene: &mut Scene, database: &Database) -> Vec<Trial> {
    let mut trials = Vec::new();
    for column in columns(database, "journal").await {
        let client = scene.client().await;
        let ready = scene.ready(&client, &["journal.victim.test"]).await;
        let request = ready.finalized_by(&client);
        scene.issue(request.clone()).await.expect("a certificate");
        let sql = update("journal", &column, &format!("order_id = '{}'", ready.order));
        let trial = Trial::new("journal", &column, sql, Ask::Issue(request));
        trials.push(if column == "order_id" { trial.lost("new-order-taken") } else { trial });
    }
    trials
}

/// Rows that were put in, with the genuine MAC of another row.
async fn inserted(scene: &mut Scene) -> Vec<Trial> {
    let (victim, mut evil) = (scene.client().await, scene.stranger("strict"));
    let directory = "strict".parse().expect("a directory");
    let id = acme::AccountId::derive(&directory, &evil.thumbprint());
    evil.account = Some(id);
    let thumbprint = hex::encode(evil.thumbprint().as_bytes());
    let from = victim.account.expect("an account");
    let account = format!(
        "INSERT INTO accounts (id, directory, status, contacts, terms_agreed_at, terms_agreed, registration, \
         eab_kid, key, created_at, version, mac_version, mac) SELECT '{id}', directory, status, contacts, \
         terms_agreed_at, terms_agreed, registration, eab_kid, x'{thumbprint}', created_at, version, mac_version, mac FROM accounts \
         WHERE id = '{from}'"
    );
    let jwk = acme::Jwk::from_json(&evil.jwk().to_string()).expect("a key").to_json();
    let key = format!(
        "INSERT INTO account_keys SELECT directory, x'{thumbprint}', '{id}', '{jwk}', valid_from, valid_until, \
         mac_version, mac FROM account_keys WHERE account = '{from}'"
    );
    let ask = || Ask::Order(evil.new_order(&["inserted.victim.test"]));
    // A key of the front's in an account that is genuine.
    let (owner, thief) = (scene.client().await, scene.stranger("strict"));
    let mut thief = thief;
    thief.account = owner.account;
    let stolen = format!(
        "INSERT INTO account_keys SELECT directory, x'{}', account, '{}', valid_from, valid_until, mac_version, mac \
         FROM account_keys WHERE account = '{}'",
        hex::encode(thief.thumbprint().as_bytes()),
        acme::Jwk::from_json(&thief.jwk().to_string()).expect("a key").to_json(),
        owner.account.expect("an account"),
    );
    let Customer { registration, client } = customer(scene, "inserted grant").await;
    let other = customer(scene, "inserted grant's model").await;
    let model = scene.system.grant(&other.registration, "model.test").await;
    let mut ready = scene.ready(&client, &["bank.test"]).await;
    ready.evidence[0].receipts.clear();
    let grant = format!(
        "INSERT INTO grants SELECT 'evil', '{registration}', 'subtree', 'bank.test', state, expires_at, created_at, \
         version, mac_version, mac FROM grants WHERE id = '{model}'"
    );
    let secret = rpc::enroll::JoinToken::new([77; 32], rpc::enroll::Fingerprint::of(b"")).secret();
    let digest = rpc::enroll::JoinToken::digest_of(&secret).expect("a token");
    let model = token(scene, "model").await;
    let token = format!(
        "INSERT INTO join_tokens SELECT x'{}', 'operator', 'evil', server_names, settings, expires_at, used_at, \
         created_at, version, mac_version, mac FROM join_tokens WHERE digest = x'{}'",
        hex::encode(digest),
        hex::encode(model.digest()),
    );
    vec![
        Trial::new("accounts", "(inserted)", account, ask()),
        Trial { table: "accounts", ..Trial::new("account_keys", "(inserted with its account)", key, ask()) },
        Trial::new(
            "account_keys",
            "(inserted)",
            stolen,
            Ask::Order(thief.new_order(&["inserted.victim.test"])),
        ),
        Trial::new("grants", "(inserted)", grant, Ask::Issue(ready.finalized_by(&client))),
        Trial::new("join_tokens", "(inserted)", token, Ask::Join(secret)),
    ]
}

/// The one thing that an administrator can do, and that `docs/trust.md` says so of: a row that was genuine is genuine again.
pub(super) struct Replay {
    client: Client,
    account: Vec<String>,
}

impl Replay {
    pub(super) async fn prepare(scene: &mut Scene, database: &Database) -> Self {
        let client = scene.client().await;
        let columns = database.columns("accounts").await;
        let mut account = Vec::new();
        for column in &columns {
            let sql = format!("SELECT quote({column}) FROM accounts WHERE {}", account_of(&client));
            account.push(format!("{column} = {}", database.texts(sql).await.remove(0)));
        }
        scene.update(client.update(&json!({ "status": "deactivated" }))).await.expect("a deactivation");
        let refused =
            scene.order(&client.new_order(&["replay.victim.test"])).await.expect_err("it is given up");
        assert_eq!(rpc::refusal(&refused).expect("a refusal").reason, "account-inactive");
        Self { client, account }
    }

    pub(super) async fn write(&self, database: &Database) {
        let sql =
            format!("UPDATE accounts SET {} WHERE {}", self.account.join(", "), account_of(&self.client));
        assert_eq!(database.run(sql).await, 1);
    }

    pub(super) async fn judge(&self, scene: &mut Scene) -> Option<String> {
        let outcome = scene.order(&self.client.new_order(&["replay.victim.test"])).await;
        outcome
            .err()
            .map(|status| format!("a genuine row of before does not count: mend docs/trust.md: {status}"))
    }
}
