//! What an operator configures: tenants, their directories, profiles, issuers.

use pki::Timestamp;

use crate::{
    Sealed, State,
    canonical::{sealed_row, word_enum},
};

sealed_row! {
    /// Who directories belong to.
    pub struct TenantRow in "tenants" by (id) {
        /// Its name; the key.
        pub id: String,
        /// For people.
        pub title: String,
        /// Whether its directories answer.
        pub state: State,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

sealed_row! {
    /// An ACME directory: an account space with a policy.
    pub struct DirectoryRow in "directories" by (name) {
        /// Its name, as in its URL; the key. It is part of every account id: keep it short.
        pub name: String,
        /// The tenant's id.
        pub tenant: String,
        /// Issuer pool, profiles, algorithms, quorum, limits: a JSON document that the signer reads.
        pub policy: String,
        /// Whether it answers.
        pub state: State,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

sealed_row! {
    /// A certificate profile.
    pub struct ProfileRow in "profiles" by (name) {
        /// Its name; the key. It stands in every certificate's row: keep it short.
        pub name: String,
        /// The profile as JSON.
        pub body: String,
        /// Whether it may be asked for.
        pub state: State,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

word_enum! {
    /// What an issuer does.
    pub enum IssuerState {
        /// Issues certificates.
        Active = "active",
        /// Issues when no active one of its pool is healthy.
        Standby = "standby",
        /// Signs CRLs and OCSP only.
        Retired = "retired",
    }
}

sealed_row! {
    /// A CA certificate of this CA, and where its key is.
    pub struct IssuerRow in "issuers" by (id) {
        /// Its name; the key. It stands in every certificate's row: keep it short, never reuse it.
        pub id: String,
        /// Its certificate, DER.
        pub certificate: Vec<u8>,
        /// Key references, chains, URLs, signature algorithm: a JSON document that the signer reads.
        pub settings: String,
        /// How many CRL shards new certificates are spread over.
        pub shards: u32,
        /// What it does.
        pub state: IssuerState,
        /// When it was made.
        pub created_at: Timestamp,
        /// Rises with every change, from 1.
        pub version: u64,
    }
}

/// All of it: small enough to be read at once and held in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// By id.
    pub tenants: Vec<Sealed<TenantRow>>,
    /// By name.
    pub directories: Vec<Sealed<DirectoryRow>>,
    /// By name.
    pub profiles: Vec<Sealed<ProfileRow>>,
    /// By id.
    pub issuers: Vec<Sealed<IssuerRow>>,
}
