//! The CA: registry, issuance, revocation, CRL, audit; the signer role.
