//! JSON Web Tokens (RFC 7519): signed claims about who asks. A token is believed when a configured key of the right family signed it
//! by an algorithm that was named, and when its claims say that it is for here and for now. Nothing of a token chooses more than among
//! the configured keys.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_lc_rs::{
    digest, hmac,
    signature::{self, UnparsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    credential::Place,
    jose::{Algorithm, Key, Material},
    token::{Claims, Demands, TokenFault},
};

/// What tokens must be.
#[derive(Debug, Clone)]
pub struct TokenAccess {
    /// What a token comes in.
    pub place: Place,
    /// Whether it goes on to the upstream.
    pub forward: bool,
    /// How it may be signed.
    pub algorithms: Box<[Algorithm]>,
    /// By whom.
    pub keys: Box<[Key]>,
    /// Whether an issuer publishes more of them, and who fetches those.
    pub published: Option<Published>,
    /// What it must say.
    pub demands: Demands,
}

/// Keys that an issuer publishes. They are fetched elsewhere, and handed in.
#[derive(Debug, Clone, Default)]
pub struct Published {
    is_wanted: Arc<AtomicBool>,
}

impl Published {
    /// A token's key is not among those that are here: they should be fetched anew.
    fn want(&self) {
        // Mostly it has been said already, by whichever core.
        if !self.is_wanted.load(Ordering::Relaxed) {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether they should be fetched anew; not any longer, once that was heard.
    pub fn take_wanted(&self) -> bool {
        self.is_wanted.swap(false, Ordering::Relaxed)
    }
}

/// Why no signature was found to be good.
enum Unsigned {
    Invalid,
    /// None of the keys is the one that it names, or any of them if it names none.
    UnknownKey,
}

impl TokenAccess {
    /// What a token says, if it is to be believed at `now_s`. `published`: what is known of the keys that the issuer publishes.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, token: &[u8], published: Option<&[Key]>, now_s: u64) -> Result<Claims, TokenFault> {
        match self.signed(token, published.unwrap_or_default()) {
            Ok(claims) if claims.is_of(now_s) => Ok(claims),
            Ok(_) => Err(TokenFault::Expired),
            Err(Unsigned::Invalid) => Err(TokenFault::Invalid),
            Err(Unsigned::UnknownKey) => match &self.published {
                None => Err(TokenFault::Invalid),
                Some(keys) => {
                    keys.want();
                    Err(if published.is_some() { TokenFault::Invalid } else { TokenFault::NoKeys })
                }
            },
        }
    }

    /// The claims of a token that one of the keys signed, and that are for here.
    fn signed(&self, token: &[u8], published: &[Key]) -> Result<Claims, Unsigned> {
        let parts = self.parts(token).ok_or(Unsigned::Invalid)?;
        let Parts { algorithm, id, message, payload, mark } = parts;
        let keys = self.keys.iter().chain(published);
        let mut keys = keys.filter(|key| {
            algorithm.is_of(&key.material)
                && key.algorithm.is_none_or(|only| only == algorithm)
                && (key.id.is_none() || id.is_none() || key.id == id)
        });
        let mut is_named = false;
        let is_good = keys.any(|key| {
            is_named |= id.is_some() && key.id == id;
            is_signed(algorithm, &key.material, message.as_bytes(), &mark)
        });
        if !is_good {
            return Err(if is_named { Unsigned::Invalid } else { Unsigned::UnknownKey });
        }
        object(payload).and_then(|all| self.demands.met_by(all)).ok_or(Unsigned::Invalid)
    }

    /// The parts of a token that may be signed as it says.
    fn parts<'t>(&self, token: &'t [u8]) -> Option<Parts<'t>> {
        let text = str::from_utf8(token).ok()?;
        let (message, mark) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header = object(header)?;
        // RFC 7515 §4.1.11: what must be understood is not.
        if header.contains_key("crit") || header.contains_key("b64") {
            return None;
        }
        let algorithm = Algorithm::parse(header.get("alg")?.as_str()?)?;
        if !self.algorithms.contains(&algorithm) {
            return None;
        }
        let id = match header.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.into()),
        };
        Some(Parts { algorithm, id, message, payload, mark: URL_SAFE_NO_PAD.decode(mark).ok()? })
    }
}

/// A token, taken apart.
struct Parts<'t> {
    algorithm: Algorithm,
    /// `kid`.
    id: Option<Box<str>>,
    message: &'t str,
    payload: &'t str,
    mark: Vec<u8>,
}

/// A part of a token: an object in JSON, in base64url.
fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Whether `mark` is the signature of the message by this key.
fn is_signed(algorithm: Algorithm, key: &Material, message: &[u8], mark: &[u8]) -> bool {
    let secret = |algorithm: hmac::Algorithm| match key {
        Material::Secret(secret) => {
            hmac::verify(&hmac::Key::new(algorithm, secret.bytes()), message, mark).is_ok()
        }
        Material::Rsa(_) | Material::P256(_) | Material::P384(_) | Material::Ed25519(_) => false,
    };
    let public: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::Hs256 => return secret(hmac::HMAC_SHA256),
        Algorithm::Hs384 => return secret(hmac::HMAC_SHA384),
        Algorithm::Hs512 => return secret(hmac::HMAC_SHA512),
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDsa => &signature::ED25519,
    };
    match key {
        Material::Rsa(bytes) | Material::P256(bytes) | Material::P384(bytes) | Material::Ed25519(bytes) => {
            UnparsedPublicKey::new(public, bytes).verify(message, mark).is_ok()
        }
        Material::Secret(_) => false,
    }
}

/// Tokens that were verified, so that a client that shows the same one again costs no signature. Bounded: what was not asked for while as many
/// others were is forgotten. It belongs to one table, whose keys it depends on, and to one set of published keys: with the next it begins
/// anew.
#[derive(Debug, Default)]
pub struct Verified {
    young: HashMap<Known, Rc<Claims>>,
    old: HashMap<Known, Rc<Claims>>,
}

/// A policy by its number, and the SHA-256 of a token.
type Known = (usize, [u8; 32]);

/// Tokens in each half of [`Verified`].
const VERIFIED_MAX: usize = 1024;

impl Verified {
    /// What a token says by this policy, if it is to be believed at `now_s`.
    ///
    /// # Errors
    /// It is not.
    pub fn claims(
        &mut self,
        (policy, access): (usize, &TokenAccess),
        token: &[u8],
        published: Option<&[Key]>,
        now_s: u64,
    ) -> Result<Rc<Claims>, TokenFault> {
        let mut known = (policy, [0; 32]);
        known.1.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
        if let Some(claims) = self.young.get(&known) {
            return if claims.is_of(now_s) { Ok(Rc::clone(claims)) } else { Err(TokenFault::Expired) };
        }
        let claims = match self.old.remove(&known).filter(|claims| claims.is_of(now_s)) {
            Some(claims) => claims,
            None => Rc::new(access.verify(token, published, now_s)?),
        };
        if self.young.len() >= VERIFIED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(known, Rc::clone(&claims));
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
