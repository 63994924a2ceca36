use proptest::prelude::*;

use super::*;
use crate::testing::ClientKey;

fn secrets(versions: &[u32]) -> TierSecrets {
    let secret = |version: &u32| {
        let mut bytes = [5; 32];
        bytes[0] = u8::try_from(*version).unwrap();
        TierSecret::new(*version, bytes).unwrap()
    };
    TierSecrets::new(versions.iter().map(secret).collect()).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

struct World {
    keys: IdKeys,
    directory: DirectoryName,
    account: AccountId,
    digest: [u8; 32],
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let directory = "default".parse().unwrap();
        let account = AccountId::derive(&directory, &ClientKey::one().jwk().thumbprint());
        let now = Timestamp::from_unix(1_700_000_000);
        Self { keys: IdKeys::new(&secrets(&[1])), directory, account, digest: [3; 32], now }
    }

    fn order(&self) -> OrderId {
        self.keys.mint_order(&self.directory, &self.account, &self.digest, self.now, [7; 16])
    }

    fn authorization(&self, of: &str) -> AuthorizationId {
        self.keys.mint_authorization(
            &self.directory,
            &self.account,
            &name(of),
            &self.digest,
            self.now,
            [7; 16],
        )
    }
}

#[test]
fn what_is_minted_verifies_and_says_when() {
    let w = World::new();
    let order: OrderId = w.order().to_string().parse().unwrap();
    assert_eq!(w.keys.verify_order(&order, &w.directory, &w.account, &w.digest), Ok(w.now));
    assert_eq!(order.claimed_time(), w.now);
    let authorization: AuthorizationId = w.authorization("example.org").to_string().parse().unwrap();
    let verified = w.keys.verify_authorization(
        &authorization,
        &w.directory,
        &w.account,
        &name("example.org"),
        &w.digest,
    );
    assert_eq!(verified, Ok(w.now));
    assert_eq!(order.to_string().len(), 60);
    assert_eq!(OrderId::from_bytes(order.as_bytes()), Ok(order));
    assert_eq!(serde_json::from_str::<OrderId>(&serde_json::to_string(&order).unwrap()).unwrap(), order);
}

#[test]
fn an_order_is_for_nothing_else() {
    let w = World::new();
    let order = w.order();
    let other_directory = "other".parse().unwrap();
    let other_account = AccountId::derive(&other_directory, &ClientKey::one().jwk().thumbprint());
    assert_ne!(other_account, w.account);
    for (directory, account, digest) in [
        (&other_directory, &w.account, w.digest),
        (&w.directory, &other_account, w.digest),
        (&w.directory, &w.account, [4; 32]),
    ] {
        assert_eq!(w.keys.verify_order(&order, directory, account, &digest), Err(IdError::Forged));
    }
}

#[test]
fn an_authorization_is_for_one_name_and_a_wildcard_is_another() {
    let w = World::new();
    let names = ["example.org", "*.example.org", "a.example.org", "192.0.2.1", "192.0.2.2", "2001:db8::1"];
    for of in names {
        let id = w.authorization(of);
        for other in names {
            let verified =
                w.keys.verify_authorization(&id, &w.directory, &w.account, &name(other), &w.digest);
            assert_eq!(verified.is_ok(), of == other, "{of} as {other}");
        }
        let verified = w.keys.verify_authorization(&id, &w.directory, &w.account, &name(of), &[4; 32]);
        assert_eq!(verified, Err(IdError::Forged));
    }
}

#[test]
fn kinds_are_never_confused() {
    let w = World::new();
    let (order, authorization) = (w.order(), w.authorization("example.org"));
    assert_eq!(order.to_string().parse::<AuthorizationId>(), Err(IdError::Malformed));
    assert_eq!(authorization.to_string().parse::<OrderId>(), Err(IdError::Malformed));
    // Nor when somebody changes the kind: it is under the MAC.
    let mut bytes = order.0;
    bytes[0] = *AuthorizationId::KINDS.start();
    let disguised = AuthorizationId::from_bytes(&bytes).unwrap();
    for of in ["example.org", "*.example.org"] {
        let verified =
            w.keys.verify_authorization(&disguised, &w.directory, &w.account, &name(of), &w.digest);
        assert_eq!(verified, Err(IdError::Forged));
    }
}

#[test]
fn what_an_authorization_is_for_is_under_its_mac() {
    let w = World::new();
    let of = name("example.org");
    let scopes = [(false, false), (true, false), (false, true), (true, true)]
        .map(|(pre_authorization, subdomains)| Scope { pre_authorization, subdomains });
    assert_eq!(w.authorization("example.org").scope(), Scope::default());
    for scope in scopes {
        let subject = (&w.directory, &w.account, &of, &w.digest);
        let id = w.keys.mint_scoped(scope, subject, w.now, [7; 16]);
        let read: AuthorizationId = id.to_string().parse().unwrap();
        assert_eq!((read, read.scope()), (id, scope));
        assert!(id.to_string().parse::<OrderId>().is_err());
        for other in scopes {
            let mut bytes = id.0;
            bytes[0] = other.kind();
            let claimed = AuthorizationId::from_bytes(&bytes).unwrap();
            let verified = w.keys.verify_authorization(&claimed, &w.directory, &w.account, &of, &w.digest);
            assert_eq!(verified.is_ok(), other == scope, "{scope:?} as {other:?}");
        }
    }
    assert_eq!(AuthorizationId::from_bytes(&[6; SEALED_BYTES]), Err(IdError::Malformed));
}

#[test]
fn every_bit_counts() {
    let w = World::new();
    let order = w.order();
    for at in 0..SEALED_BYTES * 8 {
        let mut bytes = order.0;
        bytes[at / 8] ^= 1 << (at % 8);
        let error = match OrderId::from_bytes(&bytes) {
            Ok(changed) => w.keys.verify_order(&changed, &w.directory, &w.account, &w.digest).unwrap_err(),
            Err(error) => error,
        };
        let expected = match at / 8 {
            0 => IdError::Malformed,
            1..5 => IdError::UnknownSecret,
            _ => IdError::Forged,
        };
        assert_eq!(error, expected, "bit {at}");
    }
}

#[test]
fn time_and_chance_make_it_unique() {
    let w = World::new();
    let later = Timestamp::from_unix(1_700_000_001);
    let mint = |now, random| w.keys.mint_order(&w.directory, &w.account, &w.digest, now, random);
    assert_ne!(mint(w.now, [7; 16]), mint(later, [7; 16]));
    assert_ne!(mint(w.now, [7; 16]), mint(w.now, [8; 16]));
    assert_eq!(mint(Timestamp::MAX, [7; 16]).claimed_time(), Timestamp::MAX);
}

#[test]
fn secrets_rotate() {
    let w = World::new();
    let old = w.order();
    let rotated = IdKeys::new(&secrets(&[1, 2]));
    let new = rotated.mint_order(&w.directory, &w.account, &w.digest, w.now, [7; 16]);
    assert_eq!((old.secret_version(), new.secret_version()), (1, 2));
    for id in [&old, &new] {
        assert_eq!(rotated.verify_order(id, &w.directory, &w.account, &w.digest), Ok(w.now));
    }
    let retired = IdKeys::new(&secrets(&[2]));
    assert_eq!(retired.verify_order(&old, &w.directory, &w.account, &w.digest), Err(IdError::UnknownSecret));
    // Another secret under the same version is another secret.
    let other =
        TierSecrets::new(vec![TierSecret::new(1, *secrets(&[9]).newest().derive("x")).unwrap()]).unwrap();
    let verified = IdKeys::new(&other).verify_order(&old, &w.directory, &w.account, &w.digest);
    assert_eq!(verified, Err(IdError::Forged));
}

#[test]
fn text_is_canonical() {
    let text = World::new().order().to_string();
    for bad in [
        String::new(),
        format!("{text}="),
        format!("{text}A"),
        text[1..].to_owned(),
        format!(" {text}"),
        text.replacen(|c: char| c.is_ascii_alphanumeric(), "+", 1),
        "A".repeat(60),
        "A".repeat(10_000),
    ] {
        assert_eq!(bad.parse::<OrderId>(), Err(IdError::Malformed), "{bad}");
    }
}

#[test]
fn an_account_is_its_directory_and_first_key() {
    let thumbprint = ClientKey::one().jwk().thumbprint();
    let derive = |directory: &str, thumbprint| AccountId::derive(&directory.parse().unwrap(), &thumbprint);
    let id = derive("default", thumbprint);
    assert_eq!(id, derive("default", thumbprint));
    assert_ne!(id, derive("defaul", thumbprint));
    assert_ne!(id, derive("default", Thumbprint::from_bytes([0; 32])));
    assert_eq!(id.to_string().len(), 32);
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(AccountId::from_bytes(id.as_bytes()), Ok(id));
    // A known value: an id that changes with a release would lose every account.
    let known = derive("default", Thumbprint::from_bytes([1; 32]));
    assert_eq!(known.to_string(), "QqfqiBl5Z9wqRKTjWgGE9wwllrjxoGAm");
}

#[test]
fn the_mac_says_where_each_field_ends() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
    let tag = |clear: &[u8], fields: &[&[u8]]| authenticate(&key, clear, fields).as_ref().to_vec();
    let tags = [
        tag(b"a", &[b"bc", b"d"]),
        tag(b"a", &[b"b", b"cd"]),
        tag(b"ab", &[b"c", b"d"]),
        tag(b"a", &[b"bcd"]),
        tag(b"a", &[b"bcd", b""]),
        tag(b"abcd", &[]),
    ];
    assert_eq!(tags.iter().collect::<std::collections::HashSet<_>>().len(), tags.len());
    let hash = |fields: &[&[u8]]| labelled_hash("label", fields);
    assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
}

#[test]
fn a_token_is_long_and_of_one_authorization() {
    let w = World::new();
    let (a, b) = (token(&w.authorization("example.org")), token(&w.authorization("*.example.org")));
    assert_ne!(a, b);
    assert_eq!(base64url::decode(&a).unwrap().len(), 32);
    assert_eq!(a, token(&w.authorization("example.org")));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[A-Za-z0-9_-]{55,65}") {
        let w = World::new();
        if let Ok(id) = text.parse::<OrderId>() {
            prop_assert_eq!(id.to_string(), text);
            prop_assert!(w.keys.verify_order(&id, &w.directory, &w.account, &w.digest).is_err());
        }
    }

    /// Fields cannot be shifted into each other: what the MAC covers says where each ends.
    #[test]
    fn fields_do_not_run_together(a in "[a-z0-9]{1,8}", b in "[a-z0-9]{1,8}") {
        prop_assume!(a != b);
        let w = World::new();
        let id = w.keys.mint_order(&a.parse().unwrap(), &w.account, &w.digest, w.now, [7; 16]);
        prop_assert!(w.keys.verify_order(&id, &b.parse().unwrap(), &w.account, &w.digest).is_err());
    }
}
