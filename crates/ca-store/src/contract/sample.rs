//! Rows to test with. A tag makes them differ.

use std::time::Duration;

use pki::{Reason, Serial, Timestamp};

use crate::{
    AccountKeyRow, AccountRow, AccountStatus, AuditEvent, AuthorityChange, AuthorityChanges, AuthorityRow,
    BlockedKeyRow, CaStore, Citation, CitedTable, DeactivationRow, Digest, DirectoryRow, EabKeyRow, EabState,
    Evidence, GrantRow, IntentOutcome, IssuerRow, IssuerState, JoinTokenRow, JournalKind, JournalRow,
    NameScope, NewAccount, NewIntent, NewRevocation, NodeRow, NodeState, PermitRow, ProfileRow, PutOutcome,
    RecordOutcome, RegistrationRow, RowMacKeys, Sealable, Sealed, SignedRow, State, TenantRow,
};

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn keys() -> RowMacKeys {
    RowMacKeys::new([(1, &[7; 32])]).unwrap()
}

pub fn seal<T: Sealable>(row: T) -> Sealed<T> {
    keys().seal(row)
}

pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(1_800_000_000 + seconds)
}

/// A digest that differs from those of other tags.
pub fn digest(tag: &str) -> Digest {
    let mut digest = [0x40; 32];
    digest.iter_mut().zip(tag.bytes()).for_each(|(to, from)| *to = from);
    digest
}

pub fn serial(tag: u64) -> Serial {
    Serial::from_random(u128::from(tag).to_be_bytes())
}

pub fn event(kind: &str) -> Vec<AuditEvent> {
    vec![AuditEvent {
        at: at(0),
        kind: kind.to_owned(),
        actor: "actor".to_owned(),
        subject: "subject".to_owned(),
        detail: r#"{"text":"ü \" \\ \u0000"}"#.to_owned(),
    }]
}

pub fn tenant(id: &str) -> TenantRow {
    TenantRow {
        id: id.to_owned(),
        title: "A “tenant”".to_owned(),
        state: State::Active,
        created_at: at(1),
        version: 1,
    }
}

pub fn directory(name: &str) -> DirectoryRow {
    DirectoryRow {
        name: name.to_owned(),
        tenant: "house".to_owned(),
        policy: r#"{"quorum":1}"#.to_owned(),
        state: State::Active,
        created_at: at(2),
        version: 1,
    }
}

pub fn profile(name: &str) -> ProfileRow {
    ProfileRow {
        name: name.to_owned(),
        body: "{}".to_owned(),
        state: State::Disabled,
        created_at: at(3),
        version: 1,
    }
}

pub fn issuer(id: &str) -> IssuerRow {
    IssuerRow {
        id: id.to_owned(),
        certificate: vec![0, 1, 0xff],
        settings: "{}".to_owned(),
        shards: 16,
        state: IssuerState::Standby,
        created_at: at(4),
        version: 1,
    }
}

pub fn registration(id: &str) -> RegistrationRow {
    RegistrationRow {
        id: id.to_owned(),
        directory: "main".to_owned(),
        title: "Client".to_owned(),
        settings: "{}".to_owned(),
        state: State::Active,
        created_at: at(5),
        version: 1,
    }
}

pub fn eab_key(kid: &str) -> EabKeyRow {
    EabKeyRow {
        kid: kid.to_owned(),
        registration: "client".to_owned(),
        secret_version: 3,
        epoch: 9,
        max_uses: Some(1),
        uses: 0,
        state: EabState::Active,
        expires_at: Some(at(1000)),
        created_at: at(6),
        version: 1,
    }
}

pub fn permit(id: &str) -> PermitRow {
    PermitRow {
        id: id.to_owned(),
        registration: "client".to_owned(),
        scope: NameScope::Subtree,
        name: "example.org".to_owned(),
        state: State::Active,
        created_at: at(7),
        version: 1,
    }
}

pub fn grant(id: &str) -> GrantRow {
    GrantRow {
        id: id.to_owned(),
        registration: "client".to_owned(),
        scope: NameScope::IpRange,
        name: "192.0.2.0/24".to_owned(),
        state: State::Active,
        expires_at: None,
        created_at: at(8),
        version: 1,
    }
}

pub fn node(name: &str) -> NodeRow {
    NodeRow {
        role: "front".to_owned(),
        name: name.to_owned(),
        settings: "{}".to_owned(),
        receipt_key: Some(vec![5; 32]),
        server_names: vec!["a.example".to_owned(), "b.example".to_owned()],
        state: NodeState::Active,
        created_at: at(9),
        version: 1,
    }
}

pub fn join_token(tag: &str) -> JoinTokenRow {
    JoinTokenRow {
        digest: digest(tag),
        role: "front".to_owned(),
        name: "eu-1".to_owned(),
        server_names: vec![],
        settings: "{}".to_owned(),
        expires_at: at(100),
        used_at: None,
        created_at: at(10),
        version: 1,
    }
}

pub fn deactivation(authorization: &str) -> DeactivationRow {
    DeactivationRow {
        authorization: authorization.to_owned(),
        account: "account".to_owned(),
        request: b"jws".to_vec(),
        at: at(11),
    }
}

pub fn blocked_key(tag: &str) -> BlockedKeyRow {
    BlockedKeyRow {
        spki_sha256: digest(tag),
        reason: "key-compromise".to_owned(),
        source: "first".to_owned(),
        at: at(12),
    }
}

pub fn account(id: &str) -> AccountRow {
    AccountRow {
        id: id.to_owned(),
        directory: "main".to_owned(),
        status: AccountStatus::Valid,
        contacts: vec!["mailto:\"a\"@example.org".to_owned()],
        terms_agreed_at: Some(at(13)),
        terms_agreed: Some("https://ca.example/terms/1".to_owned()),
        registration: None,
        eab_kid: None,
        key: digest(id),
        created_at: at(13),
        version: 1,
    }
}

pub fn account_key(id: &str) -> AccountKeyRow {
    AccountKeyRow {
        directory: "main".to_owned(),
        thumbprint: digest(id),
        account: id.to_owned(),
        jwk: r#"{"kty":"OKP"}"#.to_owned(),
        valid_from: at(13),
        valid_until: None,
    }
}

pub fn new_account(id: &str) -> NewAccount {
    NewAccount {
        account: seal(account(id)),
        key: seal(account_key(id)),
        spki_sha256: digest(&format!("{id}'s key")),
        eab: None,
        cites: vec![],
        audit: event("account.registered"),
    }
}

/// New rows, to be written together.
pub fn new(rows: Vec<AuthorityRow>) -> AuthorityChanges {
    AuthorityChanges {
        changes: rows.into_iter().map(|row| AuthorityChange { row, expected: None }).collect(),
        audit: event("authority.changed"),
    }
}

/// A row that replaces one of a version.
pub fn change(row: AuthorityRow, expected: u64) -> AuthorityChanges {
    AuthorityChanges {
        changes: vec![AuthorityChange { row, expected: Some(expected) }],
        audit: event("authority.changed"),
    }
}

/// Tenant `house`, directory `main`, registration `client`.
pub async fn found(store: &dyn CaStore) {
    let rows = vec![
        AuthorityRow::Tenant(seal(tenant("house"))),
        AuthorityRow::Directory(seal(directory("main"))),
        AuthorityRow::Registration(seal(registration("client"))),
    ];
    assert_eq!(store.put_authority(new(rows)).await.unwrap(), PutOutcome::Applied);
}

pub fn cite<T>(table: CitedTable, key: &str, row: &Sealed<T>) -> Citation {
    Citation { table, key: key.to_owned(), mac: row.mac().mac }
}

pub fn journal_row(tag: u64) -> JournalRow {
    JournalRow {
        serial: serial(tag),
        kind: JournalKind::Final,
        order: Some(format!("order-{tag}")),
        new_order: Some(digest(&format!("new order {tag}"))),
        directory: Some("main".to_owned()),
        account: Some("account".to_owned()),
        issuer: "issuer".to_owned(),
        profile: "default".to_owned(),
        shard: 3,
        spki_sha256: digest(&format!("key {tag}")),
        csr_sha256: Some(digest(&format!("csr {tag}"))),
        not_before: at(20),
        not_after: at(20_000 + tag),
        tbs: format!("to be signed {tag}").into_bytes(),
        created_at: at(20 + tag),
        signature: None,
        signed_at: None,
        abandoned_at: None,
        replaces: None,
        counted: true,
    }
}

pub fn intent_of(row: JournalRow) -> NewIntent {
    NewIntent {
        row: seal(row),
        names: vec!["www.example.org".to_owned(), "example.org".to_owned()],
        domains: vec!["example.org".to_owned()],
        evidence: Some(Evidence {
            new_order: b"new order".to_vec(),
            finalize: vec![0, 0xff],
            receipts: vec![],
            lints: b"[]".to_vec(),
        }),
        cites: vec![],
        authorizations: vec![],
        account_key: None,
        past: vec![],
        limits: vec![],
        lease: HOUR,
        audit: event("certificate.intended"),
    }
}

pub fn intent(tag: u64) -> NewIntent {
    intent_of(journal_row(tag))
}

/// The only outcome of an intent.
pub async fn commit(store: &dyn CaStore, intent: NewIntent) -> IntentOutcome {
    let mut outcomes = store.commit_intents(vec![intent]).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

pub fn signed(row: &JournalRow, signature: &[u8]) -> SignedRow {
    let row = JournalRow { signature: Some(signature.to_vec()), signed_at: Some(at(50)), ..row.clone() };
    SignedRow { row: seal(row), audit: event("certificate.issued") }
}

/// The only outcome of a signature.
pub async fn record(store: &dyn CaStore, row: SignedRow) -> RecordOutcome {
    let mut outcomes = store.record_certificates(vec![row]).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// The last two labels.
fn domain_of(name: &str) -> String {
    let mut labels: Vec<&str> = name.rsplit('.').take(2).collect();
    labels.reverse();
    labels.join(".")
}

/// Intends and records a certificate.
pub async fn issue(store: &dyn CaStore, row: JournalRow, names: &[&str]) {
    let signature = signed(&row, b"signature");
    let mut intent = intent_of(row);
    intent.names = names.iter().map(|&name| name.to_owned()).collect();
    intent.domains = names.iter().map(|name| domain_of(name)).collect();
    assert_eq!(commit(store, intent).await, IntentOutcome::Committed);
    assert_eq!(record(store, signature).await, RecordOutcome::Recorded);
}

/// The revocation of a certificate.
pub fn revocation(tag: u64) -> NewRevocation {
    NewRevocation {
        serial: serial(tag),
        at: at(70),
        reason: Reason::Superseded,
        upgrade: false,
        source: "account:a".to_owned(),
        request: Some(b"jws".to_vec()),
        block: None,
        audit: event("certificate.revoked"),
    }
}
