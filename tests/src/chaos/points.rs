//! The failpoints, by the process that passes them.

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The CA.
    Signer,
    /// The process with the PKCS#11 module.
    Worker,
    /// The ACME service.
    Front,
    /// The eyes.
    Validator,
}

/// How often a point is passed under the harness' load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// With each certificate, or nearly.
    Often,
    /// Now and then: a registration, a revocation, a CRL.
    Seldom,
    /// Only when another process has died at a certain moment.
    AfterCrash,
}

/// A failpoint.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// As in the source.
    pub name: &'static str,
    /// Who passes it.
    pub role: Role,
    /// How often.
    pub pace: Pace,
}

/// All of them; a test compares this with the sources.
pub const POINTS: &[Point] = &[
    // newOrder: steps 1.
    often("front.authorize.before-rpc", Role::Front),
    often("front.authorize.after-rpc", Role::Front),
    often("signer.authorize-order.before-reply", Role::Signer),
    often("front.order.before-create", Role::Front),
    often("front.order.after-create", Role::Front),
    // Validation: step 2.
    often("front.validate.before-rpc", Role::Front),
    often("validator.before-look", Role::Validator),
    often("validator.after-look", Role::Validator),
    often("validator.before-reply", Role::Validator),
    often("front.validate.after-rpc", Role::Front),
    often("front.outcome.before-save", Role::Front),
    often("front.outcome.after-save", Role::Front),
    // finalize: step 3.
    often("front.finalize.before-processing", Role::Front),
    often("front.finalize.after-processing", Role::Front),
    often("front.issue.before-rpc", Role::Front),
    after_crash("front.resume.after-claim", Role::Front),
    // Journal, signature, record, reply: steps 9 to 11.
    often("signer.intent.before-commit", Role::Signer),
    often("signer.intent.after-commit", Role::Signer),
    often("signer.sign.before", Role::Signer),
    often("worker.before-sign", Role::Worker),
    often("worker.after-sign", Role::Worker),
    often("worker.after-report", Role::Worker),
    often("signer.sign.after", Role::Signer),
    often("signer.record.before-commit", Role::Signer),
    often("signer.record.after-commit", Role::Signer),
    often("signer.issue.before-reply", Role::Signer),
    after_crash("signer.takeover.after-claim", Role::Signer),
    // Outcome: step 12.
    often("front.issue.after-rpc", Role::Front),
    often("front.record.before", Role::Front),
    often("front.record.after", Role::Front),
    often("front.save.after", Role::Front),
    // The front that issued has the chain at hand.
    after_crash("front.download.before-rpc", Role::Front),
    // The databases' transactions, whatever they hold.
    often("store.acme.before-commit", Role::Front),
    often("store.acme.after-commit", Role::Front),
    often("store.ca.before-commit", Role::Signer),
    often("store.ca.after-commit", Role::Signer),
    // OCSP: a process that dies so often answers few.
    seldom("signer.ocsp.before-reply", Role::Signer),
    // Accounts.
    seldom("front.register.before-rpc", Role::Front),
    seldom("front.register.after-rpc", Role::Front),
    seldom("signer.register.before", Role::Signer),
    seldom("signer.register.after", Role::Signer),
    // Revocation and CRLs.
    seldom("front.revoke.before-rpc", Role::Front),
    seldom("front.revoke.after-rpc", Role::Front),
    seldom("signer.revoke.before", Role::Signer),
    seldom("signer.revoke.after", Role::Signer),
    seldom("signer.crl.before-begin", Role::Signer),
    seldom("signer.crl.after-begin", Role::Signer),
    seldom("signer.crl.before-journal", Role::Signer),
    seldom("signer.crl.after-journal", Role::Signer),
    seldom("signer.crl.after-sign", Role::Signer),
    seldom("signer.crl.before-publish", Role::Signer),
    seldom("signer.crl.after-publish", Role::Signer),
    seldom("signer.publish.before-rename", Role::Signer),
    seldom("signer.publish.after-rename", Role::Signer),
];

const fn often(name: &'static str, role: Role) -> Point {
    Point { name, role, pace: Pace::Often }
}

const fn seldom(name: &'static str, role: Role) -> Point {
    Point { name, role, pace: Pace::Seldom }
}

const fn after_crash(name: &'static str, role: Role) -> Point {
    Point { name, role, pace: Pace::AfterCrash }
}
