//! Key generation, with every attribute said: tokens differ in their defaults, and SoftHSM's are the worst.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::Session;

use super::session::Backend;
use super::{attributes, keys};
use crate::fault::Fault;
use crate::frame::{NewKey, NewKeyKind, TokenKey};
use crate::key::Origin;

impl Backend {
    /// Makes a key pair and reads it back. One at a time: one thread answers questions (SoftHSM fails when two generate).
    pub(super) fn generate(&self, key: &NewKey) -> Result<TokenKey, Fault> {
        let session = self.session()?;
        refuse_existing(&session, key)?;
        let (mechanism, public, private) = templates(key);
        session
            .generate_key_pair(&mechanism, &public, &private)
            .map_err(Fault::from)
            .inspect_err(|fault| self.note(fault))?;
        // By its id, as it will be found in time to come.
        let handle = keys::only_private_key(&session, &key.id)?;
        let made = attributes::describe(&session, handle)?;
        attributes::check(&made.attributes, Origin::Generated, &hex::encode(&key.id))?;
        Ok(made)
    }
}

fn refuse_existing(session: &Session, key: &NewKey) -> Result<(), Fault> {
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        for attribute in [Attribute::Id(key.id.clone()), Attribute::Label(key.label.clone().into_bytes())] {
            if !session.find_objects(&[Attribute::Class(class), attribute])?.is_empty() {
                return Err(Fault::KeyExists { id: hex::encode(&key.id), label: key.label.clone() });
            }
        }
    }
    Ok(())
}

fn templates(key: &NewKey) -> (Mechanism<'static>, Vec<Attribute>, Vec<Attribute>) {
    let name = [Attribute::Label(key.label.clone().into_bytes()), Attribute::Id(key.id.clone())];
    let mut public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
    ];
    let mut private = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
    ];
    public.extend(name.clone());
    private.extend(name);
    let mechanism = match key.kind {
        NewKeyKind::P256 => {
            public.push(Attribute::EcParams(attributes::P256.to_vec()));
            Mechanism::EccKeyPairGen
        }
        NewKeyKind::P384 => {
            public.push(Attribute::EcParams(attributes::P384.to_vec()));
            Mechanism::EccKeyPairGen
        }
        NewKeyKind::Ed25519 => {
            public.push(Attribute::EcParams(attributes::ED25519_NAME.to_vec()));
            Mechanism::EccEdwardsKeyPairGen
        }
        NewKeyKind::Rsa { bits } => {
            public.push(Attribute::ModulusBits(u64::from(bits).into()));
            public.push(Attribute::PublicExponent(vec![1, 0, 1]));
            Mechanism::RsaPkcsKeyPairGen
        }
    };
    (mechanism, public, private)
}
