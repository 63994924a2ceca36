mod cases;
mod rows;

use super::*;
use crate::{
    KeyAlgorithm, NodeIdentity, ProfileKind, SignatureAlgorithm,
    certificate::TbsFields,
    decode,
    encode::{encode, tag},
    tbs::{self, LeafRequest, NodeRequest, ResponderRequest},
    testing::{Hierarchy, Key, NOW, names_of, profile, validity},
};
use cases::CASES;
use const_oid::{ObjectIdentifier, db::rfc5280 as oid};
use proptest::prelude::*;

/// A TBSCertificate taken apart, to be broken and put together again.
pub(super) struct Draft {
    pub(super) version: u8,
    pub(super) serial: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    /// Whole values, tag and all.
    pub(super) times: [Vec<u8>; 2],
    pub(super) subject: Vec<u8>,
    pub(super) spki: Vec<u8>,
    pub(super) unique_ids: Vec<u8>,
    pub(super) extensions: Vec<(ObjectIdentifier, bool, Vec<u8>)>,
    /// Writes `critical FALSE`, which DER leaves out.
    pub(super) writes_defaults: bool,
}

impl Draft {
    fn of(tbs: &[u8]) -> Self {
        let fields = decode::sequence(tbs, TbsFields::read).unwrap();
        Self {
            version: 2,
            serial: fields.serial.to_vec(),
            signature: fields.algorithm.to_vec(),
            issuer: fields.issuer.to_vec(),
            times: [fields.not_before, fields.not_after].map(time),
            subject: fields.subject.to_vec(),
            spki: fields.public_key.to_vec(),
            unique_ids: Vec::new(),
            extensions: fields.extensions.iter().map(|e| (e.oid, e.critical, e.value.to_vec())).collect(),
            writes_defaults: false,
        }
    }

    fn der(&self) -> Vec<u8> {
        encode(|e| {
            e.sequence(|e| {
                e.nested(tag::context_constructed(0), |e| {
                    e.unsigned(&[self.version]);
                });
                e.primitive(tag::INTEGER, &self.serial).raw(&self.signature).raw(&self.issuer);
                e.sequence(|e| {
                    self.times.iter().for_each(|time| {
                        e.raw(time);
                    })
                });
                e.raw(&self.subject).raw(&self.spki).raw(&self.unique_ids);
                if self.extensions.is_empty() {
                    return;
                }
                e.nested(tag::context_constructed(3), |e| {
                    e.sequence(|e| {
                        for (id, critical, value) in &self.extensions {
                            e.sequence(|e| {
                                e.oid(id);
                                if *critical || self.writes_defaults {
                                    e.boolean(*critical);
                                }
                                e.primitive(tag::OCTET_STRING, value);
                            });
                        }
                    });
                });
            });
        })
    }

    pub(super) fn set(&mut self, id: ObjectIdentifier, critical: bool, value: &[u8]) {
        self.remove(id);
        self.push(id, critical, value);
    }

    pub(super) fn push(&mut self, id: ObjectIdentifier, critical: bool, value: &[u8]) {
        self.extensions.push((id, critical, value.to_vec()));
    }

    pub(super) fn remove(&mut self, id: ObjectIdentifier) {
        self.extensions.retain(|(other, ..)| *other != id);
    }

    pub(super) fn critical(&mut self, id: ObjectIdentifier, critical: bool) {
        self.extensions.iter_mut().find(|(other, ..)| *other == id).unwrap().1 = critical;
    }

    /// Replaces the subject alternative name by these general names, `(choice, content)`.
    pub(super) fn names(&mut self, names: &[(u8, &[u8])]) {
        let value = encode(|e| {
            e.sequence(|e| {
                names.iter().for_each(|(choice, content)| {
                    e.primitive(tag::context(*choice), content);
                })
            });
        });
        self.set(oid::ID_CE_SUBJECT_ALT_NAME, self.subject == [0x30, 0], &value);
    }
}

pub(super) fn time(at: Timestamp) -> Vec<u8> {
    encode(|e| at.encode(e))
}

pub(super) fn hex_value(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

pub(super) fn common_name(string: u8, text: &str) -> Vec<u8> {
    encode(|e| {
        e.sequence(|e| {
            crate::distinguished_name::attribute(e, &const_oid::db::rfc4519::COMMON_NAME, string, text)
        });
    })
}

/// Which good certificate a case starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Private,
    Public,
    Root,
    Intermediate,
    Node,
    Responder,
    /// A private one of an issuer that makes delta CRLs.
    Delta,
}

/// Good certificates of every kind, and what belongs to them.
pub(super) struct Fixture {
    pub(super) private: Hierarchy,
    pub(super) public: Hierarchy,
    /// An issuer that may only issue below `constrained.example`.
    pub(super) constrained: Issuer,
    /// The private issuer, making delta CRLs.
    delta: Issuer,
    /// A test CA.
    pub(super) marked: Hierarchy,
    pub(super) suffixes: Vec<DnsName>,
    private_names: NameSet,
    public_names: NameSet,
    node_names: NameSet,
    private_key: PublicKey,
    public_key: PublicKey,
    private_profile: crate::Profile,
    public_profile: crate::Profile,
}

const SERIAL: [u8; 16] = [0x33; 16];

impl Fixture {
    fn new() -> Self {
        let private = Hierarchy::fixed();
        let public = Hierarchy::generate(KeyAlgorithm::EcdsaP256);
        Self {
            constrained: constrained(&private),
            delta: private.issuer.clone().with_delta_crls(true),
            marked: Hierarchy::marked(),
            suffixes: vec!["a.example".parse().unwrap()],
            private_names: names_of(&["a.example", "*.b.example", "192.0.2.1", "2001:db8::1"]),
            public_names: names_of(&["example.com", "*.example.com", "8.8.8.8"]),
            node_names: names_of(&["front.internal"]),
            private_key: Key::fixed(9).public(),
            public_key: Key::generate(KeyAlgorithm::EcdsaP256).public(),
            private_profile: profile(ProfileKind::Private),
            public_profile: crate::ProfileSettings {
                addresses: Some(true),
                ..crate::ProfileSettings::new("test", ProfileKind::PublicDv)
            }
            .try_into()
            .unwrap(),
            private,
            public,
        }
    }

    fn leaf<'f>(&'f self, base: Base) -> (Vec<u8>, LintContext<'f>) {
        let (hierarchy, profile, names, public_key) = match base {
            Base::Public => (&self.public, &self.public_profile, &self.public_names, &self.public_key),
            _ => (&self.private, &self.private_profile, &self.private_names, &self.private_key),
        };
        let issuer = if base == Base::Delta { &self.delta } else { &hierarchy.issuer };
        let validity = profile.validity_at(NOW, issuer, None, None).unwrap();
        let serial = Serial::from_random(SERIAL);
        let request = LeafRequest { serial, names, public_key, validity, shard: 3, must_staple: false };
        let tbs = tbs::leaf(profile, issuer, request).unwrap();
        let expected = Expected { serial, names: Some(names), public_key, validity, shard: Some(3) };
        (tbs.as_bytes().to_vec(), profile.lint_context(issuer, NOW).expecting(expected))
    }

    fn authority(&self, base: Base) -> (Vec<u8>, LintContext<'_>) {
        let Hierarchy { root, issuer, .. } = &self.public;
        let (certificate, subject, issuer) = match base {
            Base::Root => (root.certificate(), Subject::Root, None),
            _ => (issuer.certificate(), Subject::Intermediate, Some(root)),
        };
        (certificate.tbs_bytes().to_vec(), LintContext::new(subject, issuer, NOW).publicly_trusted())
    }

    fn node(&self) -> (Vec<u8>, LintContext<'_>) {
        let issuer = &self.private.root;
        let serial = Serial::from_random(SERIAL);
        let identity = NodeIdentity::new("front", "eu-1").unwrap();
        let (names, public_key) = (Some(&self.node_names), &self.private_key);
        let request = NodeRequest { serial, identity: &identity, names, public_key, validity: validity(30) };
        let tbs = tbs::node(issuer, request).unwrap();
        let expected = Expected { serial, names, public_key, validity: validity(30), shard: None };
        (tbs.as_bytes().to_vec(), LintContext::new(Subject::Node, Some(issuer), NOW).expecting(expected))
    }

    fn responder(&self) -> (Vec<u8>, LintContext<'_>) {
        let (issuer, public_key) = (&self.public.issuer, &self.public_key);
        let serial = Serial::from_random(SERIAL);
        let request = ResponderRequest { serial, common_name: "OCSP E1", public_key, validity: validity(7) };
        let tbs = tbs::responder(issuer, request).unwrap();
        let expected = Expected { serial, names: None, public_key, validity: validity(7), shard: None };
        let context = LintContext::new(Subject::Responder, Some(issuer), NOW).publicly_trusted();
        (tbs.as_bytes().to_vec(), context.expecting(expected))
    }

    fn base(&self, base: Base) -> (Vec<u8>, LintContext<'_>) {
        match base {
            Base::Private | Base::Public | Base::Delta => self.leaf(base),
            Base::Root | Base::Intermediate => self.authority(base),
            Base::Node => self.node(),
            Base::Responder => self.responder(),
        }
    }
}

fn constrained(hierarchy: &Hierarchy) -> Issuer {
    let mut draft = Draft::of(hierarchy.issuer.certificate().tbs_bytes());
    // permittedSubtrees [0] { dNSName "constrained.example" }, excludedSubtrees [1] { iPAddress 0.0.0.0/0 }
    let name = b"constrained.example";
    let value = encode(|e| {
        e.sequence(|e| {
            e.nested(tag::context_constructed(0), |e| {
                e.sequence(|e| {
                    e.primitive(tag::context(2), name);
                });
            });
            e.nested(tag::context_constructed(1), |e| {
                e.sequence(|e| {
                    e.primitive(tag::context(7), &[0; 8]);
                });
            });
        });
    });
    draft.push(oid::ID_CE_NAME_CONSTRAINTS, true, &value);
    let certificate = hierarchy.root_key.certify(&crate::Tbs::from_der(&draft.der()).unwrap());
    Issuer::new(certificate, SignatureAlgorithm::Ed25519).unwrap()
}

#[test]
fn good_certificates_have_no_findings() {
    let fixture = Fixture::new();
    let bases = [
        Base::Private,
        Base::Public,
        Base::Root,
        Base::Intermediate,
        Base::Node,
        Base::Responder,
        Base::Delta,
    ];
    for base in bases {
        let (tbs, context) = fixture.base(base);
        assert_eq!(check(&tbs, &context), [], "{base:?}");
        assert_eq!(Draft::of(&tbs).der(), tbs, "{base:?}: the draft itself changes nothing");
    }
}

#[test]
fn every_broken_certificate_is_found_out_by_the_lint_it_breaks() {
    let fixture = Fixture::new();
    for (index, (lint, base, breaks)) in CASES.iter().enumerate() {
        let (tbs, mut context) = fixture.base(*base);
        let mut draft = Draft::of(&tbs);
        breaks(&mut draft, &mut context, &fixture);
        let findings = check(&draft.der(), &context);
        assert!(findings.iter().any(|finding| finding.lint == *lint), "case {index}, {lint}: {findings:#?}");
    }
}

#[test]
fn every_lint_has_a_case() {
    let all = [LintSet::Rfc5280, LintSet::CabfBr, LintSet::Operator].into_iter().flat_map(rules);
    for rule in all {
        assert!(CASES.iter().any(|(lint, ..)| *lint == rule.name), "{} has no case", rule.name);
        let clause = ["RFC ", "BR §", "policy: "].iter().any(|start| rule.clause.starts_with(start));
        assert!(clause, "{} has no clause", rule.name);
        assert_eq!(CASES.iter().filter(|(lint, ..)| lint.contains(' ')).count(), 0);
    }
}

#[test]
fn octets_that_are_no_tbs_certificate_are_one_finding() {
    let fixture = Fixture::new();
    let (tbs, context) = fixture.base(Base::Private);
    for broken in [&[][..], &tbs[1..], &tbs[..tbs.len() - 1], &[&tbs[..], &[0]].concat()] {
        let findings = check(broken, &context);
        assert_eq!(findings.iter().map(|finding| finding.lint).collect::<Vec<_>>(), ["rfc5280.decodes"]);
        assert!(stops(&findings));
    }
}

#[test]
fn sets_that_are_off_find_nothing() {
    let fixture = Fixture::new();
    let (tbs, context) = fixture.leaf(Base::Private);
    let with = |sets: &[LintSet]| check(&tbs, &LintContext { sets, ..context }).len();
    assert_eq!(with(&[LintSet::Rfc5280]), 0);
    assert_ne!(with(&[LintSet::CabfBr]), 0);
    assert_eq!(with(&[]), 0);
}

#[test]
fn validity_limits_follow_the_date() {
    let fixture = Fixture::new();
    let (tbs, mut context) = fixture.leaf(Base::Public);
    context.sets = &[LintSet::CabfBr];
    let midnight = |year, month| {
        let date = time::Date::from_calendar_date(year, month, 15).unwrap();
        Timestamp::from(date.midnight().assume_utc())
    };
    let march = time::Month::March;
    for (begin, before, after) in [
        (midnight(2026, march), 398, 200),
        (midnight(2027, march), 200, 100),
        (midnight(2029, march), 100, 47),
    ] {
        for (start, limit) in [(begin.minus(Period::from_seconds(1)), before), (begin, after)] {
            context.signed_at = start;
            let mut draft = Draft::of(&tbs);
            let exact = start.plus(Period::from_days(limit)).minus(Period::from_seconds(1));
            draft.times = [time(start), time(exact)];
            assert!(
                !check(&draft.der(), &context).iter().any(|f| f.lint == "cabf_br.validity"),
                "{limit} days"
            );
            draft.times = [time(start), time(exact.plus(Period::from_seconds(1)))];
            assert!(
                check(&draft.der(), &context).iter().any(|f| f.lint == "cabf_br.validity"),
                "{limit} days and a second"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Nothing in a public certificate can change without a lint that stops the signature.
    #[test]
    fn any_changed_bit_is_found(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        FIXTURE.with(|fixture| {
            let (mut tbs, context) = fixture.leaf(Base::Public);
            let at = at.index(tbs.len());
            tbs[at] ^= 1 << bit;
            prop_assert!(stops(&check(&tbs, &context)), "octet {} bit {}", at, bit);
            Ok(())
        })?;
    }

    /// Nor in a responder's, but for its name and its key's.
    #[test]
    fn any_changed_bit_of_a_responder_is_found(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        FIXTURE.with(|fixture| {
            let (good, context) = fixture.responder();
            let mut tbs = good.clone();
            let at = at.index(tbs.len());
            tbs[at] ^= 1 << bit;
            let subject = decode::sequence(&good, TbsFields::read).unwrap().subject;
            let free = [subject, &fixture.public_key.key_id()];
            let is_free = free.iter().any(|part| {
                let start = good.windows(part.len()).position(|window| window == *part).unwrap();
                (start..start + part.len()).contains(&at)
            });
            prop_assert!(is_free || stops(&check(&tbs, &context)), "octet {} bit {}", at, bit);
            Ok(())
        })?;
    }

    #[test]
    fn no_octets_make_the_lints_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        FIXTURE.with(|fixture| {
            let (_, context) = fixture.leaf(Base::Public);
            prop_assert!(stops(&check(&octets, &context)));
            Ok(())
        })?;
    }
}

thread_local! {
    static FIXTURE: Fixture = Fixture::new();
}
