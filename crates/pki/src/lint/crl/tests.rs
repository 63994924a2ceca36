use super::*;
use crate::{
    KeyAlgorithm, Period, Reason, Serial,
    crl::{CrlParameters, CrlScope, CrlWriter, Entry},
    decode,
    encode::{encode, tag},
    lint::stops,
    testing::{Hierarchy, NOW},
};
use proptest::prelude::*;

/// A TBSCertList taken apart.
struct Draft {
    version: Vec<u8>,
    signature: Vec<u8>,
    issuer: Vec<u8>,
    times: Vec<Vec<u8>>,
    entries: Option<Vec<Vec<u8>>>,
    extensions: Vec<(ObjectIdentifier, bool, Vec<u8>)>,
}

impl Draft {
    fn of(tbs: &[u8]) -> Self {
        decode::sequence(tbs, |reader| {
            let version = reader.tlv_bytes()?.to_vec();
            let signature = reader.tlv_bytes()?.to_vec();
            let issuer = reader.tlv_bytes()?.to_vec();
            let times = vec![reader.tlv_bytes()?.to_vec(), reader.tlv_bytes()?.to_vec()];
            let mut entries = Vec::new();
            reader.sequence(|reader| {
                while !reader.is_finished() {
                    entries.push(reader.tlv_bytes()?.to_vec());
                }
                Ok::<_, der::Error>(())
            })?;
            let extensions = decode::context(reader, 0, decode::extensions)?.unwrap();
            let extensions = extensions.iter().map(|e| (e.oid, e.critical, e.value.to_vec())).collect();
            Ok(Self { version, signature, issuer, times, entries: Some(entries), extensions })
        })
        .unwrap()
    }

    fn der(&self) -> Vec<u8> {
        encode(|e| {
            e.sequence(|e| {
                e.raw(&self.version).raw(&self.signature).raw(&self.issuer).raw(&self.times.concat());
                if let Some(entries) = &self.entries {
                    e.sequence(|e| {
                        e.raw(&entries.concat());
                    });
                }
                e.nested(tag::context_constructed(0), |e| {
                    e.sequence(|e| {
                        for (id, critical, value) in &self.extensions {
                            crate::extension::extension(e, id, *critical, |e| {
                                e.raw(value);
                            });
                        }
                    });
                });
            });
        })
    }

    fn set(&mut self, id: ObjectIdentifier, value: &str) {
        let value = hex::decode(value.replace(' ', "")).unwrap();
        self.extensions.iter_mut().find(|(other, ..)| *other == id).unwrap().2 = value;
    }

    fn remove(&mut self, id: ObjectIdentifier) {
        self.extensions.retain(|(other, ..)| *other != id);
    }

    fn critical(&mut self, id: ObjectIdentifier, critical: bool) {
        self.extensions.iter_mut().find(|(other, ..)| *other == id).unwrap().1 = critical;
    }

    /// One more entry, from its fields in hexadecimal.
    fn entry(&mut self, fields: &str) {
        let fields = hex::decode(fields.replace(' ', "")).unwrap();
        let entry = encode(|e| {
            e.sequence(|e| {
                e.raw(&fields);
            });
        });
        self.entries.get_or_insert_default().push(entry);
    }
}

struct Fixture {
    hierarchy: Hierarchy,
    url: String,
    tbs: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let hierarchy = Hierarchy::generate(KeyAlgorithm::EcdsaP256);
        let parameters = CrlParameters {
            issuer: &hierarchy.issuer,
            number: 7,
            this_update: NOW,
            next_update: NOW.plus(Period::from_days(4)),
            scope: CrlScope::Shard(3),
            delta_base: None,
        };
        let entries = [Reason::Unspecified, Reason::KeyCompromise, Reason::Superseded].map(|reason| Entry {
            serial: Serial::from_random([reason.code(); 16]),
            revoked_at: NOW,
            reason,
        });
        let mut writer = CrlWriter::start(&parameters, entries.iter().collect(), Vec::new()).unwrap();
        entries.iter().for_each(|entry| writer.entry(entry).unwrap());
        let (tbs, _) = writer.finish().unwrap();
        Self { url: hierarchy.issuer.crl_url(3).unwrap(), tbs, hierarchy }
    }

    fn context(&self) -> CrlLintContext<'_> {
        CrlLintContext {
            issuer: self.hierarchy.issuer.certificate(),
            signed_at: NOW,
            url: Some(&self.url),
            delta_url: None,
            previous_number: Some(6),
            publicly_trusted: true,
        }
    }
}

type Break = for<'f> fn(&mut Draft, &mut CrlLintContext<'f>, &'f Fixture);

const AKI: ObjectIdentifier = oid::ID_CE_AUTHORITY_KEY_IDENTIFIER;
const NUMBER: ObjectIdentifier = oid::ID_CE_CRL_NUMBER;
const IDP: ObjectIdentifier = oid::ID_CE_ISSUING_DISTRIBUTION_POINT;
const DELTA: ObjectIdentifier = oid::ID_CE_DELTA_CRL_INDICATOR;

const FRESHEST: ObjectIdentifier = oid::ID_CE_FRESHEST_CRL;

/// One distribution point with one URL.
fn points(url: &str) -> Vec<u8> {
    encode(|e| {
        e.sequence(|e| {
            e.sequence(|e| crate::extension::distribution_point_name(e, url));
        });
    })
}

/// A good serial number and date, and the start of the extensions of a reason.
const ENTRY: &str = "020101 170d3236313132343131303030305a";
const REASON: &str = "300c 300a 0603551d15 0403 0a01";

const CASES: &[(&str, Break)] = &[
    ("rfc5280.crl_version", |d, _, _| d.version = vec![2, 1, 0]),
    ("rfc5280.crl_version", |d, _, _| d.version = Vec::new()),
    ("rfc5280.crl_signature_algorithm", |d, _, _| d.signature = hex::decode("300506032b6570").unwrap()),
    ("rfc5280.crl_signature_algorithm", |d, _, _| {
        d.signature = hex::decode("300906072a8648ce3d0401").unwrap()
    }),
    ("rfc5280.crl_issuer", |_, c, f| c.issuer = f.hierarchy.root.certificate()),
    ("rfc5280.crl_next_update", |d, _, _| {
        d.times.pop();
    }),
    ("rfc5280.crl_next_update", |d, _, _| d.times.swap(0, 1)),
    ("rfc5280.crl_time_encoding", |d, _, _| d.times[0] = b"\x18\x0f20261124110000Z".to_vec()),
    ("rfc5280.crl_empty_list", |d, _, _| d.entries = Some(Vec::new())),
    ("rfc5280.crl_extensions_known", |d, _, _| {
        d.extensions.push((oid::ID_PE_AUTHORITY_INFO_ACCESS, false, vec![0x30, 0]))
    }),
    ("rfc5280.crl_extensions_unique", |d, _, _| d.extensions.push(d.extensions[0].clone())),
    ("rfc5280.crl_extensions_decode", |d, _, _| d.set(NUMBER, "0201ff")),
    ("rfc5280.crl_extensions_decode", |d, _, _| d.set(NUMBER, "02020007")),
    ("rfc5280.crl_extensions_decode", |d, _, _| d.set(IDP, "3003 820100")),
    ("rfc5280.crl_extensions_critical", |d, _, _| d.critical(IDP, false)),
    ("rfc5280.crl_extensions_critical", |d, _, _| d.critical(NUMBER, true)),
    ("rfc5280.crl_authority_key_id", |d, _, _| d.remove(AKI)),
    ("rfc5280.crl_authority_key_id", |d, _, _| d.set(AKI, "3003 800101")),
    ("rfc5280.crl_authority_key_id", |_, c, f| c.issuer = f.hierarchy.root.certificate()),
    ("rfc5280.crl_number", |d, _, _| d.remove(NUMBER)),
    ("rfc5280.crl_number", |d, _, _| d.set(NUMBER, "0215 010000000000000000000000000000000000000000")),
    ("rfc5280.crl_number_rises", |_, c, _| c.previous_number = Some(7)),
    ("rfc5280.crl_number_rises", |_, c, _| c.previous_number = Some(256)),
    ("rfc5280.crl_delta_base", |d, _, _| d.extensions.push((DELTA, true, vec![2, 1, 7]))),
    ("rfc5280.crl_scope", |d, _, _| d.set(IDP, "3006 8101ff 8201ff")),
    ("rfc5280.crl_scope", |d, _, _| d.set(IDP, "3006 8101ff 8401ff")),
    ("rfc5280.crl_scope", |d, _, _| d.set(IDP, "3003 8501ff")),
    ("rfc5280.crl_scope", |d, _, _| d.set(IDP, "3000")),
    ("rfc5280.crl_scope_is_the_certificates", |_, c, _| c.url = Some("http://pki.example.net/other.crl")),
    ("rfc5280.crl_scope_is_the_certificates", |_, c, _| c.url = None),
    ("rfc5280.crl_scope_is_the_certificates", |d, _, _| d.remove(IDP)),
    // None, another, one where none is expected, in a delta, an empty list, with reasons
    ("rfc5280.crl_freshest", |_, c, _| c.delta_url = Some("http://a.example/3.delta.crl")),
    ("rfc5280.crl_freshest", |d, c, _| {
        d.extensions.push((FRESHEST, false, points("http://a.example/")));
        c.delta_url = Some("http://a.example/3.delta.crl");
    }),
    ("rfc5280.crl_freshest", |d, _, _| d.extensions.push((FRESHEST, false, points("http://a.example/")))),
    ("rfc5280.crl_freshest", |d, c, _| {
        d.extensions.push((FRESHEST, false, points("http://a.example/")));
        d.extensions.push((DELTA, true, vec![2, 1, 5]));
        c.delta_url = Some("http://a.example/");
    }),
    ("rfc5280.crl_freshest", |d, _, _| d.extensions.push((FRESHEST, false, vec![0x30, 0]))),
    ("rfc5280.crl_freshest", |d, c, _| {
        let reasons = "3017 3015 a00f a00d 860b 687474703a2f2f612e6578 8102 0640";
        d.extensions.push((FRESHEST, false, hex::decode(reasons.replace(' ', "")).unwrap()));
        c.delta_url = Some("http://a.ex");
    }),
    ("rfc5280.crl_extensions_critical", |d, c, _| {
        d.extensions.push((FRESHEST, true, points("http://a.example/")));
        c.delta_url = Some("http://a.example/");
    }),
    ("operator.crl_this_update", |_, c, _| c.signed_at = NOW.minus(Period::from_seconds(1))),
    ("operator.crl_this_update", |_, c, _| c.signed_at = NOW.plus(Period::from_days(4))),
    ("cabf_br.crl_signature_algorithm", |d, _, _| {
        d.signature = hex::decode("300a06082a8648ce3d040303").unwrap();
    }),
    ("cabf_br.crl_next_update", |d, _, _| d.times[1] = b"\x17\x0d261204120001Z".to_vec()),
    ("cabf_br.crl_scope", |d, c, _| {
        d.set(IDP, "3006 a004 a002 8600");
        c.url = Some("");
    }),
    ("rfc5280.crl_entry_decodes", |d, _, _| d.entry("")),
    ("rfc5280.crl_entry_decodes", |d, _, _| d.entry(&format!("{ENTRY} {REASON}01 00"))),
    ("rfc5280.crl_entry_extensions", |d, _, _| {
        d.entry(&format!("{ENTRY} 300f 300d 0603551d15 010100 0403 0a0101"))
    }),
    ("rfc5280.crl_entry_extensions", |d, _, _| d.entry(&format!("{ENTRY} 3002 3000"))),
    ("rfc5280.crl_entry_serial", |d, _, _| d.entry("020100 170d3236313132343131303030305a")),
    ("rfc5280.crl_entry_serial", |d, _, _| d.entry("0201ff 170d3236313132343131303030305a")),
    ("rfc5280.crl_entry_serial", |d, _, _| {
        d.entry(&format!("0215{} 170d3236313132343131303030305a", "11".repeat(21)))
    }),
    ("rfc5280.crl_entry_time", |d, _, _| d.entry("020101 170d3236313132343132303030315a")),
    ("rfc5280.crl_entry_time", |d, _, _| d.entry("020101 180f32303236313132343131303030305a")),
    ("rfc5280.crl_entry_extensions", |d, _, _| d.entry(&format!("{ENTRY} 3000"))),
    // Critical; invalidityDate; certificateIssuer
    ("rfc5280.crl_entry_extensions", |d, _, _| {
        d.entry(&format!("{ENTRY} 300f 300d 0603551d15 0101ff 0403 0a0101"))
    }),
    ("rfc5280.crl_entry_extensions", |d, _, _| d.entry(&format!("{ENTRY} 3009 3007 0603551d18 0400"))),
    ("rfc5280.crl_entry_extensions", |d, _, _| d.entry(&format!("{ENTRY} 300c 300a 0603551d1d 0101ff 0400"))),
    // unspecified, certificateHold, 7, removeFromCRL outside of a delta and in one, 11, an INTEGER
    ("rfc5280.crl_entry_reason", |d, _, _| d.entry(&format!("{ENTRY} {REASON}00"))),
    ("rfc5280.crl_entry_reason", |d, _, _| d.entry(&format!("{ENTRY} {REASON}06"))),
    ("rfc5280.crl_entry_reason", |d, _, _| d.entry(&format!("{ENTRY} {REASON}07"))),
    ("rfc5280.crl_entry_reason", |d, _, _| d.entry(&format!("{ENTRY} {REASON}08"))),
    ("rfc5280.crl_entry_reason", |d, _, _| {
        d.extensions.push((DELTA, true, vec![2, 1, 5]));
        d.entry(&format!("{ENTRY} {REASON}08"));
    }),
    ("rfc5280.crl_entry_reason", |d, _, _| d.entry(&format!("{ENTRY} {REASON}0b"))),
    ("rfc5280.crl_entry_reason", |d, _, _| d.entry(&format!("{ENTRY} 300c 300a 0603551d15 0403 020101"))),
    ("cabf_br.crl_entry_reason", |d, _, _| d.entry(&format!("{ENTRY} {REASON}02"))),
    ("cabf_br.crl_entry_reason", |d, _, _| d.entry(&format!("{ENTRY} {REASON}0a"))),
];

#[test]
fn a_good_crl_has_no_findings() {
    let fixture = Fixture::new();
    assert_eq!(check_crl(&fixture.tbs, &fixture.context()), []);
    assert_eq!(Draft::of(&fixture.tbs).der(), fixture.tbs, "the draft itself changes nothing");
}

#[test]
fn k2_k4_every_broken_crl_is_found_out_by_the_lint_it_breaks() {
    let fixture = Fixture::new();
    for (index, (lint, breaks)) in CASES.iter().enumerate() {
        let (mut draft, mut context) = (Draft::of(&fixture.tbs), fixture.context());
        breaks(&mut draft, &mut context, &fixture);
        let findings = check_crl(&draft.der(), &context);
        assert!(findings.iter().any(|finding| finding.lint == *lint), "case {index}, {lint}: {findings:#?}");
    }
}

#[test]
fn every_lint_has_a_case() {
    let names =
        RULES.iter().map(|rule| rule.name).chain(entries::names()).chain(["rfc5280.crl_entry_decodes"]);
    for name in names {
        assert!(CASES.iter().any(|(lint, _)| *lint == name), "{name} has no case");
    }
}

#[test]
fn private_crls_do_not_follow_the_baseline_requirements() {
    let fixture = Fixture::new();
    let mut draft = Draft::of(&fixture.tbs);
    draft.entry(&format!("{ENTRY} {REASON}0a"));
    draft.times[1] = b"\x17\x0d271204120001Z".to_vec();
    let context = CrlLintContext { publicly_trusted: false, ..fixture.context() };
    assert_eq!(check_crl(&draft.der(), &context), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Entries apart, whose serial numbers and times the lints cannot know, no bit can change.
    #[test]
    fn any_changed_bit_of_the_rest_is_found(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        FIXTURE.with(|fixture| {
            let mut draft = Draft::of(&fixture.tbs);
            draft.entries = None;
            let good = draft.der();
            let mut changed = good.clone();
            let at = at.index(good.len());
            changed[at] ^= 1 << bit;
            // thisUpdate may be earlier, nextUpdate later or earlier, the number higher.
            let free = [draft.times.concat(), hex::decode("020107").unwrap()];
            let is_free = free.iter().any(|part| {
                let start = good.windows(part.len()).position(|window| window == &part[..]).unwrap();
                (start..start + part.len()).contains(&at)
            });
            prop_assert!(is_free || stops(&check_crl(&changed, &fixture.context())), "octet {}", at);
            Ok(())
        })?;
    }
}

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
}
