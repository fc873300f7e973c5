//! What is wrong with `route.aggregate`. Paths and expressions are judged where they are compiled.

use super::fields;
use crate::config::{
    diagnostic::Diagnostic,
    report::Report,
    source::{Key, key_path},
    types::{Aggregate, Leg, Merge},
};

/// Legs of one route, at most.
const LEGS_MAX: usize = 32;

/// Bytes that the answers of a route's legs may have together, at most: they are kept in memory.
const ANSWERS_BYTES_MAX: u64 = 64 << 20;

/// What is said of one answer alone, and of the response that is made only by who makes it.
const NOT_PASSED: [&str; 6] = ["age", "date", "etag", "last-modified", "server-timing", "x-partial"];

pub(super) fn validate(route: usize, aggregate: &Aggregate, report: &mut Report) {
    let list = key_path!["route", route, "aggregate", "legs"];
    if aggregate.legs.is_empty() || aggregate.legs.len() > LEGS_MAX {
        let error = Diagnostic::error(format!("an answer is made of 1 to {LEGS_MAX} legs"));
        report.push_at(
            &list,
            error.hint("legs = [{ name = \"user\", cluster = \"users\", path = \"/users/{id}\" }]"),
        );
    }
    let bytes = aggregate.legs.iter().map(|leg| leg.body_bytes.0);
    if bytes.fold(0, u64::saturating_add) > ANSWERS_BYTES_MAX {
        let error = Diagnostic::error("the answers of these legs may have more than 64 MiB together");
        report.push_at(&list, error.hint("they are kept in memory: give legs less `body_bytes`"));
    }
    for (place, leg) in aggregate.legs.iter().enumerate() {
        let at = |key| key_path!["route", route, "aggregate", "legs", place, key];
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if leg.name.is_empty() || !leg.name.bytes().all(is_word) {
            let error =
                Diagnostic::error(format!("{} is no name of a leg", report.shown(&at("name"), &leg.name)));
            report.push_at(&at("name"), error.hint("it is made of letters, digits, `-` and `_`"));
        }
        if aggregate.legs[..place].iter().any(|other| other.name == leg.name) {
            let error = Diagnostic::error(format!(
                "two legs of this route are called {}",
                report.shown(&at("name"), &leg.name)
            ));
            report.push_at(&at("name"), error);
        }
        if aggregate.merge == Merge::Name && leg.name == aggregate.problems {
            let error = Diagnostic::error("a leg is called like the member that tells of failed ones");
            report.push_at(&at("name"), error.hint("set `problems` to another name"));
        }
        self::leg(&at, leg, report);
    }
}

fn leg(at: &dyn Fn(&'static str) -> [Key<'static>; 6], leg: &Leg, report: &mut Report) {
    let below = |key, place: usize| [&at(key)[..], &[place.into()]].concat();
    for (place, name) in leg.headers.iter().enumerate() {
        fields::copied(&below("headers", place), name, report);
    }
    for (place, name) in leg.pass.iter().enumerate() {
        let path = below("pass", place);
        fields::copied(&path, name, report);
        let lower = name.to_ascii_lowercase();
        let is_ours = ["access-control-", "content-"].iter().any(|start| lower.starts_with(start));
        if is_ours || NOT_PASSED.contains(&&*lower) {
            let error = Diagnostic::error(format!("{} is not a leg's to say", report.shown(&path, name)));
            report.push_at(&path, error.hint("the response is the gateway's own"));
        }
    }
    pointer(&at("select"), &leg.select, report);
    for (place, text) in leg.remove.iter().enumerate() {
        pointer(&below("remove", place), text, report);
    }
    if leg.body_bytes.0 == 0 {
        report.push_at(&at("body_bytes"), Diagnostic::error("an answer has a byte at least"));
    }
}

fn pointer(path: &[Key<'_>], text: &str, report: &mut Report) {
    let is_escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !is_escaped || !(text.is_empty() || text.starts_with('/')) {
        let error = Diagnostic::error(format!("{} is no JSON pointer", report.shown(path, text)));
        report.push_at(
            path,
            error.hint("it begins with `/`; in it, `~` is written `~0` and `/` is written `~1`"),
        );
    }
}
