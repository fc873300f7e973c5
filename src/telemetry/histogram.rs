//! A histogram of microseconds of fixed size: exact below 16 µs, then sixteen buckets per doubling, up to 71
//! minutes. One core owns one and adds to it with a shift and an increment; copies are merged elsewhere. It knows
//! nothing of what is measured.

use std::fmt;

/// Buckets per doubling, as a power of two. A bucket is at most 1/16 wide of its lower bound; its middle, which is
/// what [`Histogram::quantile`] answers, is at most 1/32 (3.2 %) off.
const SUB_BITS: u32 = 4;
/// Values have this many bits; longer ones count in the last bucket.
const VALUE_BITS: u32 = 32;
/// Sixteen exact values, then sixteen buckets for each of the remaining doublings.
const BUCKETS: usize = ((VALUE_BITS - SUB_BITS + 1) as usize) << SUB_BITS;
/// The largest value that is told apart: 2³² − 1 µs, 71 minutes.
pub const VALUE_MAX: u64 = (1 << VALUE_BITS) - 1;

const _: () = assert!(BUCKETS * size_of::<u64>() <= 4096, "a histogram is at most a page");

/// Counts of durations in µs. 3.7 KiB on the heap, allocated once.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    sum_us: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), sum_us: 0, max_us: 0 }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("sum_us", &self.sum_us)
            .field("max_us", &self.max_us)
            .finish_non_exhaustive()
    }
}

impl Histogram {
    /// Adds one duration. Some ten instructions, no branch that data decides.
    #[inline]
    pub fn record(&mut self, us: u64) {
        self.counts[bucket_of(us)] += 1;
        self.sum_us = self.sum_us.wrapping_add(us);
        self.max_us = self.max_us.max(us);
    }

    /// How many durations were added. Walks the buckets: for a reader, not for the request path.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all durations, in µs; wraps beyond 2⁶⁴.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The longest duration, in µs, exact.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The duration in µs that a share of `q` (0.0 to 1.0) of all durations does not exceed: the middle of its bucket,
    /// at most 1/32 off, never above the longest duration. `None` when there are none.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let at = self.counts.iter().position(|n| {
            seen += n;
            seen >= rank
        })?;
        if at == BUCKETS - 1 {
            // It also holds what is longer than it can tell.
            return Some(self.max_us);
        }
        let (low, high) = bounds(at);
        Some(low.midpoint(high).min(self.max_us))
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The buckets that hold anything, rising: the largest duration in µs a bucket takes, and its count. The last
    /// possible bucket also holds everything longer than [`VALUE_MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(at, n)| (bounds(at).1, *n))
    }
}

/// The bucket of a value: its position among sixteen within its doubling, after sixteen for each doubling below.
#[inline]
fn bucket_of(us: u64) -> usize {
    let us = us.min(VALUE_MAX) as u32;
    // Below 32 the shift is 0 and the value is its own bucket; `us >> shift` has its leading one, 16 to 31.
    let shift = (us | 1 << SUB_BITS).ilog2() - SUB_BITS;
    ((shift << SUB_BITS) + (us >> shift)) as usize
}

/// The smallest and the largest value of a bucket.
fn bounds(bucket: usize) -> (u64, u64) {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let low = ((bucket - (shift << SUB_BITS)) as u64) << shift;
    (low, low + (1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_tile_the_range() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (low, high) = bounds(bucket);
            assert_eq!(low, next, "bucket {bucket} begins where the one before ended");
            assert_eq!((bucket_of(low), bucket_of(high)), (bucket, bucket));
            next = high + 1;
        }
        assert_eq!(next, VALUE_MAX + 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        let empty = Histogram::default();
        assert_eq!((empty.quantile(0.5), empty.count(), empty.buckets().count()), (None, 0, 0));
    }

    #[test]
    fn values_beyond_the_range_count_in_the_last_bucket() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX - 1);
        histogram.record(3);
        assert_eq!(histogram.buckets().collect::<Vec<_>>(), [(3, 1), (VALUE_MAX, 1)]);
        assert_eq!((histogram.quantile(1.0), histogram.quantile(0.0)), (Some(u64::MAX - 1), Some(3)));
    }

    /// Durations over the whole range, short ones as likely as long ones.
    fn durations() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(
            (any::<u32>(), 0..32_u32).prop_map(|(value, shift)| u64::from(value >> shift)),
            1..200,
        )
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_stated_error(mut values in durations(), q in 0.0..=1.0_f64) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|us| histogram.record(*us));
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let (exact, said) = (values[rank - 1], histogram.quantile(q).unwrap());
            prop_assert!(exact.abs_diff(said) * 32 <= exact, "{said} for {exact}");
            prop_assert_eq!(histogram.sum_us(), values.iter().sum::<u64>());
            prop_assert_eq!(histogram.max_us(), *values.last().unwrap());
        }

        #[test]
        fn merging_is_recording_all(one in durations(), other in durations()) {
            let (mut left, mut right, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
            one.iter().for_each(|us| left.record(*us));
            other.iter().for_each(|us| right.record(*us));
            one.iter().chain(&other).for_each(|us| both.record(*us));
            left.merge(&right);
            prop_assert_eq!(&left, &both);
            prop_assert_eq!(left.count(), (one.len() + other.len()) as u64);
        }
    }
}
