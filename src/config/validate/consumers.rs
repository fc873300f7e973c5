//! What is wrong with `[[consumer]]`. No message has a key in it, nor the line where one may stand.

use std::collections::HashMap;

use crate::config::{diagnostic::Diagnostic, report::Report, source::key_path, types::Config};

/// How the hash of a key begins, and how many hexadecimal digits it has.
const PREFIX: &str = "sha256:";
const DIGITS: usize = 64;

pub(super) fn validate(config: &Config, report: &mut Report) {
    let mut first = HashMap::new();
    for (index, consumer) in config.consumer.iter().enumerate() {
        let path = key_path!["consumer", index, "name"];
        for (place, key) in consumer.keys.iter().enumerate() {
            if report.is_replaced(&key_path!["consumer", index, "keys", place]) {
                continue;
            }
            let number = place + 1;
            let digits = key.strip_prefix(PREFIX).unwrap_or_default();
            if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                let error = Diagnostic::error(format!("key {number} of this consumer is no hash of a key"));
                let hint = "write `sha256:` and the 64 digits that `printf %s \"$KEY\" | sha256sum` prints";
                report.push_at(&path, error.hint(hint));
                continue;
            }
            let earlier = *first.entry(digits.to_ascii_lowercase()).or_insert((index, place));
            if earlier != (index, place) {
                let of = if earlier.0 == index {
                    "is one that it has already".to_owned()
                } else {
                    let other = key_path!["consumer", earlier.0, "name"];
                    format!("is {}'s too", report.shown(&other, &config.consumer[earlier.0].name))
                };
                report.push_at(&path, Diagnostic::error(format!("key {number} of this consumer {of}")));
            }
        }
    }
    let has_policy = config.policy.iter().any(|policy| policy.key.is_some());
    if !has_policy && !config.consumer.is_empty() && !report.diagnostics.has_replaced() {
        let warning = Diagnostic::warning("no policy asks for the keys of consumers");
        report
            .push_at(&key_path!["consumer", 0, "name"], warning.hint("a `[[policy]]` with `key = {}` does"));
    }
}
