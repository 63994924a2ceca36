//! What the ceremony signs: built from the plan, linted, never signed here.

use anyhow::{Context, bail};
use pki::crl::{CrlParameters, CrlScope, CrlTotals, CrlWriter};
use pki::lint::{self, LintContext, Subject};
use pki::tbs::{IntermediateRequest, NodeRequest, RootRequest};
use pki::{
    Certificate, ExtendedKeyUsage, Issuer, NameSet, NodeIdentity, Period, PublicKey, Serial, Tbs, Timestamp,
    Validity,
};

use super::keys::signature_of;
use super::plan::{Intermediate, Node, Root};

/// CAs are not backdated by more than this: their relying parties' clocks differ a little.
const BACKDATE: Period = Period::from_hours(1);

/// Number of the first CRL. The signer's own come after it.
const FIRST_CRL: u64 = 1;

pub(crate) fn validity(now: Timestamp, period: Period) -> Validity {
    let not_before = now.minus(BACKDATE);
    Validity { not_before, not_after: not_before.plus(period).minus(Period::from_seconds(1)) }
}

/// A validity that ends with its issuer's at the latest.
fn within(issuer: &Certificate, now: Timestamp, period: Period) -> Validity {
    let wanted = validity(now, period);
    Validity {
        not_before: wanted.not_before.max(issuer.not_before()),
        not_after: wanted.not_after.min(issuer.not_after()),
    }
}

pub(crate) fn root(
    plan: &Root,
    test_ca: bool,
    key: &PublicKey,
    serial: Serial,
    now: Timestamp,
) -> anyhow::Result<Tbs> {
    let tbs = pki::tbs::root(RootRequest {
        serial,
        subject: &plan.subject,
        public_key: key,
        signature: signature_of(key.algorithm()),
        validity: validity(now, plan.validity),
        test_ca,
    })?;
    linted(tbs, Subject::Root, None, now)
}

pub(crate) fn node_ca(
    common_name: &str,
    period: Period,
    key: &PublicKey,
    serial: Serial,
    now: Timestamp,
) -> anyhow::Result<Tbs> {
    let subject = pki::DistinguishedName::new(None, None, common_name)?;
    let tbs = pki::tbs::node_ca(RootRequest {
        serial,
        subject: &subject,
        public_key: key,
        signature: signature_of(key.algorithm()),
        validity: validity(now, period),
        test_ca: false,
    })?;
    linted(tbs, Subject::Root, None, now)
}

/// Marked as a test CA's if its root is.
pub(crate) fn intermediate(
    plan: &Intermediate,
    issuer: &Issuer,
    key: &PublicKey,
    serial: Serial,
    now: Timestamp,
) -> anyhow::Result<Tbs> {
    let tbs = pki::tbs::intermediate(
        issuer,
        IntermediateRequest {
            serial,
            subject: &plan.subject,
            public_key: key,
            validity: within(issuer.certificate(), now, plan.validity),
            shard: 0,
            path_length: Some(0),
            extended_key_usages: &[ExtendedKeyUsage::ServerAuth],
            policies: &plan.policies,
            test_ca: issuer.certificate().is_test_ca(),
        },
    )?;
    linted(tbs, Subject::Intermediate, Some(issuer), now)
}

pub(crate) fn node(
    plan: &Node,
    issuer: &Issuer,
    key: &PublicKey,
    serial: Serial,
    now: Timestamp,
) -> anyhow::Result<Tbs> {
    let identity = NodeIdentity::new(&plan.role, &plan.name)?;
    let names = match plan.server_names.is_empty() {
        true => None,
        false => {
            let names: Result<Vec<pki::Name>, _> =
                plan.server_names.iter().map(|name| name.parse()).collect();
            Some(NameSet::new(names.context("server_names")?)?)
        }
    };
    let request = NodeRequest {
        serial,
        identity: &identity,
        names: names.as_ref(),
        public_key: key,
        validity: within(issuer.certificate(), now, plan.validity),
    };
    linted(pki::tbs::node(issuer, request)?, Subject::Node, Some(issuer), now)
}

/// The first CRL of an issuer: empty. `shard`: `None` for a root's one complete CRL.
pub(crate) fn first_crl(
    issuer: &Issuer,
    shard: Option<u32>,
    lifetime: Period,
    now: Timestamp,
) -> anyhow::Result<Vec<u8>> {
    let parameters = CrlParameters {
        issuer,
        number: FIRST_CRL,
        this_update: now,
        next_update: now.plus(lifetime),
        scope: shard.map_or(CrlScope::Complete, CrlScope::Shard),
        delta_base: None,
    };
    let (tbs, _) = CrlWriter::start(&parameters, CrlTotals::default(), Vec::new())?.finish()?;
    Ok(tbs)
}

fn linted(tbs: Tbs, subject: Subject, issuer: Option<&Issuer>, now: Timestamp) -> anyhow::Result<Tbs> {
    let findings = lint::check(tbs.as_bytes(), &LintContext::new(subject, issuer, now));
    if lint::stops(&findings) {
        let said: Vec<_> = findings
            .iter()
            .map(|found| format!("{} ({}): {}", found.lint, found.clause, found.detail))
            .collect();
        bail!("the certificate would break its rules, nothing was signed:\n{}", said.join("\n"));
    }
    Ok(tbs)
}
