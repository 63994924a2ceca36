use super::*;
use crate::{
    KeyAlgorithm, Period, Reason, Serial,
    encode::{encode, tag},
    extension::extension,
    lint::stops,
    ocsp::{CertIdHash, CertStatus, IssuerHashes, Single, response_data},
    tbs::{self, ResponderRequest},
    testing::{Hierarchy, Key, NOW, validity},
};
use proptest::prelude::*;

/// A ResponseData taken apart: whole values, tags and all.
struct Draft {
    version: Vec<u8>,
    responder: Vec<u8>,
    produced_at: Vec<u8>,
    singles: Vec<SingleDraft>,
    extensions: Vec<(ObjectIdentifier, bool, Vec<u8>)>,
}

struct SingleDraft {
    id: Vec<u8>,
    status: Vec<u8>,
    this_update: Vec<u8>,
    next_update: Vec<u8>,
    extensions: Vec<(ObjectIdentifier, bool, Vec<u8>)>,
}

fn generalized(at: Timestamp) -> Vec<u8> {
    encode(|e| at.encode_generalized(e))
}

fn hex_value(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

impl Draft {
    fn of(data: &[u8]) -> Self {
        let view = OcspView::from_der(data).unwrap();
        let list = |list: &Option<Vec<Extension>>| {
            let octets = |e: &Extension| (e.extn_id, e.critical, e.extn_value.as_bytes().to_vec());
            list.iter().flatten().map(octets).collect::<Vec<_>>()
        };
        let singles = view.responses.iter().map(|single| SingleDraft {
            id: single.cert_id.to_der().unwrap(),
            status: single.status.to_der().unwrap(),
            this_update: single.this_update.to_der().unwrap(),
            next_update: single.next_update.unwrap().to_der().unwrap(),
            extensions: list(&single.extensions),
        });
        Self {
            version: Vec::new(),
            responder: view.responder_id.to_der().unwrap(),
            produced_at: view.produced_at.to_der().unwrap(),
            singles: singles.collect(),
            extensions: list(&view.extensions),
        }
    }

    fn der(&self) -> Vec<u8> {
        let explicit = |e: &mut crate::encode::Encoder, number, value: &[u8]| {
            if !value.is_empty() {
                e.nested(tag::context_constructed(number), |e| {
                    e.raw(value);
                });
            }
        };
        let extensions = |list: &[(ObjectIdentifier, bool, Vec<u8>)]| {
            let all = |e: &mut crate::encode::Encoder| {
                for (id, critical, value) in list {
                    extension(e, id, *critical, |e| {
                        e.raw(value);
                    });
                }
            };
            let sequence = |e: &mut crate::encode::Encoder| {
                e.sequence(all);
            };
            if list.is_empty() { Vec::new() } else { encode(sequence) }
        };
        encode(|e| {
            e.sequence(|e| {
                e.raw(&self.version).raw(&self.responder).raw(&self.produced_at);
                e.sequence(|e| {
                    for single in &self.singles {
                        e.sequence(|e| {
                            e.raw(&single.id).raw(&single.status).raw(&single.this_update);
                            explicit(e, 0, &single.next_update);
                            explicit(e, 1, &extensions(&single.extensions));
                        });
                    }
                });
                explicit(e, 1, &extensions(&self.extensions));
            });
        })
    }
}

struct Fixture {
    hierarchy: Hierarchy,
    responder: Certificate,
    /// Of the same issuer, but nobody's responder.
    node: Certificate,
    asked: Vec<CertId>,
    one: Vec<CertId>,
    data: Vec<u8>,
}

const NONCE: [u8; 32] = [0x5a; 32];

impl Fixture {
    fn new() -> Self {
        let hierarchy = Hierarchy::generate(KeyAlgorithm::EcdsaP256);
        let key = Key::fixed(3).public();
        let request = ResponderRequest {
            serial: Serial::from_random([0x44; 16]),
            common_name: "OCSP E1",
            public_key: &key,
            validity: validity(3),
        };
        let responder = hierarchy.key.certify(&tbs::responder(&hierarchy.issuer, request).unwrap());
        let identity = crate::NodeIdentity::new("status", "eu-1").unwrap();
        let request = tbs::NodeRequest {
            serial: Serial::from_random([0x45; 16]),
            identity: &identity,
            names: None,
            public_key: &key,
            validity: validity(3),
        };
        let node = hierarchy.key.certify(&tbs::node(&hierarchy.issuer, request).unwrap());
        let hashes = IssuerHashes::of(hierarchy.issuer.certificate());
        let asked: Vec<_> = [CertIdHash::Sha1, CertIdHash::Sha256, CertIdHash::Sha1]
            .into_iter()
            .zip(1..)
            .map(|(hash, n)| CertId::new(hash, &hashes, &Serial::from_random([n; 16])))
            .collect();
        let at = NOW.minus(Period::from_days(1));
        let statuses = [
            CertStatus::Good,
            CertStatus::Revoked { at, reason: Reason::KeyCompromise },
            CertStatus::Unknown,
        ];
        let singles: Vec<_> = (asked.iter().zip(statuses))
            .map(|(id, status)| Single {
                id,
                status,
                this_update: NOW.minus(Period::from_seconds(1)),
                next_update: NOW.plus(Period::from_days(2)),
                archive_cutoff: Some(NOW.minus(Period::from_days(400))),
            })
            .collect();
        let data = response_data(&key, NOW, &singles, Some(&NONCE));
        Self { one: asked[..1].to_vec(), hierarchy, responder, node, asked, data }
    }

    fn context(&self) -> OcspLintContext<'_> {
        OcspLintContext {
            issuer: self.hierarchy.issuer.certificate(),
            responder: &self.responder,
            signed_at: NOW,
            asked: &self.asked,
            nonce: Some(&NONCE),
            publicly_trusted: true,
        }
    }
}

type Break = for<'f> fn(&mut Draft, &mut OcspLintContext<'f>, &'f Fixture);

/// Seconds before (negative) or after [`NOW`], as GeneralizedTime.
fn at(seconds: i64) -> Vec<u8> {
    let period = Period::from_seconds(seconds.unsigned_abs());
    generalized(if seconds < 0 { NOW.minus(period) } else { NOW.plus(period) })
}

const CUTOFF: ObjectIdentifier = rfc6960::ID_PKIX_OCSP_ARCHIVE_CUTOFF;
const DAY: i64 = 86_400;

/// `revoked [1]` at noon of the day before, with this reason.
fn revoked_for(reason: &str) -> Vec<u8> {
    hex_value(&format!("a116 180f {} a003 0a01 {reason}", hex::encode("20261123120000Z")))
}

const CASES: &[(&str, Break)] = &[
    ("rfc6960.ocsp_decodes", |d, _, _| d.produced_at = b"\x17\x0d261124120000Z".to_vec()),
    ("rfc6960.ocsp_decodes", |d, _, _| d.singles[0].status = vec![0x83, 0]),
    ("rfc6960.ocsp_decodes", |d, _, _| d.singles[0].status = vec![0x80, 1, 0]),
    ("rfc6960.ocsp_decodes", |d, _, _| d.singles[1].status = revoked_for("07")),
    ("rfc6960.ocsp_der", |d, _, _| d.version = hex_value("a003 020100")),
    ("rfc6960.ocsp_version", |d, _, _| d.version = hex_value("a003 020101")),
    ("rfc6960.ocsp_responder_id", |d, _, _| d.responder[10] ^= 1),
    ("rfc6960.ocsp_responder_id", |d, _, f| {
        d.responder = [&[0xa1, 46][..], f.responder.subject_der()].concat();
        d.responder[1] = u8::try_from(f.responder.subject_der().len()).unwrap();
    }),
    ("rfc6960.ocsp_delegated", |_, c, f| c.responder = &f.node),
    ("rfc6960.ocsp_delegated", |_, c, f| c.responder = f.hierarchy.issuer.certificate()),
    ("rfc6960.ocsp_delegated", |_, c, f| c.issuer = f.hierarchy.root.certificate()),
    ("rfc6960.ocsp_delegated", |_, c, _| c.signed_at = NOW.plus(Period::from_days(3))),
    ("rfc6960.ocsp_cert_ids", |_, c, f| c.asked = &f.one),
    ("rfc6960.ocsp_cert_ids", |d, _, _| d.singles.swap(0, 2)),
    ("rfc6960.ocsp_cert_ids", |d, _, _| d.singles.truncate(2)),
    ("rfc6960.ocsp_cert_ids", |d, c, _| {
        d.singles.clear();
        c.asked = &[];
    }),
    // The same certificate, but without the NULL of the request.
    ("rfc6960.ocsp_cert_ids", |d, _, _| {
        let id = &mut d.singles[0].id;
        id.drain(11..13);
        (id[1], id[3]) = (id[1] - 2, id[3] - 2);
    }),
    ("rfc6960.ocsp_issuer", |_, c, f| c.issuer = f.hierarchy.root.certificate()),
    ("rfc6960.ocsp_issuer", |d, _, _| d.singles[2].id[20] ^= 1),
    ("rfc6960.ocsp_times", |d, _, _| d.produced_at = at(1)),
    ("rfc6960.ocsp_times", |d, _, _| d.produced_at = at(-2)),
    ("rfc6960.ocsp_times", |d, _, _| d.singles[0].next_update = at(0)),
    ("rfc6960.ocsp_times", |d, _, _| d.singles[2].next_update = at(-DAY)),
    ("rfc6960.ocsp_revoked_at", |d, _, _| {
        d.singles[1].status = [&[0xa1, 17][..], &at(0)].concat();
    }),
    ("rfc6960.ocsp_reason", |d, _, _| d.singles[1].status = revoked_for("00")),
    ("rfc6960.ocsp_reason", |d, _, _| d.singles[1].status = revoked_for("06")),
    ("rfc6960.ocsp_reason", |d, _, _| d.singles[1].status = revoked_for("08")),
    // A reasonCode; two; critical; a nonce in the wrong place.
    ("rfc6960.ocsp_extensions", |d, _, _| {
        d.singles[0].extensions = vec![(const_oid::db::rfc5280::ID_CE_CRL_REASONS, false, vec![0x0a, 1, 1])];
    }),
    ("rfc6960.ocsp_extensions", |d, _, _| {
        let twice = d.singles[0].extensions[0].clone();
        d.singles[0].extensions.push(twice);
    }),
    ("rfc6960.ocsp_extensions", |d, _, _| d.singles[0].extensions[0].1 = true),
    ("rfc6960.ocsp_extensions", |d, _, _| d.extensions[0].1 = true),
    ("rfc6960.ocsp_extensions", |d, _, _| d.singles[0].extensions = d.extensions.clone()),
    ("rfc6960.ocsp_archive_cutoff", |d, _, _| d.singles[0].extensions[0].2 = at(1)),
    ("rfc6960.ocsp_archive_cutoff", |d, _, _| {
        d.singles[0].extensions = vec![(CUTOFF, false, b"\x17\x0d261123120000Z".to_vec())];
    }),
    ("rfc9654.ocsp_nonce", |d, _, _| d.extensions.clear()),
    ("rfc9654.ocsp_nonce", |_, c, _| c.nonce = None),
    ("rfc9654.ocsp_nonce", |d, _, _| d.extensions[0].2[5] ^= 1),
    ("rfc9654.ocsp_nonce", |d, _, _| d.extensions[0].2.drain(..2).for_each(drop)),
    ("rfc9919.ocsp_next_update", |d, _, _| d.singles[1].next_update.clear()),
    ("operator.ocsp_within_responder", |d, _, f| {
        d.singles[1].next_update = generalized(f.responder.not_after().plus(Period::from_seconds(1)));
    }),
    ("cabf_br.ocsp_validity", |d, _, _| d.singles[0].next_update = at(8 * 3_600 - 2)),
    ("cabf_br.ocsp_validity", |d, _, _| d.singles[0].this_update = at(-9 * DAY)),
    ("cabf_br.ocsp_reason", |d, _, _| d.singles[1].status = revoked_for("02")),
    ("cabf_br.ocsp_reason", |d, _, _| d.singles[1].status = revoked_for("0a")),
];

#[test]
fn a_good_answer_has_no_findings() {
    let fixture = Fixture::new();
    assert_eq!(check_ocsp(&fixture.data, &fixture.context()), []);
    assert_eq!(Draft::of(&fixture.data).der(), fixture.data, "the draft itself changes nothing");
}

#[test]
fn every_broken_answer_is_found_out_by_the_lint_it_breaks() {
    let fixture = Fixture::new();
    for (index, (lint, breaks)) in CASES.iter().enumerate() {
        let (mut draft, mut context) = (Draft::of(&fixture.data), fixture.context());
        breaks(&mut draft, &mut context, &fixture);
        let findings = check_ocsp(&draft.der(), &context);
        assert!(findings.iter().any(|finding| finding.lint == *lint), "case {index}, {lint}: {findings:#?}");
    }
}

#[test]
fn every_lint_has_a_case() {
    let names = RULES.iter().map(|rule| rule.name).chain(["rfc6960.ocsp_decodes", "rfc6960.ocsp_der"]);
    for name in names {
        assert!(CASES.iter().any(|(lint, _)| *lint == name), "{name} has no case");
    }
}

#[test]
fn the_limits_themselves_are_good() {
    let fixture = Fixture::new();
    let mut draft = Draft::of(&fixture.data);
    draft.singles[0].next_update = at(8 * 3_600 - 1);
    draft.singles[1].next_update = generalized(fixture.responder.not_after());
    draft.singles[1].status = [&[0xa1, 17][..], &at(-1)].concat();
    draft.singles[2].this_update = at(-8 * DAY);
    assert_eq!(check_ocsp(&draft.der(), &fixture.context()), []);
}

#[test]
fn private_answers_do_not_follow_the_baseline_requirements() {
    let fixture = Fixture::new();
    let mut draft = Draft::of(&fixture.data);
    draft.singles[0].next_update = at(60);
    draft.singles[1].status = revoked_for("0a");
    let context = OcspLintContext { publicly_trusted: false, ..fixture.context() };
    assert_eq!(check_ocsp(&draft.der(), &context), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The states and times themselves apart, which the lints cannot know, no bit can change.
    #[test]
    fn any_changed_bit_of_the_rest_is_found(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        FIXTURE.with(|fixture| {
            let mut draft = Draft::of(&fixture.data);
            draft.singles.truncate(1);
            let single = &draft.singles[0];
            let cutoff = single.extensions[0].2.clone();
            let times = [&single.this_update, &single.next_update, &cutoff, &draft.produced_at].map(Vec::clone);
            let good = draft.der();
            let mut changed = good.clone();
            let at = at.index(good.len());
            changed[at] ^= 1 << bit;
            let is_free = times.iter().any(|part| {
                let mut windows = good.windows(part.len()).enumerate();
                windows.any(|(start, window)| window == part && (start..start + part.len()).contains(&at))
            });
            // `good` and `unknown` are one bit apart.
            let status = good.windows(2).position(|window| window == [0x80, 0]).unwrap();
            let context = OcspLintContext { asked: &fixture.one, ..fixture.context() };
            let found = stops(&check_ocsp(&changed, &context));
            prop_assert!(is_free || at == status || found, "octet {} bit {}", at, bit);
            Ok(())
        })?;
    }

    #[test]
    fn no_octets_make_the_lints_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        FIXTURE.with(|fixture| {
            prop_assert!(stops(&check_ocsp(&octets, &fixture.context())));
            Ok(())
        })?;
    }
}

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
}
