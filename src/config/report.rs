//! The diagnostics of a check while it runs: what was already reported is not reported again in another form, names
//! get a "did you mean", and values that came from `${…}` are never shown.

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    source::Key,
};

/// Names compared in search of a similar one, for one file. It bounds the work that a file full of wrong names makes.
const COMPARISONS_MAX: usize = 2_000_000;

/// Longer words are not compared.
const WORD_BYTES_MAX: usize = 64;

/// Diagnostics under way.
pub(super) struct Report {
    pub(super) diagnostics: Diagnostics,
    comparisons_left: usize,
}

impl Report {
    pub(super) fn new(diagnostics: Diagnostics) -> Self {
        Self { diagnostics, comparisons_left: COMPARISONS_MAX }
    }

    /// Adds a diagnostic that has its place.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// See [`Diagnostics::push_at`].
    pub(super) fn push_at(&mut self, path: &[Key<'_>], diagnostic: Diagnostic) {
        self.diagnostics.push_at(path, diagnostic);
    }

    /// Adds a diagnostic about the last key of `path`.
    pub(super) fn push_at_key(&mut self, path: &[Key<'_>], diagnostic: Diagnostic) {
        if !self.diagnostics.is_replaced(path) {
            let source = self.diagnostics.source();
            let span = source.locate_key(path).or_else(|| source.nearest(path));
            self.push(diagnostic.at(span));
        }
    }

    /// See [`Diagnostics::replace`].
    pub(super) fn replace(&mut self, path: &[Key<'_>]) {
        self.diagnostics.replace(path);
    }

    /// See [`Diagnostics::is_replaced`].
    pub(super) fn is_replaced(&self, path: &[Key<'_>]) -> bool {
        self.diagnostics.is_replaced(path)
    }

    /// `value` in backticks, or what is written for it when that is not the same.
    pub(super) fn shown(&self, path: &[Key<'_>], value: &str) -> String {
        let source = self.diagnostics.source();
        match source.as_written(path).filter(|_| source.is_interpolated(path)) {
            Some(written) => format!("`{}`", written.trim_matches(['"', '\''])),
            None => format!("`{value}`"),
        }
    }

    /// The candidate most like `word`, if one is like enough. Case counts for nothing.
    pub(super) fn similar<'n>(
        &mut self,
        word: &str,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Option<&'n str> {
        if word.len() > WORD_BYTES_MAX {
            return None;
        }
        let word = word.to_ascii_lowercase();
        let mut best: Option<(usize, &str)> = None;
        for name in names {
            let reach = (word.len().max(name.len()) / 3).max(1);
            if name.is_empty() || name.len() > WORD_BYTES_MAX || name.len().abs_diff(word.len()) > reach {
                continue;
            }
            self.comparisons_left = self.comparisons_left.checked_sub(1)?;
            let distance = strsim::damerau_levenshtein(&word, &name.to_ascii_lowercase());
            if distance <= reach && best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, name));
            }
        }
        best.map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::source::{Source, key_path};

    fn report(text: &str) -> Report {
        Report::new(Diagnostics::new(Arc::new(Source::new("t", text))))
    }

    #[test]
    fn similar_names_are_found() {
        let names = ["address", "backlog", "name"];
        for (word, expected) in [
            ("adress", Some("address")),
            ("nmae", Some("name")),
            ("BackLog", Some("backlog")),
            ("weight", None),
        ] {
            assert_eq!(report("").similar(word, names), expected, "{word}");
        }
    }

    #[test]
    fn interpolated_values_are_shown_as_written() {
        let report = report("a = \"${SECRET}\"\nb = 'plain'");
        assert_eq!(report.shown(&key_path!["a"], "hunter2"), "`${SECRET}`");
        assert_eq!(report.shown(&key_path!["b"], "plain"), "`plain`");
    }
}
