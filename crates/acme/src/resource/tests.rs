use proptest::prelude::*;

use super::*;
use crate::id::{IdKeys, TierSecret, TierSecrets};
use crate::testing::ClientKey;

fn bases() -> Vec<BaseUrl> {
    ["https://ca.example", "https://ca.example:8443", "https://ca.example/pki", "https://[2001:db8::1]:14000"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

fn resources() -> Vec<Resource> {
    let mut secret = [1; 32];
    secret[0] = 2;
    let keys = IdKeys::new(&TierSecrets::new(vec![TierSecret::new(1, secret).unwrap()]).unwrap());
    let directory = "default".parse().unwrap();
    let account = AccountId::derive(&directory, &ClientKey::one().jwk().thumbprint());
    let now = pki::Timestamp::from_unix(1_700_000_000);
    let order = keys.mint_order(&directory, &account, &[0; 32], now, [1; 16]);
    let name = "example.org".parse().unwrap();
    let authorization = keys.mint_authorization(&directory, &account, &name, &[0; 32], now, [1; 16]);
    vec![
        Resource::Directory,
        Resource::NewNonce,
        Resource::NewAccount,
        Resource::NewOrder,
        Resource::NewAuthorization,
        Resource::RevokeCertificate,
        Resource::KeyChange,
        Resource::AlternateCertificate(Serial::from_random([9; 16]), 1),
        Resource::AlternateCertificate(Serial::from_random([9; 16]), 255),
        Resource::Account(account),
        Resource::Orders(account),
        Resource::Order(order),
        Resource::Finalize(order),
        Resource::Authorization(authorization),
        Resource::Challenge(authorization, Method::Http01),
        Resource::Certificate(Serial::from_random([9; 16])),
        Resource::RenewalInfo("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".parse().unwrap()),
    ]
}

#[test]
fn what_is_built_is_read() {
    let directory: DirectoryName = "default".parse().unwrap();
    for base in bases() {
        for resource in resources() {
            let url = resource.url(&base, &directory);
            let located = Resource::parse(&bases(), &url).unwrap();
            assert_eq!(
                located,
                Located { base: base.clone(), directory: directory.clone(), resource },
                "{url}"
            );
            assert_eq!(located.url(), url);
        }
    }
}

#[test]
fn alternate_chains_have_one_number() {
    let serial = Serial::from_random([9; 16]);
    for number in ["0", "01", "+1", "-1", "256", "", "1 ", "x", "1/1"] {
        let path = format!("/acme/default/certificate/{serial}/{number}");
        assert_eq!(Resource::parse_path(&path), Err(UnknownUrl), "{number:?}");
    }
}

#[test]
fn nothing_is_normalised() {
    let good = "https://ca.example/acme/default/new-order";
    assert!(Resource::parse(&bases(), good).is_ok());
    for bad in [
        "",
        "/acme/default/new-order",
        "http://ca.example/acme/default/new-order",
        "HTTPS://ca.example/acme/default/new-order",
        "https://CA.example/acme/default/new-order",
        "https://ca.example:443/acme/default/new-order",
        "https://ca.example./acme/default/new-order",
        "https://ca.example.evil/acme/default/new-order",
        "https://ca.example@evil/acme/default/new-order",
        "https://evil/https://ca.example/acme/default/new-order",
        "https://ca.example//acme/default/new-order",
        "https://ca.example/acme//default/new-order",
        "https://ca.example/acme/default//new-order",
        "https://ca.example/acme/default/new-order/",
        "https://ca.example/acme/default/new-order?x=1",
        "https://ca.example/acme/default/new-order?",
        "https://ca.example/acme/default/new-order#x",
        "https://ca.example/acme/default/new%2dorder",
        "https://ca.example/acme/default/New-Order",
        "https://ca.example/acme/Default/new-order",
        "https://ca.example/acme/default/../default/new-order",
        "https://ca.example/acme/./default/new-order",
        "https://ca.example/acme/default/new-order ",
        " https://ca.example/acme/default/new-order",
        "https://ca.example/acme/default/new-order\n",
        "https://ca.example/acme/default/new-order\0",
        "https://ca.example/acme/default/neѡ-order",
        "https://ca.example/acme/default",
        "https://ca.example/acme/default/",
        "https://ca.example/acme/default/account/",
        "https://ca.example/acme/default/account/x",
        "https://ca.example/acme/default/certificate/ABCD",
        "https://ca.example/acme/default/unknown",
    ] {
        assert_eq!(Resource::parse(&bases(), bad), Err(UnknownUrl), "{bad:?}");
    }
    assert_eq!(Resource::parse(&[], good), Err(UnknownUrl));
}

#[test]
fn ids_stay_in_their_places() {
    let directory: DirectoryName = "default".parse().unwrap();
    let [.., order, _, authorization, challenge, certificate, _] = &resources()[..] else {
        panic!("resources")
    };
    let swap = |resource: &Resource, from: &str, to: &str| {
        Resource::parse_path(&resource.path(&directory).replace(from, to))
    };
    assert_eq!(swap(order, "/order/", "/authorization/"), Err(UnknownUrl));
    assert_eq!(swap(authorization, "/authorization/", "/order/"), Err(UnknownUrl));
    assert_eq!(swap(order, "/order/", "/account/"), Err(UnknownUrl));
    assert_eq!(swap(challenge, "http-01", "dns-99"), Err(UnknownUrl));
    assert_eq!(swap(challenge, "http-01", "http-01/x"), Err(UnknownUrl));
    assert!(swap(certificate, "/certificate/", "/certificate/").is_ok());
    let upper = certificate.path(&directory).to_uppercase();
    assert_eq!(Resource::parse_path(&upper), Err(UnknownUrl));
}

#[test]
fn base_urls_are_https_and_normal() {
    for good in ["https://ca.example", "https://127.0.0.1:14000", "https://ca.example/a/b"] {
        assert_eq!(good.parse::<BaseUrl>().unwrap().as_str(), good);
    }
    for bad in [
        "",
        "ca.example",
        "http://ca.example",
        "ftp://ca.example",
        "https://",
        "https://ca.example/",
        "https://ca.example/a/",
        "https://CA.example",
        "https://ca.example:443",
        "https://user@ca.example",
        "https://user:pw@ca.example",
        "https://ca.example?x",
        "https://ca.example#x",
        "https://ca.example/a?x",
        "https://ca.example/a?",
        "https://ca.example/a#x",
        "https://ca.example/a#",
        "https://ca.example/a/../b",
        "https://ca.example ",
        "https://ca.example/ä",
        "https://bücher.example",
    ] {
        assert_eq!(bad.parse::<BaseUrl>(), Err(BadBaseUrl), "{bad}");
    }
}

proptest! {
    /// Whatever is read is what would have been built.
    #[test]
    fn one_url_for_each_resource(
        base in 0_usize..4,
        directory in "[a-zA-Z0-9-]{1,6}",
        parts in proptest::collection::vec("account|order|orders|finalize|certificate|new-order|http-01|[0-9a-f]{2,8}|", 1..4),
        slash in any::<bool>(),
    ) {
        let url = format!("{}/acme/{directory}/{}{}", bases()[base], parts.join("/"), if slash { "/" } else { "" });
        if let Ok(located) = Resource::parse(&bases(), &url) {
            prop_assert_eq!(located.url(), url);
        }
    }

    #[test]
    fn one_url_for_each_serial(text in "[0-9a-fA-F]{0,44}") {
        let path = format!("/acme/default/certificate/{text}");
        if let Ok((directory, resource)) = Resource::parse_path(&path) {
            prop_assert_eq!(resource.path(&directory), path);
        }
    }
}
