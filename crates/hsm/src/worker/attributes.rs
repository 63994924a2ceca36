//! What the token says about a key, and whether it fits what was declared.

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use pki::{KeyAlgorithm, PublicKey};

use crate::fault::Fault;
use crate::frame::TokenKey;
use crate::key::{Attributes, Origin};

/// Reads the attributes of a private key. What a token does not tell stays `None`.
pub(super) fn read(session: &Session, key: ObjectHandle) -> Result<Attributes, Fault> {
    let mut attributes = Attributes::default();
    for attribute in session.get_attributes(key, &FLAGS)? {
        match attribute {
            Attribute::Token(value) => attributes.token = Some(value),
            Attribute::Private(value) => attributes.private = Some(value),
            Attribute::Sensitive(value) => attributes.sensitive = Some(value),
            Attribute::Extractable(value) => attributes.extractable = Some(value),
            Attribute::AlwaysSensitive(value) => attributes.always_sensitive = Some(value),
            Attribute::NeverExtractable(value) => attributes.never_extractable = Some(value),
            Attribute::Local(value) => attributes.local = Some(value),
            Attribute::Sign(value) => attributes.sign = Some(value),
            Attribute::SignRecover(value) => attributes.sign_recover = Some(value),
            Attribute::Decrypt(value) => attributes.decrypt = Some(value),
            Attribute::Unwrap(value) => attributes.unwrap = Some(value),
            Attribute::Derive(value) => attributes.derive = Some(value),
            Attribute::AlwaysAuthenticate(value) => attributes.always_authenticate = Some(value),
            Attribute::Modifiable(value) => attributes.modifiable = Some(value),
            Attribute::Copyable(value) => attributes.copyable = Some(value),
            Attribute::Destroyable(value) => attributes.destroyable = Some(value),
            _ => {}
        }
    }
    Ok(attributes)
}

const FLAGS: [AttributeType; 16] = [
    AttributeType::Token,
    AttributeType::Private,
    AttributeType::Sensitive,
    AttributeType::Extractable,
    AttributeType::AlwaysSensitive,
    AttributeType::NeverExtractable,
    AttributeType::Local,
    AttributeType::Sign,
    AttributeType::SignRecover,
    AttributeType::Decrypt,
    AttributeType::Unwrap,
    AttributeType::Derive,
    AttributeType::AlwaysAuthenticate,
    AttributeType::Modifiable,
    AttributeType::Copyable,
    AttributeType::Destroyable,
];

/// Whether a key may sign for a CA: it cannot leave, it does nothing but sign, and it came from where it is said to.
pub(super) fn check(attributes: &Attributes, origin: Origin, id: &str) -> Result<(), Fault> {
    let a = attributes;
    // What keeps the key in must be told; a token that says nothing about another use does not offer it.
    let required = [
        ("CKA_TOKEN", a.token, true),
        ("CKA_PRIVATE", a.private, true),
        ("CKA_SENSITIVE", a.sensitive, true),
        ("CKA_EXTRACTABLE", a.extractable, false),
        ("CKA_SIGN", a.sign, true),
    ];
    let generated_here = [
        ("CKA_LOCAL", a.local, true),
        ("CKA_ALWAYS_SENSITIVE", a.always_sensitive, true),
        ("CKA_NEVER_EXTRACTABLE", a.never_extractable, true),
    ];
    let unwanted = [
        ("CKA_SIGN_RECOVER", a.sign_recover),
        ("CKA_DECRYPT", a.decrypt),
        ("CKA_UNWRAP", a.unwrap),
        ("CKA_DERIVE", a.derive),
        ("CKA_ALWAYS_AUTHENTICATE", a.always_authenticate),
    ];
    let fault = |attribute: &str, expected, found| {
        Err(Fault::Attribute { id: id.to_owned(), attribute: attribute.to_owned(), expected, found })
    };
    let generated = generated_here.iter().filter(|_| origin == Origin::Generated);
    for &(attribute, found, expected) in required.iter().chain(generated) {
        if found != Some(expected) {
            return fault(attribute, expected, found);
        }
    }
    for (attribute, found) in unwanted {
        if found == Some(true) {
            return fault(attribute, false, found);
        }
    }
    Ok(())
}

/// The public half: from the public key object with the same id, or where there is none from the private key itself.
pub(super) fn public_key(session: &Session, private: ObjectHandle, id: &[u8]) -> Result<PublicKey, Fault> {
    let unreadable = |reason: String| Fault::PublicKeyUnreadable { id: hex::encode(id), reason };
    let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Id(id.to_vec())];
    let publics = session.find_objects(&template)?;
    let source = match publics.as_slice() {
        [one] => *one,
        [] => private,
        many => return Err(unreadable(format!("{} public keys have this CKA_ID", many.len()))),
    };
    parts(session, source)?.public_key().map_err(unreadable)
}

/// Everything about a private key, for people.
pub(super) fn describe(session: &Session, key: ObjectHandle) -> Result<TokenKey, Fault> {
    let (mut id, mut label) = (Vec::new(), String::new());
    for attribute in session.get_attributes(key, &[AttributeType::Id, AttributeType::Label])? {
        match attribute {
            Attribute::Id(value) => id = value,
            Attribute::Label(value) => label = String::from_utf8_lossy(&value).into_owned(),
            _ => {}
        }
    }
    let spki = public_key(session, key, &id).ok().map(|key| key.spki_der().to_vec());
    Ok(TokenKey { id, label, spki, attributes: read(session, key)? })
}

/// What a public key is made of, as PKCS#11 tells it.
#[derive(Debug, Default)]
struct Parts {
    kind: Option<KeyType>,
    parameters: Vec<u8>,
    point: Vec<u8>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

fn parts(session: &Session, key: ObjectHandle) -> Result<Parts, Fault> {
    let mut parts = Parts::default();
    let wanted = [
        AttributeType::KeyType,
        AttributeType::EcParams,
        AttributeType::EcPoint,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
    ];
    for attribute in session.get_attributes(key, &wanted)? {
        match attribute {
            Attribute::KeyType(value) => parts.kind = Some(value),
            Attribute::EcParams(value) => parts.parameters = value,
            Attribute::EcPoint(value) => parts.point = value,
            Attribute::Modulus(value) => parts.modulus = value,
            Attribute::PublicExponent(value) => parts.exponent = value,
            _ => {}
        }
    }
    Ok(parts)
}

impl Parts {
    fn public_key(&self) -> Result<PublicKey, String> {
        let key = match self.kind {
            Some(KeyType::RSA) => PublicKey::from_rsa(&self.modulus, &self.exponent),
            Some(KeyType::EC) => {
                let (algorithm, length) = match self.parameters.as_slice() {
                    P256 => (KeyAlgorithm::EcdsaP256, 65),
                    P384 => (KeyAlgorithm::EcdsaP384, 97),
                    _ => return Err("unknown curve".to_owned()),
                };
                PublicKey::from_ec_point(algorithm, bare(&self.point, length))
            }
            Some(KeyType::EC_EDWARDS) => {
                if !matches!(self.parameters.as_slice(), ED25519_NAME | ED25519_OID) {
                    return Err("unknown curve".to_owned());
                }
                let octets = bare(&self.point, 32).try_into().map_err(|_| "malformed point".to_owned())?;
                PublicKey::from_ed25519(octets)
            }
            Some(other) => return Err(format!("key type {other} is not used here")),
            None => return Err("no key type".to_owned()),
        };
        key.map_err(|error| error.to_string())
    }
}

/// The point out of its OCTET STRING; some tokens give it bare.
fn bare(point: &[u8], length: usize) -> &[u8] {
    match point {
        [0x04, announced, inner @ ..] if usize::from(*announced) == length && inner.len() == length => inner,
        _ => point,
    }
}

/// `CKA_EC_PARAMS`: the curve's object identifier, or for Ed25519 its name as SoftHSM wants it.
pub(super) const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(super) const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
pub(super) const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";
pub(super) const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Attributes {
        Attributes {
            token: Some(true),
            private: Some(true),
            sensitive: Some(true),
            extractable: Some(false),
            always_sensitive: Some(true),
            never_extractable: Some(true),
            local: Some(true),
            sign: Some(true),
            sign_recover: Some(false),
            decrypt: Some(false),
            unwrap: Some(false),
            derive: Some(false),
            always_authenticate: Some(false),
            ..Attributes::default()
        }
    }

    #[test]
    fn a_key_that_can_leave_or_do_more_than_sign_is_refused_by_name() {
        type Spoil = fn(&mut Attributes);
        let spoilt: [(&str, Spoil); 11] = [
            ("CKA_TOKEN", |a| a.token = Some(false)),
            ("CKA_PRIVATE", |a| a.private = Some(false)),
            ("CKA_SENSITIVE", |a| a.sensitive = None),
            ("CKA_EXTRACTABLE", |a| a.extractable = Some(true)),
            ("CKA_EXTRACTABLE", |a| a.extractable = None),
            ("CKA_SIGN", |a| a.sign = Some(false)),
            ("CKA_SIGN_RECOVER", |a| a.sign_recover = Some(true)),
            ("CKA_DECRYPT", |a| a.decrypt = Some(true)),
            ("CKA_UNWRAP", |a| a.unwrap = Some(true)),
            ("CKA_DERIVE", |a| a.derive = Some(true)),
            ("CKA_ALWAYS_AUTHENTICATE", |a| a.always_authenticate = Some(true)),
        ];
        for origin in [Origin::Generated, Origin::Cloned] {
            assert_eq!(check(&good(), origin, "0a"), Ok(()));
            for (name, spoil) in spoilt {
                let mut attributes = good();
                spoil(&mut attributes);
                let refused = check(&attributes, origin, "0a");
                assert!(
                    matches!(&refused, Err(Fault::Attribute { attribute, .. }) if attribute == name),
                    "{refused:?}"
                );
            }
        }
    }

    #[test]
    fn only_a_declared_clone_may_come_from_elsewhere() {
        type Spoil = fn(&mut Attributes);
        let foreign: [Spoil; 3] =
            [|a| a.local = Some(false), |a| a.always_sensitive = Some(false), |a| a.never_extractable = None];
        for spoil in foreign {
            let mut attributes = good();
            spoil(&mut attributes);
            assert!(check(&attributes, Origin::Generated, "0a").is_err());
            assert_eq!(check(&attributes, Origin::Cloned, "0a"), Ok(()));
        }
    }

    #[test]
    fn points_come_wrapped_or_bare() {
        let point = [&[4][..], &[7; 64]].concat();
        let wrapped = [&[4, 65][..], &point].concat();
        assert_eq!(bare(&wrapped, 65), point);
        assert_eq!(bare(&point, 65), point);
        // A bare Ed25519 point may begin like an OCTET STRING.
        let tricky = [&[4, 32][..], &[9; 30]].concat();
        assert_eq!(bare(&tricky, 32), tricky);
    }
}
