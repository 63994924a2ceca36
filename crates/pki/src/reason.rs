//! Reasons for revocation (RFC 5280 §5.3.1).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// CRLReason. The two that no CRL of ours may carry are absent: `certificateHold` (BR §7.2.2, and a
/// revocation is never undone) and `removeFromCRL` (delta CRLs write that one themselves).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// No reason given; never written into a CRL entry (RFC 5280 §5.3.1).
    #[default]
    Unspecified,
    /// The subscriber's private key is known or suspected to others.
    KeyCompromise,
    /// The issuer's private key is.
    CaCompromise,
    /// Information in the certificate changed.
    AffiliationChanged,
    /// The certificate was replaced.
    Superseded,
    /// The name is no longer used or owned.
    CessationOfOperation,
    /// The CA withdraws it for breach of its policy.
    PrivilegeWithdrawn,
    /// An attribute authority's key is compromised.
    AaCompromise,
}

/// A number or name that is not a reason, or one that this CA does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a reason for revocation that this CA uses")]
pub struct ReasonError;

impl Reason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 8] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The code of RFC 5280 §5.3.1.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    /// The name of RFC 5280 §5.3.1.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "caCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aaCompromise",
        }
    }

    /// Whether a subscriber may give this reason in revokeCert: BR §7.2.2 leaves them 0, 1, 3, 4
    /// and 5; 9 is the CA's own.
    #[must_use]
    pub const fn is_for_subscribers(self) -> bool {
        matches!(self.code(), 0 | 1 | 3 | 4 | 5)
    }
}

impl TryFrom<i64> for Reason {
    type Error = ReasonError;

    fn try_from(code: i64) -> Result<Self, ReasonError> {
        Self::ALL.into_iter().find(|reason| i64::from(reason.code()) == code).ok_or(ReasonError)
    }
}

impl FromStr for Reason {
    type Err = ReasonError;

    fn from_str(text: &str) -> Result<Self, ReasonError> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or(ReasonError)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_round_trip_and_the_others_are_refused() {
        for reason in Reason::ALL {
            assert_eq!(Reason::try_from(i64::from(reason.code())), Ok(reason));
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        for code in [-1, 6, 7, 8, 11, 256, i64::MAX] {
            assert_eq!(Reason::try_from(code), Err(ReasonError), "{code}");
        }
        assert!("certificateHold".parse::<Reason>().is_err());
        assert!(!Reason::PrivilegeWithdrawn.is_for_subscribers());
        assert!(!Reason::CaCompromise.is_for_subscribers());
    }
}
