//! How often requests may come: the generic cell rate algorithm (GCRA: a bucket of permits that refills evenly), exact for the host however
//! many cores serve it. The buckets are the host's ([`buckets`]); a core takes permits out of them in small batches and gives back what it did not
//! use ([`leases`]), so that an ordinary request touches nothing that another core touches. Times are ns of one clock that
//! all cores share, and are handed in.

mod buckets;
mod leases;

use std::{hash::Hasher, sync::Arc};

use self::buckets::Buckets;
pub use self::leases::Leases;
use crate::{
    config::types::{self, CountedBy},
    expression::{Expression, Fault, Kind, Scope},
};

/// Requests per second that a limit may allow: beyond it, what a permit takes to come back is not told apart from nothing.
pub const REQUESTS_PER_SECOND_MAX: u64 = 1_000_000;

/// Keys that a limit may tell apart.
pub const KEYS_MAX: u32 = 1 << 24;

/// How fast permits come back, and how many there are at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Until one more is there, in ns.
    interval_ns: u64,
    /// As many as fit.
    burst: u64,
}

impl Rate {
    /// `limit` in `per_ms`, and `burst` of them at once; `None` when that is too fast, or takes longer to fill than can be counted.
    pub fn new(limit: u32, per_ms: u64, burst: u32) -> Option<Self> {
        let interval_ns = (per_ms * 1_000_000).checked_div(u64::from(limit))?;
        let burst = u64::from(burst);
        let is_sound = interval_ns >= 1_000_000_000 / REQUESTS_PER_SECOND_MAX
            && interval_ns.checked_mul(burst).is_some_and(|full_ns| full_ns < FULL_NS_MAX);
        (is_sound && burst > 0).then_some(Self { interval_ns, burst })
    }

    /// Permits of a bucket at `now`, which is full again at `full_at`.
    fn left(&self, full_at: u64, now: u64) -> u64 {
        self.burst.saturating_sub(full_at.saturating_sub(now).div_ceil(self.interval_ns))
    }

    /// Takes permits of a bucket: as many as there are between `least` and `most`. Returns how many, and when it is full again.
    fn take(&self, full_at: u64, now: u64, least: u64, most: u64) -> Result<(u64, u64), Refused> {
        let full_at = full_at.max(now);
        let taken = self.left(full_at, now).min(most);
        if taken < least {
            let again_at = (full_at + least * self.interval_ns).saturating_sub(self.burst * self.interval_ns);
            return Err(Refused { retry_ns: again_at.saturating_sub(now), full_ns: full_at - now });
        }
        Ok((taken, full_at + taken * self.interval_ns))
    }
}

/// An empty bucket is full again within this time: some 146 years.
const FULL_NS_MAX: u64 = 1 << 62;

/// How often one consumer may come, whatever others may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnLimit {
    rate: Rate,
    /// Requests in the time that it is about.
    limit: u32,
    per_ms: u64,
}

impl OwnLimit {
    /// `limit` in `per_ms`, and `burst` of them at once; `None`: see [`Rate::new`].
    pub fn new(limit: u32, per_ms: u64, burst: u32) -> Option<Self> {
        Some(Self { rate: Rate::new(limit, per_ms, burst)?, limit, per_ms })
    }

    /// Appends the line that says what it is, in place of the one of the limit of this name.
    pub fn append_line(&self, name: &str, lines: &mut Vec<u8>) {
        lines.extend_from_slice(&line(name, self.limit, self.per_ms));
    }
}

/// What a limit is, as responses say it.
fn line(name: &str, limit: u32, per_ms: u64) -> Vec<u8> {
    // draft-ietf-httpapi-ratelimit-headers-10 §3: a window is whole seconds.
    let window = if per_ms.is_multiple_of(1000) { format!(";w={}", per_ms / 1000) } else { String::new() };
    format!("RateLimit-Policy: \"{name}\";q={limit}{window}\r\n").into_bytes()
}

/// What is left after a request has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Permits, with those that the core has by itself.
    pub left: u64,
    /// Until all are there again, in ns.
    pub full_ns: u64,
}

/// When a request that did not pass may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Until it would pass, in ns.
    pub retry_ns: u64,
    /// Until all permits are there again, in ns.
    pub full_ns: u64,
}

/// What requests are counted by.
#[derive(Debug, Clone)]
pub enum By {
    /// The client's address.
    ClientIp,
    /// The consumer whose key it shows.
    Consumer,
    /// The user whose password it shows, or the subject of its token.
    Subject,
    /// The route.
    Route,
    /// The field of this name.
    Header(Box<str>),
    /// The claim of this name.
    Claim(Box<str>),
    /// The text that this comes to.
    Expression(Expression),
}

/// Permits that a request takes.
#[derive(Debug, Clone)]
pub enum Cost {
    /// So many.
    Fixed(u64),
    /// As many as this comes to.
    Expression(Expression),
}

/// What is wrong with a limit.
#[derive(Debug, PartialEq, Eq)]
pub struct LimitFault {
    /// The key that it is about.
    pub part: LimitPart,
    /// What it is.
    pub fault: Fault,
}

/// A part of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitPart {
    /// `limit`.
    Limit,
    /// `cost`.
    Cost,
    /// One of `by`.
    By(usize),
}

/// A limit.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// What requests are counted by: each in its turn. Nothing: all together.
    pub by: Box<[By]>,
    /// Bits of an IPv6 address that tell clients apart.
    pub ipv6_prefix: u8,
    /// Whether responses say what is left.
    pub announces: bool,
    /// Permits that a request takes.
    pub cost: Cost,
    rate: Rate,
    /// Requests in the time that the limit is about.
    limit: u32,
    /// What the limit is, as responses say it.
    line: Box<[u8]>,
    /// The host's, whichever core and generation asks.
    buckets: Arc<Buckets>,
}

impl RateLimit {
    /// A limit whose buckets are all full. `name` is a structured string's inside (RFC 9651 §3.3.3).
    ///
    /// # Errors
    /// Its rate cannot be (see [`Rate::new`]), or an expression is none.
    pub fn compile(name: &str, rule: &types::RateLimit) -> Result<Self, LimitFault> {
        let (limit, per_ms) = (rule.limit, rule.per.as_millis());
        let rate = Rate::new(limit, per_ms, rule.burst.unwrap_or(limit)).ok_or_else(|| {
            let message =
                "this is more than 1,000,000 requests a second, or takes more than a hundred years to fill";
            LimitFault { part: LimitPart::Limit, fault: Fault { message: message.into(), hint: None } }
        })?;
        let keys = if rule.by.is_empty() { 1 } else { rule.keys.clamp(1, KEYS_MAX) };
        let expression = |source: &String, kind, part| {
            let compiled = Expression::compile(source, kind, Scope::Identity);
            compiled.map_err(|fault| LimitFault { part, fault })
        };
        let by = rule.by.iter().enumerate().map(|(at, by)| {
            Ok(match by {
                CountedBy::ClientIp => By::ClientIp,
                CountedBy::Consumer => By::Consumer,
                CountedBy::Subject => By::Subject,
                CountedBy::Route => By::Route,
                CountedBy::Header(name) => By::Header(name.as_str().into()),
                CountedBy::Claim(name) => By::Claim(name.as_str().into()),
                CountedBy::Expression(source) => {
                    By::Expression(expression(source, Kind::Text, LimitPart::By(at))?)
                }
            })
        });
        Ok(Self {
            by: by.collect::<Result<_, _>>()?,
            ipv6_prefix: rule.ipv6_prefix,
            announces: rule.headers,
            cost: match &rule.cost {
                types::Cost::Fixed(cost) => Cost::Fixed(u64::from(*cost)),
                types::Cost::Expression(source) => {
                    Cost::Expression(expression(source, Kind::Int, LimitPart::Cost)?)
                }
            },
            rate,
            limit,
            line: line(name, limit, per_ms).into(),
            buckets: Arc::new(Buckets::new(keys as usize)),
        })
    }

    /// The permits that a request takes whose cost comes to this; 0: it is not counted. What is less is no cost, and counts 1. `own`: of whom it
    /// is counted for.
    pub fn cost(&self, cost: i64, own: Option<&OwnLimit>) -> u64 {
        u64::try_from(cost).unwrap_or(1).min(self.rate_of(own).burst)
    }

    /// Whether consumers are counted each by themselves, so that one may have a limit of its own.
    pub fn takes_own(&self) -> bool {
        self.by.iter().any(|by| matches!(by, By::Consumer))
    }

    fn rate_of(&self, own: Option<&OwnLimit>) -> Rate {
        own.map_or(self.rate, |own| own.rate)
    }

    /// Hashes what a request is counted by. Clients choose some of it: it is hashed with a secret of this process. Whoever gets other numbers of its own
    /// has another bucket: what was taken from the one before was by another rate.
    pub fn hasher(&self, own: Option<&OwnLimit>) -> impl Hasher + use<> {
        let mut hasher = self.buckets.hasher();
        if let Some(OwnLimit { rate, limit, .. }) = own {
            hasher.write_u64(rate.interval_ns);
            hasher.write_u64(rate.burst);
            hasher.write_u32(*limit);
        }
        hasher
    }

    /// The line that says what the limit is.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Buckets that made room for others before they were full.
    pub fn evictions(&self) -> u64 {
        self.buckets.evictions()
    }

    #[cfg(test)]
    fn test(limit: u32, per: &str, burst: u32) -> Self {
        let rule = types::RateLimit {
            limit,
            per: per.parse().unwrap(),
            burst: Some(burst),
            cost: types::Cost::Fixed(1),
            by: vec![CountedBy::ClientIp],
            ipv6_prefix: 64,
            keys: 1000,
            headers: true,
        };
        Self::compile("fair-use", &rule).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_that_cannot_be() {
        assert!(Rate::new(0, 1000, 1).is_none());
        assert!(Rate::new(1, 1000, 0).is_none());
        assert!(Rate::new(1_000_000, 1000, 1).is_some());
        assert!(Rate::new(1_000_001, 1000, 1).is_none());
        assert!(Rate::new(1, 366 * 86_400_000, u32::MAX).is_none());
        assert!(Rate::new(1, 366 * 86_400_000, 1).is_some());
    }

    #[test]
    fn what_the_limit_is() {
        let line = |per| String::from_utf8(RateLimit::test(5, per, 5).line().into()).unwrap();
        assert_eq!(line("1m"), "RateLimit-Policy: \"fair-use\";q=5;w=60\r\n");
        assert_eq!(line("1500ms"), "RateLimit-Policy: \"fair-use\";q=5\r\n");
    }

    proptest! {
        /// Beside a bucket that is counted in permits, refilled one by one.
        #[test]
        fn it_is_a_bucket(
            limit in 1_u32..50,
            burst in 1_u32..20,
            steps in prop::collection::vec((0_u64..400_000_000, 1_u64..4), 1..80),
        ) {
            let rate = Rate::new(limit, 1000, burst).unwrap();
            let (mut full_at, mut now) = (0, 1);
            // In ns of an interval that have come since the bucket was empty.
            let mut level = u64::from(burst) * rate.interval_ns;
            for (later, cost) in steps {
                now += later;
                level = (level + later).min(u64::from(burst) * rate.interval_ns);
                let passes = level >= cost * rate.interval_ns;
                match rate.take(full_at, now, cost, cost) {
                    Ok((taken, at)) => {
                        prop_assert!(passes);
                        prop_assert_eq!(taken, cost);
                        full_at = at;
                        level -= cost * rate.interval_ns;
                        prop_assert_eq!(rate.left(full_at, now), level / rate.interval_ns);
                    }
                    Err(refused) => {
                        prop_assert!(!passes);
                        // Too many at once is never; else just then, and not before.
                        if cost <= u64::from(burst) {
                            let then = now + refused.retry_ns;
                            prop_assert!(rate.take(full_at, then, cost, cost).is_ok());
                            prop_assert!(rate.take(full_at, then - 1, cost, cost).is_err());
                        }
                    }
                }
            }
        }
    }
}
