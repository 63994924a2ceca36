//! What protox and tonic made of `/proto`. The comments there are the reference.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated")]

/// What fronts, status nodes and joining nodes ask of a signer.
pub mod signer {
    pub mod v1 {
        tonic::include_proto!("chancery.signer.v1");
    }
}

/// What fronts ask of each other.
pub mod front {
    pub mod v1 {
        tonic::include_proto!("chancery.front.v1");
    }
}

/// What fronts and primaries ask of validators.
pub mod validator {
    pub mod v1 {
        tonic::include_proto!("chancery.validator.v1");
    }
}

/// What status nodes ask of a signer.
pub mod status {
    pub mod v1 {
        tonic::include_proto!("chancery.status.v1");
    }
}

/// What operators ask of a signer.
pub mod admin {
    pub mod v1 {
        tonic::include_proto!("chancery.admin.v1");
    }
}

/// The `FileDescriptorSet` of all services: the list of every RPC there is.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
