//! BR §7.1.2.1, §7.1.2.6 and §7.1.2.10: certificates of CAs in a publicly trusted hierarchy.

use const_oid::db::{rfc4519, rfc5280 as oid};

use super::{DAY, attributes, count};
use crate::lint::{LintContext, Rule, Subject, View, must, should};

pub(super) const RULES: &[Rule] = &[
    must("cabf_br.ca_subject", "BR §7.1.2.10.2", subject),
    must("cabf_br.ca_key_usage", "BR §7.1.2.10.7", key_usage),
    must("cabf_br.root_validity", "BR §7.1.2.1.1", root_validity),
    must("cabf_br.root_no_ext_key_usage", "BR §7.1.2.1.2", root_no_ext_key_usage),
    should("cabf_br.root_no_path_length", "BR §7.1.2.1.4", root_no_path_length),
    must("cabf_br.ca_ext_key_usage", "BR §7.1.2.10.6", ext_key_usage),
    must("cabf_br.ca_policies", "BR §7.1.2.10.5", policies),
    must("cabf_br.ca_crl_points", "BR §7.1.2.6.1", crl_points),
    must("cabf_br.ca_serial", "BR §7.1.2.6, §7.1", serial),
];

fn is_ca(context: &LintContext<'_>) -> bool {
    matches!(context.subject, Subject::Root | Subject::Intermediate)
}

fn subject(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    if !is_ca(context) {
        return None;
    }
    let required = [rfc4519::COUNTRY_NAME, rfc4519::ORGANIZATION_NAME, rfc4519::COMMON_NAME];
    if required.iter().any(|id| count(view, *id) != 1) {
        return Some("country, organization and common name have to be there once each".to_owned());
    }
    attributes(view)
        .any(|attribute| attribute.oid == rfc4519::ORGANIZATIONAL_UNIT_NAME)
        .then(|| "there is an organizational unit".to_owned())
}

fn key_usage(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let good = view.is_critical(oid::ID_CE_KEY_USAGE)
        && view.key_usage.as_ref().is_some_and(|usage| {
            let other = usage.non_repudiation()
                || usage.key_encipherment()
                || usage.data_encipherment()
                || usage.key_agreement()
                || usage.encipher_only()
                || usage.decipher_only();
            usage.key_cert_sign() && usage.crl_sign() && !other
        });
    (is_ca(context) && !good).then(|| {
        "it is not critical, lacks keyCertSign or cRLSign, or has more than digitalSignature".to_owned()
    })
}

/// "Minimum 2922 days (approx. 8 years), maximum 9132 days (approx. 25 years)".
fn root_validity(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let days = view.validity_seconds() / DAY;
    (context.subject == Subject::Root && !(2_922..=9_132).contains(&days))
        .then(|| format!("valid for {days} days"))
}

fn root_no_ext_key_usage(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (context.subject == Subject::Root && view.extension(oid::ID_CE_EXT_KEY_USAGE).is_some())
        .then(|| "a root has purposes".to_owned())
}

fn root_no_path_length(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let length = view.basic_constraints.as_ref()?.path_len_constraint;
    (context.subject == Subject::Root && length.is_some()).then(|| "a root has a path length".to_owned())
}

fn is_intermediate(context: &LintContext<'_>) -> bool {
    context.subject == Subject::Intermediate
}

fn ext_key_usage(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let usages = view.extended_key_usage.as_ref().map_or(&[][..], |usages| usages.0.as_slice());
    // New TLS sub-CAs serve TLS servers alone (Chrome Root Program 1.8, since 2026-06-15).
    (is_intermediate(context) && usages != [oid::ID_KP_SERVER_AUTH])
        .then(|| "it is not serverAuth alone".to_owned())
}

fn policies(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    let good = view.policies.as_ref().is_some_and(|policies| {
        let any = policies.0.iter().any(|policy| policy.policy_identifier == oid::ANY_POLICY);
        let qualified = policies.0.iter().any(|policy| policy.policy_qualifiers.is_some());
        !policies.0.is_empty() && (!any || policies.0.len() == 1) && !qualified
    });
    (is_intermediate(context) && !good)
        .then(|| "there are no policies, others beside anyPolicy, or qualifiers".to_owned())
}

fn crl_points(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_intermediate(context) && view.crl_points.is_none())
        .then(|| "there is no CRL distribution point".to_owned())
}

/// "Non-sequential […] at least 64 bits": a CA's serial is drawn like a subscriber's.
fn serial(view: &View<'_>, context: &LintContext<'_>) -> Option<String> {
    (is_ca(context) && view.serial.len() < 9)
        .then(|| format!("the serial number has {} octets", view.serial.len()))
}
