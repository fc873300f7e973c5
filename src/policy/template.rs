//! Texts with variables, such as `/v2/users/{path.id}`: compiled when the configuration is loaded, rendered per
//! request. A template knows the place it is for, and so which bytes a value may bring there; where values come
//! from, the caller knows ([`Variables`]).

mod compile;
mod escape;

use crate::expression::Expression;
pub use compile::TemplateError;
use escape::Escape;
pub use escape::{Value, is_field_value};

/// Bytes that one rendering may append.
pub const TEMPLATE_OUTPUT_MAX: usize = 16 * 1024;

/// What a template's text is for. It decides what the text may contain and how values are made safe in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The value of a field. Control characters are refused in the text and dropped from values, so that no value
    /// can end the field.
    Header,
    /// The path, and after a `?` the query, sent upstream. Captures and `{path}`, which are canonical, stay as they
    /// are; anything else a client sent is percent-encoded and can be no separator. The caller brings the result to
    /// canonical form like a request's own path; a value that makes a dot segment is refused here.
    Target,
    /// A URL reference for `Location`. Path and query as in [`Place::Target`]; in front of them no value can be more
    /// than a part of a name, except `{host}` and `{scheme}`, which are what they are.
    Location,
    /// A body. Values come as they were sent: in an HTML body, put no variable that a client chooses.
    Body,
}

/// What stands between braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `{client.ip}`: the client's address, without a port or brackets.
    ClientIp,
    /// `{client.port}`: the peer's port.
    ClientPort,
    /// `{host}`: the host the request is for, as sent, with its port.
    Host,
    /// `{path}`: the canonical path, without the query.
    Path,
    /// `{path.NAME}`, or `{NAME}` where no other variable has that name: a capture of the route's path, by index.
    Capture(usize),
    /// `{query}`: the query as sent, without the `?`.
    Query,
    /// `{query.NAME}`: the value of the first parameter of this name, as sent: percent-encoded, not decoded.
    QueryParameter(Box<str>),
    /// `{header.NAME}`: the value of the request's first field of this name, which is in lower case here.
    Header(Box<str>),
    /// `{request.id}`: the request's id.
    RequestId,
    /// `{method}`: the method.
    Method,
    /// `{scheme}`: `http` or `https`, as the client connection is.
    Scheme,
    /// `{route}`: the route's name.
    Route,
    /// `{consumer.name}`: the name of the consumer whose key the request shows; nothing where none is asked for.
    Consumer,
    /// `{auth.subject}`: the user whose password the request shows, or `sub` of its token; nothing where none is asked for.
    Subject,
    /// `{claims.NAME}`: a claim of the token that the request shows; nothing where none is asked for.
    Claim(Box<str>),
    /// `{tls.…}`: what the connection's handshake came to.
    Tls(TlsVariable),
}

/// What `{tls.…}` stands for; nothing on connections without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVariable {
    /// `{tls.version}`: `TLSv1.2` or `TLSv1.3`.
    Version,
    /// `{tls.cipher}`: the cipher suite's name.
    Cipher,
    /// `{tls.server_name}`: the name that the client asked for (SNI).
    ServerName,
    /// `{tls.client_subject}`: the subject of the client's certificate.
    ClientSubject,
    /// `{tls.client_names}`: the names and addresses that it is for, with commas between.
    ClientNames,
    /// `{tls.client_fingerprint}`: its SHA-256, in hexadecimal digits.
    ClientFingerprint,
}

/// Where the values of variables come from: an exchange.
pub trait Variables {
    /// Puts the value of `variable`, all of it in one [`Value::put`]. One that is missing puts nothing.
    fn write(&self, variable: &Variable, value: &mut Value<'_>);
    /// The text that an expression comes to, for a route whose captures have these names; `None`: it has no value.
    fn evaluate(&self, expression: &Expression, names: &[String]) -> Option<String>;
}

/// A compiled text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// No two literals in a row, none empty.
    pieces: Box<[Piece]>,
    place: Place,
    lead: Lead,
    has_query: bool,
}

/// What a URL reference begins with; it must come out so, whatever the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// A path: no value may turn it into an authority (`//evil.example`).
    Path,
    /// An authority, perhaps with a scheme: without its name, readers take the path's first segment for it.
    Authority,
    /// Something else, or it is no URL reference.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<[u8]>),
    Variable { variable: Variable, escape: Escape },
}

/// Why a text could not be rendered for this request. What was appended is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// It would be longer than [`TEMPLATE_OUTPUT_MAX`].
    #[error("a text with variables became longer than 16 KiB")]
    TooLong,
    /// A value made a `.` or `..` segment in a path: it would lead somewhere the operator did not write.
    #[error("a variable made a dot segment in a path")]
    DotSegment,
    /// A redirect's host came out empty: the request has none.
    #[error("a redirect's host came out empty")]
    NoHost,
}

impl Template {
    /// Compiles `text`. `captures`: the names the route's path captures, in the order of their indexes. Braces are
    /// written `{{` and `}}`.
    pub fn compile(text: &str, captures: &[String], place: Place) -> Result<Self, TemplateError> {
        compile::compile(text, captures, place)
    }

    /// The whole text, when it has no variables.
    #[inline]
    pub fn as_static(&self) -> Option<&[u8]> {
        match &*self.pieces {
            [] => Some(b""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether a [`Place::Target`] or [`Place::Location`] says what the query is. If not, a rewrite leaves the client's
    /// as it is.
    pub fn has_query(&self) -> bool {
        self.has_query
    }

    /// The variables in it, in order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Variable { variable, .. } => Some(variable),
        })
    }

    /// Appends the text with the values of its variables to `out`. On an error `out` is as it was.
    #[inline]
    pub fn render<V: Variables>(&self, variables: &V, out: &mut Vec<u8>) -> Result<(), RenderError> {
        if let Some(text) = self.as_static() {
            out.extend_from_slice(text);
            return Ok(());
        }
        let start = out.len();
        let rendered = self.render_pieces(variables, start, out);
        if rendered.is_err() {
            out.truncate(start);
        }
        rendered
    }

    fn render_pieces<V: Variables>(
        &self,
        variables: &V,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        let mut value = Value::new(out, start + TEMPLATE_OUTPUT_MAX);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => value.put_escaped(text, Escape::Verbatim),
                Piece::Variable { variable, escape } => {
                    value.escape = *escape;
                    variables.write(variable, &mut value);
                }
            }
        }
        if value.is_overfull {
            return Err(RenderError::TooLong);
        }
        match self.place {
            Place::Header | Place::Body => {}
            Place::Target if escape::has_dot_segment(&out[start..]) => return Err(RenderError::DotSegment),
            Place::Target => {}
            // Dot segments are a client's own affair: it may go where it likes.
            Place::Location => self.check_lead(start, out)?,
        }
        Ok(())
    }

    fn check_lead(&self, start: usize, out: &mut Vec<u8>) -> Result<(), RenderError> {
        match self.lead {
            Lead::Path => {
                // `/{path.rest}` with a rest that begins with a slash: one of the slashes is enough.
                let slashes = out[start..].iter().take_while(|byte| **byte == b'/').count();
                out.drain(start..start + slashes.saturating_sub(1));
            }
            Lead::Authority => {
                // The first two slashes are those in front of it: a value in front of them has none.
                let reference = &out[start..];
                let after = memchr::memmem::find(reference, b"//").and_then(|at| reference.get(at + 2));
                if matches!(after, None | Some(b'/' | b'?' | b'#' | b':')) {
                    return Err(RenderError::NoHost);
                }
            }
            Lead::Other => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
