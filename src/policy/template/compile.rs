//! From text to template: the notation, what a text may hold in its place, and errors that say what was meant.

use super::{
    Lead, Piece, Place, TEMPLATE_OUTPUT_MAX, Template, TlsVariable, Variable,
    escape::{Class, Escape, has_dot_segment, is_triplet},
};
use crate::policy::is_token;

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// Where, as a byte offset in the text.
    pub at: usize,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to write instead, where that can be told.
    pub hint: Option<String>,
}

impl TemplateError {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// The variables without a name of their own.
const VARIABLES: [(&str, Variable); 17] = [
    ("client.ip", Variable::ClientIp),
    ("client.port", Variable::ClientPort),
    ("host", Variable::Host),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("request.id", Variable::RequestId),
    ("method", Variable::Method),
    ("scheme", Variable::Scheme),
    ("route", Variable::Route),
    ("consumer.name", Variable::Consumer),
    ("auth.subject", Variable::Subject),
    ("tls.version", Variable::Tls(TlsVariable::Version)),
    ("tls.cipher", Variable::Tls(TlsVariable::Cipher)),
    ("tls.server_name", Variable::Tls(TlsVariable::ServerName)),
    ("tls.client_subject", Variable::Tls(TlsVariable::ClientSubject)),
    ("tls.client_names", Variable::Tls(TlsVariable::ClientNames)),
    ("tls.client_fingerprint", Variable::Tls(TlsVariable::ClientFingerprint)),
];

pub(super) fn compile(text: &str, captures: &[String], place: Place) -> Result<Template, TemplateError> {
    let mut builder = Builder::new(text, captures, place)?;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'{', Some(b'{')) | (b'}', Some(b'}')) => {
                builder.literal(at, 2)?;
                at += 2;
            }
            (b'{', _) => {
                let Some(length) =
                    memchr::memchr2(b'}', b'{', &bytes[at + 1..]).filter(|n| bytes[at + 1 + n] == b'}')
                else {
                    let error = TemplateError::new(at, "this `{` is not closed");
                    return Err(error.hint("a brace that is meant as such is written `{{`"));
                };
                builder.variable(at, &text[at + 1..at + 1 + length])?;
                at += length + 2;
            }
            (b'}', _) => {
                let error = TemplateError::new(at, "this `}` closes nothing");
                return Err(error.hint("a brace that is meant as such is written `}}`"));
            }
            _ => {
                builder.literal(at, 1)?;
                at += 1;
            }
        }
    }
    builder.finish()
}

/// Which part of a URL reference the text has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// In front of `//`.
    Scheme,
    /// Between the two slashes.
    Slashes,
    Authority,
    Path,
    /// Query, or fragment.
    Query,
}

/// A template as far as it is read.
struct Builder<'t> {
    text: &'t str,
    captures: &'t [String],
    place: Place,
    part: Part,
    lead: Lead,
    pieces: Vec<Piece>,
    /// The literal that is being read.
    literal: Vec<u8>,
    /// The path's literals, each variable as one letter: for dot segments.
    outline: Vec<u8>,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str, captures: &'t [String], place: Place) -> Result<Self, TemplateError> {
        let is_path = text.starts_with('/') || text.starts_with("{path}");
        let lead = match place {
            Place::Target if !is_path => {
                let error = TemplateError::new(0, "a rewritten path begins with `/`");
                return Err(error.hint(format!("write `/{text}`")));
            }
            Place::Location if text.is_empty() => {
                return Err(TemplateError::new(0, "a redirect needs a target"));
            }
            Place::Target => Lead::Path,
            Place::Location if is_path && !text.starts_with("//") => Lead::Path,
            Place::Location | Place::Header | Place::Body => Lead::Other,
        };
        let part = if lead == Lead::Path { Part::Path } else { Part::Scheme };
        let (pieces, literal, outline) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { text, captures, place, part, lead, pieces, literal, outline })
    }

    /// Takes the character that is written with `length` bytes at `at`; of a longer one, its first byte.
    fn literal(&mut self, at: usize, length: usize) -> Result<(), TemplateError> {
        let byte = self.text.as_bytes()[at];
        let rest = &self.text.as_bytes()[at..];
        match self.place {
            Place::Body => {}
            Place::Header => {
                if byte.is_ascii_control() && byte != b'\t' {
                    return Err(TemplateError::new(
                        at,
                        "a field's value has no control characters or line breaks",
                    ));
                }
            }
            Place::Target | Place::Location => {
                let class = if self.place == Place::Target { Class::QUERY } else { Class::REFERENCE };
                if !(length == 1 && (class.has(byte) || is_triplet(rest))) {
                    return Err(self.unfit(at));
                }
                self.advance(at, byte);
            }
        }
        self.literal.push(byte);
        Ok(())
    }

    /// A character that a URL does not have.
    fn unfit(&self, at: usize) -> TemplateError {
        let Some(character) = self.text[at..].chars().next() else {
            return TemplateError::new(at, "the text ends here");
        };
        if character == '#' {
            return TemplateError::new(at, "a fragment is never sent to a server");
        }
        let mut encoded = String::new();
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        TemplateError::new(at, format!("{character:?} cannot be in a URL as it is"))
            .hint(format!("write it percent-encoded: `{encoded}`"))
    }

    /// Follows the parts of a URL reference over one literal byte.
    fn advance(&mut self, at: usize, byte: u8) {
        let is_doubled = self.text.as_bytes().get(at + 1) == Some(&b'/');
        self.part = match (self.part, byte) {
            (Part::Scheme, b'/') if is_doubled => Part::Slashes,
            (Part::Slashes, _) => Part::Authority,
            (Part::Scheme | Part::Authority, b'/') => Part::Path,
            (_, b'?' | b'#') => Part::Query,
            (part, _) => part,
        };
        if self.part == Part::Authority {
            self.lead = Lead::Authority;
        }
        if self.part == Part::Path {
            self.outline.push(byte);
        }
    }

    /// Takes the variable `{name}` whose brace is at `at`.
    fn variable(&mut self, at: usize, name: &str) -> Result<(), TemplateError> {
        let variable = self.named(at, name)?;
        let escape = self.escape_of(&variable);
        if self.part == Part::Path {
            self.outline.push(b'x');
        }
        if variable == Variable::Path && self.part == Part::Authority {
            // It begins with a slash, always.
            self.part = Part::Path;
        }
        self.end_literal();
        self.pieces.push(Piece::Variable { variable, escape });
        Ok(())
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            self.pieces.push(Piece::Literal(std::mem::take(&mut self.literal).into()));
        }
    }

    fn named(&self, at: usize, name: &str) -> Result<Variable, TemplateError> {
        if let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) {
            return Ok(variable.clone());
        }
        match name.split_once('.') {
            Some(("path", capture)) => match self.captures.iter().position(|known| known == capture) {
                Some(index) => Ok(Variable::Capture(index)),
                None => {
                    let error = TemplateError::new(at, format!("the route's path captures no `{capture}`"));
                    Err(match nearest(capture, self.captures.iter().map(String::as_str)) {
                        Some(near) => error.hint(format!("did you mean `{{path.{near}}}`?")),
                        None if self.captures.is_empty() => error.hint("it captures nothing"),
                        None => error.hint(format!("it captures `{}`", self.captures.join("`, `"))),
                    })
                }
            },
            Some(("query", "")) => Err(TemplateError::new(at, "a query parameter needs a name")),
            Some(("query", name)) => Ok(Variable::QueryParameter(name.into())),
            Some(("claims", name)) if !name.is_empty() => Ok(Variable::Claim(name.into())),
            Some(("claims", _)) => Err(TemplateError::new(at, "a claim needs a name")),
            Some(("header", name)) if is_token(name.as_bytes()) => {
                Ok(Variable::Header(name.to_ascii_lowercase().into()))
            }
            Some(("header", name)) => {
                Err(TemplateError::new(at, format!("`{name}` is not the name of a field")))
            }
            _ => match self.captures.iter().position(|known| known == name) {
                Some(index) => Ok(Variable::Capture(index)),
                None => Err(self.unknown(at, name)),
            },
        }
    }

    fn unknown(&self, at: usize, name: &str) -> TemplateError {
        let known = VARIABLES.iter().map(|(name, _)| *name).chain(self.captures.iter().map(String::as_str));
        let error = TemplateError::new(at, format!("unknown variable `{{{name}}}`"));
        if let Some(capture) =
            name.strip_prefix('*').filter(|name| self.captures.iter().any(|known| known == name))
        {
            return error.hint(format!("the capture is written `{{{capture}}}` here"));
        }
        if let Some((group, rest)) = name.split_once('.')
            && let Some(near) = nearest(group, ["path", "query", "header", "claims"].into_iter())
        {
            return error.hint(format!("did you mean `{{{near}.{rest}}}`?"));
        }
        match nearest(name, known) {
            Some(near) => error.hint(format!("did you mean `{{{near}}}`?")),
            None => error.hint(
                "there are auth.subject, claims.NAME, client.ip, client.port, consumer.name, header.NAME, host, method, path, path.NAME, query, query.NAME, \
                 request.id, route, scheme, tls.version, tls.cipher, tls.server_name, tls.client_subject, \
                 tls.client_names and tls.client_fingerprint",
            ),
        }
    }

    /// How a variable's value is made safe where the text has come to.
    fn escape_of(&self, variable: &Variable) -> Escape {
        use Variable::{Capture, Host, Path, Query, QueryParameter};
        match self.place {
            Place::Header => return Escape::Field,
            Place::Body => return Escape::Verbatim,
            Place::Target | Place::Location => {}
        }
        match (self.part, variable) {
            (Part::Authority, Host) => Escape::Percent(Class::HOST),
            (Part::Authority, Path) => Escape::Encoded(Class::PATH),
            (Part::Path, Path | Capture(_)) => Escape::Encoded(Class::PATH),
            (Part::Path, Query | QueryParameter(_)) => Escape::Encoded(Class::UNRESERVED),
            (Part::Query, Path | Capture(_)) => Escape::Encoded(Class::PATH_IN_QUERY),
            (Part::Query, Query) => Escape::Encoded(Class::QUERY),
            (Part::Query, QueryParameter(_)) => Escape::Encoded(Class::PARAMETER),
            _ => Escape::Percent(Class::UNRESERVED),
        }
    }

    fn finish(mut self) -> Result<Template, TemplateError> {
        self.end_literal();
        let has_variables = self.pieces.iter().any(|piece| matches!(piece, Piece::Variable { .. }));
        if self.text.len() > TEMPLATE_OUTPUT_MAX && (has_variables || self.place != Place::Body) {
            return Err(TemplateError::new(TEMPLATE_OUTPUT_MAX, "the text is longer than 16 KiB"));
        }
        if self.place == Place::Target && has_dot_segment(&self.outline) {
            let at = self.text.find("/.").map_or(0, |slash| slash + 1);
            let error = TemplateError::new(at, "a rewritten path has no `.` or `..` segment");
            return Err(error.hint("write the path that it leads to"));
        }
        Ok(Template {
            pieces: self.pieces.into(),
            place: self.place,
            lead: self.lead,
            has_query: matches!(self.place, Place::Target | Place::Location) && self.part == Part::Query,
        })
    }
}

/// The candidate that was most likely meant.
fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let distances = candidates.map(|candidate| (strsim::osa_distance(name, candidate), candidate));
    let (distance, near) = distances.min()?;
    (distance <= 1 + name.chars().count() / 4).then_some(near)
}
