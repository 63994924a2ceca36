//! Incidents: certificates that are to be replaced by a deadline and revoked after it.
//!
//! An incident's row has a MAC, since revocations follow from it. Its members have none, as revocations have none: each says
//! which certificate, in which wave, and what has become of it.

use pki::{Reason, Serial, Timestamp};

use crate::canonical::{sealed_row, word_enum};

word_enum! {
    /// Where an incident stands.
    pub enum IncidentState {
        /// Its certificates are being collected; nothing follows from it yet.
        Collecting = "collecting",
        /// Windows of renewal are moved, and at the deadline what is left is revoked.
        Open = "open",
        /// Everything that was left at the deadline is revoked.
        Done = "done",
        /// Given up by an operator: windows are as before, and nothing is revoked any more.
        Closed = "closed",
    }
}

sealed_row! {
    /// An incident.
    pub struct IncidentRow in "incidents" by (id) {
        /// The key.
        pub id: String,
        /// What it is about, for people.
        pub title: String,
        /// A page that says why, shown with the windows (RFC 9773 §4.2).
        pub url: String,
        /// Who opened it, a JSON document; what was selected, and by whom, the audit trail says.
        pub settings: String,
        /// CRLReason of the revocations at the deadline (RFC 5280 §5.3.1).
        pub reason: u32,
        /// How many waves there are.
        pub waves: u32,
        /// When the window of the first wave begins.
        pub begins_at: Timestamp,
        /// How long the window of a wave is; the next begins where it ends. Seconds.
        pub wave_seconds: u64,
        /// When what is left is revoked.
        pub deadline: Timestamp,
        /// Where it stands.
        pub state: IncidentState,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it was done or closed.
        pub ended_at: Option<Timestamp>,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

impl IncidentRow {
    /// [`IncidentRow::reason`].
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::try_from(i64::from(self.reason)).unwrap_or(Reason::Unspecified)
    }
}

word_enum! {
    /// What has become of a member. A successor has all of its names, is neither revoked nor over, and is not itself in the
    /// incident.
    pub enum MemberState {
        /// It is to be replaced, or revoked.
        Left = "left",
        /// It has a successor that names it (RFC 9773 §5).
        Replaced = "replaced",
        /// Its account has a later certificate that is a successor, and does not name it.
        Renewed = "renewed",
        /// The incident revoked it.
        Revoked = "revoked",
        /// It was revoked otherwise, before or meanwhile.
        RevokedOtherwise = "revoked-otherwise",
        /// It ended before the deadline.
        Expired = "expired",
    }
}

impl MemberState {
    /// What is noted of a member in this state that is `seen` in another one. Only what was left changes; `again`: what had a
    /// successor, too, if it has none any more, another one, or was revoked by the incident in spite of it.
    #[must_use]
    pub const fn noted(self, seen: Self, again: bool) -> Self {
        match (self, seen) {
            (Self::Left, _) => seen,
            (Self::Replaced | Self::Renewed, Self::Left | Self::Replaced | Self::Renewed | Self::Revoked)
                if again =>
            {
                seen
            }
            _ => self,
        }
    }
}

/// A certificate of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentMember {
    /// The certificate.
    pub serial: Serial,
    /// Its account; empty for those of our own servers.
    pub account: String,
    /// Its wave, from 0; never changes.
    pub wave: u32,
    /// What has become of it.
    pub state: MemberState,
}

/// A certificate to be made a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// The member.
    pub member: IncidentMember,
    /// The names of the certificate as text.
    pub names: Vec<String>,
}

/// Members of an incident that is [`Open`](IncidentState::Open), to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowMembers {
    /// The incident.
    pub incident: String,
    /// Which members.
    pub serials: Vec<Serial>,
    /// Whether those that have a successor are looked at as well ([`MemberState::noted`]).
    pub again: bool,
    /// The source of the incident's own revocations ([`RevocationRow::source`](crate::RevocationRow)).
    pub source: String,
    /// Certificates that ended before this time have expired.
    pub now: Timestamp,
}

/// How many certificates are looked at for a successor that does not name the member: the newest of that one of its names
/// which has the fewest. So there may be more than these only where each of its names has more later certificates. What is not
/// seen is left, and revoked: the safe side.
pub const NEWEST_LOOKED_AT: u32 = 50;

/// How many members of a wave are in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberCount {
    /// The wave.
    pub wave: u32,
    /// The state.
    pub state: MemberState,
    /// How many.
    pub count: u64,
}

/// How many members of an account are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountMembers {
    /// The account.
    pub account: String,
    /// Its members by state, each state once.
    pub counts: Vec<(MemberState, u64)>,
}
