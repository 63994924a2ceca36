use super::*;
use proptest::prelude::*;

fn error(text: &str) -> NameError {
    text.parse::<Name>().expect_err(text)
}

#[test]
fn good_names() {
    for text in [
        "example.org",
        "a",
        "localhost",
        "xn--bcher-kva.example",
        "1.example",
        "a-b.c--d.example",
        "3com.com",
        "*.example.org",
        "192.0.2.1",
        "2001:db8::1",
        "::ffff:192.0.2.1",
        "0xg.example.a0x1",
        "xn--mgbh0fb.xn--kgbechtv",
    ] {
        assert_eq!(text.parse::<Name>().map(|name| name.to_string()).as_deref(), Ok(text));
    }
    assert_eq!("WWW.Example.ORG".parse::<Name>(), "www.example.org".parse());
}

#[test]
fn bad_names() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = format!("{}a.example", "abcdefg.".repeat(31));
    for (text, expected) in [
        ("", NameError::Empty),
        (".", NameError::EmptyLabel),
        ("example.org.", NameError::EmptyLabel),
        (".example.org", NameError::EmptyLabel),
        ("a..b", NameError::EmptyLabel),
        ("a_b.example", NameError::Character),
        ("_acme-challenge.example.org", NameError::Character),
        ("bücher.example", NameError::Character),
        ("exam ple.org", NameError::Character),
        ("example.org\n", NameError::Character),
        ("example.org\0", NameError::Character),
        ("a/b", NameError::Character),
        ("a:80", NameError::Character),
        ("user@example.org", NameError::Character),
        ("-a.example", NameError::Hyphen),
        ("a-.example", NameError::Hyphen),
        ("ab--cd.example", NameError::ReservedLabel),
        ("*", NameError::Wildcard),
        ("*.", NameError::Empty),
        ("*.*.example", NameError::Wildcard),
        ("a.*.example", NameError::Wildcard),
        ("*a.example", NameError::Wildcard),
        ("www*.example", NameError::Wildcard),
        ("*.192.0.2.1", NameError::LooksLikeAddress),
        ("1.2.3", NameError::LooksLikeAddress),
        ("256.0.0.1", NameError::LooksLikeAddress),
        ("01.2.3.4", NameError::LooksLikeAddress),
        ("example.0x7f", NameError::LooksLikeAddress),
        ("example.0x", NameError::LooksLikeAddress),
        ("2130706433", NameError::LooksLikeAddress),
        ("2001:DB8::1", NameError::Address),
        ("2001:0db8::1", NameError::Address),
        ("0:0:0:0:0:0:0:1", NameError::Address),
        ("[2001:db8::1]", NameError::Character),
        ("fe80::1%eth0", NameError::Character),
        (&long_label, NameError::LabelTooLong),
        (&long_name, NameError::TooLong),
    ] {
        assert_eq!(error(text), expected, "{text:?}");
    }
}

#[test]
fn a_labels_that_are_not() {
    for text in [
        "xn--a.example",           // not Punycode
        "xn--0.example",           // an incomplete number
        "xn--abc-def.example",     // decodes to what IDNA does not allow
        "xn--99999999999.example", // overflow
        "xn--strae-oqa.xn--0",     // one good, one bad
        "xn--a-ecp.ru",            // a capital sharp s, which IDNA maps to something else
    ] {
        assert_eq!(error(text), NameError::ALabel, "{text}");
    }
    // Decodable, but IDNA maps these to something else, composes them, or does not allow them.
    for text in ["\u{ff25}x", "e\u{301}", "\u{1e9e}", "\u{301}a", "a\u{200d}b", "\u{2f868}"] {
        let label = format!("xn--{}.example", idna::punycode::encode_str(text).unwrap());
        assert_eq!(error(&label), NameError::ALabel, "{text:?} {label}");
    }
    // Nothing encoded, and ASCII alone encoded: both end with a hyphen, which no label may.
    for text in ["xn--.example", "xn--abc-.example"] {
        assert_eq!(error(text), NameError::Hyphen, "{text}");
    }
}

#[test]
fn length_limits_are_inclusive() {
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    assert_eq!(name.len(), 253);
    assert!(DnsName::parse(&name).is_ok());
    assert_eq!(DnsName::parse(&format!("{name}b")), Err(NameError::TooLong));
}

#[test]
fn dns_and_ip_identifiers_do_not_mix() {
    assert_eq!(Name::parse_dns("192.0.2.1"), Err(NameError::LooksLikeAddress));
    assert_eq!(Name::parse_dns("::1"), Err(NameError::Character));
    assert_eq!(Name::parse_ip("example.org"), Err(NameError::Address));
    assert_eq!(Name::parse_ip("*.192.0.2.1"), Err(NameError::Address));
    assert_eq!(serde_json::from_str::<Name>("\"1.2.3.4\"").unwrap(), "1.2.3.4".parse().unwrap());
    assert!(serde_json::from_str::<DnsName>("\"1.2.3.4\"").is_err());
    assert!(serde_json::from_str::<NameSet>("[]").is_err());
    let set: NameSet = serde_json::from_str(r#"["b.example", "a.example", "*.a.example"]"#).unwrap();
    assert_eq!(serde_json::to_string(&set).unwrap(), r#"["a.example","b.example","*.a.example"]"#);
}

#[test]
fn relations() {
    let name = |text| DnsName::parse(text).unwrap();
    assert!(name("a.example.org").is_within(&name("example.org")));
    assert!(name("example.org").is_within(&name("example.org")));
    assert!(!name("badexample.org").is_within(&name("example.org")));
    assert!(!name("org").is_within(&name("example.org")));
    assert_eq!(name("a.b.c").parent(), Some(name("b.c")));
    assert_eq!(name("c").parent(), None);
    assert_eq!(name("a.b.example.co.uk").registered_domain(), Some(name("example.co.uk")));
    assert_eq!(name("co.uk").registered_domain(), None);
    assert_eq!(name("a.b.internal").registered_domain(), None);
    for suffix in ["com", "co.uk", "github.io", "compute.amazonaws.com", "any.ck", "xn--p1ai"] {
        assert!(name(suffix).is_public_suffix() || suffix == "compute.amazonaws.com", "{suffix}");
    }
    for above in ["ck", "kawasaki.jp", "compute.amazonaws.com.cn"] {
        assert!(name(above).is_above_public_suffixes(), "{above}");
    }
    for not in ["com", "example.com", "internal", "city.kawasaki.jp", "a.kawasaki.jp"] {
        assert!(!name(not).is_above_public_suffixes(), "{not}");
    }
    for not in ["example.com", "internal", "corp", "www.ck"] {
        assert!(!name(not).is_public_suffix(), "{not}");
    }
}

#[test]
fn reserved_names() {
    let name = |text: &str| text.parse::<Name>().unwrap();
    for text in [
        "10.0.0.1",
        "127.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:8.8.8.8",
        "64:ff9b:1::1",
        "2002:a00:1::",
        "3fff::1",
        "5f00::1",
        "1.0.0.127.in-addr.arpa",
        "ip6.arpa",
        "*.ip6.arpa",
        "in-addr.arpa",
        "router.home.arpa",
        "a.onion",
    ] {
        assert!(name(text).is_reserved(), "{text}");
    }
    for text in
        ["8.8.8.8", "192.88.98.1", "2606:4700:4700::1111", "example.org", "arpa.example", "notin-addr.arpa"]
    {
        assert!(!name(text).is_reserved(), "{text}");
    }
}

#[test]
fn sets_are_sorted_and_merged() {
    let name = |text: &str| text.parse::<Name>().unwrap();
    let set =
        NameSet::new(["b.example", "a.example", "B.example", "*.a.example", "192.0.2.1"].map(name)).unwrap();
    assert_eq!(set.len(), 4);
    assert_eq!(
        set.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["a.example", "b.example", "*.a.example", "192.0.2.1"]
    );
    assert!(set.contains(&name("*.a.example")));
    assert!(!set.contains(&name("x.a.example")));
    assert_eq!(set.first_dns_name().map(DnsName::as_str), Some("a.example"));
    assert_eq!(NameSet::new([]), Err(NameError::NoNames));
}

#[test]
fn digests_tell_sets_apart() {
    let set = |names: &[&str]| NameSet::new(names.iter().map(|text| text.parse().unwrap())).unwrap();
    assert_eq!(set(&["a.b", "c.d"]).digest(), set(&["C.d", "a.b", "a.b"]).digest());
    assert_ne!(set(&["a.b", "c.d"]).digest(), set(&["a.b"]).digest());
    assert_ne!(set(&["*.a.b"]).digest(), set(&["a.b"]).digest());
}

proptest! {
    #[test]
    fn whatever_parses_prints_and_parses_to_itself(text in "\\PC{0,40}") {
        if let Ok(name) = text.parse::<Name>() {
            prop_assert_eq!(name.to_string().parse::<Name>(), Ok(name));
        }
    }

    #[test]
    fn names_of_good_labels_parse(labels in prop::collection::vec("[a-z]([a-z0-9]{0,20}[a-z0-9])?", 1..6)) {
        let text = labels.join(".");
        prop_assert_eq!(String::from(DnsName::parse(&text).unwrap()), text);
    }

    #[test]
    fn encoded_unicode_labels_parse(label in "[a-zà-öø-ÿα-ω]{1,12}") {
        let ascii = idna::domain_to_ascii_strict(&format!("{label}.example"));
        if let Ok(ascii) = ascii {
            prop_assert!(DnsName::parse(&ascii).is_ok(), "{}", ascii);
        }
    }

    #[test]
    fn addresses_round_trip(octets: [u8; 16], four: [u8; 4]) {
        for address in [IpAddr::from(octets), IpAddr::from(four)] {
            prop_assert_eq!(Name::parse_ip(&address.to_string()), Ok(Name::Ip(address)));
        }
    }
}
