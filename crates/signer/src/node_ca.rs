//! The CA of the nodes: its certificate. Its key is behind [`crate::doors::NodeDoor`].

use hsm::Origin;
use pki::{Issuer, chain};

use crate::config::NodeCaSection;
use crate::doors::{DoorPlan, KeyPlace, NODE_CA};
use crate::registry::RegistryError;

/// The node CA.
#[derive(Debug, Clone)]
pub struct NodeCa {
    /// Its certificate, as [`pki`] needs it.
    pub issuer: Issuer,
    place: KeyPlace,
}

impl NodeCa {
    /// Reads its certificate.
    ///
    /// # Errors
    /// When it cannot be read or is not a CA's.
    pub fn load(section: &NodeCaSection) -> Result<Self, RegistryError> {
        let path = section.certificate.to_path_buf();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| RegistryError::Read { path: path.clone(), source })?;
        let certificates =
            chain::from_pem(&text).map_err(|error| RegistryError::Chain { path: path.clone(), error })?;
        let [certificate] = <[_; 1]>::try_from(certificates)
            .map_err(|_| RegistryError::Chain { path, error: chain::ChainError::Order { index: 0 } })?;
        // `--check` has seen that it is hexadecimal.
        let id = hex::decode(&section.key_id).unwrap_or_default();
        Self::new(certificate, KeyPlace { token: section.token.clone(), id, origin: section.origin })
    }

    /// The node CA with this certificate and key.
    ///
    /// # Errors
    /// When it is not a CA's.
    pub fn new(certificate: pki::Certificate, place: KeyPlace) -> Result<Self, RegistryError> {
        let signature = certificate.public_key().algorithm().default_signature();
        let issuer = Issuer::new(certificate, signature)
            .map_err(|error| RegistryError::Issuer { issuer: NODE_CA.to_owned(), error })?;
        Ok(Self { issuer, place })
    }

    /// The door that its key needs.
    #[must_use]
    pub fn door_plan(&self) -> DoorPlan {
        DoorPlan {
            name: NODE_CA.to_owned(),
            public_key: self.issuer.certificate().public_key().clone(),
            algorithm: self.issuer.signature(),
            place: self.place.clone(),
        }
    }

    /// How its key came into its token.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.place.origin
    }
}
