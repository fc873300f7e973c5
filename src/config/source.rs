//! The text of a configuration file and where its keys stand in it. A place is asked for by key path
//! (`["route", 3, "match", "path"]`), so that rooms which know only values can still point at a line. This file
//! knows neither the schema nor what any key means.

use std::{ops::Range, sync::OnceLock};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One step of a path into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// The key of a table.
    Name(&'a str),
    /// The place in an array, from 0.
    Index(usize),
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for Key<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl From<usize> for Key<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A key path from names and indexes: `key_path!["route", 3, "match"]` is an array of [`Key`].
macro_rules! key_path {
    ($($key:expr),* $(,)?) => { [$($crate::config::source::Key::from($key)),*] };
}
pub(crate) use key_path;

/// A configuration file as read, before any `${…}` is resolved.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
    /// Offsets at which lines begin. Made when the first place is asked for, as is `root`: a file without faults
    /// never pays for them.
    lines: OnceLock<Vec<usize>>,
    root: OnceLock<Node>,
}

impl Source {
    /// A file's name, for messages, and its text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), lines: OnceLock::new(), root: OnceLock::new() }
    }

    /// The file's name as given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text, as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that the value at `path` takes in the text; for a table with a header, the header. `None`: the file
    /// does not set it.
    pub fn locate(&self, path: &[Key<'_>]) -> Option<Range<usize>> {
        Some(self.node(path)?.value())
    }

    /// Bytes that the last key of `path` takes. `None` as for [`Self::locate`]; an array's element has no key.
    pub fn locate_key(&self, path: &[Key<'_>]) -> Option<Range<usize>> {
        let node = self.node(path)?;
        matches!(path.last(), Some(Key::Name(_))).then(|| node.key())
    }

    /// Like [`Self::locate`], or what stands nearest above it: a key left at its default is pointed at by its table.
    pub fn nearest(&self, path: &[Key<'_>]) -> Option<Range<usize>> {
        (1..=path.len()).rev().find_map(|len| self.locate(&path[..len]))
    }

    /// The value at `path` as the operator wrote it, quotes included. This is what may be shown of a value: what
    /// `${…}` stands for may be a secret.
    pub fn as_written(&self, path: &[Key<'_>]) -> Option<&str> {
        self.text.get(self.locate(path)?)
    }

    /// Whether the value at `path` is a string with a `${…}` in it.
    pub fn is_interpolated(&self, path: &[Key<'_>]) -> bool {
        matches!(self.node(path), Some(Node { kind: Kind::Leaf { interpolated: true }, .. }))
    }

    /// Line and column of a byte, both from 1; a column is a character.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let (line, start) = self.line_of(offset);
        let before = self.text.get(start..offset).unwrap_or_default();
        (line + 1, before.chars().count() + 1)
    }

    /// The bytes of all lines that `span` touches, without the last line's end, and the first one's number from 1.
    pub(super) fn lines(&self, span: Range<usize>) -> (Range<usize>, usize) {
        let (first, start) = self.line_of(span.start);
        let (last, _) = self.line_of(span.end.max(span.start));
        let end = self.line_starts().get(last + 1).map_or(self.text.len(), |next| next - 1);
        (start..end, first + 1)
    }

    fn line_of(&self, offset: usize) -> (usize, usize) {
        let starts = self.line_starts();
        let line = starts.partition_point(|start| *start <= offset).saturating_sub(1);
        (line, starts.get(line).copied().unwrap_or(0))
    }

    fn line_starts(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let ends = memchr::memchr_iter(b'\n', self.text.as_bytes());
            std::iter::once(0).chain(ends.map(|end| end + 1)).collect()
        })
    }

    fn node(&self, path: &[Key<'_>]) -> Option<&Node> {
        let root = self.root.get_or_init(|| {
            let (table, _) = DeTable::parse_recoverable(&self.text);
            let span = table.span();
            Node::new(span.clone(), span, &DeValue::Table(table.into_inner()))
        });
        path.iter().try_fold(root, |node, key| node.child(*key))
    }
}

/// A value's place, without the value. Offsets are `u32`: a file has at most
/// [`FILE_BYTES_MAX`](super::load::FILE_BYTES_MAX) bytes.
#[derive(Debug)]
struct Node {
    key: (u32, u32),
    value: (u32, u32),
    kind: Kind,
}

const _: () = assert!(super::load::FILE_BYTES_MAX <= u32::MAX as usize);

#[derive(Debug)]
enum Kind {
    Leaf {
        interpolated: bool,
    },
    List(Box<[Node]>),
    /// By name, sorted.
    Table(Box<[(Box<str>, Node)]>),
}

impl Node {
    fn new(key: Range<usize>, value: Range<usize>, of: &DeValue<'_>) -> Self {
        let kind = match of {
            DeValue::Table(table) => Kind::Table(table.iter().map(Self::entry).collect()),
            DeValue::Array(list) => Kind::List(
                list.iter().map(|item| Self::new(item.span(), item.span(), item.get_ref())).collect(),
            ),
            DeValue::String(text) => Kind::Leaf { interpolated: super::interpolate::has_reference(text) },
            _ => Kind::Leaf { interpolated: false },
        };
        Self { key: narrow(key), value: narrow(value), kind }
    }

    fn entry((key, value): (&Spanned<toml::de::DeString<'_>>, &Spanned<DeValue<'_>>)) -> (Box<str>, Self) {
        (key.get_ref().as_ref().into(), Self::new(key.span(), value.span(), value.get_ref()))
    }

    fn child(&self, key: Key<'_>) -> Option<&Self> {
        match (&self.kind, key) {
            (Kind::Table(entries), Key::Name(name)) => {
                let at = entries.binary_search_by(|(entry, _)| entry.as_ref().cmp(name)).ok()?;
                Some(&entries[at].1)
            }
            (Kind::List(items), Key::Index(index)) => items.get(index),
            _ => None,
        }
    }

    fn key(&self) -> Range<usize> {
        self.key.0 as usize..self.key.1 as usize
    }

    fn value(&self) -> Range<usize> {
        self.value.0 as usize..self.value.1 as usize
    }
}

fn narrow(span: Range<usize>) -> (u32, u32) {
    let offset = |at| u32::try_from(at).unwrap_or(u32::MAX);
    (offset(span.start), offset(span.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "a = 1\n[[route]]\nname = \"x\"\nmatch = { path = \"/${P}\" }\n[[route]]\nmatch.host = 'h'\n";

    fn slice(path: &[Key<'_>]) -> Option<String> {
        Source::new("t", TEXT).as_written(path).map(Into::into)
    }

    #[test]
    fn paths_lead_to_text() {
        assert_eq!(slice(&key_path!["a"]).as_deref(), Some("1"));
        assert_eq!(slice(&key_path!["route", 0, "match", "path"]).as_deref(), Some("\"/${P}\""));
        assert_eq!(slice(&key_path!["route", 1]).as_deref(), Some("[[route]]"));
        assert_eq!(slice(&key_path!["route", 1, "match", "host"]).as_deref(), Some("'h'"));
        for missing in
            [&key_path!["b"][..], &key_path!["route", 2], &key_path!["a", 0], &key_path!["route", "x"]]
        {
            assert_eq!(slice(missing), None);
        }
    }

    #[test]
    fn a_default_is_pointed_at_by_its_table() {
        let source = Source::new("t", TEXT);
        let span = source.nearest(&key_path!["route", 0, "match", "host"]).unwrap();
        assert_eq!(&TEXT[span], "{ path = \"/${P}\" }");
        assert_eq!(source.nearest(&key_path!["limits", "head_bytes"]), None);
    }

    #[test]
    fn keys_have_places_of_their_own() {
        let source = Source::new("t", TEXT);
        let span = source.locate_key(&key_path!["route", 0, "match", "path"]).unwrap();
        assert_eq!(&TEXT[span], "path");
        assert_eq!(source.locate_key(&key_path!["route", 0]), None);
    }

    #[test]
    fn interpolated_values_are_known() {
        let source = Source::new("t", TEXT);
        assert!(source.is_interpolated(&key_path!["route", 0, "match", "path"]));
        assert!(!source.is_interpolated(&key_path!["route", 0, "name"]));
    }

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new("t", "ä = 1\nb = 2");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(3), (1, 3));
        assert_eq!(source.position(7), (2, 1));
        assert_eq!(source.position(11), (2, 5));
        assert_eq!(source.lines(7..11), (7..12, 2));
    }

    #[test]
    fn lines_cover_a_span_whole() {
        let source = Source::new("t", "one\ntwo\nthree\n");
        assert_eq!(source.lines(5..9), (4..13, 2));
        assert_eq!(source.lines(14..14), (14..14, 4));
    }
}
