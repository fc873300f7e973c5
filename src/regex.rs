//! Regexes over a whole value, or a part of one. This file owns the dialect: that of the `regex` crate, over bytes, with ASCII
//! classes. It does not know what the value is,
//! nor what its captures are for.
//!
//! It stands on `regex_automata`, the engine of `regex`, because that one writes captures into an array it is given;
//! `regex` allocates them. Cloning shares the compiled program, which is never written again, and gives the clone a
//! cache pool of its own. The thread that uses a clone first owns that pool's fast path, which takes no lock: so each
//! core has its own clone of the router and none waits for another.

use std::{fmt, ops::Range};

use regex_automata::{Anchored, Input, meta, util::primitives::NonMaxUsize, util::syntax};

/// Bytes of a regex as written.
pub const REGEX_BYTES_MAX: usize = 4096;

/// Groups of a regex that captures, unnamed ones and the whole match included.
pub const REGEX_GROUPS_MAX: usize = 32;

/// Bytes of a compiled regex. Classes are ASCII, so an ordinary one takes a few KiB.
const PROGRAM_BYTES_MAX: usize = 1 << 20;

/// Bytes of the lazy automaton's cache, per regex and core.
const CACHE_BYTES_MAX: usize = 256 << 10;

/// What is wrong with a regex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl RegexError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// A regex that matches a whole value.
#[derive(Clone)]
pub struct WholeRegex {
    regex: meta::Regex,
    /// The group numbers of the named groups, in order.
    groups: Box<[usize]>,
}

impl fmt::Debug for WholeRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WholeRegex(groups {:?})", self.groups)
    }
}

impl WholeRegex {
    /// Compiles `text`; also the names of its named groups, in order.
    pub fn compile(text: &str) -> Result<(Self, Vec<String>), RegexError> {
        if text.len() > REGEX_BYTES_MAX {
            return Err(RegexError::new(format!("a regex has at most {REGEX_BYTES_MAX} bytes")));
        }
        // First alone, so that an error speaks of what was written and `a)|(?:b` is one.
        build(text)?;
        // The second form is for a regex in verbose mode that ends in a comment, which would swallow the bracket.
        let regex = build(&format!("(?:{text})\\z")).or_else(|_| build(&format!("(?:{text}\n)\\z")))?;
        let mut names = Vec::new();
        let mut groups = Vec::new();
        for (group, name) in regex.group_info().pattern_names(regex_automata::PatternID::ZERO).enumerate() {
            let Some(name) = name else { continue };
            names.push(name.to_owned());
            groups.push(group);
        }
        if !names.is_empty() && regex.captures_len() > REGEX_GROUPS_MAX {
            return Err(RegexError::new(format!("a regex has at most {REGEX_GROUPS_MAX} groups"))
                .hint("`(?:…)` groups without counting"));
        }
        Ok((Self { regex, groups: groups.into() }, names))
    }

    /// Whether it matches the whole of `value`.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.regex.is_match(Input::new(value).anchored(Anchored::Yes))
    }

    /// Whether it matches the whole of `value`; then `on_group` is called for each of its named groups, in order, with where it
    /// matched, if it took part.
    pub fn captures(&self, value: &[u8], mut on_group: impl FnMut(Option<Range<usize>>)) -> bool {
        if self.groups.is_empty() {
            return self.is_match(value);
        }
        let mut slots: [Option<NonMaxUsize>; 2 * REGEX_GROUPS_MAX] = [None; 2 * REGEX_GROUPS_MAX];
        let slots = &mut slots[..2 * self.regex.captures_len()];
        if self.regex.search_slots(&Input::new(value).anchored(Anchored::Yes), slots).is_none() {
            return false;
        }
        for group in &self.groups {
            on_group(slots[2 * group].zip(slots[2 * group + 1]).map(|(start, end)| start.get()..end.get()));
        }
        true
    }
}

/// A regex that matches somewhere in a value.
#[derive(Clone)]
pub struct PartRegex(meta::Regex);

impl fmt::Debug for PartRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartRegex")
    }
}

impl PartRegex {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Self, RegexError> {
        if text.len() > REGEX_BYTES_MAX {
            return Err(RegexError::new(format!("a regex has at most {REGEX_BYTES_MAX} bytes")));
        }
        build(text).map(Self)
    }

    /// Whether it matches anywhere in `value`.
    pub fn is_match(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}

fn build(text: &str) -> Result<meta::Regex, RegexError> {
    let config = meta::Config::new()
        .nfa_size_limit(Some(PROGRAM_BYTES_MAX))
        .hybrid_cache_capacity(CACHE_BYTES_MAX)
        .utf8_empty(false);
    // What is matched is bytes: a path is ASCII, a field's value may be no UTF-8. `(?u)` asks for Unicode.
    let syntax = syntax::Config::new().utf8(false).unicode(false);
    meta::Builder::new().configure(config).syntax(syntax).build(text).map_err(|error| {
        if error.size_limit().is_some() {
            return RegexError::new("this regex is too large once compiled")
                .hint("shorten its repetitions, such as `{1,1000}`");
        }
        // The parser draws the regex with a caret below; its last line says what is wrong.
        let text = error.syntax_error().map_or_else(|| error.to_string(), ToString::to_string);
        let line = text.lines().last().unwrap_or_default();
        RegexError::new(format!("not a regex: {}", line.strip_prefix("error: ").unwrap_or(line)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(regex: &str, value: &str) -> bool {
        WholeRegex::compile(regex).unwrap().0.is_match(value.as_bytes())
    }

    #[test]
    fn the_whole_value_is_matched() {
        assert!(matches("a|ab", "ab"));
        assert!(!matches("a", "ab"));
        assert!(!matches("b", "ab"));
        assert!(matches("^ab$", "ab"));
        assert!(!matches("ab", "ab\n"));
        assert!(matches("(?x) a b # a comment", "ab"));
        assert!(matches("(?i)AB", "ab"));
        assert!(matches("", ""));
    }

    #[test]
    fn classes_are_ascii_unless_asked() {
        assert!(!matches("\\w", "é"));
        assert!(matches("(?u)\\w", "é"));
        assert!(matches("é+", "éé") || matches("é", "é"));
        assert!(WholeRegex::compile(".*").unwrap().0.is_match(b"\xff"));
    }

    #[test]
    fn named_groups_are_captured_in_order() {
        let (regex, names) = WholeRegex::compile("/(x)?(?<a>[a-z]+)(?:/(?P<b>\\d+))?").unwrap();
        assert_eq!(names, ["a", "b"]);
        let captures = |value: &[u8]| {
            let mut groups = Vec::new();
            regex.captures(value, |group| groups.push(group)).then_some(groups)
        };
        assert_eq!(captures(b"/abc/12"), Some(vec![Some(1..4), Some(5..7)]));
        assert_eq!(captures(b"/abc"), Some(vec![Some(1..4), None]));
        assert_eq!(captures(b"/abc/"), None);
    }

    #[test]
    fn what_is_not_a_regex_is_refused_in_its_own_words() {
        let message = |text: &str| WholeRegex::compile(text).unwrap_err().message;
        assert_eq!(message("(a"), "not a regex: unclosed group");
        assert!(message("a)|(?:b").contains("unopened group"));
        assert!(message("(?=a)").contains("look-around"));
        assert!(message("(a)\\1").contains("backreferences"));
        assert!(message("(?<a>a)(?<a>b)").contains("duplicate"));
        assert!(message("((a{100}){100}){100}").contains("too large"));
        assert!(message(&format!("(?<a>a){}", "(b)".repeat(31))).contains("at most 32 groups"));
    }
}
