//! Path patterns: what may be written in `match.path`, and the types a capture may have. It knows the canonical form
//! of a path well enough to refuse a pattern that could never match one; it does not canonicalise requests, and it
//! does not rank patterns: the trie's shape does.

use std::fmt;

use super::{capture::CAPTURES_MAX, spec::Refusal};

/// Bytes of a pattern or path regex.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// Segments of a pattern, so levels of the trie and of a lookup's recursion.
pub const SEGMENTS_MAX: usize = 64;

/// What one capture takes, in the order in which they are tried where several stand at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentKind {
    /// `{id:uuid}`: 8-4-4-4-12 hexadecimal digits in either case (RFC 9562 §4), any version.
    Uuid,
    /// `{id:int}`: one or more digits; no sign.
    Int,
    /// `{id:hex}`: one or more hexadecimal digits in either case.
    Hex,
    /// `{id:alpha}`: one or more ASCII letters.
    Alpha,
    /// `{id:alnum}`: one or more ASCII letters and digits.
    Alnum,
    /// `{id:slug}`: one or more ASCII letters, digits, `-` and `_`.
    Slug,
    /// `{id}`: any non-empty segment.
    Any,
}

impl SegmentKind {
    const NAMED: [(&'static str, Self); 6] = [
        ("uuid", Self::Uuid),
        ("int", Self::Int),
        ("hex", Self::Hex),
        ("alpha", Self::Alpha),
        ("alnum", Self::Alnum),
        ("slug", Self::Slug),
    ];

    /// Whether it takes this non-empty segment of a canonical path.
    #[inline]
    pub fn takes(self, segment: &[u8]) -> bool {
        match self {
            Self::Uuid => is_uuid(segment),
            Self::Int => segment.iter().all(u8::is_ascii_digit),
            Self::Hex => segment.iter().all(u8::is_ascii_hexdigit),
            Self::Alpha => segment.iter().all(u8::is_ascii_alphabetic),
            Self::Alnum => segment.iter().all(u8::is_ascii_alphanumeric),
            Self::Slug => {
                segment.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            }
            Self::Any => true,
        }
    }
}

impl fmt::Display for SegmentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMED.iter().find(|(_, kind)| kind == self).map_or("any", |(name, _)| name))
    }
}

fn is_uuid(segment: &[u8]) -> bool {
    segment.len() == 36
        && segment.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// These bytes; empty only as the last one, after a final slash.
    Literal(String),
    /// `{id}`, `{id:int}`.
    Capture(SegmentKind),
    /// `{*rest}`, only last.
    Rest,
    /// `*`, only last.
    Below,
}

/// A pattern that can match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Its segments; at least one.
    pub(super) segments: Vec<Segment>,
    /// The captures' names, in order.
    pub(super) names: Vec<String>,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(Refusal::new(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes")));
        }
        let Some(relative) = text.strip_prefix('/') else {
            return Err(Refusal::new("a path starts with `/`").hint(format!("\"/{text}\"")));
        };
        if text.contains(['?', '#']) {
            return Err(Refusal::new("a path has no query and no fragment")
                .hint("ask for query parameters with `query = { name = \"value\" }`"));
        }
        let written: Vec<&str> = relative.split('/').collect();
        check_canonical(&written)?;
        if written.len() > SEGMENTS_MAX {
            return Err(Refusal::new(format!("a pattern has at most {SEGMENTS_MAX} segments")));
        }
        let mut pattern = Self { segments: Vec::with_capacity(written.len()), names: Vec::new() };
        for (at, segment) in written.iter().enumerate() {
            pattern.push(segment, at + 1 == written.len())?;
        }
        Ok(pattern)
    }

    fn push(&mut self, written: &str, last: bool) -> Result<(), Refusal> {
        let segment = if written == "*" {
            Segment::Below
        } else if let Some(inner) = written.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            self.capture(inner)?
        } else if written.contains(['{', '}']) {
            return Err(Refusal::new(format!("in `{written}`, a capture must be a whole segment"))
                .hint("capture the whole segment, or use `path_regex`"));
        } else if written.contains('*') {
            return Err(Refusal::new(format!("in `{written}`, `*` must be a whole segment, the last one"))
                .hint(
                    "`{name}` takes one segment, a final `/*` everything below, `path_regex` anything else",
                ));
        } else {
            Segment::Literal(written.into())
        };
        if !last && matches!(segment, Segment::Below | Segment::Rest) {
            return Err(Refusal::new(format!("`{written}` takes all that follows, so it must come last"))
                .hint("`{name}` takes one segment"));
        }
        self.segments.push(segment);
        Ok(())
    }

    /// What stands between `{` and `}`.
    fn capture(&mut self, inner: &str) -> Result<Segment, Refusal> {
        let (rest, inner) = inner.strip_prefix('*').map_or((false, inner), |inner| (true, inner));
        let (name, kind) = inner.split_once(':').map_or((inner, None), |(name, kind)| (name, Some(kind)));
        check_name(name)?;
        if self.names.iter().any(|other| other == name) {
            return Err(Refusal::new(format!("two captures are named `{name}`")));
        }
        if self.names.len() == CAPTURES_MAX {
            return Err(Refusal::new(format!("a path has at most {CAPTURES_MAX} captures")));
        }
        let segment = match (rest, kind) {
            (true, None) => Segment::Rest,
            (true, Some(_)) => {
                return Err(Refusal::new(format!("`{{*{name}}}` takes any rest, it has no type")));
            }
            (false, None) => Segment::Capture(SegmentKind::Any),
            (false, Some(kind)) => {
                let named = SegmentKind::NAMED.iter().find(|(word, _)| *word == kind).ok_or_else(|| {
                    let words = SegmentKind::NAMED.map(|(word, _)| word).join(", ");
                    Refusal::new(format!("`{kind}` is not a type of capture"))
                        .hint(format!("one of {words}, or none"))
                })?;
                Segment::Capture(named.1)
            }
        };
        self.names.push(name.into());
        Ok(segment)
    }

    /// Whether it is an exact path, which the table of exact paths holds.
    pub(super) fn is_exact(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }

    /// Compares with a path one to one, without the trie: for explanations of what did not match.
    pub(super) fn compare(&self, path: &[u8]) -> Comparison {
        let Some(relative) = path.strip_prefix(b"/") else { return Comparison::Different };
        let mut rest = Some(relative);
        let mut wrong_type = None;
        let mut capture = 0;
        for segment in &self.segments {
            if matches!(segment, Segment::Below) {
                return wrong_type.unwrap_or(Comparison::Same);
            }
            let Some(current) = rest else { return Comparison::Different };
            let cut = current.iter().position(|byte| *byte == b'/');
            let (head, tail) =
                cut.map_or((current, None), |cut| (&current[..cut], Some(&current[cut + 1..])));
            rest = match segment {
                Segment::Literal(literal) if literal.as_bytes() == head => tail,
                Segment::Capture(kind) if !head.is_empty() => {
                    if !kind.takes(head) && wrong_type.is_none() {
                        wrong_type = Some(Comparison::WrongType { capture, kind: *kind });
                    }
                    capture += 1;
                    tail
                }
                Segment::Rest if !current.is_empty() => None,
                Segment::Literal(_) | Segment::Capture(_) | Segment::Rest | Segment::Below => {
                    return Comparison::Different;
                }
            };
        }
        if rest.is_some() { Comparison::Different } else { wrong_type.unwrap_or(Comparison::Same) }
    }
}

/// How a path compares with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// It matches.
    Same,
    /// It would match if this capture, by index, had no type.
    WrongType { capture: usize, kind: SegmentKind },
    /// It does not match.
    Different,
}

/// Refuses a name that a variable `{path.name}` could not spell.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(
            Refusal::new("a capture needs a name").hint("`{id}`, `{*rest}`; a final `/*` captures nothing")
        );
    }
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(Refusal::new(format!("`{name}` is not a capture's name"))
        .hint("a name has ASCII letters, digits and `_`, and does not start with a digit"))
}

/// Refuses segments that no canonical path has, with the pattern as it would be canonical.
fn check_canonical(written: &[&str]) -> Result<(), Refusal> {
    let mut canonical: Vec<String> = Vec::with_capacity(written.len());
    let mut why = None;
    for (at, segment) in written.iter().enumerate() {
        let normal =
            if segment.contains(['{', '}']) { (*segment).into() } else { canonical_segment(segment)? };
        let last = at + 1 == written.len();
        match normal.as_str() {
            "" if !last => why = why.or(Some("an empty segment (`//`)")),
            "." | ".." => {
                why = why.or(Some("a dot segment"));
                if normal == ".." {
                    canonical.pop();
                }
                if last {
                    canonical.push(String::new());
                }
            }
            _ => {
                if normal != *segment {
                    why = why.or(Some("a segment that is not percent-encoded as canonical paths are"));
                }
                canonical.push(normal);
            }
        }
    }
    let Some(why) = why else { return Ok(()) };
    Err(Refusal::new(format!("it has {why}, which no canonical path has, so it would never match"))
        .hint(format!("\"/{}\"", canonical.join("/"))))
}

/// The canonical percent-encoding of a literal segment: unreserved characters plain, others that a path may have as
/// they are (RFC 3986 §3.3), the rest as `%XX` with upper-case digits (§6.2.2).
fn canonical_segment(segment: &str) -> Result<String, Refusal> {
    let bytes = segment.as_bytes();
    let mut canonical = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (decoded, encoded, len) = if byte == b'%' {
            let digits = bytes.get(at + 1..at + 3).and_then(|two| Some((hex(two[0])?, hex(two[1])?)));
            let Some((high, low)) = digits else {
                return Err(Refusal::new(format!(
                    "in `{segment}`, `%` is not followed by two hexadecimal digits"
                ))
                .hint("`%25` is an encoded `%`"));
            };
            (high << 4 | low, true, 3)
        } else {
            (byte, false, 1)
        };
        if decoded < 0x20 || decoded == 0x7f {
            return Err(Refusal::new(format!("`{}` has a control character", segment.escape_default())));
        }
        let plain = if encoded { is_unreserved(decoded) } else { is_path_char(decoded) };
        if plain {
            canonical.push(char::from(decoded));
        } else {
            canonical.push_str(&format!("%{decoded:02X}"));
        }
        at += len;
    }
    Ok(canonical)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn is_path_char(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (String, String) {
        let refusal = Pattern::parse(text).expect_err(text);
        (refusal.message, refusal.hint.unwrap_or_default())
    }

    #[test]
    fn every_element_is_read() {
        let pattern = Pattern::parse("/a/{id:int}/{slug}/%2F/{*rest}").unwrap();
        let literal = |text: &str| Segment::Literal(text.into());
        assert_eq!(
            pattern.segments,
            [
                literal("a"),
                Segment::Capture(SegmentKind::Int),
                Segment::Capture(SegmentKind::Any),
                literal("%2F"),
                Segment::Rest
            ]
        );
        assert_eq!(pattern.names, ["id", "slug", "rest"]);
        assert_eq!(Pattern::parse("/").unwrap().segments, [literal("")]);
        assert_eq!(Pattern::parse("/a/").unwrap().segments, [literal("a"), literal("")]);
        assert_eq!(Pattern::parse("/*").unwrap().segments, [Segment::Below]);
    }

    #[test]
    fn a_capture_is_a_whole_segment_with_a_name_of_its_own() {
        for partial in ["/a/v{id}", "/a/{id}.json", "/{a}{b}", "/{a", "/a}", "/{a/b}"] {
            assert!(
                refused(partial).0.contains("whole segment") || refused(partial).0.contains("not a"),
                "{partial}"
            );
        }
        assert!(refused("/a/v{id}").0.contains("a capture must be a whole segment"));
        assert!(refused("/{}").0.contains("needs a name"));
        assert!(refused("/{*}").0.contains("needs a name"));
        assert!(refused("/{1a}").0.contains("not a capture's name"));
        assert!(refused("/{a}/{a:int}").0.contains("two captures are named `a`"));
        assert!(refused("/{a:number}").1.contains("int"));
        assert!(refused("/{*a:int}").0.contains("no type"));
        let many = (0..=CAPTURES_MAX).map(|n| format!("/{{c{n}}}")).collect::<String>();
        assert!(refused(&many).0.contains("at most 16 captures"));
    }

    #[test]
    fn what_takes_the_rest_comes_last() {
        assert!(refused("/a/{*rest}/b").0.contains("must come last"));
        assert!(refused("/a/*/b").0.contains("must come last"));
        assert!(refused("/a/*/").0.contains("must come last"));
        assert!(refused("/a*").0.contains("whole segment"));
    }

    #[test]
    fn a_pattern_that_no_canonical_path_equals_is_refused_with_the_one_that_does() {
        assert_eq!(refused("a/b").1, "\"/a/b\"");
        assert_eq!(refused("/a//b").1, "\"/a/b\"");
        assert_eq!(refused("/a/./b").1, "\"/a/b\"");
        assert_eq!(refused("/a/../b/..").1, "\"/\"");
        assert_eq!(refused("/a/b/..").1, "\"/a/\"");
        assert_eq!(refused("/%7Euser/%c3%a9/{id}").1, "\"/~user/%C3%A9/{id}\"");
        assert_eq!(refused("/é b").1, "\"/%C3%A9%20b\"");
        assert_eq!(refused("/%2e%2e/a").1, "\"/a\"");
        assert!(refused("/a?b=1").1.contains("query"));
        assert!(refused("/100%").0.contains("two hexadecimal digits"));
        assert!(refused("/a%00").0.contains("control character"));
        assert!(refused("/a\n").0.contains("control character"));
        assert!(refused(&"/a".repeat(SEGMENTS_MAX + 1)).0.contains("segments"));
        assert!(refused(&format!("/{}", "a".repeat(PATTERN_BYTES_MAX))).0.contains("bytes"));
    }

    #[test]
    fn types_take_what_they_say() {
        let table: [(SegmentKind, &[&str], &[&str]); 7] = [
            (SegmentKind::Int, &["0", "0042"], &["-1", "1.0", "a", "1a"]),
            (SegmentKind::Hex, &["0aF"], &["0x1", "g"]),
            (SegmentKind::Alpha, &["aZ"], &["a1", "%C3", "a-b"]),
            (SegmentKind::Alnum, &["aZ09"], &["a-b", "a_b"]),
            (SegmentKind::Slug, &["a-b_C-9"], &["a.b", "a%20"]),
            (
                SegmentKind::Uuid,
                &["00000000-0000-0000-0000-00000000000a", "0190163D-8694-739B-AEA5-966C26F8AD91"],
                &[
                    "0190163d8694739baea5966c26f8ad91",
                    "0190163d-8694-739b-aea5-966c26f8ad9",
                    "0190163d-8694-739b-aea5_966c26f8ad91",
                ],
            ),
            (SegmentKind::Any, &["%20", "."], &[]),
        ];
        for (kind, yes, no) in table {
            for text in yes {
                assert!(kind.takes(text.as_bytes()), "{kind} {text}");
            }
            for text in no {
                assert!(!kind.takes(text.as_bytes()), "{kind} {text}");
            }
        }
    }

    #[test]
    fn comparison_tells_a_wrong_type_from_another_path() {
        let wrong = |capture| Comparison::WrongType { capture, kind: SegmentKind::Int };
        let compare = |pattern: &str, path: &str| Pattern::parse(pattern).unwrap().compare(path.as_bytes());
        assert_eq!(compare("/a/{id:int}", "/a/5"), Comparison::Same);
        assert_eq!(compare("/a/{id:int}", "/a/x"), wrong(0));
        assert_eq!(compare("/a/{id:int}/*", "/a/x"), wrong(0));
        assert_eq!(compare("/{a}/{id:int}", "/a/x"), wrong(1));
        assert_eq!(compare("/a/{id:int}/b", "/a/x/c"), Comparison::Different);
        assert_eq!(compare("/a/{id}", "/a/"), Comparison::Different);
        assert_eq!(compare("/a/{*r}", "/a/"), Comparison::Different);
        assert_eq!(compare("/a/{*r}", "/a//"), Comparison::Same);
        assert_eq!(compare("/a/*", "/a"), Comparison::Same);
        assert_eq!(compare("/a/*", "/ab"), Comparison::Different);
        assert_eq!(compare("/a", "/a/"), Comparison::Different);
        assert_eq!(compare("/*", "*"), Comparison::Different);
    }
}
