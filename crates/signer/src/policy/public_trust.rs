//! What the Baseline Requirements leave to no directory of public trust.

use acme::challenge::Method;
use pki::Period;

use super::check::PolicyError;
use super::{DirectoryPolicy, Policy};

impl Policy {
    /// How long CRLs of public trust may live, and how often they come (BR §4.9.7).
    pub(super) fn check_public_crls(&self, directory: &DirectoryPolicy) -> Result<(), PolicyError> {
        for issuer in self.issuer.iter().filter(|issuer| issuer.pool == directory.pool) {
            if issuer.crl_lifetime > Period::from_days(10) {
                return Err(directory.forbids("its issuers' crl_lifetime must be 10 days at most (BR 4.9.7)"));
            }
            let (longest, rule) = match &issuer.ocsp {
                Some(_) => (7, "its issuers' crl_interval must be 7 days at most (BR 4.9.7)"),
                None => (4, "crl_interval of issuers without OCSP must be 4 days at most (BR 4.9.7)"),
            };
            if issuer.crl_interval > Period::from_days(longest) {
                return Err(directory.forbids(rule));
            }
        }
        Ok(())
    }
}

impl DirectoryPolicy {
    /// What the Baseline Requirements leave to no directory.
    pub(super) fn validate_public(&self) -> Result<(), PolicyError> {
        if !self.public_trust {
            return Ok(());
        }
        if self.always_valid {
            return Err(self.forbids("always_valid must not be set: somebody looks (BR 3.2.2.4)"));
        }
        if self.caa_identities.is_empty() {
            return Err(self.forbids("caa_identities must not be empty (BR 3.2.2.8)"));
        }
        if self.quorum.perspectives.is_empty() {
            return Err(self.forbids("quorum.perspectives must not be empty: grants do not count"));
        }
        if self.validation_reuse > Period::from_days(200) {
            return Err(self.forbids("validation_reuse must be 200 days at most (BR 4.2.1)"));
        }
        if self.methods.contains(&Method::DnsPersist01) && self.validation_reuse > Period::from_days(10) {
            return Err(
                self.forbids("validation_reuse must be 10 days at most with dns-persist-01 (BR 3.2.2.4.22)")
            );
        }
        if self.authorization_lifetime.max(self.order_lifetime) > Period::from_days(30) {
            return Err(self
                .forbids("order_lifetime and authorization_lifetime must be 30 days at most (BR 3.2.2.4)"));
        }
        Ok(())
    }

    pub(super) fn forbids(&self, rule: &'static str) -> PolicyError {
        PolicyError::PublicTrust { directory: self.name.to_string(), rule }
    }
}
