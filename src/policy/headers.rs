//! Edits of a message's fields, compiled: which names go, which lines come. The message itself is not seen here; who
//! writes a head asks for each of its fields whether it goes, and has the new lines appended.

use std::collections::BTreeMap;

use crate::{
    config::types,
    expression::{Expression, Fault, Kind, Scope},
};

use super::{
    Variables, is_token,
    template::{Place, RenderError, TEMPLATE_OUTPUT_MAX, Template, TemplateError, is_field_value},
};

/// Fields that make or break the framing of a message or belong to one connection only, and `Host`: edits of them
/// would change what a message is, not what it says.
const UNTOUCHABLE: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Compiled edits: first fields are removed, then set (which replaces), then added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Names in lower case, those to set among them: they are replaced.
    removed: Box<[Box<[u8]>]>,
    /// A bit for each length in `removed`, modulo 64, and for each first letter: most names are told by one look.
    lengths: u64,
    letters: u64,
    /// Those to set, then those to add.
    lines: Box<[Line]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// `Name: `, the name as the operator wrote it.
    before: Box<[u8]>,
    value: LineValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LineValue {
    Text(Template),
    /// With the names of the route's captures.
    Expression(Box<(Expression, Box<[String]>)>),
}

/// Which of the three lists of [`types::HeaderEdits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `remove`
    Remove,
    /// `set`
    Set,
    /// `add`
    Add,
}

impl List {
    /// Its key in the configuration.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Set => "set",
            Self::Add => "add",
        }
    }
}

/// What is wrong with one edit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct EditError {
    /// The list it is in.
    pub list: List,
    /// The field's name, as written.
    pub name: String,
    /// What is wrong.
    pub cause: EditErrorCause,
}

/// Why an edit is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditErrorCause {
    /// RFC 9110 §5.1.
    #[error("a field's name has only letters, digits and !#$%&'*+-.^_`|~")]
    NotAToken,
    /// The gateway answers for it itself.
    #[error("this field cannot be edited: the gateway writes it itself")]
    Untouchable,
    /// The same name in other letters.
    #[error("this field is in the list twice: names are the same in upper and lower case")]
    Twice,
    /// The value.
    #[error(transparent)]
    Value(#[from] TemplateError),
    /// The value, which is an expression.
    #[error("{}", .0.message)]
    Expression(Fault),
}

impl HeaderEdits {
    /// Compiles `edits`. `captures`: the names the route's path captures, in the order of their indexes. Answers
    /// every error there is, not only the first.
    pub fn compile(edits: &types::HeaderEdits, captures: &[String]) -> Result<Self, Vec<EditError>> {
        let mut errors = Vec::new();
        let mut removed = Vec::<Box<[u8]>>::new();
        for name in &edits.remove {
            match check_name(name) {
                Ok(name) if removed.contains(&name) => {
                    errors.push(EditError {
                        list: List::Remove,
                        name: text(&name),
                        cause: EditErrorCause::Twice,
                    });
                }
                Ok(name) => removed.push(name),
                Err(cause) => errors.push(EditError { list: List::Remove, name: name.clone(), cause }),
            }
        }
        let mut lines = Vec::new();
        for (list, entries) in [(List::Set, &edits.set), (List::Add, &edits.add)] {
            let names = compile_lines(list, entries, captures, &mut lines, &mut errors);
            if list == List::Set {
                removed.extend(names);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        removed.sort_unstable();
        removed.dedup();
        let (lengths, letters) = removed.iter().fold((0, 0), |(lengths, letters), name| {
            let (length, letter) = bits(name);
            (lengths | length, letters | letter)
        });
        Ok(Self { removed: removed.into(), lengths, letters, lines: lines.into() })
    }

    /// Whether there is nothing to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.lines.is_empty()
    }

    /// Whether any field of a message may have to go.
    #[inline]
    pub fn removes_any(&self) -> bool {
        !self.removed.is_empty()
    }

    /// Whether the message's own field of this name goes: it is to be removed, or to be replaced. In whatever case.
    #[inline]
    pub fn removes(&self, name: &[u8]) -> bool {
        let (length, letter) = bits(name);
        self.lengths & length != 0 && self.letters & letter != 0 && self.is_listed(name)
    }

    fn is_listed(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name))
    }

    /// Appends the lines to set, then those to add: `Name: value`, each with its CRLF. A value whose variables are
    /// all missing is empty, its field is there; one of an expression that has no value, or one that no field can have, is left out with its field. On an error
    /// `out` is as it was.
    pub fn append<V: Variables>(&self, variables: &V, out: &mut Vec<u8>) -> Result<(), RenderError> {
        let start = out.len();
        for line in &self.lines {
            let before = out.len();
            out.extend_from_slice(&line.before);
            match &line.value {
                LineValue::Text(template) => {
                    if let Err(error) = template.render(variables, out) {
                        out.truncate(start);
                        return Err(error);
                    }
                }
                LineValue::Expression(value) => {
                    let (expression, names) = &**value;
                    let text = variables.evaluate(expression, names);
                    let is_sound =
                        |text: &String| text.len() <= TEMPLATE_OUTPUT_MAX && is_field_value(text.as_bytes());
                    let Some(text) = text.filter(is_sound) else {
                        out.truncate(before);
                        continue;
                    };
                    out.extend_from_slice(text.trim_matches([' ', '\t']).as_bytes());
                }
            }
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }
}

/// Compiles a list's lines, and answers their names in lower case.
fn compile_lines(
    list: List,
    entries: &BTreeMap<String, types::HeaderValue>,
    captures: &[String],
    lines: &mut Vec<Line>,
    errors: &mut Vec<EditError>,
) -> Vec<Box<[u8]>> {
    let mut names = Vec::new();
    for (name, value) in entries {
        let mut refuse = |cause| errors.push(EditError { list, name: name.clone(), cause });
        match check_name(name) {
            Ok(lower) if names.contains(&lower) => refuse(EditErrorCause::Twice),
            Ok(lower) => names.push(lower),
            Err(cause) => refuse(cause),
        }
        let compiled = match value {
            types::HeaderValue::Text(text) => {
                Template::compile(text, captures, Place::Header).map(LineValue::Text).map_err(Into::into)
            }
            types::HeaderValue::Expression(value) => {
                let compiled = Expression::compile(&value.expression, Kind::Text, Scope::Identity);
                compiled
                    .map(|expression| LineValue::Expression(Box::new((expression, captures.into()))))
                    .map_err(EditErrorCause::Expression)
            }
        };
        match compiled {
            Ok(value) => lines.push(Line { before: [name.as_bytes(), b": "].concat().into(), value }),
            Err(cause) => refuse(cause),
        }
    }
    names
}

/// The name in lower case, if it may be edited.
fn check_name(name: &str) -> Result<Box<[u8]>, EditErrorCause> {
    let lower = name.to_ascii_lowercase();
    if !is_token(lower.as_bytes()) {
        Err(EditErrorCause::NotAToken)
    } else if UNTOUCHABLE.contains(&lower.as_str()) {
        Err(EditErrorCause::Untouchable)
    } else {
        Ok(lower.into_bytes().into())
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The bits of a name's length and of its first letter, the same in upper and lower case.
#[inline]
fn bits(name: &[u8]) -> (u64, u64) {
    let letter = name.first().map_or(0, |byte| byte | 0x20);
    (1 << (name.len() & 63), 1 << (letter & 63))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Variable, template::Value};

    /// Every variable has this value.
    struct Always(&'static [u8]);

    impl Variables for Always {
        fn write(&self, _: &Variable, value: &mut Value<'_>) {
            value.put(self.0);
        }

        fn evaluate(&self, _: &Expression, names: &[String]) -> Option<String> {
            assert_eq!(names, ["id"]);
            String::from_utf8(self.0.to_vec()).ok()
        }
    }

    fn edits(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> types::HeaderEdits {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        types::HeaderEdits {
            remove: remove.iter().map(|n| (*n).into()).collect(),
            set: map(set),
            add: map(add),
        }
    }

    fn compile(edits: &types::HeaderEdits) -> HeaderEdits {
        HeaderEdits::compile(edits, &["id".into()]).unwrap()
    }

    #[test]
    fn what_goes_and_what_comes() {
        let edits = compile(&edits(
            &["X-Powered-By", "x-debug"],
            &[("X-User", "{path.id}!"), ("X-Zone", "a")],
            &[("Cache-Tag", "{id}"), ("x-debug", "fresh")],
        ));
        assert!(!edits.is_empty());
        for name in ["x-powered-by", "X-POWERED-BY", "X-Debug", "x-user", "X-ZONE"] {
            assert!(edits.removes(name.as_bytes()), "{name}");
        }
        for name in ["", "x", "cache-tag", "x-use", "y-user", "x-userx"] {
            assert!(!edits.removes(name.as_bytes()), "{name}");
        }
        let mut out = b"Host: a\r\n".to_vec();
        edits.append(&Always(b"42"), &mut out).unwrap();
        let expected = "Host: a\r\nX-User: 42!\r\nX-Zone: a\r\nCache-Tag: 42\r\nx-debug: fresh\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        edits.append(&Always(b"4\r\n2"), &mut out).unwrap();
        let expected = "X-User: !\r\nX-Zone: a\r\nCache-Tag: \r\nx-debug: fresh\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_an_expression_comes_to_or_nothing() {
        let value = |source: &str| {
            types::HeaderValue::Expression(types::ValueExpression { expression: source.into() })
        };
        let edits = types::HeaderEdits {
            set: [("X-A".into(), value("request.params.id")), ("X-B".into(), "b".into())].into(),
            ..types::HeaderEdits::default()
        };
        let edits = compile(&edits);
        let lines = |values: &'static [u8]| {
            let mut out = Vec::new();
            edits.append(&Always(values), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(edits.removes(b"x-a"));
        assert_eq!(lines(b"42"), "X-A: 42\r\nX-B: b\r\n");
        for none in [&b"4\r\n2"[..], b"\0", b"\xff"] {
            assert_eq!(lines(none), "X-B: b\r\n");
        }
        let wrong =
            types::HeaderEdits { add: [("X".into(), value("1"))].into(), ..types::HeaderEdits::default() };
        let error = &HeaderEdits::compile(&wrong, &[]).unwrap_err()[0];
        assert_eq!(error.to_string(), "it comes to a int, and a string is wanted");
    }

    #[test]
    fn no_edits_do_nothing() {
        let edits = compile(&types::HeaderEdits::default());
        let mut out = Vec::new();
        edits.append(&Always(b"x"), &mut out).unwrap();
        assert!(edits.is_empty() && !edits.removes(b"host") && out.is_empty());
    }

    #[test]
    fn every_error_is_told() {
        let edits = edits(
            &["Connection", "a b", "x-a", "X-A"],
            &[("Content-Length", "5"), ("x-b", "a\nb"), ("X-C", "1"), ("x-c", "2")],
            &[("", "{nope}")],
        );
        let errors = HeaderEdits::compile(&edits, &[]).unwrap_err();
        let told: Vec<_> = errors.iter().map(|error| (error.list.key(), error.name.as_str())).collect();
        let expected = [
            ("remove", "Connection"),
            ("remove", "a b"),
            ("remove", "x-a"),
            ("set", "Content-Length"),
            ("set", "x-b"),
            ("set", "x-c"),
            ("add", ""),
            ("add", ""),
        ];
        assert_eq!(told, expected);
        assert_eq!(errors[0].cause, EditErrorCause::Untouchable);
        assert_eq!(errors[2].cause, EditErrorCause::Twice);
        assert!(matches!(&errors[4].cause, EditErrorCause::Value(error) if error.at == 1));
    }

    #[test]
    fn a_line_too_long_leaves_nothing() {
        let edits = compile(&edits(&[], &[("x-a", "fine"), ("x-b", "{host}{host}")], &[]));
        let mut out = b"before".to_vec();
        let result = edits.append(&Always(&[b'x'; 9000]), &mut out);
        assert_eq!((result, out), (Err(RenderError::TooLong), b"before".to_vec()));
    }

    proptest! {
        #[test]
        fn the_quick_look_never_errs(
            removed in prop::collection::vec("[a-zA-Z0-9-]{1,12}", 0..8),
            name in "[a-zA-Z-]{0,12}",
        ) {
            let mut unique: Vec<_> = removed.iter().map(|name| name.to_ascii_lowercase()).collect();
            unique.retain(|name| !UNTOUCHABLE.contains(&name.as_str()));
            unique.sort_unstable();
            unique.dedup();
            let edits = compile(&types::HeaderEdits { remove: unique.clone(), ..Default::default() });
            for name in unique.iter().map(String::as_str).chain([name.as_str()]) {
                let expected = unique.contains(&name.to_ascii_lowercase());
                prop_assert_eq!(edits.removes(name.to_ascii_uppercase().as_bytes()), expected);
            }
        }
    }
}
