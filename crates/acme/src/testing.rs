//! Clients for the tests of this crate: keys of every kind, and JWSs as good or bad as a test wants them.

use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};

use crate::base64url::encode;
use crate::jwk::Jwk;
use crate::jws::{Algorithm, Jws};

pub(crate) enum ClientKey {
    Ec(Algorithm, EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl ClientKey {
    pub(crate) fn generate(algorithm: Algorithm) -> Self {
        let ec = |signing: &'static EcdsaSigningAlgorithm| {
            Self::Ec(algorithm, EcdsaKeyPair::generate(signing).unwrap())
        };
        match algorithm {
            Algorithm::Es256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Es512 => ec(&ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::Rs256 => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            Algorithm::EdDsa => Self::Ed25519(Ed25519KeyPair::generate().unwrap()),
        }
    }

    /// One key of each kind, made once.
    pub(crate) fn all() -> &'static [Self] {
        static ALL: OnceLock<Vec<ClientKey>> = OnceLock::new();
        ALL.get_or_init(|| Algorithm::ALL.into_iter().map(Self::generate).collect())
    }

    /// One ES256 key.
    pub(crate) fn one() -> &'static Self {
        Self::all().first().unwrap()
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ec(algorithm, _) => *algorithm,
            Self::Rsa(_) => Algorithm::Rs256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    pub(crate) fn jwk_json(&self) -> String {
        match self {
            Self::Ec(algorithm, pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match algorithm {
                    Algorithm::Es256 => "P-256",
                    Algorithm::Es384 => "P-384",
                    _ => "P-521",
                };
                format!(r#"{{"kty":"EC","crv":"{curve}","x":"{}","y":"{}"}}"#, encode(x), encode(y))
            }
            Self::Rsa(pair) => {
                let components = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                format!(r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#, encode(components.n), encode(components.e))
            }
            Self::Ed25519(pair) => {
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, encode(pair.public_key()))
            }
        }
    }

    pub(crate) fn jwk(&self) -> Jwk {
        Jwk::from_json(&self.jwk_json()).unwrap()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A good header with the key itself in it.
    pub(crate) fn jwk_header(&self, url: &str) -> String {
        format!(
            r#"{{"alg":"{}","nonce":"AAAA","url":"{url}","jwk":{}}}"#,
            self.algorithm().name(),
            self.jwk_json()
        )
    }

    /// A good header with an account's URL.
    pub(crate) fn kid_header(&self, url: &str, kid: &str) -> String {
        format!(r#"{{"alg":"{}","nonce":"AAAA","url":"{url}","kid":"{kid}"}}"#, self.algorithm().name())
    }

    /// A body with this header and payload, rightly signed.
    pub(crate) fn body(&self, header: &str, payload: &str) -> String {
        let (protected, payload) = (encode(header), encode(payload));
        let signature = encode(self.sign(format!("{protected}.{payload}").as_bytes()));
        flattened(&protected, &payload, &signature)
    }

    /// A JWS with the key in its header.
    pub(crate) fn jws(&self, payload: &str) -> Jws {
        Jws::from_slice(self.body(&self.jwk_header("https://ca.example/x"), payload).as_bytes()).unwrap()
    }
}

pub(crate) fn flattened(protected: &str, payload: &str, signature: &str) -> String {
    format!(r#"{{"protected":"{protected}","payload":"{payload}","signature":"{signature}"}}"#)
}
