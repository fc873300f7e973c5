//! What is wrong with `[[consumer]]`. No message has a key in it, nor the line where one may stand.

use std::collections::{HashMap, HashSet};

use crate::config::{
    diagnostic::Diagnostic,
    report::Report,
    source::key_path,
    types::{Config, Consumer, CountedBy, Policy},
};

/// How the hash of a key begins, and how many hexadecimal digits it has.
const PREFIX: &str = "sha256:";
const DIGITS: usize = 64;

pub(super) fn validate(config: &Config, report: &mut Report) {
    keys(&config.consumer, &[], report);
    limits(&config.consumer, config, report);
    let has_policy = config.policy.iter().any(|policy| policy.key.is_some());
    let at = match (&config.consumer[..], &config.consumers) {
        ([], None) => return,
        ([], Some(_)) => &key_path!["consumers"][..],
        _ => &key_path!["consumer", 0, "name"],
    };
    if !has_policy && !report.diagnostics.has_replaced() {
        let warning = Diagnostic::warning("no policy asks for the keys of consumers");
        report.push_at(at, warning.hint("a `[[policy]]` with `key = {}` does"));
    }
}

/// Consumers of a file beside the configuration: what is wrong with them, and what they share with those of the configuration.
pub(super) fn validate_file(consumers: &[Consumer], config: &Config, report: &mut Report) {
    let taken: HashSet<&str> = config.consumer.iter().map(|consumer| consumer.name.as_str()).collect();
    for (index, consumer) in consumers.iter().enumerate() {
        if taken.contains(consumer.name.as_str()) {
            let path = key_path!["consumer", index, "name"];
            let shown = report.shown(&path, &consumer.name);
            report.push_at(&path, Diagnostic::error(format!("{shown} is in the configuration already")));
        }
    }
    keys(consumers, &config.consumer, report);
    limits(consumers, config, report);
}

/// How often consumers may come.
fn limits(consumers: &[Consumer], config: &Config, report: &mut Report) {
    let counts = |policy: &Policy| {
        policy.rate_limit.as_ref().is_some_and(|limit| limit.by.contains(&CountedBy::Consumer))
    };
    let has_policy = config.policy.iter().any(counts);
    let limited = consumers.iter().enumerate().filter_map(|(index, one)| Some((index, one.limit.as_ref()?)));
    for (place, (index, own)) in limited.enumerate() {
        let path = key_path!["consumer", index, "limit"];
        let per_ns = u128::from(own.per.as_millis()) * 1_000_000;
        let interval_ns = per_ns / u128::from(own.limit.max(1));
        if per_ns == 0 {
            report.push_at(&path, Diagnostic::error("there is no rate in no time"));
        } else if interval_ns < 1000 || interval_ns * u128::from(own.burst.unwrap_or(own.limit)) >= 1 << 62 {
            let error =
                "this is more than 1,000,000 requests a second, or takes more than a hundred years to fill";
            report.push_at(&path, Diagnostic::error(error));
        } else if !has_policy && place == 0 && !report.diagnostics.has_replaced() {
            let warning = Diagnostic::warning("no policy counts by consumers, so this limits no one");
            report.push_at(&path, warning.hint("a `rate_limit` with `by = [\"consumer\"]` does"));
        }
    }
}

/// The keys of consumers, which are no one else's, nor of those `before`.
fn keys(consumers: &[Consumer], before: &[Consumer], report: &mut Report) {
    let hash = |key: &String| {
        let digits = key.strip_prefix(PREFIX).unwrap_or_default();
        let is_hash = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hash.then(|| digits.to_ascii_lowercase())
    };
    let taken: HashSet<String> =
        before.iter().flat_map(|consumer| consumer.keys.iter().filter_map(hash)).collect();
    let mut first = HashMap::new();
    for (index, consumer) in consumers.iter().enumerate() {
        let path = key_path!["consumer", index, "name"];
        for (place, key) in consumer.keys.iter().enumerate() {
            if report.is_replaced(&key_path!["consumer", index, "keys", place]) {
                continue;
            }
            let number = place + 1;
            let Some(digits) = hash(key) else {
                let error = Diagnostic::error(format!("key {number} of this consumer is no hash of a key"));
                let hint = "write `sha256:` and the 64 digits that `printf %s \"$KEY\" | sha256sum` prints";
                report.push_at(&path, error.hint(hint));
                continue;
            };
            let is_taken = taken.contains(&digits);
            let earlier = *first.entry(digits).or_insert((index, place));
            if is_taken || earlier != (index, place) {
                let of = if is_taken {
                    "is one of the configuration's".to_owned()
                } else if earlier.0 == index {
                    "is one that it has already".to_owned()
                } else {
                    let other = key_path!["consumer", earlier.0, "name"];
                    format!("is {}'s too", report.shown(&other, &consumers[earlier.0].name))
                };
                report.push_at(&path, Diagnostic::error(format!("key {number} of this consumer {of}")));
            }
        }
    }
}
