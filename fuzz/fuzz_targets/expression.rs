//! An expression over a request: any text is one or none, and what is one comes to a value or fails, whatever the request brings. The
//! input is the expression, and behind a newline what every text of the request is.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use ringgate::expression::{Expression, Kind, Number, Scene, Scope, Text, TextMap};
use serde_json::{Map, Value};

struct Asked<'i> {
    text: &'i [u8],
    claims: Map<String, Value>,
}

impl Scene for Asked<'_> {
    fn text(&self, _: Text) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.text)
    }

    fn number(&self, _: Number) -> i64 {
        self.text.len() as i64
    }

    fn values(&self, _: TextMap, _: &str, each: &mut dyn FnMut(&[u8])) {
        self.text.split(|byte| *byte == b',').for_each(each);
    }

    fn names(&self, _: TextMap, each: &mut dyn FnMut(&[u8])) {
        self.text.split(|byte| *byte == b',').for_each(each);
    }

    fn claims(&self) -> Option<&Map<String, Value>> {
        Some(&self.claims)
    }

    fn unix_us(&self) -> u64 {
        u64::from(self.text.first().copied().unwrap_or(0)) << 48
    }
}

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (source, text) = input.split_at(at);
    let Ok(source) = std::str::from_utf8(source) else { return };
    let claims = serde_json::from_slice(text).unwrap_or_default();
    let asked = Asked { text, claims };
    for kind in [Kind::Bool, Kind::Int, Kind::Text] {
        let Ok(expression) = Expression::compile(source, kind, Scope::Identity) else { continue };
        let _ = match kind {
            Kind::Bool => expression.holds(&asked).map(drop),
            Kind::Int => expression.number(&asked).map(drop),
            Kind::Text => expression.text(&asked).map(drop),
        };
    }
});
