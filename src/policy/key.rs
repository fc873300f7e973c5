//! API keys: long random words that say who asks. Only their hashes are known here, so that neither the configuration nor memory has
//! one, and what a look-up compares is nothing that a client could steer byte by byte.

use std::collections::HashMap;

use aws_lc_rs::digest;

use super::{credential::Place, rate_limit::OwnLimit};

/// How a hash is written: this, and 64 hexadecimal digits.
const PREFIX: &str = "sha256:";

/// Bytes of a key, at most.
const KEY_BYTES_MAX: usize = 512;

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        Self(hash)
    }

    /// A hash as it is written in a configuration.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(hash))
    }
}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// Whose each key is: consumers by their numbers.
pub type Keys = HashMap<KeyHash, u32>;

/// Who uses the API. It never changes: where there are others, that is another set, so that a number means the same consumer for as long
/// as anyone has it with its set.
#[derive(Debug, Default)]
pub struct Consumers {
    /// Their names, by their numbers.
    names: Box<[Box<str>]>,
    keys: Keys,
    /// Whether each may ask, by the policy and by their numbers. `None`: all may.
    allowed: Box<[Option<Box<[bool]>>]>,
    /// How often each may come, if that is its own.
    limits: Box<[Option<OwnLimit>]>,
}

impl Consumers {
    /// `allowed`: for each policy of the table, whether each consumer may ask; `None`: all may. `limits`: how often each may come; `None`: as often as others.
    pub fn new(
        names: Box<[Box<str>]>,
        keys: Keys,
        allowed: Box<[Option<Box<[bool]>>]>,
        limits: Box<[Option<OwnLimit>]>,
    ) -> Self {
        Self { names, keys, allowed, limits }
    }

    /// How often the consumer of this number may come, if that is its own.
    pub fn limit(&self, number: u32) -> Option<&OwnLimit> {
        self.limits.get(number as usize)?.as_ref()
    }

    /// What the consumer of this number is called.
    pub fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", |name| name)
    }

    /// Whether this policy lets the consumer ask. A policy that is not known lets no one.
    fn may_ask(&self, policy: usize, number: u32) -> bool {
        match self.allowed.get(policy) {
            None => false,
            Some(None) => true,
            Some(Some(allowed)) => allowed.get(number as usize) == Some(&true),
        }
    }
}

/// How a key is shown.
#[derive(Debug, Clone)]
pub struct KeyAccess {
    /// What a key comes in.
    pub place: Place,
    /// Whether it goes on to the upstream.
    pub forward: bool,
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// It is this consumer's, who may ask.
    Passes(u32),
    /// It is a consumer's who may not ask here.
    NotAllowed(u32),
    /// It is no one's.
    Unknown,
    /// There is none.
    Missing,
}

impl KeyAccess {
    /// What the values in the key's place come to, by the policy of this number. A key that is said twice is no one's.
    pub fn look<V: AsRef<[u8]>>(
        &self,
        mut values: impl Iterator<Item = V>,
        policy: usize,
        consumers: &Consumers,
    ) -> Shown {
        let key = match (values.next(), values.next()) {
            (None, _) => return Shown::Missing,
            (Some(key), None) if key.as_ref().is_empty() => return Shown::Missing,
            (Some(key), None) if key.as_ref().len() <= KEY_BYTES_MAX => key,
            (Some(_), _) => return Shown::Unknown,
        };
        match consumers.keys.get(&KeyHash::of(key.as_ref())) {
            None => Shown::Unknown,
            Some(consumer) if consumers.may_ask(policy, *consumer) => Shown::Passes(*consumer),
            Some(consumer) => Shown::NotAllowed(*consumer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of `secret`, by sha256sum.
    const HASH: &str = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn hashes_are_read() {
        assert_eq!(KeyHash::parse(HASH), Some(KeyHash::of(b"secret")));
        assert_eq!(KeyHash::parse(&HASH.replace("2bb8", "2BB8")), Some(KeyHash::of(b"secret")));
        for wrong in [
            "",
            "secret",
            "sha256:",
            &HASH[..70],
            &HASH.replace("2bb8", "2bg8"),
            &format!("{HASH}0"),
            &HASH[7..],
        ] {
            assert_eq!(KeyHash::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{:?}", KeyHash::of(b"secret")), "KeyHash(..)");
    }

    #[test]
    fn who_shows_a_key() {
        let keys = Keys::from([(KeyHash::of(b"one"), 0), (KeyHash::of(b"two"), 1)]);
        let names = ["first", "second"].map(Box::from).into();
        let consumers =
            Consumers::new(names, keys, [None, Some([true, false].into())].into(), Box::default());
        assert_eq!([consumers.name(0), consumers.name(1), consumers.name(2)], ["first", "second", ""]);
        let access = KeyAccess { place: Place::Header("x-api-key".into()), forward: false };
        let (all, first, unknown) = (0, 1, 2);
        let long = [b'k'; KEY_BYTES_MAX + 1];
        let look = |policy: usize, values: &[&[u8]]| access.look(values.iter().copied(), policy, &consumers);
        assert_eq!(look(unknown, &[b"one"]), Shown::NotAllowed(0));
        for (values, of_all, of_first) in [
            (&[&b"one"[..]][..], Shown::Passes(0), Shown::Passes(0)),
            (&[b"two"], Shown::Passes(1), Shown::NotAllowed(1)),
            (&[b"three"], Shown::Unknown, Shown::Unknown),
            (&[b"One"], Shown::Unknown, Shown::Unknown),
            (&[&long], Shown::Unknown, Shown::Unknown),
            (&[b"one", b"one"], Shown::Unknown, Shown::Unknown),
            (&[b""], Shown::Missing, Shown::Missing),
            (&[], Shown::Missing, Shown::Missing),
        ] {
            assert_eq!((look(all, values), look(first, values)), (of_all, of_first), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn only_the_key_itself_is_a_key(key in proptest::collection::vec(any::<u8>(), 1..40), other in proptest::collection::vec(any::<u8>(), 1..40)) {
            let keys = Keys::from([(KeyHash::of(&key), 7)]);
            let access = KeyAccess { place: Place::Query("k".into()), forward: false };
            let consumers = Consumers::new(Box::default(), keys, [None].into(), Box::default());
            let expected = if other == key { Shown::Passes(7) } else { Shown::Unknown };
            prop_assert_eq!(access.look([&other[..]].into_iter(), 0, &consumers), expected);
            prop_assert_eq!(access.look([&key[..]].into_iter(), 0, &consumers), Shown::Passes(7));
        }

        #[test]
        fn any_text_is_a_hash_or_none(text in ".{0,90}") {
            let _ = KeyHash::parse(&text);
        }
    }
}
