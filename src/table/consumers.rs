//! From the consumers that are configured, there and in a file beside it, to the set of them that cores run by.

use crate::{
    config::types::{Config, Consumer, Key},
    policy::{
        key::{Consumers, KeyHash},
        rate_limit::OwnLimit,
    },
};

/// The consumers of a configuration and `of_file`, of the file that it names. Validation has refused what is no hash.
pub fn consumers(config: &Config, of_file: &[Consumer]) -> Consumers {
    let all = || config.consumer.iter().chain(of_file);
    let hashes = |consumer: &Consumer| -> Vec<_> {
        consumer.keys.iter().filter_map(|text| KeyHash::parse(text)).collect()
    };
    let keys = all()
        .zip(0..)
        .flat_map(|(consumer, number)| hashes(consumer).into_iter().map(move |hash| (hash, number)));
    let allowed = config.policy.iter().map(|policy| {
        let key = policy.key.as_ref().filter(|key| key.consumers.is_some() || key.tags.is_some())?;
        Some(all().map(|consumer| may_ask(key, consumer)).collect())
    });
    Consumers::new(
        all().map(|consumer| consumer.name.as_str().into()).collect(),
        keys.collect(),
        allowed.collect(),
        all().map(limit).collect(),
    )
}

/// Validation has refused what is no rate.
fn limit(consumer: &Consumer) -> Option<OwnLimit> {
    let own = consumer.limit.as_ref()?;
    OwnLimit::new(own.limit, own.per.as_millis(), own.burst.unwrap_or(own.limit))
}

/// Whether a policy that names some lets this one ask.
fn may_ask(key: &Key, consumer: &Consumer) -> bool {
    let has =
        |list: &Option<Vec<String>>, word: &String| list.as_ref().is_some_and(|list| list.contains(word));
    has(&key.consumers, &consumer.name) || consumer.tags.iter().any(|tag| has(&key.tags, tag))
}
