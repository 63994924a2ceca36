use super::*;
use crate::testing::{Key, profile};

fn parse(text: &str) -> Result<Profile, String> {
    toml::from_str(text).map_err(|error| error.message().to_owned())
}

fn refusal(profile: &Profile, name: &str) -> Option<NameRefusal> {
    profile.check_name(&name.parse().unwrap()).err()
}

#[test]
fn a_name_is_enough() {
    let private = parse("name = \"tls\"").unwrap();
    assert_eq!(private, Profile::preset("tls", ProfileKind::Private).unwrap());
    assert_eq!(private.validity(), Period::from_days(90));
    assert_eq!(private.max_names(), 100);
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        assert!(private.allows_key(&Key::generate(algorithm).public()));
    }
    let public = parse("name = \"tls\"\nkind = \"public-dv\"").unwrap();
    assert!(!public.allows_key(&Key::generate(KeyAlgorithm::Ed25519).public()));
    assert_eq!(public.lints, [LintSet::Rfc5280, LintSet::CabfBr, LintSet::Operator]);
    let internal = parse("name = \"front\"\nkind = \"internal\"").unwrap();
    assert_eq!(internal.validity(), Period::from_days(7));
    assert!(!internal.crl && !internal.wildcards);
}

#[test]
fn every_setting_can_be_written() {
    let text = r#"
        name = "tls.server-1"
        kind = "private"
        validity = "30d"
        backdate = 600
        key_algorithms = ["ecdsa-p256", "rsa-3072"]
        extended_key_usages = ["server-auth", "client-auth"]
        rsa_key_encipherment = true
        policies = ["1.3.6.1.4.1.99999.1"]
        common_name = "first-dns-name"
        basic_constraints = false
        subject_key_identifier = false
        ca_issuers = false
        ocsp = false
        crl = false
        must_staple = "honour"
        max_names = 10
        wildcards = false
        addresses = false
        name_suffixes = ["internal", "example.org"]
        maximum_validity = "31d"
        lints = ["rfc5280"]
    "#;
    let profile = parse(text).unwrap();
    assert_eq!(profile.backdate, Period::from_seconds(600));
    assert_eq!(profile.must_staple, MustStaple::Honour);
    // A stored profile is read back as it was, whatever defaults may become.
    let json = serde_json::to_string(&profile).unwrap();
    assert!(!json.contains("null"), "{json}");
    assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile);
    assert_eq!(toml::from_str::<Profile>(&toml::to_string(&profile).unwrap()).unwrap(), profile);
}

#[test]
fn mistakes_are_found_when_the_file_is_read() {
    for (line, expected) in [
        ("validty = 1", "unknown field `validty`"),
        ("name = \"Tls\"", "profile's name"),
        ("name = \"\"", "profile's name"),
        ("name = \"a b\"", "profile's name"),
        ("validity = \"90\"", "whole number with a unit"),
        ("validity = -1", "not negative"),
        ("validity = 0", "longer than backdate"),
        ("validity = \"1h\"", "longer than backdate"),
        ("maximum_validity = \"1d\"", "at most maximum_validity"),
        ("backdate = \"49h\"", "48h"),
        ("key_algorithms = []", "key_algorithms must have at least one"),
        ("key_algorithms = [\"ed25519\", \"ed25519\"]", "none of them twice"),
        ("key_algorithms = [\"rsa-1024\"]", "not a key algorithm"),
        ("extended_key_usages = []", "extended_key_usages must have"),
        ("extended_key_usages = [\"code-signing\"]", "unknown variant"),
        ("policies = [\"x\"]", "object identifier"),
        ("policies = [\"1.2.3\", \"1.2.3\"]", "none of them twice"),
        ("name_suffixes = [\"a_b\"]", "character"),
        ("max_names = 0", "max_names"),
        ("max_names = 1001", "max_names"),
        ("lints = [\"operator\"]", "rfc5280"),
    ] {
        let name = if line.starts_with("name =") { "" } else { "name = \"a\"\n" };
        let error = parse(&format!("{name}{line}")).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
    assert!(parse("").is_err());
}

#[test]
fn public_profiles_cannot_leave_the_baseline_requirements() {
    for line in [
        "lints = [\"rfc5280\"]",
        "extended_key_usages = [\"server-auth\", \"client-auth\"]",
        "policies = []",
        "policies = [\"1.2.3\", \"2.23.140.1.2.1\"]",
        "key_algorithms = [\"ed25519\"]",
        "validity = \"201d\"",
        "crl = false\nocsp = false",
    ] {
        let error = parse(&format!("name = \"a\"\nkind = \"public-dv\"\n{line}")).unwrap_err();
        assert!(error.contains("public-dv profile cannot"), "{line}: {error}");
    }
    assert!(
        parse("name = \"a\"\nkind = \"public-dv\"\nvalidity = \"6d\"\ncrl = false\nocsp = false").is_ok()
    );
}

#[test]
fn private_profiles_issue_for_internal_names() {
    let private = profile(ProfileKind::Private);
    for name in [
        "localhost",
        "db.internal",
        "*.internal",
        "10.0.0.1",
        "fd00::1",
        "example.com",
        "*.example.com",
        "1.0.0.10.in-addr.arpa",
    ] {
        assert_eq!(refusal(&private, name), None, "{name}");
    }
    for name in ["*.com", "*.co.uk", "*.github.io", "*.ck", "*.kawasaki.jp"] {
        assert_eq!(refusal(&private, name), Some(NameRefusal::PublicSuffix), "{name}");
    }
}

#[test]
fn public_profiles_issue_for_public_names() {
    let mut public = profile(ProfileKind::PublicDv);
    for name in [
        "example.com",
        "*.example.com",
        "a.b.co.uk",
        "xn--bcher-kva.de",
        "user.github.io",
        "*.user.github.io",
    ] {
        assert_eq!(refusal(&public, name), None, "{name}");
    }
    assert_eq!(refusal(&public, "8.8.8.8"), Some(NameRefusal::Address));
    public.addresses = true;
    assert_eq!(refusal(&public, "8.8.8.8"), None);
    for (name, expected) in [
        ("localhost", NameRefusal::NotPublic),
        ("db.internal", NameRefusal::NotPublic),
        ("a.example", NameRefusal::NotPublic),
        ("com", NameRefusal::PublicSuffix),
        ("*.co.uk", NameRefusal::PublicSuffix),
        ("*.kawasaki.jp", NameRefusal::PublicSuffix),
        ("github.io", NameRefusal::PublicSuffix),
        ("any.ck", NameRefusal::PublicSuffix),
        ("10.0.0.1", NameRefusal::Reserved),
        ("::1", NameRefusal::Reserved),
        ("::ffff:8.8.8.8", NameRefusal::Reserved),
        ("1.2.3.4.in-addr.arpa", NameRefusal::Reserved),
        ("*.8.b.d.0.1.0.0.2.ip6.arpa", NameRefusal::Reserved),
        ("*.ip6.arpa", NameRefusal::PublicSuffix),
        ("router.home.arpa", NameRefusal::Reserved),
        ("abcdefghij.onion", NameRefusal::Reserved),
    ] {
        assert_eq!(refusal(&public, name), Some(expected), "{name}");
    }
}

#[test]
fn switches_and_suffixes_limit_names() {
    let limited =
        parse("name = \"a\"\nwildcards = false\naddresses = false\nname_suffixes = [\"example.org\"]")
            .unwrap();
    for (name, expected) in [
        ("example.org", None),
        ("a.example.org", None),
        ("*.example.org", Some(NameRefusal::Wildcard)),
        ("badexample.org", Some(NameRefusal::Suffix)),
        ("example.com", Some(NameRefusal::Suffix)),
        ("192.0.2.1", Some(NameRefusal::Address)),
    ] {
        assert_eq!(refusal(&limited, name), expected, "{name}");
    }
}
