//! Tokens, whoever vouches for them: how they are shown, what they say, and what they must say.

use serde_json::{Map, Value};

use super::credential::Place;

/// Bytes of a token, at most.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The scheme of `Authorization` (RFC 6750 §2.1).
const BEARER: &[u8] = b"bearer";

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

/// The one token among the values in its place. One that is said twice is no one's.
pub fn shown<V: AsRef<[u8]>>(
    place: &Place,
    mut values: impl Iterator<Item = V>,
) -> Result<Vec<u8>, TokenFault> {
    let value = values.next().ok_or(TokenFault::Missing)?;
    if values.next().is_some() {
        return Err(TokenFault::Invalid);
    }
    let value = value.as_ref();
    let token = match place {
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

    /// Whether they hold at `now_s`.
    pub fn is_of(&self, now_s: u64) -> bool {
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

/// What claims must be.
#[derive(Debug, Clone)]
pub struct Demands {
    /// What `iss` must be.
    pub issuer: Option<Box<str>>,
    /// One of these must be in `aud`; empty: it is not looked at.
    pub audience: Box<[Box<str>]>,
    /// Claims that there must be.
    pub require: Box<[Box<str>]>,
    /// Words that must all be in `scope`.
    pub scopes: Box<[Box<str>]>,
    /// How far clocks may be apart, in s.
    pub leeway_s: u64,
    /// Whether there must be an `exp`.
    pub needs_end: bool,
}

impl Demands {
    /// Whether claims that are believed allow what was asked for.
    ///
    /// # Errors
    /// They do not.
    pub fn allows(&self, claims: &Claims) -> Result<(), TokenFault> {
        let is_allowed = self.scopes.iter().all(|scope| claims.has_scope(scope));
        if is_allowed { Ok(()) } else { Err(TokenFault::NotAllowed) }
    }

    /// Claims that someone vouches for, if they are for here.
    pub fn met_by(&self, all: Map<String, Value>) -> Option<Claims> {
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
        let until_s = match all.get("exp") {
            None if !self.needs_end => u64::MAX,
            until => seconds(until?)?.saturating_add(self.leeway_s),
        };
        let from_s = match all.get("nbf") {
            None => 0,
            Some(from) => seconds(from)?.saturating_sub(self.leeway_s),
        };
        Some(Claims { all, from_s, until_s })
    }
}

/// A NumericDate (RFC 7519 §2): seconds since 1970, perhaps with a fraction.
fn seconds(value: &Value) -> Option<u64> {
    let whole = value.as_u64();
    whole.or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64))
}
