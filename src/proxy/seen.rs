//! A request as expressions see it (see [`crate::expression`]): its parts, looked up in what was parsed.

use std::{borrow::Cow, cell::OnceCell, net::IpAddr};

use serde_json::{Map, Value};

use super::{facts::Facts, heads::is_claim};
use crate::{
    expression::{Number, Scene, Text, TextMap},
    http::{
        field::{Field, FieldName, Fields},
        framing::BodyLength,
    },
    policy::cookie,
    route::{Params, query_names, query_values},
    telemetry::text::append_ip,
    tls::Session,
};

/// A request, with what its route's captures took.
pub(super) struct Seen<'f> {
    method: &'f [u8],
    scheme: &'static str,
    host: &'f [u8],
    path: &'f [u8],
    query: &'f [u8],
    id: &'f [u8],
    fields: &'f Fields,
    /// Whether what it says of who is before it is believed.
    is_trusted: bool,
    authority: &'f [u8],
    bytes: &'f [u8],
    body: BodyLength,
    client: IpAddr,
    client_port: u16,
    session: Option<&'f Session>,
    consumer: Option<&'f str>,
    subject: Option<&'f str>,
    claims: Option<&'f Map<String, Value>>,
    unix_us: u64,
    params: Params<'f>,
    /// What came of it, once it is over.
    outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) end: &'static str,
    pub(super) milliseconds: u64,
}

impl<'f> Seen<'f> {
    pub(super) fn new(facts: &Facts<'f>, params: Params<'f>) -> Self {
        Self {
            method: facts.method(),
            scheme: facts.scheme(),
            host: facts.host(),
            path: facts.path,
            query: facts.query().unwrap_or_default(),
            id: facts.id,
            fields: &facts.head.fields,
            is_trusted: facts.is_trusted,
            authority: facts.authority(),
            bytes: facts.bytes,
            body: facts.head.body,
            client: facts.client,
            client_port: facts.peer.port(),
            session: facts.session,
            consumer: facts.consumer(),
            subject: facts.subject(),
            claims: facts.claims.and_then(OnceCell::get).map(|claims| claims.all()),
            unix_us: facts.unix_us,
            params,
            outcome: Outcome::default(),
        }
    }

    /// The same, once it is over.
    pub(super) fn over(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    /// The same, as if it were sent by another method.
    pub(super) fn by(self, method: &'f [u8]) -> Self {
        Self { method, ..self }
    }

    /// Cookies as they were written: names and values.
    fn cookies(&self) -> impl Iterator<Item = &'f [u8]> {
        let bytes = self.bytes;
        let fields = self.fields.named(FieldName::Cookie).map(move |field| field.value_at.bytes(bytes));
        fields.flat_map(|field| field.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
    }

    /// What a stranger claims, and does not go on, no expression sees either.
    fn shows(&self, field: &Field) -> bool {
        self.is_trusted || !is_claim(field.name, field.name_at.bytes(self.bytes))
    }

    /// Who asks, as far as it is known.
    fn identities(&self) -> [(&'static str, Option<&'f str>); 2] {
        [("consumer", self.consumer), ("subject", self.subject)]
    }

    fn client_names(&self) -> impl Iterator<Item = &'f str> {
        let peer = self.session.and_then(|session| session.peer.as_ref());
        peer.into_iter().flat_map(|peer| peer.all_names.split(',')).filter(|name| !name.is_empty())
    }
}

impl Scene for Seen<'_> {
    fn text(&self, text: Text) -> Cow<'_, [u8]> {
        let peer = self.session.and_then(|session| session.peer.as_ref());
        Cow::Borrowed(match text {
            Text::Id => self.id,
            Text::Method => self.method,
            Text::Scheme => self.scheme.as_bytes(),
            Text::Host => return Cow::Owned(self.host.to_ascii_lowercase()),
            Text::Path => self.path,
            Text::ClientIp => {
                let mut text = Vec::new();
                append_ip(self.client, &mut text);
                return Cow::Owned(text);
            }
            Text::TlsVersion => self.session.map_or(b"", |session| session.version.as_bytes()),
            Text::TlsServerName => {
                self.session.and_then(|session| session.server_name.as_deref()).unwrap_or_default().as_bytes()
            }
            Text::ClientSubject => peer.map_or(b"", |peer| peer.subject.as_bytes()),
            Text::ClientFingerprint => peer.map_or(b"", |peer| peer.fingerprint_hex.as_bytes()),
            Text::End => self.outcome.end.as_bytes(),
        })
    }

    fn number(&self, number: Number) -> i64 {
        match number {
            Number::Size => match self.body {
                BodyLength::None => 0,
                BodyLength::Exact(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
                BodyLength::Chunked => -1,
            },
            Number::ClientPort => i64::from(self.client_port),
            Number::Status => i64::from(self.outcome.status),
            Number::Milliseconds => i64::try_from(self.outcome.milliseconds).unwrap_or(i64::MAX),
        }
    }

    fn values(&self, map: TextMap, name: &str, each: &mut dyn FnMut(&[u8])) {
        match map {
            // An absolute target overrides the field (RFC 9112 §3.2.2).
            TextMap::Headers if name.eq_ignore_ascii_case("host") => each(self.authority),
            TextMap::Headers => {
                let fields = self.fields.called(self.bytes, name.as_bytes());
                fields
                    .filter(|field| self.shows(field))
                    .for_each(|field| each(field.value_at.bytes(self.bytes)));
            }
            TextMap::Query => query_values(self.query, name.as_bytes()).for_each(|value| each(&value)),
            TextMap::Cookies => {
                self.cookies().filter_map(|pair| cookie::find(pair, name.as_bytes())).for_each(each);
            }
            TextMap::Params => {
                self.params.iter().filter(|(param, _)| *param == name).for_each(|(_, value)| each(value));
            }
            TextMap::Auth => {
                let known = self.identities().into_iter().filter(|(known, _)| *known == name);
                known.filter_map(|(_, value)| value).for_each(|value| each(value.as_bytes()));
            }
            TextMap::ClientNames => {
                self.client_names().filter(|own| *own == name).for_each(|own| each(own.as_bytes()));
            }
        }
    }

    fn names(&self, map: TextMap, each: &mut dyn FnMut(&[u8])) {
        match map {
            TextMap::Headers => {
                let fields = self.fields.iter().filter(|field| self.shows(field));
                fields.for_each(|field| each(field.name_at.bytes(self.bytes)));
            }
            TextMap::Query => query_names(self.query).for_each(|name| each(&name)),
            TextMap::Cookies => {
                let name = |pair: &'_ [u8]| pair.iter().position(|byte| *byte == b'=');
                self.cookies().for_each(|pair| {
                    if let Some(at) = name(pair) {
                        each(pair[..at].trim_ascii_end());
                    }
                });
            }
            TextMap::Auth => {
                let known = self.identities().into_iter().filter(|(_, value)| value.is_some());
                known.for_each(|(name, _)| each(name.as_bytes()));
            }
            TextMap::Params => self.params.iter().for_each(|(name, _)| each(name.as_bytes())),
            TextMap::ClientNames => self.client_names().for_each(|name| each(name.as_bytes())),
        }
    }

    fn claims(&self) -> Option<&Map<String, Value>> {
        self.claims
    }

    fn unix_us(&self) -> u64 {
        self.unix_us
    }
}
