//! What a transaction keeps still while it decides.
//!
//! Rows that are cited cannot be locked by `FOR SHARE` alone: that an authorization was *not* deactivated is no row. So
//! whoever decides by authority shares one lock, and whoever changes authority has it alone: it lives in the server's
//! memory, costs no write, and is given back by the end of the transaction. Locks are taken in one order, all at the
//! beginning, so that no two transactions wait for each other.

/// The locks of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Locks {
    /// It changes rows that others may cite: nobody decides meanwhile.
    pub(crate) authority: bool,
    /// It raises revisions or numbers of CRLs.
    pub(crate) revocation: bool,
}

impl Locks {
    pub(crate) const NONE: Self = Self { authority: false, revocation: false };
    pub(crate) const AUTHORITY: Self = Self { authority: true, revocation: false };
    pub(crate) const REVOCATION: Self = Self { authority: false, revocation: true };
    pub(crate) const ALL: Self = Self { authority: true, revocation: true };

    pub(crate) const fn and(self, other: Self) -> Self {
        Self { authority: self.authority || other.authority, revocation: self.revocation || other.revocation }
    }

    /// The beginning of the transaction. 0x63610001 and 2: `ca` and the lock's number.
    pub(crate) const fn begin(self) -> &'static str {
        match (self.authority, self.revocation) {
            (false, false) => "BEGIN; SELECT pg_advisory_xact_lock_shared(x'63610001'::bigint)",
            (true, false) => "BEGIN; SELECT pg_advisory_xact_lock(x'63610001'::bigint)",
            (false, true) => {
                "BEGIN; SELECT pg_advisory_xact_lock_shared(x'63610001'::bigint); \
                 SELECT pg_advisory_xact_lock(x'63610002'::bigint)"
            }
            (true, true) => {
                "BEGIN; SELECT pg_advisory_xact_lock(x'63610001'::bigint); \
                 SELECT pg_advisory_xact_lock(x'63610002'::bigint)"
            }
        }
    }
}
