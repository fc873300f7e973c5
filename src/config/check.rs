//! The form of a file: every key known, every value of its shape, nothing missing. All faults are reported in one walk,
//! which also resolves `${…}` and leaves behind a tree that deserialises, with what was refused taken out or replaced,
//! so that the meaning of the rest can be judged too. It knows shapes, not meanings.

use std::{borrow::Cow, ops::Range};

use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::{
    diagnostic::Diagnostic,
    interpolate::{Interpolation, Unresolved},
    report::Report,
    shape::{Shape, TableShape, listed},
    source::Key,
    values::{ByteSize, Span},
};

/// Checks `root` against `shape`.
pub(super) fn check(
    root: &mut Spanned<DeTable<'_>>,
    shape: &Shape,
    interpolation: &Interpolation<'_>,
    report: &mut Report,
) {
    let Shape::Table(shape) = shape else { return };
    let span = root.span();
    Checker { interpolation, report }.table(&Trail::Root, root.get_mut(), span, shape);
}

struct Checker<'a, 'e> {
    interpolation: &'a Interpolation<'e>,
    report: &'a mut Report,
}

/// A value that was refused, and reported.
struct Refused;

/// The way from the root to a value, kept on the stack: a path is only needed when something is wrong.
#[derive(Clone, Copy)]
enum Trail<'t> {
    Root,
    Below(&'t Self, Key<'t>),
}

impl<'t> Trail<'t> {
    fn path(&self) -> Vec<Key<'t>> {
        match self {
            Self::Root => Vec::new(),
            Self::Below(above, key) => {
                let mut path = above.path();
                path.push(*key);
                path
            }
        }
    }

    /// `listener.limits`, without places in arrays.
    fn dotted(&self) -> String {
        let path = self.path();
        let names: Vec<_> = path
            .iter()
            .filter_map(|key| match key {
                Key::Name(name) => Some(*name),
                Key::Index(_) => None,
            })
            .collect();
        names.join(".")
    }
}

impl Checker<'_, '_> {
    fn value<'i>(
        &mut self,
        at: &Trail<'_>,
        value: &mut Spanned<DeValue<'i>>,
        shape: &Shape,
    ) -> Result<(), Refused> {
        let resolved = self.resolve(value)?;
        self.shaped(at, value, shape, resolved)
    }

    /// Checks a value in which nothing is left to resolve. `resolved`: it came from `${…}` and is not shown.
    fn shaped<'i>(
        &mut self,
        at: &Trail<'_>,
        value: &mut Spanned<DeValue<'i>>,
        shape: &Shape,
        resolved: bool,
    ) -> Result<(), Refused> {
        let span = value.span();
        match (shape, value.get_mut()) {
            (Shape::Any, _) => Ok(()),
            (Shape::Table(shape), DeValue::Table(table)) => {
                self.table(at, table, span, shape);
                Ok(())
            }
            (Shape::List(item), DeValue::Array(items)) => {
                for (index, value) in items.iter_mut().enumerate() {
                    let at = Trail::Below(at, Key::Index(index));
                    if self.value(&at, value, item).is_err() {
                        self.report.replace(&at.path());
                        *value.get_mut() = item.placeholder();
                    }
                }
                Ok(())
            }
            (Shape::OneOf(shapes), inner) => {
                let fitting = shapes.iter().position(|choice| fits(choice, inner));
                let fitting = fitting.or_else(|| choice_by_key(shapes, inner));
                match fitting {
                    Some(choice) => {
                        self.excluded(at, inner, shapes, choice)?;
                        self.shaped(at, value, &shapes[choice], resolved)
                    }
                    None => self.refuse(at, value, shape, resolved),
                }
            }
            (shape, inner) if fits(shape, inner) => Ok(()),
            (shape, _) => self.refuse(at, value, shape, resolved),
        }
    }

    fn table(&mut self, at: &Trail<'_>, table: &mut DeTable<'_>, span: Range<usize>, shape: &TableShape) {
        let mut refused = Vec::new();
        let mut unknown = Vec::new();
        for (key, value) in table.iter_mut() {
            let name = key.get_ref().as_ref();
            let Some(expected) = shape.member(name).map(|member| &member.shape).or(shape.rest.as_deref())
            else {
                unknown.push((key.get_ref().clone(), key.span()));
                continue;
            };
            if self.value(&Trail::Below(at, Key::Name(name)), value, expected).is_err() {
                refused.push(key.get_ref().clone());
            }
        }
        for name in refused {
            self.report.replace(&Trail::Below(at, Key::Name(&name)).path());
            table.remove(name.as_ref());
        }
        for (name, span) in unknown {
            table.remove(name.as_ref());
            self.unknown_key(at, &name, span, table, shape);
        }
        for (name, member) in shape.keys.iter().filter(|(_, member)| member.is_required) {
            if table.contains_key(name.as_str()) {
                continue;
            }
            let path = Trail::Below(at, Key::Name(name)).path();
            if !self.report.is_replaced(&path) {
                self.report.push(
                    Diagnostic::error(format!("missing key `{name}` in `{}`", at.dotted()))
                        .at(Some(span.clone()))
                        .label(format!("`{name}` is not set"))
                        .hint(format!("it takes {}", member.shape.describe())),
                );
                self.report.replace(&path);
            }
            table.insert(
                Spanned::new(0..0, name.clone().into()),
                Spanned::new(0..0, member.shape.placeholder()),
            );
        }
    }

    /// Reports a key that the table does not have. The one that was probably meant is taken as set.
    fn unknown_key(
        &mut self,
        at: &Trail<'_>,
        name: &str,
        span: Range<usize>,
        table: &DeTable<'_>,
        shape: &TableShape,
    ) {
        let names = || shape.keys.iter().map(|(key, _)| key.as_str());
        let similar = self.report.similar(name, names());
        let place = match at {
            Trail::Root => "at the top of the file".to_owned(),
            Trail::Below(..) => format!("in `{}`", at.dotted()),
        };
        let error = match similar {
            Some(similar) => Diagnostic::error(format!("unknown key `{name}`, did you mean `{similar}`?")),
            None => Diagnostic::error(format!("unknown key `{name}`")).hint(format!(
                "the keys {place} are {}",
                listed(names().map(|key| format!("`{key}`")), "and")
            )),
        };
        self.report.push(error.at(Some(span)).label(format!("there is no such key {place}")));
        if let Some(meant) = similar.filter(|meant| !table.contains_key(*meant)) {
            self.report.replace(&Trail::Below(at, Key::Name(meant)).path());
        }
    }

    /// Refuses a table with keys of two alternatives, `{ regex = "…", present = true }`.
    fn excluded(
        &mut self,
        at: &Trail<'_>,
        value: &DeValue<'_>,
        shapes: &[Shape],
        choice: usize,
    ) -> Result<(), Refused> {
        let (DeValue::Table(table), Shape::Table(chosen)) = (value, &shapes[choice]) else { return Ok(()) };
        let mine = chosen.keys.iter().find(|(name, _)| table.contains_key(name.as_str()));
        let other = table.keys().find(|key| {
            let is_of =
                |shape: &Shape| matches!(shape, Shape::Table(table) if table.member(key.get_ref()).is_some());
            chosen.member(key.get_ref()).is_none() && shapes.iter().any(is_of)
        });
        let (Some((mine, _)), Some(other)) = (mine, other) else { return Ok(()) };
        self.report.push(
            Diagnostic::error(format!(
                "`{mine}` and `{}` exclude each other in `{}`",
                other.get_ref(),
                at.dotted()
            ))
            .at(Some(other.span()))
            .hint("set one of them"),
        );
        Err(Refused)
    }

    /// Reports that `value` does not have this shape.
    fn refuse(
        &mut self,
        at: &Trail<'_>,
        value: &Spanned<DeValue<'_>>,
        shape: &Shape,
        resolved: bool,
    ) -> Result<(), Refused> {
        let span = value.span();
        let expected = shape.describe();
        let mut error = Diagnostic::error(format!("`{}` must be {expected}", at.dotted()));
        let mut label = format!("this is {}", kind(value.get_ref()));
        match value.get_ref() {
            DeValue::String(text) => {
                let shown = if resolved { "what it stands for".to_owned() } else { format!("\"{text}\"") };
                let takes_strings =
                    matches!(shape, Shape::Duration | Shape::Size) || !words(shape).is_empty();
                if takes_strings {
                    label = format!("{shown} is not");
                }
                if matches!(shape, Shape::Integer { .. } | Shape::Boolean) && !resolved && is_bare(text) {
                    error = error.hint(format!("write it without quotes: {text}"));
                }
                if let Some(word) = self.report.similar(text, words(shape)).filter(|_| !resolved) {
                    error.message = format!("unknown value \"{text}\", did you mean \"{word}\"?");
                    error = error.hint(format!("`{}` must be {expected}", at.dotted()));
                }
                error = match shape {
                    Shape::Duration => error.hint("a number and a unit: ms, s, m, h or d"),
                    Shape::Size => error.hint("a number and a unit: B, KB, MB, GB, KiB, MiB or GiB"),
                    _ => error,
                };
            }
            DeValue::Integer(number) => {
                if matches!(shape, Shape::Integer { .. }) {
                    label = format!("{number} is not");
                }
                error = match shape {
                    Shape::Duration => error.hint(format!("write a unit: \"{number}s\"")),
                    Shape::Size => error.hint(format!("write a unit: \"{number}B\"")),
                    _ => error,
                };
            }
            DeValue::Table(_) if self.is_header(&span, "[") && is_list_of_tables(shape) => {
                error = error.hint(format!("write `[[{}]]`", at.dotted()));
            }
            DeValue::Array(_) if self.is_header(&span, "[[") && matches!(shape, Shape::Table(_)) => {
                error = error.hint(format!("there is only one: write `[{}]`", at.dotted()));
            }
            DeValue::Table(table) => {
                let keys: Vec<_> = keys_of_choices(shape).collect();
                let similar =
                    table.keys().find_map(|key| self.report.similar(key.get_ref(), keys.iter().copied()));
                if let Some(similar) = similar {
                    error = error.hint(format!("did you mean `{similar}`?"));
                }
            }
            _ => {}
        }
        self.report.push(error.at(Some(span)).label(label));
        Err(Refused)
    }

    fn is_header(&self, span: &Range<usize>, open: &str) -> bool {
        let text = self.report.diagnostics.source().text();
        text.get(span.clone()).is_some_and(|text| text.starts_with(open))
    }

    /// Puts the values of `${…}` into a string. Returns whether there were any.
    fn resolve(&mut self, value: &mut Spanned<DeValue<'_>>) -> Result<bool, Refused> {
        let span = value.span();
        let DeValue::String(text) = value.get_mut() else { return Ok(false) };
        match self.interpolation.resolve(text) {
            Ok(None) => Ok(false),
            Ok(Some(resolved)) => {
                *text = Cow::Owned(resolved);
                Ok(true)
            }
            Err(unresolved) => {
                for one in unresolved {
                    let span = self.reference(&span, &one);
                    self.report.push(Diagnostic::error(one.message).at(Some(span)).hint(one.hint));
                }
                Err(Refused)
            }
        }
    }

    /// Where in the string at `span` a reference stands; the string itself when that is written with escapes.
    fn reference(&self, span: &Range<usize>, one: &Unresolved) -> Range<usize> {
        let text = self.report.diagnostics.source().text();
        let written = text.get(span.clone()).unwrap_or_default();
        match written.match_indices(one.reference.as_str()).nth(one.nth) {
            Some((at, _)) => span.start + at..span.start + at + one.reference.len(),
            None => span.clone(),
        }
    }
}

/// Whether a value is of a shape. Of tables and lists only the kind is looked at, and a table as one of several shapes
/// must have the keys of that shape.
fn fits(shape: &Shape, value: &DeValue<'_>) -> bool {
    match (shape, value) {
        (Shape::Text, DeValue::String(_)) | (Shape::Boolean, DeValue::Boolean(_)) => true,
        (Shape::Duration, DeValue::String(text)) => text.parse::<Span>().is_ok(),
        (Shape::Size, DeValue::String(text)) => text.parse::<ByteSize>().is_ok(),
        (Shape::Words(words), DeValue::String(text)) => words.iter().any(|word| word == text),
        (Shape::Integer { min, max }, DeValue::Integer(number)) => {
            integer(number).is_some_and(|number| (*min..=*max).contains(&number))
        }
        (Shape::List(_), DeValue::Array(_)) => true,
        (Shape::Table(shape), DeValue::Table(table)) => {
            let required = || shape.keys.iter().filter(|(_, member)| member.is_required);
            required().all(|(name, _)| table.contains_key(name.as_str()))
        }
        (Shape::OneOf(shapes), value) => shapes.iter().any(|shape| fits(shape, value)),
        (Shape::Any, _) => true,
        _ => false,
    }
}

/// The alternative that has a key of this table.
fn choice_by_key(shapes: &[Shape], value: &DeValue<'_>) -> Option<usize> {
    let DeValue::Table(table) = value else { return None };
    shapes.iter().position(
        |shape| matches!(shape, Shape::Table(shape) if table.keys().any(|key| shape.member(key.get_ref()).is_some())),
    )
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn is_list_of_tables(shape: &Shape) -> bool {
    matches!(shape, Shape::List(item) if matches!(item.as_ref(), Shape::Table(_)))
}

/// Whether the text would be a number or a truth value without its quotes.
fn is_bare(text: &str) -> bool {
    text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok()
}

/// The words that a shape accepts.
fn words(shape: &Shape) -> Vec<&str> {
    match shape {
        Shape::Words(words) => words.iter().map(String::as_str).collect(),
        Shape::OneOf(shapes) => shapes.iter().flat_map(words).collect(),
        _ => Vec::new(),
    }
}

/// The keys of all tables that are one of several shapes.
fn keys_of_choices(shape: &Shape) -> impl Iterator<Item = &str> {
    let shapes = match shape {
        Shape::OneOf(shapes) => shapes.as_slice(),
        _ => &[],
    };
    let tables = shapes.iter().filter_map(|shape| match shape {
        Shape::Table(table) => Some(&table.keys),
        _ => None,
    });
    tables.flatten().map(|(name, _)| name.as_str())
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
