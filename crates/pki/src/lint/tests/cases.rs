//! For each lint at least one certificate that breaks it, and what was done to a good one.

use super::*;

type Break = for<'f> fn(&mut Draft, &mut LintContext<'f>, &'f Fixture);

use Base::{Delta, Intermediate, Node, Private, Public, Responder, Root};

const SAN: ObjectIdentifier = oid::ID_CE_SUBJECT_ALT_NAME;
const KU: ObjectIdentifier = oid::ID_CE_KEY_USAGE;
const EKU: ObjectIdentifier = oid::ID_CE_EXT_KEY_USAGE;
const SKI: ObjectIdentifier = oid::ID_CE_SUBJECT_KEY_IDENTIFIER;
const AKI: ObjectIdentifier = oid::ID_CE_AUTHORITY_KEY_IDENTIFIER;
const BC: ObjectIdentifier = oid::ID_CE_BASIC_CONSTRAINTS;
const NC: ObjectIdentifier = oid::ID_CE_NAME_CONSTRAINTS;
const CDP: ObjectIdentifier = oid::ID_CE_CRL_DISTRIBUTION_POINTS;
const FRESHEST: ObjectIdentifier = oid::ID_CE_FRESHEST_CRL;
const AIA: ObjectIdentifier = oid::ID_PE_AUTHORITY_INFO_ACCESS;
const NOCHECK: ObjectIdentifier = const_oid::db::rfc6960::ID_PKIX_OCSP_NOCHECK;
const CP: ObjectIdentifier = oid::ID_CE_CERTIFICATE_POLICIES;
const MARK: ObjectIdentifier = crate::extension::TEST_CA;

/// id-kp-serverAuth, -clientAuth and -codeSigning as OBJECT IDENTIFIERs.
const SERVER: &str = "06082b06010505070301";
const CLIENT: &str = "06082b06010505070302";
const CODE: &str = "06082b06010505070303";
const OCSP: &str = "06082b06010505070309";
/// PolicyInformation of domain-validated, organization-validated, anyPolicy.
const DV: &str = "30080606 67810c010201";
const OV: &str = "30080606 67810c010202";
const ANY: &str = "3006 0604551d2000";

fn list(members: &[&str]) -> Vec<u8> {
    let members = hex_value(&members.concat());
    encode(|e| {
        e.sequence(|e| {
            e.raw(&members);
        });
    })
}

/// DistributionPoints, each with one URL.
pub(super) fn points(urls: &[&str]) -> Vec<u8> {
    encode(|e| {
        e.sequence(|e| {
            for url in urls {
                e.sequence(|e| crate::extension::distribution_point_name(e, url));
            }
        });
    })
}

/// One access description.
fn access(method: &ObjectIdentifier, url: &str) -> Vec<u8> {
    encode(|e| {
        e.sequence(|e| {
            e.sequence(|e| {
                e.oid(method).primitive(tag::context(6), url.as_bytes());
            });
        });
    })
}

fn organization(text: &str) -> Vec<u8> {
    encode(|e| {
        e.sequence(|e| {
            crate::distinguished_name::attribute(
                e,
                &const_oid::db::rfc4519::ORGANIZATION_NAME,
                tag::UTF8_STRING,
                text,
            );
        });
    })
}

fn days(days: u32) -> Timestamp {
    NOW.plus(Period::from_days(days))
}

pub(super) const CASES: &[(&str, Base, Break)] = &[
    // RFC 5280, fields
    ("rfc5280.der", Private, |d, _, _| d.writes_defaults = true),
    ("rfc5280.version", Private, |d, _, _| d.version = 1),
    ("rfc5280.serial_positive", Private, |d, _, _| d.serial = vec![0x80; 16]),
    ("rfc5280.serial_positive", Private, |d, _, _| d.serial = vec![0]),
    ("rfc5280.serial_length", Private, |d, _, _| d.serial = vec![0x11; 21]),
    // sha1WithRSAEncryption; RSA without NULL; ECDSA with NULL
    ("rfc5280.signature_algorithm", Private, |d, _, _| {
        d.signature = hex_value("300d06092a864886f70d0101050500")
    }),
    ("rfc5280.signature_algorithm", Private, |d, _, _| d.signature = hex_value("300b06092a864886f70d01010b")),
    ("rfc5280.signature_algorithm", Public, |d, _, _| {
        d.signature = hex_value("300c06082a8648ce3d0403020500")
    }),
    ("rfc5280.signature_fits_issuer", Private, |d, _, _| {
        d.signature = hex_value("300d06092a864886f70d01010b0500")
    }),
    ("rfc5280.signature_fits_issuer", Root, |d, _, _| d.signature = hex_value("300506032b6570")),
    ("rfc5280.issuer_not_empty", Private, |d, _, _| d.issuer = vec![0x30, 0]),
    ("rfc5280.issuer_is_issuers_subject", Private, |d, _, _| {
        d.issuer = common_name(tag::UTF8_STRING, "Other")
    }),
    ("rfc5280.issuer_is_issuers_subject", Root, |d, _, _| d.issuer = common_name(tag::UTF8_STRING, "Other")),
    ("rfc5280.issuer_is_issuers_subject", Intermediate, |_, c, _| c.issuer = None),
    ("rfc5280.name_strings", Private, |d, _, _| d.subject = common_name(0x14, "a.example")),
    ("rfc5280.name_strings", Private, |d, _, _| d.subject = common_name(0x16, "a.example")),
    ("rfc5280.name_strings", Private, |d, _, _| d.subject = common_name(tag::UTF8_STRING, "")),
    ("rfc5280.name_strings", Private, |d, _, _| d.subject = common_name(tag::UTF8_STRING, &"a".repeat(65))),
    ("rfc5280.validity_order", Private, |d, _, _| d.times.swap(0, 1)),
    ("rfc5280.validity_encoding", Private, |d, _, _| d.times[1] = b"\x18\x0f20270101000000Z".to_vec()),
    ("rfc5280.subject_of_ca_not_empty", Intermediate, |d, _, _| d.subject = vec![0x30, 0]),
    // Ed25519 with NULL; P-256 compressed
    ("rfc5280.subject_public_key", Private, |d, _, _| {
        d.spki = [hex_value("302c300706032b65700500032100"), vec![9; 32]].concat();
    }),
    ("rfc5280.subject_public_key", Public, |d, _, _| {
        d.spki = [hex_value("3039301306072a8648ce3d020106082a8648ce3d03010703220002"), vec![9; 32]].concat();
    }),
    ("rfc5280.unique_ids", Private, |d, _, _| d.unique_ids = hex_value("81020001")),
    ("rfc5280.extensions_present", Private, |d, _, _| d.extensions.clear()),
    // RFC 5280, extensions
    ("rfc5280.extensions_unique", Private, |d, _, _| d.extensions.push(d.extensions[0].clone())),
    ("rfc5280.extensions_known", Private, |d, _, _| d.push(oid::ID_CE_POLICY_MAPPINGS, true, &[0x30, 0])),
    ("rfc5280.extensions_known", Private, |d, _, _| {
        d.push(oid::ID_CE_SUBJECT_DIRECTORY_ATTRIBUTES, false, &[0x30, 0])
    }),
    // A named bit list with trailing zero bits; octets after the value; a default written out
    ("rfc5280.extensions_decode", Private, |d, _, _| d.set(KU, true, &[3, 2, 0, 0x80])),
    ("rfc5280.extensions_decode", Private, |d, _, _| d.set(KU, true, &[3, 2, 7, 0x80, 0])),
    ("rfc5280.extensions_decode", Private, |d, _, _| d.set(BC, true, &[0x30, 3, 1, 1, 0])),
    ("rfc5280.extensions_critical", Private, |d, _, _| d.critical(AKI, true)),
    ("rfc5280.extensions_critical", Private, |d, _, _| d.critical(SKI, true)),
    ("rfc5280.extensions_critical", Private, |d, _, _| d.critical(AIA, true)),
    ("rfc5280.authority_key_id_present", Private, |d, _, _| d.remove(AKI)),
    ("rfc5280.authority_key_id_present", Private, |d, _, _| d.set(AKI, false, &[0x30, 0])),
    ("rfc5280.authority_key_id_pair", Private, |d, _, f| {
        let id = hex::encode(f.private.issuer.key_id());
        d.set(AKI, false, &list(&["8014", &id, "820105"]));
    }),
    ("rfc5280.authority_key_id_matches", Private, |d, _, _| d.set(AKI, false, &hex_value("3003800101"))),
    ("rfc5280.authority_key_id_matches", Root, |d, _, _| d.set(AKI, false, &hex_value("3003800101"))),
    ("rfc5280.subject_key_id_of_ca", Intermediate, |d, _, _| d.remove(SKI)),
    ("rfc5280.key_usage_of_ca", Intermediate, |d, _, _| d.remove(KU)),
    ("rfc5280.key_usage_not_empty", Private, |d, _, _| d.set(KU, true, &[3, 1, 0])),
    ("rfc5280.key_cert_sign", Private, |d, _, _| d.set(KU, true, &[3, 2, 2, 0x84])),
    ("rfc5280.key_cert_sign", Intermediate, |d, _, _| d.set(KU, true, &[3, 2, 1, 2])),
    ("rfc5280.key_usage_fits_key", Private, |d, _, _| d.set(KU, true, &[3, 2, 5, 0xa0])),
    ("rfc5280.key_usage_fits_key", Private, |d, _, _| d.set(KU, true, &[3, 2, 3, 0x88])),
    ("rfc5280.key_usage_fits_key", Public, |d, _, _| d.set(KU, true, &[3, 2, 5, 0xa0])),
    ("rfc5280.key_usage_critical", Private, |d, _, _| d.critical(KU, false)),
    ("rfc5280.policies_unique", Public, |d, _, _| d.set(CP, false, &list(&[DV, DV]))),
    ("rfc5280.policies_unique", Public, |d, _, _| d.set(CP, false, &[0x30, 0])),
    ("rfc5280.alt_name_for_empty_subject", Private, |d, _, _| d.critical(SAN, false)),
    ("rfc5280.alt_name_for_empty_subject", Private, |d, _, _| d.remove(SAN)),
    ("rfc5280.alt_name_beside_subject", Private, |d, _, _| {
        d.subject = common_name(tag::UTF8_STRING, "a.example")
    }),
    ("rfc5280.alt_name_not_empty", Private, |d, _, _| d.names(&[])),
    ("rfc5280.alt_name_dns", Private, |d, _, _| d.names(&[(2, b"a_b.example")])),
    ("rfc5280.alt_name_dns", Private, |d, _, _| d.names(&[(2, b"a..example")])),
    ("rfc5280.alt_name_dns", Private, |d, _, _| d.names(&[(2, b"a.example.")])),
    ("rfc5280.alt_name_dns", Private, |d, _, _| d.names(&[(2, b"a.*.example")])),
    ("rfc5280.alt_name_dns", Private, |d, _, _| d.names(&[(2, b" ")])),
    ("rfc5280.alt_name_dns", Private, |d, _, _| d.names(&[(2, b"xn--99999999999.example")])),
    ("rfc5280.alt_name_dns", Private, |d, _, _| d.names(&[(2, &[b'a'; 64])])),
    ("rfc5280.alt_name_dns", Private, |d, _, _| d.names(&[(2, b"a.example\0.org")])),
    ("rfc5280.alt_name_ip", Private, |d, _, _| d.names(&[(7, &[1, 2, 3])])),
    ("rfc5280.alt_name_ip", Private, |d, _, _| d.names(&[(7, &[1; 8])])),
    ("rfc5280.alt_name_uri", Node, |d, _, _| d.names(&[(6, b"front/eu-1")])),
    ("rfc5280.alt_name_uri", Node, |d, _, _| d.names(&[(6, b"chancery:")])),
    ("rfc5280.ca_flag", Private, |d, _, _| d.set(BC, true, &[0x30, 3, 1, 1, 0xff])),
    ("rfc5280.ca_flag", Node, |d, _, _| d.set(BC, true, &[0x30, 3, 1, 1, 0xff])),
    ("rfc5280.ca_flag", Intermediate, |d, _, _| d.remove(BC)),
    ("rfc5280.ca_flag", Intermediate, |d, _, _| d.critical(BC, false)),
    ("rfc5280.path_length", Private, |d, _, _| d.set(BC, true, &[0x30, 3, 2, 1, 0])),
    ("rfc5280.path_length_of_issuer", Intermediate, |_, c, f| c.issuer = Some(&f.public.issuer)),
    ("rfc5280.name_constraints_of_ca", Private, |d, _, _| d.push(NC, true, &hex_value("3006a00430028200"))),
    ("rfc5280.name_constraints_of_ca", Intermediate, |d, _, _| d.push(NC, true, &[0x30, 0])),
    ("rfc5280.name_constraints_of_issuer", Private, |_, c, f| c.issuer = Some(&f.constrained)),
    ("rfc5280.name_constraints_of_issuer", Private, |d, c, f| {
        d.names(&[(2, b"a.constrained.example"), (7, &[192, 0, 2, 1])]);
        c.issuer = Some(&f.constrained);
    }),
    ("rfc5280.ext_key_usage", Private, |d, _, _| d.set(EKU, false, &[0x30, 0])),
    ("rfc5280.ext_key_usage", Private, |d, _, _| d.set(EKU, false, &list(&[SERVER, SERVER]))),
    ("rfc5280.crl_points", Private, |d, _, _| d.set(CDP, false, &[0x30, 0])),
    ("rfc5280.crl_points", Private, |d, _, _| d.set(CDP, false, &hex_value("30023000"))),
    ("rfc5280.crl_points", Private, |d, _, _| d.set(CDP, false, &points(&["ftp://a.example/"]))),
    ("rfc5280.authority_info_access", Private, |d, _, _| d.set(AIA, false, &[0x30, 0])),
    ("rfc5280.authority_info_access", Private, |d, _, _| {
        d.set(AIA, false, &access(&oid::ID_AD_OCSP, "http://"))
    }),
    ("rfc7633.tls_feature", Private, |d, _, _| d.push(view::TLS_FEATURE, false, &[0x30, 3, 2, 1, 17])),
    ("rfc7633.tls_feature", Private, |d, _, _| d.push(view::TLS_FEATURE, false, &[0x30, 0])),
    ("operator.test_ca", Private, |d, _, _| d.push(MARK, false, &[5, 0])),
    ("operator.test_ca", Node, |d, _, _| d.push(MARK, false, &[5, 0])),
    ("operator.test_ca", Responder, |d, _, _| d.push(MARK, false, &[5, 0])),
    ("operator.test_ca", Intermediate, |d, _, _| d.push(MARK, false, &[5, 0])),
    ("operator.test_ca", Intermediate, |_, c, f| c.issuer = Some(&f.marked.root)),
    ("rfc5280.extensions_critical", Root, |d, _, _| d.push(MARK, true, &[5, 0])),
    ("rfc5280.extensions_decode", Root, |d, _, _| d.push(MARK, false, &[4, 0])),
    // Baseline Requirements, subscribers
    ("cabf_br.serial", Public, |d, _, _| d.serial = vec![0x11; 7]),
    ("cabf_br.not_before", Public, |_, c, _| c.signed_at = days(3)),
    ("cabf_br.not_before", Public, |d, _, _| d.times[0] = time(days(3))),
    ("cabf_br.validity", Public, |d, _, _| d.times[1] = time(days(200))),
    ("cabf_br.signature_algorithm", Public, |d, _, _| d.signature = hex_value("300a06082a8648ce3d040303")),
    ("cabf_br.signature_algorithm", Private, |_, c, _| c.sets = &[LintSet::CabfBr]),
    ("cabf_br.subject_key", Public, |d, _, f| d.spki = f.private_key.spki_der().to_vec()),
    // RSA-2048 with exponent 3, RSA-1024, RSA-2049
    ("cabf_br.subject_key", Public, |d, _, _| d.spki = rsa(256, 0xc1, &[3])),
    ("cabf_br.subject_key", Public, |d, _, _| d.spki = rsa(128, 0xc1, &[1, 0, 1])),
    ("cabf_br.subject_key", Public, |d, _, _| d.spki = rsa(257, 0x01, &[1, 0, 1])),
    ("cabf_br.subject_attributes", Public, |d, _, _| d.subject = organization("Example")),
    ("cabf_br.subject_attributes", Public, |d, _, _| {
        d.subject = common_name(tag::UTF8_STRING, "other.example.com")
    }),
    ("cabf_br.subject_attributes", Public, |d, _, _| {
        d.subject = common_name(tag::UTF8_STRING, "Example.com")
    }),
    ("cabf_br.subject_attributes", Public, |d, _, _| {
        let one = common_name(tag::UTF8_STRING, "example.com");
        d.subject = list(&[&hex::encode(&one[2..]), &hex::encode(&one[2..])]);
    }),
    ("cabf_br.no_common_name", Public, |d, _, _| d.subject = common_name(tag::UTF8_STRING, "example.com")),
    ("cabf_br.key_usage", Public, |d, _, _| d.set(KU, true, &[3, 2, 6, 0xc0])),
    ("cabf_br.key_usage", Public, |d, _, _| d.set(KU, true, &[3, 2, 3, 0x08])),
    ("cabf_br.key_usage", Public, |d, _, _| d.critical(KU, false)),
    ("cabf_br.ext_key_usage", Public, |d, _, _| d.remove(EKU)),
    ("cabf_br.ext_key_usage", Public, |d, _, _| d.set(EKU, false, &list(&[CLIENT]))),
    ("cabf_br.ext_key_usage", Public, |d, _, _| d.set(EKU, false, &list(&[SERVER, CODE]))),
    ("cabf_br.ext_key_usage", Public, |d, _, _| d.critical(EKU, true)),
    ("cabf_br.client_auth", Public, |d, _, _| d.set(EKU, false, &list(&[SERVER, CLIENT]))),
    ("cabf_br.basic_constraints", Public, |d, _, _| d.critical(BC, false)),
    ("cabf_br.policies", Public, |d, _, _| d.remove(CP)),
    ("cabf_br.policies", Public, |d, _, _| d.set(CP, false, &list(&[OV]))),
    ("cabf_br.policies", Public, |d, _, _| d.set(CP, false, &list(&[DV, OV]))),
    ("cabf_br.policies", Public, |d, _, _| d.set(CP, false, &list(&[DV, ANY]))),
    ("cabf_br.policies", Public, |d, _, _| d.critical(CP, true)),
    ("cabf_br.policies", Public, |d, _, _| {
        // With a CPS qualifier.
        let qualifier = encode(|e| {
            e.sequence(|e| {
                e.sequence(|e| {
                    e.raw(&hex_value("060667810c010201"));
                    e.sequence(|e| {
                        e.sequence(|e| {
                            e.raw(&hex_value("06082b06010505070201"))
                                .primitive(0x16, b"http://a.example/cps");
                        });
                    });
                });
            });
        });
        d.set(CP, false, &qualifier);
    }),
    ("cabf_br.authority_key_id", Public, |d, _, f| {
        let id = hex::encode(f.public.issuer.key_id());
        d.set(AKI, false, &list(&["8014", &id, "a1058203612e62 820105"]));
    }),
    ("cabf_br.no_subject_key_id", Public, |d, _, _| d.push(SKI, false, &[4, 1, 1])),
    ("cabf_br.authority_info_access", Public, |d, _, _| {
        d.set(AIA, false, &access(&oid::ID_AD_CA_ISSUERS, "https://a.example/"))
    }),
    ("cabf_br.authority_info_access", Public, |d, _, _| {
        d.set(AIA, false, &access(&oid::ID_AD_TIME_STAMPING, "http://a.example/"))
    }),
    ("cabf_br.ca_issuers", Public, |d, _, _| d.remove(AIA)),
    ("cabf_br.crl_points", Public, |d, _, _| d.set(CDP, false, &points(&["ldap://a.example/"]))),
    ("cabf_br.crl_points", Public, |d, _, _| {
        d.set(CDP, false, &points(&["http://a.example/", "http://b.example/"]))
    }),
    ("cabf_br.crl_points", Public, |d, _, _| d.critical(CDP, true)),
    ("cabf_br.revocation_information", Public, |d, _, _| d.remove(CDP)),
    ("cabf_br.no_name_constraints", Public, |d, _, _| d.push(NC, true, &hex_value("3006a00430028200"))),
    // Baseline Requirements, names
    ("cabf_br.alt_name_present", Public, |d, _, _| d.remove(SAN)),
    ("cabf_br.alt_name_critical", Public, |d, _, _| d.critical(SAN, false)),
    ("cabf_br.alt_name_critical", Public, |d, _, _| d.subject = common_name(tag::UTF8_STRING, "example.com")),
    ("cabf_br.alt_name_kinds", Public, |d, _, _| d.names(&[(6, b"http://example.com/")])),
    ("cabf_br.alt_name_kinds", Public, |d, _, _| d.names(&[(1, b"a@example.com")])),
    ("cabf_br.dns_name_lower_case_ldh", Public, |d, _, _| d.names(&[(2, b"a_b.example.com")])),
    ("cabf_br.dns_name_lower_case_ldh", Public, |d, _, _| d.names(&[(2, b"Example.com")])),
    ("cabf_br.dns_name_lower_case_ldh", Public, |d, _, _| d.names(&[(2, b"example.com.")])),
    ("cabf_br.dns_name_lower_case_ldh", Public, |d, _, _| d.names(&[(2, b"w*.example.com")])),
    ("cabf_br.dns_name_reserved_label", Public, |d, _, _| d.names(&[(2, b"ab--cd.example.com")])),
    ("cabf_br.dns_name_a_label", Public, |d, _, _| d.names(&[(2, b"xn--a.example.com")])),
    ("cabf_br.dns_name_a_label", Public, |d, _, _| d.names(&[(2, b"xn--abc-.example.com")])),
    ("cabf_br.dns_name_public", Public, |d, _, _| d.names(&[(2, b"a.internal")])),
    ("cabf_br.dns_name_public", Public, |d, _, _| d.names(&[(2, b"localhost")])),
    ("cabf_br.dns_name_below_suffix", Public, |d, _, _| d.names(&[(2, b"*.co.uk")])),
    ("cabf_br.dns_name_below_suffix", Public, |d, _, _| d.names(&[(2, b"com")])),
    ("cabf_br.dns_name_below_suffix", Public, |d, _, _| d.names(&[(2, b"*.github.io")])),
    ("cabf_br.dns_name_below_suffix", Public, |d, _, _| d.names(&[(2, b"*.kawasaki.jp")])),
    ("cabf_br.dns_name_reserved_zone", Public, |d, _, _| d.names(&[(2, b"4.3.2.1.in-addr.arpa")])),
    ("cabf_br.dns_name_reserved_zone", Public, |d, _, _| d.names(&[(2, b"*.8.b.d.0.1.0.0.2.ip6.arpa")])),
    ("cabf_br.dns_name_reserved_zone", Public, |d, _, _| d.names(&[(2, b"abcdefghij.onion")])),
    ("cabf_br.ip_address_reserved", Public, |d, _, _| d.names(&[(7, &[10, 0, 0, 1])])),
    ("cabf_br.ip_address_reserved", Public, |d, _, _| d.names(&[(7, &[0; 16])])),
    // Baseline Requirements, CAs
    ("cabf_br.ca_subject", Root, |d, _, _| d.subject = common_name(tag::UTF8_STRING, "Root")),
    ("cabf_br.ca_subject", Intermediate, |d, _, _| d.subject = organization("Example")),
    ("cabf_br.ca_key_usage", Root, |d, _, _| d.critical(KU, false)),
    ("cabf_br.ca_key_usage", Intermediate, |d, _, _| d.set(KU, true, &[3, 2, 2, 4])),
    ("cabf_br.ca_key_usage", Intermediate, |d, _, _| d.set(KU, true, &[3, 2, 1, 0x46])),
    ("cabf_br.root_validity", Root, |d, _, _| d.times[1] = time(days(2900))),
    ("cabf_br.root_validity", Root, |d, _, _| d.times[1] = time(days(9133))),
    ("cabf_br.root_no_ext_key_usage", Root, |d, _, _| d.push(EKU, false, &list(&[SERVER]))),
    ("cabf_br.root_no_path_length", Root, |d, _, _| d.set(BC, true, &hex_value("30060101ff020101"))),
    ("cabf_br.ca_ext_key_usage", Intermediate, |d, _, _| d.remove(EKU)),
    ("cabf_br.ca_ext_key_usage", Intermediate, |d, _, _| d.set(EKU, false, &list(&[SERVER, CLIENT]))),
    ("cabf_br.ca_policies", Intermediate, |d, _, _| d.remove(CP)),
    ("cabf_br.ca_policies", Intermediate, |d, _, _| d.set(CP, false, &list(&[DV, ANY]))),
    ("cabf_br.ca_crl_points", Intermediate, |d, _, _| d.remove(CDP)),
    ("cabf_br.ca_serial", Root, |d, _, _| d.serial = vec![0x11; 8]),
    // Delta CRLs
    ("rfc5280.extensions_critical", Delta, |d, _, _| d.critical(FRESHEST, true)),
    ("rfc5280.freshest_crl", Delta, |d, _, _| d.remove(CDP)),
    ("rfc5280.freshest_crl", Delta, |d, _, _| d.set(FRESHEST, false, &points(&["https://a.example/"]))),
    ("rfc5280.freshest_crl", Delta, |d, _, _| d.set(FRESHEST, false, &points(&[]))),
    ("operator.freshest_crl", Delta, |d, _, _| d.remove(FRESHEST)),
    ("operator.freshest_crl", Delta, |d, _, _| {
        d.set(FRESHEST, false, &points(&["http://pki.example.net/crl/other/3.delta.crl"]))
    }),
    ("operator.freshest_crl", Private, |d, _, f| {
        let url = f.delta.delta_crl_url(3).unwrap();
        d.set(FRESHEST, false, &points(&[&url]));
    }),
    ("cabf_br.no_freshest_crl", Public, |d, _, _| d.set(FRESHEST, false, &points(&["http://a.example/"]))),
    // RFC 6960 and BR §7.1.2.8: OCSP responders
    ("rfc6960.responder_ext_key_usage", Responder, |d, _, _| d.remove(EKU)),
    ("rfc6960.responder_ext_key_usage", Responder, |d, _, _| d.set(EKU, false, &list(&[SERVER]))),
    ("rfc6960.ocsp_signing_only_for_responders", Private, |d, _, _| {
        d.set(EKU, false, &list(&[SERVER, OCSP]))
    }),
    ("rfc6960.ocsp_signing_only_for_responders", Node, |d, _, _| d.push(NOCHECK, false, &[5, 0])),
    ("rfc6960.responder_key_usage", Responder, |d, _, _| d.remove(KU)),
    ("rfc6960.responder_key_usage", Responder, |d, _, _| d.set(KU, true, &[3, 2, 6, 0x40])),
    ("rfc6960.responder_nocheck", Responder, |d, _, _| d.remove(NOCHECK)),
    ("rfc6960.responder_nocheck", Responder, |d, _, _| d.set(NOCHECK, false, &[])),
    ("rfc6960.responder_nocheck", Responder, |d, _, _| d.set(NOCHECK, false, &[0x30, 0])),
    ("rfc6960.responder_has_subject", Responder, |d, _, _| d.subject = vec![0x30, 0]),
    ("rfc5280.extensions_critical", Responder, |d, _, _| d.critical(NOCHECK, true)),
    ("rfc5280.ca_flag", Responder, |d, _, _| d.set(BC, true, &[0x30, 3, 1, 1, 0xff])),
    ("cabf_br.responder_subject", Responder, |d, _, _| d.subject = common_name(0x0c, "OCSP")),
    ("cabf_br.responder_not_before", Responder, |d, _, _| {
        d.times[0] = time(NOW.minus(Period::from_hours(25)))
    }),
    ("cabf_br.responder_not_before", Responder, |d, _, _| {
        d.times[0] = time(NOW.plus(Period::from_seconds(1)))
    }),
    ("cabf_br.responder_ext_key_usage", Responder, |d, _, _| d.set(EKU, false, &list(&[OCSP, SERVER]))),
    ("cabf_br.responder_key_usage", Responder, |d, _, _| d.set(KU, true, &[3, 2, 6, 0xc0])),
    ("cabf_br.responder_key_usage", Responder, |d, _, _| d.critical(KU, false)),
    ("cabf_br.responder_no_extension", Responder, |d, _, _| {
        d.push(CDP, false, &points(&["http://a.example/"]))
    }),
    ("cabf_br.responder_no_extension", Responder, |d, _, _| d.push(CP, false, &list(&[ANY]))),
    ("cabf_br.responder_no_extension", Responder, |d, _, _| d.names(&[(2, b"ocsp.example")])),
    ("cabf_br.responder_no_authority_info_access", Responder, |d, _, _| {
        d.push(AIA, false, &access(&oid::ID_AD_CA_ISSUERS, "http://pki.example.net/"))
    }),
    // The operator's
    ("operator.maximum_validity", Private, |_, c, _| c.maximum_validity = Some(Period::from_days(89))),
    ("operator.name_suffixes", Private, |_, c, f| c.name_suffixes = &f.suffixes),
    ("operator.not_expired", Private, |_, c, _| c.signed_at = days(90)),
    ("operator.within_issuer", Private, |d, _, _| d.times[1] = time(days(3651))),
    ("operator.within_issuer", Private, |d, _, _| d.times[0] = time(NOW.minus(Period::from_hours(2)))),
    ("operator.issuers_key", Private, |d, _, f| {
        d.spki = f.private.issuer.certificate().public_key().spki_der().to_vec()
    }),
    ("operator.serial", Private, |d, _, _| d.serial[5] ^= 1),
    ("operator.names", Private, |d, _, _| {
        d.names(&[(2, b"a.example"), (2, b"*.b.example"), (7, &[192, 0, 2, 1])])
    }),
    ("operator.names", Private, |d, _, _| {
        let v6 = "2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets();
        d.names(&[(2, b"a.example"), (2, b"*.b.example"), (7, &[192, 0, 2, 1]), (7, &v6)]);
    }),
    ("operator.names", Private, |d, _, _| d.names(&[(6, b"chancery://signer/x")])),
    ("operator.public_key", Private, |d, _, _| d.spki = Key::fixed(10).public().spki_der().to_vec()),
    ("operator.validity", Private, |d, _, _| d.times[1] = time(days(80))),
    ("operator.issuer_urls", Private, |d, _, _| {
        d.set(CDP, false, &points(&["http://pki.example.net/crl/other/3.crl"]))
    }),
    ("operator.issuer_urls", Private, |d, _, _| {
        d.set(AIA, false, &access(&oid::ID_AD_OCSP, "http://pki.example.net/"))
    }),
    ("operator.node_uri", Private, |d, _, _| d.names(&[(6, b"chancery://signer/x")])),
    ("operator.node_uri", Node, |d, _, _| d.names(&[(2, b"front.internal")])),
    ("operator.node_uri", Node, |d, _, _| {
        d.names(&[(6, b"chancery://signer/x"), (6, b"chancery://front/x")])
    }),
];

fn rsa(octets: usize, first: u8, exponent: &[u8]) -> Vec<u8> {
    let mut modulus = vec![0xff; octets];
    modulus[0] = first;
    let key = encode(|e| {
        e.sequence(|e| {
            e.unsigned(&modulus).unsigned(exponent);
        });
    });
    encode(|e| {
        e.sequence(|e| {
            e.raw(&hex_value("300d06092a864886f70d0101010500")).bit_string(&key);
        });
    })
}
