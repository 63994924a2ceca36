//! RFC 5280, for certificates.

use super::{LintContext, Rule, Severity, View};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "rfc5280.version",
    clause: "RFC 5280 §4.1.2.1",
    severity: Severity::Error,
    find: version,
}];

fn version(view: &View<'_>, _: &LintContext<'_>) -> Option<String> {
    (view.version != 2).then(|| format!("version is {}, not v3", u16::from(view.version) + 1))
}
