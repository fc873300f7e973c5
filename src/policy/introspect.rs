//! Token introspection (RFC 7662): the issuer is asked what a token says, and the answer is remembered for a while. How it is asked is
//! the proxy's.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    credential::Place,
    token::{Claims, Demands, TokenFault},
};

/// Whom to ask, and what tokens must say.
#[derive(Clone)]
pub struct Introspect {
    /// The route that questions take: an index of the table's routes.
    pub route: u32,
    /// Path and query of a question.
    pub target: Box<str>,
    /// What a token comes in.
    pub place: Place,
    /// Whether it goes on to the upstream.
    pub forward: bool,
    /// The value of `Authorization` that the gateway shows itself with.
    pub authorization: Box<str>,
    /// What a token must say.
    pub demands: Demands,
    /// How long an answer is remembered; 0: not at all.
    pub cache_ms: u64,
    /// How long an answer may take.
    pub timeout_ms: u64,
}

impl std::fmt::Debug for Introspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Introspect")
            .field("route", &self.route)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// The content type of a question.
pub const QUESTION_TYPE: &str = "application/x-www-form-urlencoded";

/// How a client shows itself (RFC 6749 §2.3.1).
pub fn basic(id: &str, secret: &str) -> Box<str> {
    let mut pair = form_encoded(id.as_bytes());
    pair.push(':');
    pair.push_str(&form_encoded(secret.as_bytes()));
    format!("Basic {}", STANDARD.encode(pair)).into()
}

/// The body of a question about a token.
pub fn question(token: &[u8]) -> String {
    format!("token={}&token_type_hint=access_token", form_encoded(token))
}

fn form_encoded(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                out.push(char::from(*byte))
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// What the issuer says of a token; `None`: it is not one, or not any longer.
pub type Said = Option<Rc<Claims>>;

impl Introspect {
    /// What an answer says.
    ///
    /// # Errors
    /// It is no answer.
    pub fn understand(&self, status: u16, body: &[u8]) -> Result<Said, NoAnswer> {
        let all: Map<String, Value> = if status == 200 {
            serde_json::from_slice(body).map_err(|_| NoAnswer)?
        } else {
            return Err(NoAnswer);
        };
        match all.get("active") {
            Some(Value::Bool(true)) => Ok(self.demands.met_by(all).map(Rc::new)),
            Some(Value::Bool(false)) => Ok(None),
            _ => Err(NoAnswer),
        }
    }

    /// Whether a token may pass at `now_s`.
    ///
    /// # Errors
    /// It may not.
    pub fn admits(&self, said: &Said, now_s: u64) -> Result<Rc<Claims>, TokenFault> {
        match said {
            Some(claims) if claims.is_of(now_s) => Ok(Rc::clone(claims)),
            Some(_) => Err(TokenFault::Expired),
            None => Err(TokenFault::Invalid),
        }
    }
}

/// The issuer did not say anything that could be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAnswer;

/// A policy by its number, and the SHA-256 of a token.
type Known = (usize, [u8; 32]);

/// Tokens in each half of [`Introspected`].
const REMEMBERED_MAX: usize = 1024;

/// How long it is remembered that a token is none.
const REFUSAL_MS: u64 = 10_000;

/// What issuers have said of late, and what they are being asked. Bounded, as those that were not asked for while as many others were are
/// forgotten. It belongs to one table.
#[derive(Default)]
pub struct Introspected {
    young: HashMap<Known, (Said, u64)>,
    old: HashMap<Known, (Said, u64)>,
    asked: HashMap<Known, Rc<Question>>,
}

/// A question under way, for which others wait too.
#[derive(Default)]
pub struct Question {
    answer: RefCell<Option<Result<Said, NoAnswer>>>,
    is_dropped: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Question {
    /// Waits for the answer that someone else has asked for; `None`: they have gone without it.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Said, NoAnswer>>> {
        if let Some(answer) = &*self.answer.borrow() {
            return Poll::Ready(Some(answer.clone()));
        }
        if self.is_dropped.get() {
            return Poll::Ready(None);
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wake_all(&self) {
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

/// How a token stands.
pub enum Standing {
    /// The issuer has said so.
    Said(Said),
    /// Someone asks just now.
    Asked(Rc<Question>),
    /// The caller is to ask.
    ToAsk(Known),
}

/// The duty to answer a question. Dropped without an answer, it is someone else's.
pub struct Duty<'i> {
    all: &'i RefCell<Introspected>,
    known: Known,
    question: Rc<Question>,
}

impl Introspected {
    /// How a token stands at `now_ms`.
    pub fn look(&mut self, policy: usize, token: &[u8], now_ms: u64) -> Standing {
        let mut known = (policy, [0; 32]);
        known.1.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
        if let Some((said, until_ms)) = self.young.get(&known)
            && *until_ms > now_ms
        {
            return Standing::Said(said.clone());
        }
        if let Some((said, until_ms)) = self.old.remove(&known)
            && until_ms > now_ms
        {
            self.remember(known, said.clone(), until_ms);
            return Standing::Said(said);
        }
        match self.asked.get(&known) {
            Some(question) => Standing::Asked(Rc::clone(question)),
            None => Standing::ToAsk(known),
        }
    }

    fn remember(&mut self, known: Known, said: Said, until_ms: u64) {
        if self.young.len() >= REMEMBERED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(known, (said, until_ms));
    }
}

impl<'i> Duty<'i> {
    /// Takes it on.
    pub fn of(all: &'i RefCell<Introspected>, known: Known) -> Self {
        let question = Rc::<Question>::default();
        all.borrow_mut().asked.insert(known, Rc::clone(&question));
        Self { all, known, question }
    }

    /// Tells all who wait, and remembers it.
    pub fn answer(self, answer: Result<Said, NoAnswer>, cache_ms: u64, now_ms: u64) {
        if let Ok(said) = &answer
            && cache_ms > 0
        {
            let for_ms = if said.is_some() { cache_ms } else { cache_ms.min(REFUSAL_MS) };
            self.all.borrow_mut().remember(self.known, said.clone(), now_ms + for_ms);
        }
        *self.question.answer.borrow_mut() = Some(answer);
    }
}

impl Drop for Duty<'_> {
    fn drop(&mut self) {
        self.all.borrow_mut().asked.remove(&self.known);
        self.question.is_dropped.set(true);
        self.question.wake_all();
    }
}

#[cfg(test)]
mod tests;
