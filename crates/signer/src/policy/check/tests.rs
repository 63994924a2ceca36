use super::*;

const POLICY: &str = r#"
version = 1
[[tenant]]
name = "tenant"
[[issuer]]
name = "tls-1"
certificate = "issuer.pem"
token = "main"
key_id = "11"
pool = "tls"
shards = 2
crl_lifetime = "4d"
crl_url_base = "http://status.test/crl"
[issuer.ocsp]
url = "http://status.test/ocsp"
token = "main"
key_id = "1f"
validity = "2d"
certificate_lifetime = "7d"
[[profile]]
name = "tls"
[[profile]]
name = "front"
kind = "internal"
[[directory]]
name = "open"
tenant = "tenant"
base_urls = ["https://ca.test"]
pool = "tls"
profiles = ["tls"]
maximum_names = 10
quorum = { perspectives = ["v1", "v2"], maximum_dissent = 1 }
"#;

fn parse(text: &str) -> Result<Policy, String> {
    runtime::config::parse::<Policy>(text, std::path::Path::new("/policy.toml"))
        .map_err(|error| error.to_string())
}

#[test]
fn a_good_policy_is_good() {
    let policy = parse(POLICY).unwrap();
    policy.validate().unwrap();
    let servers = policy.server_certificates().unwrap();
    assert_eq!((servers.profile.as_str(), servers.pool.as_str()), ("front", "tls"));
}

#[test]
fn every_mistake_is_named() {
    let cases = [
        ("name = \"tenant\"\n[[issuer]]", "name = \"Tenant!\"\n[[issuer]]", "tenant name"),
        ("tenant = \"tenant\"", "tenant = \"other\"", "refers to tenant"),
        ("pool = \"tls\"\nprofiles", "pool = \"none\"\nprofiles", "refers to pool"),
        ("profiles = [\"tls\"]", "profiles = [\"tls\", \"none\"]", "refers to profile"),
        ("profiles = [\"tls\"]", "profiles = [\"front\"]", "which is internal"),
        ("profiles = [\"tls\"]", "profiles = []", "in profiles"),
        ("base_urls = [\"https://ca.test\"]", "base_urls = []", "in base_urls"),
        ("maximum_dissent = 1", "maximum_dissent = 2", "leaves no perspective"),
        ("maximum_names = 10", "maximum_names = 0", "maximum_names"),
        ("maximum_names = 10", "methods = []", "in methods"),
        ("maximum_names = 10", "methods = [\"dns-persist-01\"]", "in caa_identities"),
        (
            "maximum_names = 10",
            concat!(
                "caa_identities = [\"a.b\", \"a.b\", \"a.b\", \"a.b\", \"a.b\", \"a.b\", \"a.b\", ",
                "\"a.b\", \"a.b\", \"a.b\", \"a.b\"]"
            ),
            "caa_identities must be at most 10",
        ),
        ("maximum_names = 10", "revocation_reasons = []", "in revocation_reasons"),
        ("maximum_names = 10", "terms_change = \"ask\"", "terms_change must be"),
        ("maximum_names = 10", "subdomain_auth = true", "subdomain_auth must be"),
        ("maximum_names = 10", "revocation_reasons = [\"privilegeWithdrawn\"]", "revocation_reasons must be"),
        ("maximum_names = 10", "renewal = { renewal_at_percent = 99 }", "renewal_at_percent must be"),
        ("maximum_names = 10", "renewal = { renewal_window_percent = 35 }", "renewal_window_percent must be"),
        ("maximum_names = 10", "renewal = { retry_after = \"8d\" }", "renewal.retry_after must be"),
        ("key_id = \"11\"", "key_id = \"1\"", "not hexadecimal"),
        ("shards = 2", "shards = 0", "shards"),
        ("crl_lifetime = \"4d\"", "crl_lifetime = \"1d\"", "crl_interval"),
        ("shards = 2", "delta_crl_lifetime = \"59s\"", "delta_crl_lifetime"),
        ("shards = 2", "last_crl = true", "last_crl is for"),
        ("shards = 2", "state = \"retired\"", "every issuer of pool \"tls\" is retired"),
        (
            concat!(
                "[issuer.ocsp]\nurl = \"http://status.test/ocsp\"\ntoken = \"main\"\nkey_id = \"1f\"\n",
                "validity = \"2d\"\ncertificate_lifetime = \"7d\"\n[[profile]]\nname = \"tls\"",
            ),
            "delta_crls = true\n[[profile]]\nname = \"tls\"\nkind = \"public-dv\"",
            "is public",
        ),
        ("http://status.test/crl", "https://status.test/crl", "crl_url_base"),
        ("http://status.test/ocsp", "https://status.test/ocsp", "ocsp.url"),
        ("http://status.test/ocsp", "http://status.test/ocsp?a", "ocsp.url"),
        ("http://status.test/ocsp", "http://status.test/", "must end with \"/ocsp\""),
        ("key_id = \"1f\"", "key_id = \"1\"", "not hexadecimal"),
        ("key_id = \"1f\"", "key_id = \"11\"", "the key of issuer \"tls-1\""),
        ("key_id = \"11\"", "key_id = \"1F\"", "the key of issuer \"tls-1\""),
        ("validity = \"2d\"", "validity = \"7h\"", "ocsp.validity"),
        ("validity = \"2d\"", "validity = \"11d\"", "ocsp.validity"),
        ("certificate_lifetime = \"7d\"", "certificate_lifetime = \"2d\"", "ocsp.certificate_lifetime"),
        ("certificate_lifetime = \"7d\"", "certificate_lifetime = \"91d\"", "ocsp.certificate_lifetime"),
        ("http://status.test/crl", "http://status.test/crls", "must end with \"/crl\""),
        (
            "[issuer.ocsp]",
            "ca_issuers_url = \"http://status.test/tls-1.cer\"\n[issuer.ocsp]",
            "must end with \"/issuer/tls-1.cer\"",
        ),
        (
            "[[profile]]",
            "[[root]]\nname = \"tls-1\"\ncertificate = \"root.pem\"\n[[profile]]",
            "issuer or root \"tls-1\" is declared twice",
        ),
        ("[[profile]]\nname = \"front\"", "[[profile]]\nname = \"tls\"", "declared twice"),
        (
            "[[directory]]",
            "[server_certificates]\nprofile = \"tls\"\npool = \"tls\"\n[[directory]]",
            "not of kind \"internal\"",
        ),
    ];
    for (from, to, expected) in cases {
        let text = POLICY.replacen(from, to, 1);
        assert_ne!(text, POLICY, "{from}");
        let error = parse(&text).unwrap().validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn g9_public_trust_is_held_to_its_rules() {
    let public = POLICY
        .replacen("name = \"tls\"\n[[profile]]", "name = \"tls\"\nkind = \"public-dv\"\n[[profile]]", 1)
        .replacen(
            "maximum_names = 10",
            "public_trust = true\ncaa_identities = [\"ca.test\"]\nvalidation_reuse = \"200d\"",
            1,
        );
    parse(&public).unwrap().validate().unwrap();
    for (from, to, expected) in [
        ("kind = \"public-dv\"\n", "", "of kind \"public-dv\""),
        ("caa_identities = [\"ca.test\"]", "caa_identities = []", "caa_identities must not be empty"),
        ("public_trust = true", "public_trust = true\nalways_valid = true", "always_valid must not be set"),
        ("\"200d\"", "\"201d\"", "200 days at most"),
        ("\"200d\"", "\"11d\"\nmethods = [\"dns-persist-01\"]", "10 days at most"),
        ("\"200d\"", "\"9d\"\norder_lifetime = \"31d\"", "30 days at most"),
        ("\"200d\"", "\"9d\"\nauthorization_lifetime = \"31d\"", "30 days at most"),
        // K2: CRLs.
        ("\"4d\"", "\"11d\"", "crl_lifetime must be 10 days at most"),
        ("\"4d\"", "\"10d\"\ncrl_interval = \"8d\"", "crl_interval must be 7 days at most"),
        ("perspectives = [\"v1\", \"v2\"], maximum_dissent = 1", "perspectives = []", "grants do not count"),
    ] {
        let text = public.replacen(from, to, 1);
        assert_ne!(text, public, "{from}");
        let error = parse(&text).unwrap().validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn k2_crls_of_public_trust_come_sooner_where_nobody_answers_ocsp() {
    let (before, rest) = POLICY.split_once("[issuer.ocsp]").unwrap();
    let (_, after) = rest.split_once("[[profile]]").unwrap();
    let policy = |interval: &str, ocsp: bool| {
        let text = if ocsp { POLICY.to_owned() } else { format!("{before}[[profile]]{after}") };
        let public = "public_trust = true\ncaa_identities = [\"ca.test\"]\nvalidation_reuse = \"9d\"";
        let text = text.replacen("maximum_names = 10", public, 1);
        let text = text.replacen(
            "name = \"tls\"\n[[profile]]",
            "name = \"tls\"\nkind = \"public-dv\"\n[[profile]]",
            1,
        );
        let crls = format!("crl_lifetime = \"10d\"\ncrl_interval = \"{interval}\"");
        parse(&text.replacen("crl_lifetime = \"4d\"", &crls, 1)).unwrap().validate()
    };
    for (interval, with_ocsp, without) in [("4d", true, true), ("5d", true, false), ("8d", false, false)] {
        assert_eq!(policy(interval, true).is_ok(), with_ocsp, "{interval}");
        assert_eq!(policy(interval, false).is_ok(), without, "{interval}");
    }
}

#[test]
fn what_cannot_be_written_cannot_be_read() {
    for (from, to) in [
        ("https://ca.test", "http://ca.test"),
        ("https://ca.test", "https://ca.test/"),
        ("name = \"open\"", "name = \"Open\""),
        ("maximum_names", "maximum_name"),
        ("maximum_names = 10", "revocation_reasons = [\"certificateHold\"]"),
        ("version = 1", "version = 2"),
    ] {
        assert!(parse(&POLICY.replacen(from, to, 1)).is_err(), "{to}");
    }
}
