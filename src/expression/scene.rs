//! A request as expressions see it: its parts by name, looked for when they are asked for.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use cel::{
    ExecutionError,
    common::{
        traits::{Container, Indexer},
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelNull, CelString, DYN_TYPE, MAP_TYPE, Type},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use serde_json::Value;

use super::{Constant, time::Moment};

/// A part of a request that is one text. Empty: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// `request.id`: `X-Request-Id`.
    Id,
    /// `request.method`: as sent.
    Method,
    /// `request.scheme`: `http` or `https`.
    Scheme,
    /// `request.host`: in lower case, without its port.
    Host,
    /// `request.path`: the canonical path.
    Path,
    /// `request.client.ip`: the client's address.
    ClientIp,
    /// `request.tls.version`: `TLSv1.2` or `TLSv1.3`.
    TlsVersion,
    /// `request.tls.server_name`: what the client asked for by SNI.
    TlsServerName,
    /// `request.tls.client_subject`: the subject of the client's certificate (RFC 4514).
    ClientSubject,
    /// `request.tls.client_fingerprint`: the SHA-256 of the client's certificate, in hexadecimal digits.
    ClientFingerprint,
    /// `response.end`: how the exchange ended.
    End,
}

/// A part of a request that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// `request.size`: bytes of the body by `Content-Length`; -1: not known beforehand.
    Size,
    /// `request.client.port`: the other end's port.
    ClientPort,
    /// `response.status`.
    Status,
    /// `response.milliseconds`: how long the exchange took.
    Milliseconds,
}

/// A part of a request that has texts by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextMap {
    /// `request.headers`: fields, their names in any case; of one that comes more than once, the values with commas between.
    Headers,
    /// `request.query`: query parameters, decoded.
    Query,
    /// `request.cookies`.
    Cookies,
    /// `request.params`: what the route's captures took.
    Params,
    /// `auth`: who asks. `subject`: `sub` of the token that it shows, or the user whose password; `consumer`: whose key it shows. Who is no one has no name.
    Auth,
    /// `request.tls.client_names`: the names and addresses that the client's certificate is for, each its own value.
    ClientNames,
}

/// A request. Every text is given as the bytes that came; what is no UTF-8 has no value in an expression.
pub trait Scene: Sync {
    /// A part that is one text.
    fn text(&self, text: Text) -> Cow<'_, [u8]>;
    /// A part that is a number.
    fn number(&self, number: Number) -> i64;
    /// Calls `each` for every value of a name.
    fn values(&self, map: TextMap, name: &str, each: &mut dyn FnMut(&[u8]));
    /// Calls `each` for every name, perhaps more than once.
    fn names(&self, map: TextMap, each: &mut dyn FnMut(&[u8]));
    /// What the token that it shows says.
    fn claims(&self) -> Option<&serde_json::Map<String, Value>>;
    /// The time, in µs since 1970.
    fn unix_us(&self) -> u64;
}

/// A field of `request` and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Text(Text),
    Number(Number),
    Map(TextMap),
    /// More fields below it.
    Record(&'static [(&'static str, Self)]),
    Claims,
    Now,
}

pub(super) const REQUEST: &[(&str, Part)] = &[
    ("client", Part::Record(CLIENT)),
    ("cookies", Part::Map(TextMap::Cookies)),
    ("headers", Part::Map(TextMap::Headers)),
    ("host", Part::Text(Text::Host)),
    ("id", Part::Text(Text::Id)),
    ("method", Part::Text(Text::Method)),
    ("params", Part::Map(TextMap::Params)),
    ("path", Part::Text(Text::Path)),
    ("query", Part::Map(TextMap::Query)),
    ("scheme", Part::Text(Text::Scheme)),
    ("size", Part::Number(Number::Size)),
    ("tls", Part::Record(TLS)),
];

const CLIENT: &[(&str, Part)] =
    &[("ip", Part::Text(Text::ClientIp)), ("port", Part::Number(Number::ClientPort))];

const TLS: &[(&str, Part)] = &[
    ("client_fingerprint", Part::Text(Text::ClientFingerprint)),
    ("client_names", Part::Map(TextMap::ClientNames)),
    ("client_subject", Part::Text(Text::ClientSubject)),
    ("server_name", Part::Text(Text::TlsServerName)),
    ("version", Part::Text(Text::TlsVersion)),
];

/// What there can be in `auth`.
pub(super) const AUTH: [&str; 2] = ["consumer", "subject"];

const RESPONSE: &[(&str, Part)] = &[
    ("end", Part::Text(Text::End)),
    ("milliseconds", Part::Number(Number::Milliseconds)),
    ("status", Part::Number(Number::Status)),
];

/// What there is, of a request alone.
pub(super) const OF_REQUESTS: &[(&str, Part)] = &[("now", Part::Now), ("request", Part::Record(REQUEST))];

/// What there is where it is known who asks.
pub(super) const OF_IDENTITIES: &[(&str, Part)] = &[
    ("auth", Part::Map(TextMap::Auth)),
    ("claims", Part::Claims),
    ("now", Part::Now),
    ("request", Part::Record(REQUEST)),
];

/// What there is once an exchange is over: all that there ever is.
pub(super) const OF_EXCHANGES: &[(&str, Part)] = &[
    ("auth", Part::Map(TextMap::Auth)),
    ("claims", Part::Claims),
    ("now", Part::Now),
    ("request", Part::Record(REQUEST)),
    ("response", Part::Record(RESPONSE)),
];

/// The part of this name.
pub(super) fn part_of(parts: &[(&str, Part)], name: &str) -> Option<Part> {
    parts.iter().find(|(part, _)| *part == name).map(|(_, part)| *part)
}

/// Bytes of a name that loops go through, and such names.
pub(super) const NAME_BYTES_MAX: usize = 256;
pub(super) const NAMES_MAX: usize = 256;

/// What stands for a function in errors of what a request brings.
pub(super) const SCENE: &str = "request";

/// What an expression's names stand for while it is evaluated.
pub(super) struct Bound<'v> {
    scene: &'v dyn Scene,
    constants: &'v [Constant],
    /// Made once, however often they are spoken of.
    claims: CelMap<'v>,
}

impl<'v> Bound<'v> {
    /// `has_claims`: whether the expression speaks of them.
    pub(super) fn new(scene: &'v dyn Scene, constants: &'v [Constant], has_claims: bool) -> Self {
        Self { scene, constants, claims: claims_of(scene.claims().filter(|_| has_claims)) }
    }

    /// The value of a part. A record is none by itself: its fields are asked for by their whole names.
    fn value<'b>(&'b self, part: Part) -> Option<CowVal<'b, 'b>> {
        Some(match part {
            Part::Text(text) => text_of(self.scene.text(text))?,
            Part::Number(number) => CowVal::owned(CelInt::from(self.scene.number(number))),
            Part::Map(map) => CowVal::owned(Named { scene: self.scene, map }),
            Part::Claims => CowVal::Borrowed(&self.claims as &dyn Val),
            Part::Now => CowVal::owned(Moment(i64::try_from(self.scene.unix_us()).ok()?)),
            Part::Record(_) => return None,
        })
    }
}

impl VariableResolver for Bound<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(number) = variable.strip_prefix(super::check::CONSTANT) {
            let constant = self.constants.get(number.parse::<usize>().ok()?)?;
            return Some(CowVal::Borrowed(constant.value()));
        }
        let mut parts = OF_EXCHANGES;
        let mut names = variable.split('.');
        loop {
            match part_of(parts, names.next()?)? {
                Part::Record(below) => parts = below,
                // What lies below it is looked up in the value.
                part => return if names.next().is_none() { self.value(part) } else { None },
            }
        }
    }
}

/// A text; what is no UTF-8 is none, so that an expression with it fails.
fn text_of<'b>(bytes: Cow<'_, [u8]>) -> Option<CowVal<'b, 'b>> {
    String::from_utf8(bytes.into_owned()).ok().map(|text| CowVal::owned(CelString::from(text)))
}

/// The texts of a part by their names.
#[derive(Clone)]
pub(super) struct Named<'v> {
    scene: &'v dyn Scene,
    map: TextMap,
}

impl fmt::Debug for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("map", &self.map).finish_non_exhaustive()
    }
}

impl Named<'_> {
    fn look_up(&self, name: &str) -> Result<String, ExecutionError> {
        let mut found: Option<Vec<u8>> = None;
        let mut count = 0;
        self.scene.values(self.map, name, &mut |value| {
            count += 1;
            let found = found.get_or_insert_default();
            if count > 1 {
                found.extend_from_slice(b", ");
            }
            found.extend_from_slice(value);
        });
        let found = found.ok_or_else(|| ExecutionError::no_such_key(name))?;
        // Fields may be lists (RFC 9110 §5.3). Of anything else that comes twice no one knows which is meant.
        if count > 1 && self.map != TextMap::Headers {
            return Err(ExecutionError::function_error(SCENE, format!("`{name}` comes more than once")));
        }
        String::from_utf8(found)
            .map_err(|_| ExecutionError::function_error(SCENE, format!("`{name}` is no UTF-8")))
    }

    /// All names, for loops over them.
    fn all(&self) -> Result<Vec<Box<dyn Val>>, ExecutionError> {
        let mut names = BTreeSet::new();
        let mut are_sound = true;
        self.scene.names(self.map, &mut |name| {
            are_sound &= name.len() <= NAME_BYTES_MAX && names.len() <= NAMES_MAX;
            if !are_sound {
                return;
            }
            match std::str::from_utf8(name) {
                Ok(name) if self.map == TextMap::Headers => drop(names.insert(name.to_ascii_lowercase())),
                Ok(name) => drop(names.insert(name.to_owned())),
                Err(_) => are_sound = false,
            }
        });
        // A loop that passed over some would say of all of them what it knows of the others.
        if !are_sound || names.len() > NAMES_MAX {
            let why = "there are too many names, or one that is too long or no UTF-8";
            return Err(ExecutionError::function_error(SCENE, why));
        }
        Ok(names.into_iter().map(|name| Box::new(CelString::from(name)) as Box<dyn Val>).collect())
    }
}

impl Val for Named<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Indexer for Named<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if index.downcast_ref::<Names>().is_some() {
            return Ok(CowVal::owned(CelList::from(self.all()?)));
        }
        match index.downcast_ref::<CelString<'_>>() {
            Some(name) => Ok(CowVal::owned(CelString::from(self.look_up(name.inner())?))),
            None => Err(unexpected(index)),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

impl Container for Named<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let name = value.downcast_ref::<CelString<'_>>().ok_or_else(|| unexpected(value))?;
        let mut is_there = false;
        self.scene.values(self.map, name.inner(), &mut |_| is_there = true);
        Ok(is_there)
    }
}

fn unexpected(value: &dyn Val) -> ExecutionError {
    ExecutionError::UnexpectedType { got: value.get_type().name().to_owned(), want: "string".to_owned() }
}

/// The key that all names stand under: a value that no expression can write.
#[derive(Debug, Clone)]
pub(super) struct Names;

impl Val for Names {
    fn get_type(&self) -> &Type {
        &DYN_TYPE
    }

    fn cel_type() -> &'static Type {
        &DYN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self)
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl cel::common::value::StaticVal for Names {}

/// A token's claims; of no token, none.
fn claims_of<'v>(claims: Option<&'v serde_json::Map<String, Value>>) -> CelMap<'v> {
    let entries = claims.into_iter().flatten().map(|(name, value)| (name.as_str().into(), json(value)));
    CelMap::from(entries.collect::<std::collections::HashMap<_, _>>())
}

/// A value of JSON. Numbers that are whole are of type `int`, or `uint` where they are larger.
fn json<'v>(value: &'v Value) -> Box<dyn Val + 'v> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(is) => Box::new(CelBool::from(*is)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(cel::common::types::CelUInt::from(number)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(list) => Box::new(CelList::from(list.iter().map(json).collect::<Vec<_>>())),
        Value::Object(map) => Box::new(claims_of(Some(map))),
    }
}
