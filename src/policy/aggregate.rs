//! Answers made of several: which services are asked, what is taken of what they say, and how it becomes one document. All of it is JSON
//! in memory; how they are asked is the proxy's.

use serde_json::{Map, Value, json};

use super::template::Template;
use crate::expression::Expression;

/// Services that one answer is made of, at most.
pub const LEGS_MAX: usize = 32;

/// What is said of the client's request, whoever says it. Other refusals are about a connection, or want fields that only who refuses can write.
const PASSED: [u16; 7] = [400, 403, 404, 409, 410, 422, 429];

/// One answer made of several.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// How they become one.
    pub merge: Merge,
    /// Whom to ask, in the order of the file.
    pub legs: Box<[Leg]>,
    /// The member that tells which of them have failed.
    pub problems: Box<str>,
}

/// How answers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Each is a member by its leg's name.
    Name,
    /// Their members are one object's; objects within them too. Of two values that cannot be one, the later leg's stays.
    Deep,
}

/// One service that is asked.
#[derive(Debug, Clone)]
pub struct Leg {
    /// Its name.
    pub name: Box<str>,
    /// The route that its requests take: an index of the table's routes.
    pub route: u32,
    /// The policies that they pass: an index of the table's chains.
    pub chain: u32,
    /// Path and query. Beyond the route's captures its variables are `values`.
    pub path: Template,
    /// How many captures the route has.
    pub captures: usize,
    /// What of earlier legs' answers is in `path`.
    pub values: Box<[Needed]>,
    /// The request's fields that it has, in lower case.
    pub headers: Box<[Box<str>]>,
    /// Whether there is no answer without it.
    pub is_required: bool,
    /// What must hold for it to be asked.
    pub when: Option<Expression>,
    /// What of its answer is taken.
    pub select: Pointer,
    /// Members that are left out of that.
    pub remove: Box<[Pointer]>,
    /// Fields of its answer that go to the client, in lower case.
    pub pass: Box<[Box<str>]>,
    /// Bytes that its answer may have.
    pub body_bytes: usize,
}

/// A value of an earlier leg's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// The leg's place in the list.
    pub leg: usize,
    /// Where in what was taken of its answer.
    pub pointer: Pointer,
}

/// A place in a document (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Box<str>);

impl Pointer {
    /// Reads one; `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let is_escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        (is_escaped && (text.is_empty() || text.starts_with('/'))).then(|| Self(text.into()))
    }

    /// What is there.
    pub fn of<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.pointer(&self.0)
    }

    /// The same, taken out of the document.
    pub fn take(&self, mut value: Value) -> Option<Value> {
        if self.0.is_empty() { Some(value) } else { value.pointer_mut(&self.0).map(Value::take) }
    }

    /// Removes the member, or the element, that is there.
    pub fn remove(&self, value: &mut Value) {
        let Some((parent, last)) = self.0.rsplit_once('/') else { return };
        let last = last.replace("~1", "/").replace("~0", "~");
        match value.pointer_mut(parent) {
            Some(Value::Object(members)) => drop(members.remove(&last)),
            Some(Value::Array(elements)) => {
                if let Some(at) = last.parse().ok().filter(|at| *at < elements.len()) {
                    elements.remove(at);
                }
            }
            _ => {}
        }
    }
}

/// Why there is nothing of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegFault {
    /// The request failed, for this reason of the reply table, which has this status.
    Request(&'static str, u16),
    /// The service answered with this status.
    Status(u16),
    /// It answered with more than it may.
    TooLarge,
    /// It did not answer with JSON.
    NotJson,
    /// What is to be taken is not there, or is no object where objects become one.
    NotThere,
    /// An answer that it depends on is not there.
    NotAsked,
    /// Its path could not be made.
    NoPath,
}

impl LegFault {
    /// A word for it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Request(reason, _) => reason,
            Self::Status(_) => "status",
            Self::TooLarge => "answer-too-large",
            Self::NotJson => "answer-not-json",
            Self::NotThere => "answer-lacks-value",
            Self::NotAsked => "not-asked",
            Self::NoPath => "path-invalid",
        }
    }

    /// The status of an answer that there is not for it: what the service said of the request, if it said so.
    pub fn status(self) -> u16 {
        match self {
            Self::Status(status) | Self::Request(_, status) if PASSED.contains(&status) => status,
            Self::Request(_, 504) => 504,
            _ => 502,
        }
    }
}

/// What came of a leg.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// This was taken of its answer.
    Answered(Value),
    /// There is nothing of it.
    Failed(LegFault),
    /// It was not to be asked.
    Skipped,
}

impl Leg {
    /// What is taken of an answer.
    ///
    /// # Errors
    /// It is none, or what is to be taken is not there.
    pub fn understand(
        &self,
        status: u16,
        content_type: &[u8],
        body: &[u8],
        merge: Merge,
    ) -> Result<Value, LegFault> {
        if !(200..300).contains(&status) {
            return Err(LegFault::Status(status));
        }
        if !is_json(content_type) {
            return Err(LegFault::NotJson);
        }
        let value: Value = serde_json::from_slice(body).map_err(|_| LegFault::NotJson)?;
        let mut value = self.select.take(value).ok_or(LegFault::NotThere)?;
        self.remove.iter().for_each(|pointer| pointer.remove(&mut value));
        if merge == Merge::Deep && !value.is_object() { Err(LegFault::NotThere) } else { Ok(value) }
    }
}

/// Whether a content type is one of JSON (RFC 6839 §3.1, RFC 8259 §11).
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let lower = essence.to_ascii_lowercase();
    lower == b"application/json" || (lower.starts_with(b"application/") && lower.ends_with(b"+json"))
}

/// A value of an answer as it stands in a path: percent-encoded, so that it is one segment or one parameter's value; `None`: it is not there, is
/// empty, or is no single value.
pub fn as_segment(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    (!out.is_empty()).then_some(out)
}

impl Aggregate {
    /// The document that the legs' answers make, in the order of the legs.
    pub fn document(&self, outcomes: Vec<Outcome>) -> Value {
        let mut document = Map::new();
        let mut problems = Vec::new();
        for (leg, outcome) in self.legs.iter().zip(outcomes) {
            match (outcome, self.merge) {
                (Outcome::Answered(value), Merge::Name) => drop(document.insert(leg.name.to_string(), value)),
                (Outcome::Answered(Value::Object(mut members)), Merge::Deep) => {
                    // It is the gateway's to say.
                    members.remove(&*self.problems);
                    merge(&mut document, members);
                }
                // No leg has answered so: see `understand`.
                (Outcome::Answered(_), Merge::Deep) | (Outcome::Skipped, _) => {}
                (Outcome::Failed(fault), merge) => {
                    if merge == Merge::Name {
                        document.insert(leg.name.to_string(), Value::Null);
                    }
                    let mut problem = json!({ "leg": &*leg.name, "reason": fault.reason() });
                    if let LegFault::Status(status) = fault {
                        problem["status"] = status.into();
                    }
                    problems.push(problem);
                }
            }
        }
        if !problems.is_empty() {
            document.insert(self.problems.to_string(), Value::Array(problems));
        }
        Value::Object(document)
    }
}

/// Puts the members of `more` into `into`.
fn merge(into: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        match (into.get_mut(&name), value) {
            (Some(Value::Object(own)), Value::Object(members)) => merge(own, members),
            (_, value) => drop(into.insert(name, value)),
        }
    }
}

#[cfg(test)]
mod tests;
