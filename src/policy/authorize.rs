//! External authorisation: someone else is asked about each request before it goes on, and says whether it may and who it is. How
//! they are asked is the proxy's; here is what is asked of them and what their answer means.

/// Whom to ask, and about what.
#[derive(Debug, Clone)]
pub struct Authorize {
    /// The route that questions take: an index of the table's routes.
    pub route: u32,
    /// Path and query of a question.
    pub target: Box<str>,
    /// The request's fields that a question has, in lower case; `None`: all.
    pub headers: Option<Box<[Box<str>]>>,
    /// Fields of the answer that go upstream with the request, in lower case. The client's own of these names never do.
    pub copy: Box<[Box<str>]>,
    /// How long an answer may take.
    pub timeout_ms: u64,
    /// Whether requests pass while no one answers.
    pub fails_open: bool,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request may pass.
    Passes,
    /// It may not, and the answer is the client's.
    Refused,
    /// Whoever was asked does not know.
    Unknown,
}

impl Verdict {
    /// What an answer's status means.
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Passes,
            300..=499 => Self::Refused,
            _ => Self::Unknown,
        }
    }
}

impl Authorize {
    /// Whether a question has a field of this name.
    pub fn asks_with(&self, name: &[u8]) -> bool {
        let is_one = |names: &[Box<str>]| names.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()));
        self.headers.as_deref().is_none_or(is_one)
    }
}

/// What goes upstream with a request because someone has said so, in place of whatever its client says there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Names of fields, in lower case.
    pub names: Vec<Box<str>>,
    /// Whole lines.
    pub lines: Vec<u8>,
}

impl Grant {
    /// Whether a field of this name is not the client's to say.
    pub fn has(&self, name: &[u8]) -> bool {
        self.names.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
    }

    /// Adds a field.
    pub fn put(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        for (status, verdict) in [
            (200, Verdict::Passes),
            (204, Verdict::Passes),
            (302, Verdict::Refused),
            (401, Verdict::Refused),
            (403, Verdict::Refused),
            (429, Verdict::Refused),
            (500, Verdict::Unknown),
            (503, Verdict::Unknown),
            (101, Verdict::Unknown),
        ] {
            assert_eq!(Verdict::of(status), verdict, "{status}");
        }
    }

    #[test]
    fn fields_of_questions_and_grants_ignore_case() {
        let door = Authorize {
            route: 0,
            target: "/".into(),
            headers: Some(["cookie".into()].into()),
            copy: Box::default(),
            timeout_ms: 0,
            fails_open: false,
        };
        assert!(door.asks_with(b"Cookie") && !door.asks_with(b"authorization"));
        assert!(Authorize { headers: None, ..door }.asks_with(b"authorization"));
        let mut grant = Grant { names: vec!["x-user".into()], lines: Vec::new() };
        grant.put("x-user", b"ada");
        assert!(grant.has(b"X-User") && !grant.has(b"x-users"));
        assert_eq!(grant.lines, b"x-user: ada\r\n");
    }
}
