//! What can be said against a file: errors and warnings with a place, shown as annotated excerpts of the text. Whether
//! something is wrong is decided elsewhere; this file only collects, counts, sorts and draws.

use std::{collections::HashSet, fmt, ops::Range, sync::Arc};

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::source::{Key, Source};

/// Diagnostics of one file that are kept and shown; further ones are only counted.
pub const DIAGNOSTICS_MAX: usize = 1000;

/// Bytes of an excerpt; a place on a longer line is named by line and column only.
const EXCERPT_BYTES_MAX: usize = 4096;

/// Whether the file can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not mean what was meant.
    Warning,
}

/// One thing to say about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file can be used in spite of it.
    pub severity: Severity,
    /// What is wrong, as a sentence without its full stop.
    pub message: String,
    /// The bytes of the text it is about. `None`: the file as a whole.
    pub span: Option<Range<usize>>,
    /// A word or two under the marked text.
    pub label: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Another place that has to do with it, and why.
    pub also: Option<(Range<usize>, String)>,
}

impl Diagnostic {
    /// An error, so far without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span: None,
            label: None,
            hint: None,
            also: None,
        }
    }

    /// A warning, so far without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// Places it, as [`Source::locate`] and [`Source::nearest`] give it.
    #[must_use]
    pub fn at(self, span: Option<Range<usize>>) -> Self {
        Self { span, ..self }
    }

    /// Says something under the marked text.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Points at a second place, if that is known.
    #[must_use]
    pub fn also(self, span: Option<Range<usize>>, label: impl Into<String>) -> Self {
        Self { also: span.map(|span| (span, label.into())), ..self }
    }
}

/// All that is to say about one file.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    source: Arc<Source>,
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    /// Paths whose value was refused, so that what stands in the configuration there is not the operator's.
    replaced: HashSet<String>,
    /// Those of files beside this one.
    attached: Vec<Self>,
}

impl Diagnostics {
    /// Nothing to say about `source` yet.
    pub fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            kept: Vec::new(),
            errors: 0,
            warnings: 0,
            replaced: HashSet::new(),
            attached: Vec::new(),
        }
    }

    /// The file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Adds one. Beyond [`DIAGNOSTICS_MAX`] it is counted but not kept.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        match diagnostic.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        if self.kept.len() < DIAGNOSTICS_MAX {
            self.kept.push(diagnostic);
        }
    }

    /// Adds one about the value at `path`, or about the table that leaves it at its default. A value that was refused
    /// already, or that stands in one that was, is not judged again.
    pub fn push_at(&mut self, path: &[Key<'_>], diagnostic: Diagnostic) {
        if !self.is_replaced(path) {
            let span = self.source.nearest(path);
            self.push(diagnostic.at(span));
        }
    }

    /// Adds those of a file that belongs to this one. They are counted and shown with it.
    pub fn attach(&mut self, other: Self) {
        if !other.is_empty() {
            self.attached.push(other);
        }
    }

    /// Whether the value at `path`, or its key, has an error.
    pub fn has_error_at(&self, path: &[Key<'_>]) -> bool {
        let spans = [self.source.locate(path), self.source.locate_key(path)];
        let is_error = |one: &Diagnostic| {
            one.severity == Severity::Error && one.span.is_some() && spans.contains(&one.span)
        };
        self.is_replaced(path) || self.kept.iter().any(is_error)
    }

    /// Notes that the value at `path` was refused, and that what stands there now is not to be judged.
    pub(super) fn replace(&mut self, path: &[Key<'_>]) {
        self.replaced.insert(encode(path));
    }

    /// Whether the value at `path`, or one that holds it, was refused.
    pub(super) fn is_replaced(&self, path: &[Key<'_>]) -> bool {
        !self.replaced.is_empty() && (1..=path.len()).any(|len| self.replaced.contains(&encode(&path[..len])))
    }

    /// Whether any value was refused.
    pub(super) fn has_replaced(&self) -> bool {
        !self.replaced.is_empty()
    }

    /// How many errors there are, kept or not.
    pub fn errors(&self) -> usize {
        self.errors + self.attached.iter().map(Self::errors).sum::<usize>()
    }

    /// How many warnings there are, kept or not.
    pub fn warnings(&self) -> usize {
        self.warnings + self.attached.iter().map(Self::warnings).sum::<usize>()
    }

    /// Whether the file cannot be used.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.errors() + self.warnings() == 0
    }

    /// Those kept, in the order in which they stand in the file; those about the whole file last.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut sorted: Vec<_> = self.kept.iter().collect();
        sorted.sort_by_key(|diagnostic| diagnostic.span.as_ref().map_or(usize::MAX, |span| span.start));
        sorted
    }

    /// All of them for people to read, with the text they are about, then their count. `color`: with ANSI escapes,
    /// for a terminal. Ends in a newline unless there is nothing to say.
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        if self.errors + self.warnings > 0 {
            self.render_own(color, &mut out);
        }
        self.attached.iter().for_each(|other| out.push_str(&other.render(color)));
        out
    }

    fn render_own(&self, color: bool, out: &mut String) {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        for diagnostic in self.sorted() {
            out.push_str(&renderer.render(&[self.group(diagnostic)]));
            out.push_str("\n\n");
        }
        let more = (self.errors + self.warnings).saturating_sub(self.kept.len());
        if more > 0 {
            out.push_str(&format!("{more} more are not shown\n"));
        }
        out.push_str(&format!("{} in {}\n", self.count(), self.source.name()));
    }

    /// The errors, each in one line with its place.
    pub fn lines(&self) -> Vec<String> {
        let errors = self.sorted().into_iter().filter(|one| one.severity == Severity::Error);
        let own = errors.map(|one| {
            let place = one.span.as_ref().map(|span| self.source.position(span.start).0);
            let line = place.map_or_else(String::new, |line| format!(":{line}"));
            format!("{}{line}: {}", self.source.name(), one.message)
        });
        own.chain(self.attached.iter().flat_map(Self::lines)).collect()
    }

    /// "3 errors", "1 error and 2 warnings".
    fn count(&self) -> String {
        let some = |count: usize, word: &str| match count {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{count} {word}s")),
        };
        let parts: Vec<_> =
            [some(self.errors, "error"), some(self.warnings, "warning")].into_iter().flatten().collect();
        parts.join(" and ")
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
        let first =
            diagnostic.span.clone().map(|span| (AnnotationKind::Primary, span, diagnostic.label.as_deref()));
        let other = diagnostic.also.as_ref();
        let other = other.map(|(span, label)| (AnnotationKind::Context, span.clone(), Some(label.as_str())));
        let places: Vec<_> = first.into_iter().chain(other).collect();
        if places.is_empty() {
            group = group.element(Origin::path(self.source.name()));
        }
        // Two places on one line are shown as one excerpt.
        let line = |place: &(AnnotationKind, Range<usize>, Option<&str>)| {
            self.source.lines(place.1.start..place.1.start)
        };
        for places in places.chunk_by(|one, next| line(one) == line(next)) {
            group = self.excerpt(group, places);
        }
        match &diagnostic.hint {
            Some(hint) => group.element(Level::HELP.message(hint.as_str())),
            None => group,
        }
    }

    /// Appends the line that the places begin on, with what of each is on it marked.
    fn excerpt<'a>(
        &'a self,
        group: Group<'a>,
        places: &[(AnnotationKind, Range<usize>, Option<&'a str>)],
    ) -> Group<'a> {
        let text = self.source.text();
        let Some((_, first, _)) = places.first() else { return group };
        let start = floor(text, first.start);
        let (line, number) = self.source.lines(start..start);
        if line.len() > EXCERPT_BYTES_MAX {
            let (_, column) = self.source.position(start);
            return group.element(Origin::path(self.source.name()).line(number).char_column(column));
        }
        let marked = places.iter().map(|(kind, span, label)| {
            let start = floor(text, span.start).clamp(line.start, line.end);
            let end = floor(text, span.end).clamp(start, line.end);
            kind.span(start - line.start..end - line.start).label(*label)
        });
        let marked: Vec<Annotation<'_>> = marked.collect();
        let excerpt = Snippet::source(&text[line]).line_start(number).path(self.source.name());
        group.element(excerpt.annotations(marked))
    }
}

/// A path as one string.
fn encode(path: &[Key<'_>]) -> String {
    let mut out = String::new();
    for key in path {
        match key {
            Key::Name(name) => out.push_str(name),
            Key::Index(index) => out.push_str(&index.to_string()),
        }
        out.push('\0');
    }
    out
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::key_path;

    fn about(text: &str, all: impl IntoIterator<Item = Diagnostic>) -> String {
        let mut diagnostics = Diagnostics::new(Arc::new(Source::new("gateway.toml", text)));
        all.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
        diagnostics.render(false)
    }

    #[test]
    fn an_error_shows_line_column_text_and_hint() {
        let error =
            Diagnostic::error("unknown key `adress`").at(Some(9..15)).label("unknown").hint("try `address`");
        let expected = "\
error: unknown key `adress`
 --> gateway.toml:2:1
  |
2 | adress = 1
  | ^^^^^^ unknown
  |
  = help: try `address`

1 error in gateway.toml
";
        assert_eq!(about("[listen]\nadress = 1\n", [error]), expected);
    }

    #[test]
    fn sorted_by_place_and_counted() {
        let all = [
            Diagnostic::error("whole"),
            Diagnostic::error("late").at(Some(6..7)),
            Diagnostic::warning("early").at(Some(0..1)),
        ];
        let shown = about("a = 1\nb = 2\n", all);
        let at = |word| shown.find(word).unwrap();
        assert!(at("early") < at("late") && at("late") < at("whole"), "{shown}");
        assert!(shown.ends_with("\n2 errors and 1 warning in gateway.toml\n"), "{shown}");
    }

    #[test]
    fn a_second_place_is_shown() {
        let error = Diagnostic::error("twice").at(Some(12..13)).also(Some(0..1), "first here");
        let shown = about("a = 1\nb = 2\na = 3\n", [error]);
        assert!(shown.contains("1 | a = 1\n  | - first here"), "{shown}");
        assert!(shown.contains("3 | a = 3\n  | ^"), "{shown}");
    }

    #[test]
    fn what_was_refused_is_not_judged_again() {
        let mut diagnostics = Diagnostics::new(Arc::new(Source::new("t", "a = 1\nb = 2\n")));
        diagnostics.replace(&key_path!["route", 1]);
        diagnostics.push_at(&key_path!["route", 1, "name"], Diagnostic::error("x"));
        assert!(diagnostics.is_empty());
        diagnostics.push_at(&key_path!["route", 10], Diagnostic::error("x"));
        diagnostics.push_at(&key_path!["b"], Diagnostic::error("x"));
        assert_eq!(diagnostics.errors(), 2);
        assert!(
            diagnostics.has_error_at(&key_path!["route", 1, "name"])
                && diagnostics.has_error_at(&key_path!["b"])
        );
        assert!(!diagnostics.has_error_at(&key_path!["a"]) && !diagnostics.has_error_at(&key_path!["c"]));
    }

    #[test]
    fn two_places_on_one_line_share_it() {
        let error = Diagnostic::error("twice").at(Some(6..7)).also(Some(0..1), "first here");
        let shown = about("a=1,  a=3\n", [error]);
        assert_eq!(shown.matches("a=1,  a=3").count(), 1, "{shown}");
    }

    #[test]
    fn beyond_the_limit_they_are_counted() {
        let all = (0..DIAGNOSTICS_MAX + 5).map(|_| Diagnostic::error("x"));
        let shown = about("", all);
        assert!(shown.ends_with("\n5 more are not shown\n1005 errors in gateway.toml\n"));
    }

    #[test]
    fn long_lines_and_odd_spans_do_no_harm() {
        let long = format!("a = \"{}\"", "ä".repeat(10_000));
        let shown = about(&long, [Diagnostic::error("x").at(Some(8..9))]);
        assert!(shown.contains("gateway.toml:1:7") && shown.len() < 200, "{shown}");
        let reversed = Range { start: 50, end: 2 };
        let shown = about(
            "ä\nb",
            [Diagnostic::error("x").at(Some(1..99)), Diagnostic::error("y").at(Some(reversed))],
        );
        assert!(shown.contains("2 errors"), "{shown}");
    }
}
