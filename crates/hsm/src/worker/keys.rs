//! Declared keys and where the token has them.
//!
//! A handle is a number that some modules give to *another object* after a login or a restart. So a handle is valid for
//! one epoch, and a key is found anew by its id, compared with the declared public key and checked, before it is used in
//! the next.

use std::sync::Arc;

use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use parking_lot::{Mutex, RwLock};
use pki::{KeyAlgorithm, PublicKey};

use super::attributes;
use super::session::Backend;
use crate::KeyQuery;
use crate::fault::Fault;
use crate::frame::TokenKey;
use crate::key::{Attributes, Origin};

/// All declared keys, by number.
#[derive(Default)]
pub(super) struct Keys(RwLock<Vec<Option<Arc<Declared>>>>);

/// A declared key.
pub(super) struct Declared {
    id: Vec<u8>,
    /// `None` when the supervisor sent something that is no public key.
    public_key: Option<PublicKey>,
    origin: Origin,
    place: Mutex<Option<Place>>,
}

#[derive(Clone, Copy)]
struct Place {
    epoch: u64,
    handle: ObjectHandle,
}

impl Keys {
    pub(super) fn declare(&self, index: u32, id: Vec<u8>, spki: &[u8], origin: Origin) {
        let declared =
            Declared { id, public_key: PublicKey::from_spki_der(spki).ok(), origin, place: Mutex::new(None) };
        let mut keys = self.0.write();
        let index = index as usize;
        if keys.len() <= index {
            keys.resize_with(index + 1, || None);
        }
        if let Some(slot) = keys.get_mut(index) {
            *slot = Some(Arc::new(declared));
        }
    }

    /// The next use finds the key anew.
    pub(super) fn forget(&self, index: u32) {
        if let Ok(declared) = self.get(index) {
            *declared.place.lock() = None;
        }
    }

    fn get(&self, index: u32) -> Result<Arc<Declared>, Fault> {
        let keys = self.0.read();
        keys.get(index as usize).cloned().flatten().ok_or(Fault::KeyUndeclared { index })
    }
}

impl Declared {
    /// Octets of the key's signatures as PKCS#11 gives them.
    fn signature_length(&self) -> usize {
        match self.public_key.as_ref().map(PublicKey::algorithm) {
            Some(KeyAlgorithm::EcdsaP256 | KeyAlgorithm::Ed25519) => 64,
            Some(KeyAlgorithm::EcdsaP384) => 96,
            Some(KeyAlgorithm::EcdsaP521) => 132,
            Some(KeyAlgorithm::Rsa { bits }) => usize::from(bits / 8),
            None => 0,
        }
    }
}

impl Backend {
    /// The key's handle in this epoch, and the length of its signatures.
    pub(super) fn locate(&self, session: &Session, index: u32) -> Result<(ObjectHandle, usize), Fault> {
        let declared = self.keys.get(index)?;
        let epoch = self.epoch();
        if let Some(place) = declared.place.lock().filter(|place| place.epoch == epoch) {
            return Ok((place.handle, declared.signature_length()));
        }
        let (handle, _) = self.find_declared(session, &declared)?;
        *declared.place.lock() = Some(Place { epoch, handle });
        Ok((handle, declared.signature_length()))
    }

    /// Finds a declared key now, whatever was known.
    pub(super) fn check_key(&self, index: u32) -> Result<Attributes, Fault> {
        let declared = self.keys.get(index)?;
        let session = self.session()?;
        let epoch = self.epoch();
        let (handle, attributes) =
            self.find_declared(&session, &declared).inspect_err(|fault| self.note(fault))?;
        *declared.place.lock() = Some(Place { epoch, handle });
        Ok(attributes)
    }

    fn find_declared(
        &self,
        session: &Session,
        declared: &Declared,
    ) -> Result<(ObjectHandle, Attributes), Fault> {
        let id = hex::encode(&declared.id);
        let handle = only_private_key(session, &declared.id)?;
        let public_key = attributes::public_key(session, handle, &declared.id)?;
        if declared.public_key.as_ref() != Some(&public_key) {
            return Err(Fault::PublicKeyMismatch { id });
        }
        let attributes = attributes::read(session, handle)?;
        attributes::check(&attributes, declared.origin, &id)?;
        Ok((handle, attributes))
    }

    /// Private keys that fit the query.
    pub(super) fn find(&self, query: &KeyQuery) -> Result<Vec<TokenKey>, Fault> {
        let session = self.session()?;
        let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
        template.extend(query.id.clone().map(Attribute::Id));
        template.extend(query.label.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
        let handles =
            session.find_objects(&template).map_err(Fault::from).inspect_err(|fault| self.note(fault))?;
        handles.into_iter().map(|handle| attributes::describe(&session, handle)).collect()
    }
}

/// The one private key with this id.
pub(super) fn only_private_key(session: &Session, id: &[u8]) -> Result<ObjectHandle, Fault> {
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(id.to_vec())];
    let found = session.find_objects(&template)?;
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Fault::KeyNotFound { id: hex::encode(id) }),
        many => Err(Fault::KeyAmbiguous { id: hex::encode(id), count: many.len() as u64 }),
    }
}
