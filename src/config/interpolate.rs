//! `${NAME}` and `${file:/path}` in strings, and where their values come from. It works on one string at a time and
//! never puts a value into a message: what it resolves may be a secret.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::File,
    io::Read,
    path::Path,
};

use super::load;

/// Bytes of a file that `${file:…}` may name.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Bytes that all `${…}` of one configuration may yield together.
pub const INTERPOLATED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// References without a value that are reported of one string.
const UNRESOLVED_MAX: usize = 100;

/// Where `${…}` gets its values. An error is a reason that fits after the name: "is not set".
pub trait Environment {
    /// The environment variable `name`.
    fn variable(&self, name: &str) -> Result<String, String>;
    /// The text of the file at `path`, at most [`SECRET_BYTES_MAX`] bytes.
    fn file(&self, path: &Path) -> Result<String, String>;
    /// The text of the file of consumers at `path`; `None`: it is not looked at here.
    fn consumers(&self, _path: &Path) -> Result<Option<String>, String> {
        Ok(None)
    }
}

/// This process's variables, and the file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Result<String, String> {
        std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => "is not set".into(),
            std::env::VarError::NotUnicode(_) => "is not UTF-8".into(),
        })
    }

    fn file(&self, path: &Path) -> Result<String, String> {
        let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
        let mut bytes = Vec::new();
        let limit = SECRET_BYTES_MAX as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(format!("has more than {} KiB", SECRET_BYTES_MAX / 1024));
        }
        String::from_utf8(bytes).map_err(|_| "is not UTF-8".into())
    }

    fn consumers(&self, path: &Path) -> Result<Option<String>, String> {
        load::read(path).map(Some)
    }
}

/// No variable is set and no file exists: nothing outside the text is touched.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEnvironment;

impl Environment for NoEnvironment {
    fn variable(&self, _: &str) -> Result<String, String> {
        Err("is not set".into())
    }

    fn file(&self, _: &Path) -> Result<String, String> {
        Err("cannot be read: there are no files here".into())
    }
}

/// Why a reference has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unresolved {
    /// The reference as written, `${NAME}`; without its end when that is missing.
    pub(super) reference: String,
    /// How many times the same text stands before it in the string, escaped or not.
    pub(super) nth: usize,
    /// What is wrong.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: String,
}

/// Whether `text` has a `${…}` that would be resolved.
pub(super) fn has_reference(text: &str) -> bool {
    pieces(text).any(|piece| matches!(piece, Piece::Reference { .. } | Piece::Open { .. }))
}

/// Resolves strings against one environment. Each variable and file is read once, so that one configuration cannot
/// hold two values of one secret.
pub(super) struct Interpolation<'e> {
    environment: &'e dyn Environment,
    known: RefCell<HashMap<String, Result<String, String>>>,
    left: Cell<usize>,
}

impl<'e> Interpolation<'e> {
    pub(super) fn new(environment: &'e dyn Environment) -> Self {
        Self { environment, known: RefCell::default(), left: Cell::new(INTERPOLATED_BYTES_MAX) }
    }

    /// Whether anything was put in.
    pub(super) fn is_used(&self) -> bool {
        !self.known.borrow().is_empty()
    }

    /// `text` with every reference replaced and every `$${` made `${`. `None`: there is nothing to replace. What a
    /// reference yields is not looked at again.
    ///
    /// # Errors
    /// The references that have no value; all of them unless there are more than [`UNRESOLVED_MAX`].
    pub(super) fn resolve(&self, text: &str) -> Result<Option<String>, Vec<Unresolved>> {
        if !text.contains("${") {
            return Ok(None);
        }
        let mut out = String::with_capacity(text.len());
        let mut unresolved = Vec::new();
        for piece in pieces(text) {
            if unresolved.len() == UNRESOLVED_MAX {
                break;
            }
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Escape => out.push_str("${"),
                Piece::Reference { name, at } => {
                    let reference = &text[at..at + name.len() + "${}".len()];
                    match self.value(name) {
                        Ok(value) if value.len() <= self.left.get() => {
                            self.left.set(self.left.get() - value.len());
                            out.push_str(&value);
                        }
                        Ok(_) => unresolved.push(Unresolved::new(
                            text,
                            at,
                            reference,
                            format!(
                                "the values of all references together exceed {INTERPOLATED_BYTES_MAX} bytes"
                            ),
                            "use fewer or smaller ones",
                        )),
                        Err((message, hint)) => {
                            unresolved.push(Unresolved::new(text, at, reference, message, hint));
                        }
                    }
                }
                Piece::Open { at } => {
                    unresolved.push(Unresolved::new(
                        text,
                        at,
                        "${",
                        "this `${` has no `}`".into(),
                        LITERAL_HINT,
                    ));
                }
            }
        }
        if unresolved.is_empty() { Ok(Some(out)) } else { Err(unresolved) }
    }

    fn value(&self, name: &str) -> Result<String, (String, &'static str)> {
        if let Some(file) = name.strip_prefix("file:") {
            if !Path::new(file).is_absolute() {
                return Err((format!("`{file}` is not an absolute path"), "write `${file:/path/to/it}`"));
            }
            let text = self.once(name, || self.environment.file(Path::new(file)).map(without_newline));
            return text.map_err(|reason| {
                (format!("file `{file}` {reason}"), "it must exist and be readable to this process")
            });
        }
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !is_name {
            return Err((format!("`{name}` is not the name of an environment variable"), LITERAL_HINT));
        }
        let value = self.once(name, || self.environment.variable(name));
        value.map_err(|reason| (format!("environment variable `{name}` {reason}"), LITERAL_HINT))
    }

    fn once(&self, name: &str, read: impl FnOnce() -> Result<String, String>) -> Result<String, String> {
        self.known.borrow_mut().entry(name.to_owned()).or_insert_with(read).clone()
    }
}

const LITERAL_HINT: &str = "`$${` stands for `${` itself";

impl Unresolved {
    fn new(text: &str, at: usize, reference: &str, message: String, hint: &str) -> Self {
        let nth = text[..at].matches(reference).count();
        Self { reference: reference.into(), nth, message, hint: hint.into() }
    }
}

/// A file's text as a value: most editors end a file with a newline that is no part of a secret.
fn without_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

enum Piece<'t> {
    Text(&'t str),
    /// `$${`.
    Escape,
    /// `${name}`, which begins at `at`.
    Reference {
        name: &'t str,
        at: usize,
    },
    /// `${` without an end.
    Open {
        at: usize,
    },
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at;
        let (piece, len) = if rest.starts_with("$${") {
            (Piece::Escape, 3)
        } else if let Some(reference) = rest.strip_prefix("${") {
            match reference.find('}') {
                Some(end) => (Piece::Reference { name: &reference[..end], at: start }, end + 3),
                None => (Piece::Open { at: start }, rest.len()),
            }
        } else {
            // A `$` that begins neither stays; the next one after it is looked at again.
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let end = rest[first..].find('$').map_or(rest.len(), |next| first + next);
            (Piece::Text(&rest[..end]), end)
        };
        at += len;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Environment for Fixed {
        fn variable(&self, name: &str) -> Result<String, String> {
            match name {
                "HOST" => Ok("10.0.0.1".into()),
                "TRICK" => Ok("${HOST}".into()),
                _ => Err("is not set".into()),
            }
        }

        fn file(&self, path: &Path) -> Result<String, String> {
            match path.to_str() {
                Some("/key") => Ok("s3cret\n".into()),
                Some("/crlf") => Ok("two\n\r\n".into()),
                Some("/large") => Ok("x".repeat(SECRET_BYTES_MAX)),
                _ => Err("cannot be read: gone".into()),
            }
        }
    }

    fn resolve(text: &str) -> Result<String, Vec<Unresolved>> {
        Ok(Interpolation::new(&Fixed).resolve(text)?.unwrap_or_else(|| text.to_owned()))
    }

    #[test]
    fn values_are_put_in() {
        for (text, expected) in [
            ("${HOST}:80", "10.0.0.1:80"),
            ("a ${file:/key} b", "a s3cret b"),
            ("${file:/crlf}", "two\n"),
            ("${TRICK}", "${HOST}"),
            ("$${HOST} ${HOST}", "${HOST} 10.0.0.1"),
            ("$ $x {client.ip} 5$", "$ $x {client.ip} 5$"),
            ("ä${HOST}ä$ä", "ä10.0.0.1ä$ä"),
            ("$$$${HOST}", "$$${HOST}"),
        ] {
            assert_eq!(resolve(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn all_failures_are_named_with_their_place() {
        let failed = resolve("$${A} ${A} ${HOST} ${file:/none} ${file:rel} ${a b} ${").unwrap_err();
        let named: Vec<_> = failed.iter().map(|one| (one.reference.as_str(), one.nth)).collect();
        assert_eq!(named, [("${A}", 1), ("${file:/none}", 0), ("${file:rel}", 0), ("${a b}", 0), ("${", 6)]);
        assert_eq!(failed[0].message, "environment variable `A` is not set");
        assert_eq!(failed[1].message, "file `/none` cannot be read: gone");
    }

    #[test]
    fn what_it_yields_is_bounded() {
        let interpolation = Interpolation::new(&Fixed);
        let rounds = INTERPOLATED_BYTES_MAX / SECRET_BYTES_MAX;
        for _ in 0..rounds {
            interpolation.resolve("${file:/large}").unwrap();
        }
        assert!(interpolation.resolve("${HOST}").is_err());
    }

    #[test]
    fn references_are_recognised() {
        for (text, expected) in [("${A}", true), ("x${A", true), ("$${A}", false), ("$A {b}", false)] {
            assert_eq!(has_reference(text), expected, "{text}");
        }
    }

    #[test]
    fn files_of_the_process_are_bounded() {
        let path = std::env::temp_dir().join(format!("ringgate-interpolate-{}", std::process::id()));
        std::fs::write(&path, "x".repeat(SECRET_BYTES_MAX)).unwrap();
        assert_eq!(ProcessEnvironment.file(&path).unwrap().len(), SECRET_BYTES_MAX);
        std::fs::write(&path, "x".repeat(SECRET_BYTES_MAX + 1)).unwrap();
        assert_eq!(ProcessEnvironment.file(&path), Err("has more than 64 KiB".into()));
        std::fs::remove_file(&path).unwrap();
        assert!(ProcessEnvironment.file(&path).unwrap_err().starts_with("cannot be read"));
    }
}
