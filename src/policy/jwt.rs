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
};

/// Bytes of a token, at most.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The scheme of `Authorization` (RFC 6750 §2.1).
const BEARER: &[u8] = b"bearer";

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
    /// What `iss` must be.
    pub issuer: Option<Box<str>>,
    /// One of these must be in `aud`; empty: it is not looked at.
    pub audience: Box<[Box<str>]>,
    /// Claims that there must be, beside `exp`.
    pub require: Box<[Box<str>]>,
    /// Words that must all be in `scope`.
    pub scopes: Box<[Box<str>]>,
    /// How far clocks may be apart, in s.
    pub leeway_s: u64,
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

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// There is none.
    Missing,
    /// It is none, is not signed by one of the keys, or is for something else.
    Invalid,
    /// Its time is over, or has not come.
    Expired,
    /// It is to be believed, and does not allow what was asked for.
    NotAllowed,
    /// What it may be signed with is not known yet.
    NoKeys,
}

/// Why no signature was found to be good.
enum Unsigned {
    Invalid,
    /// None of the keys is the one that it names, or any of them if it names none.
    UnknownKey,
}

/// What a token that is believed says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    all: Map<String, Value>,
    /// From when to when, leeway included, in s since 1970.
    from_s: u64,
    until_s: u64,
}

impl Claims {
    /// The value of a claim as a text: a list's elements with spaces between, as `scope` has it; `None`: it is not there, or an object.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.all.get(name)? {
            Value::Array(list) => Some(list.iter().filter_map(plain).collect::<Vec<_>>().join(" ")),
            one => plain(one),
        }
    }

    /// All of them.
    pub fn all(&self) -> &Map<String, Value> {
        &self.all
    }

    /// `sub`: who it is.
    pub fn subject(&self) -> Option<&str> {
        self.all.get("sub")?.as_str()
    }

    /// Whether a word is in `scope` (RFC 8693 §4.2), or in `scp`, which some issuers have instead: with spaces between them, or as a list.
    fn has_scope(&self, scope: &str) -> bool {
        let mut claims = ["scope", "scp"].into_iter().filter_map(|name| self.all.get(name));
        claims.any(|claim| match claim {
            Value::String(words) => words.split(' ').any(|word| word == scope),
            Value::Array(list) => list.iter().any(|word| word.as_str() == Some(scope)),
            _ => false,
        })
    }

    fn is_of(&self, now_s: u64) -> bool {
        (self.from_s..self.until_s).contains(&now_s)
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

impl TokenAccess {
    /// The one token among the values in its place. One that is said twice is no one's.
    pub fn token<V: AsRef<[u8]>>(&self, mut values: impl Iterator<Item = V>) -> Result<Vec<u8>, TokenFault> {
        let value = values.next().ok_or(TokenFault::Missing)?;
        if values.next().is_some() {
            return Err(TokenFault::Invalid);
        }
        let value = value.as_ref();
        let token = match &self.place {
            Place::Header(name) if &**name == "authorization" => {
                let at = value.iter().position(|byte| *byte == b' ').ok_or(TokenFault::Missing)?;
                let (scheme, token) = value.split_at(at);
                if !scheme.eq_ignore_ascii_case(BEARER) {
                    return Err(TokenFault::Missing);
                }
                token.trim_ascii()
            }
            Place::Header(_) | Place::Query(_) | Place::Cookie(_) => value,
        };
        match token.len() {
            0 => Err(TokenFault::Missing),
            1..=TOKEN_BYTES_MAX => Ok(token.to_vec()),
            _ => Err(TokenFault::Invalid),
        }
    }

    /// Whether a token that is believed allows what was asked for.
    ///
    /// # Errors
    /// It does not.
    pub fn allows(&self, claims: &Claims) -> Result<(), TokenFault> {
        let is_allowed = self.scopes.iter().all(|scope| claims.has_scope(scope));
        if is_allowed { Ok(()) } else { Err(TokenFault::NotAllowed) }
    }

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
        object(payload).and_then(|all| self.claims(all)).ok_or(Unsigned::Invalid)
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

    /// Signed claims, if they are for here.
    fn claims(&self, all: Map<String, Value>) -> Option<Claims> {
        if let Some(issuer) = &self.issuer
            && all.get("iss")?.as_str()? != &**issuer
        {
            return None;
        }
        let is_meant =
            |value: &Value| value.as_str().is_some_and(|one| self.audience.iter().any(|ours| **ours == *one));
        let is_for_us = self.audience.is_empty()
            || match all.get("aud")? {
                Value::Array(list) => list.iter().any(is_meant),
                one => is_meant(one),
            };
        let is_there = |name: &str| all.get(name).is_some_and(|value| !value.is_null());
        if !is_for_us || !self.require.iter().all(|name| is_there(name)) {
            return None;
        }
        let until_s = seconds(all.get("exp")?)?.saturating_add(self.leeway_s);
        let from_s = match all.get("nbf") {
            None => 0,
            Some(from) => seconds(from)?.saturating_sub(self.leeway_s),
        };
        Some(Claims { all, from_s, until_s })
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

/// A NumericDate (RFC 7519 §2): seconds since 1970, perhaps with a fraction.
fn seconds(value: &Value) -> Option<u64> {
    let whole = value.as_u64();
    whole.or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64))
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
