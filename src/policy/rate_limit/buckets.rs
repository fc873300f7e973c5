//! The host's buckets: a table of fixed size that all cores share, without a lock. A bucket is two words: whose it is, and when it is full
//! again. One that is full says nothing, so it is as good as none, and its place is free; when there is no such place, the one that is full soonest
//! makes room, which is counted. The table is memory that the system hands out when it is first touched.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    hint,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{Rate, Refused};

/// Places where one key may be: two cache lines.
const WAYS: usize = 8;

/// Words of a set.
const SET: usize = 2 * WAYS;

/// Stands for the time of a bucket that is just being given to someone else.
const CHANGING: u64 = u64::MAX;

/// Tries, beyond which a core that stopped amid a change is not waited for.
const TRIES_MAX: u32 = 10_000;

/// The table.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Whose, and full when, alternating.
    words: Box<[AtomicU64]>,
    evictions: AtomicU64,
    hashes: RandomState,
}

/// A bucket that was found, and when it was full again.
struct Found<'b> {
    full_at: &'b AtomicU64,
    was: u64,
}

/// What a look for a bucket came to.
enum Look<'b> {
    Found(Found<'b>),
    /// There is none. The place that is given up first.
    None {
        owner: &'b AtomicU64,
        place: Found<'b>,
    },
    /// Some core is about to change one.
    Changing,
}

impl Buckets {
    /// As many places as so many keys need when a quarter stays free.
    pub(super) fn new(keys: usize) -> Self {
        let sets = (keys + keys / 3).div_ceil(WAYS).next_power_of_two();
        let words = bytemuck::zeroed_slice_box(sets * SET);
        Self { words, evictions: AtomicU64::new(0), hashes: RandomState::new() }
    }

    pub(super) fn hasher(&self) -> impl Hasher + use<> {
        self.hashes.build_hasher()
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    fn look(&self, key: u64) -> Look<'_> {
        let sets = self.words.len() / SET;
        let set = (key as usize & (sets - 1)) * SET;
        let (mut first, mut soonest) = (0, u64::MAX);
        for way in (set..set + SET).step_by(2) {
            // The time before the owner: a place that changes hands after it was read fails to be exchanged.
            let was = self.words[way + 1].load(Acquire);
            if was == CHANGING {
                return Look::Changing;
            }
            if was != 0 && self.words[way].load(Acquire) == key {
                return Look::Found(Found { full_at: &self.words[way + 1], was });
            }
            if was < soonest {
                (first, soonest) = (way, was);
            }
        }
        let place = Found { full_at: &self.words[first + 1], was: soonest };
        Look::None { owner: &self.words[first], place }
    }

    /// Takes permits: as many as there are between `least` and `most`. Returns how many, and when the bucket is full again.
    pub(super) fn take(
        &self,
        key: u64,
        rate: &Rate,
        now: u64,
        (least, most): (u64, u64),
    ) -> Result<(u64, u64), Refused> {
        for _ in 0..TRIES_MAX {
            match self.look(key) {
                Look::Found(Found { full_at, was }) => {
                    let (taken, until) = rate.take(was, now, least, most)?;
                    if full_at.compare_exchange_weak(was, until, Release, Relaxed).is_ok() {
                        return Ok((taken, until));
                    }
                }
                // Two cores that look at once choose the same place, and one of them fails here.
                Look::None { owner, place: Found { full_at, was } } => {
                    let (taken, until) = rate.take(0, now, least, most)?;
                    if full_at.compare_exchange_weak(was, CHANGING, Acquire, Relaxed).is_ok() {
                        owner.store(key, Release);
                        full_at.store(until, Release);
                        self.evictions.fetch_add(u64::from(was > now), Relaxed);
                        return Ok((taken, until));
                    }
                }
                Look::Changing => hint::spin_loop(),
            }
        }
        // A core was stopped between two stores. One request more is better than one that waits for it.
        Ok((least, now))
    }

    /// Gives permits back. A bucket that is full by now, or someone else's, needs none.
    pub(super) fn give_back(&self, key: u64, rate: &Rate, now: u64, permits: u64) {
        for _ in 0..TRIES_MAX {
            match self.look(key) {
                Look::Found(Found { full_at, was }) => {
                    // Never 0, which would be no one's.
                    let until = was.saturating_sub(permits * rate.interval_ns).max(1);
                    if was <= now || full_at.compare_exchange_weak(was, until, Release, Relaxed).is_ok() {
                        return;
                    }
                }
                Look::None { .. } => return,
                Look::Changing => hint::spin_loop(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    /// How many of `tries` single permits each of `threads` gets of these keys in turn.
    fn taken(buckets: &Buckets, rate: &Rate, keys: &[u64], threads: usize, tries: usize) -> u64 {
        thread::scope(|scope| {
            let take = || {
                let keys = keys.iter().cycle().take(tries);
                keys.filter(|key| buckets.take(**key, rate, 1, (1, 1)).is_ok()).count() as u64
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    }

    #[test]
    fn many_at_once_get_what_there_is() {
        let rate = Rate::new(100, HOUR_MS, 1000).unwrap();
        let buckets = Buckets::new(100);
        assert_eq!(taken(&buckets, &rate, &[7], 4, 1000), 1000);
        let keys: Vec<u64> = (1..=40).collect();
        let buckets = Buckets::new(100);
        assert_eq!(taken(&buckets, &rate, &keys, 4, 40 * 500), 40 * 1000);
        assert_eq!(buckets.evictions(), 0);
    }

    #[test]
    fn what_is_given_back_is_there_again() {
        let rate = Rate::new(100, HOUR_MS, 10).unwrap();
        let buckets = Buckets::new(100);
        assert_eq!(buckets.take(7, &rate, 1, (1, 10)).unwrap().0, 10);
        buckets.give_back(7, &rate, 1, 4);
        assert_eq!(buckets.take(7, &rate, 1, (1, 10)).unwrap().0, 4);
        assert!(buckets.take(7, &rate, 1, (1, 10)).is_err());
        // More than full is full, and a full one needs nothing.
        buckets.give_back(7, &rate, 1, 100);
        assert_eq!(buckets.take(7, &rate, 1, (1, 100)).unwrap().0, 10);
        let later = 1 + HOUR_MS * 1_000_000;
        buckets.give_back(7, &rate, later, 10);
        assert_eq!(buckets.take(7, &rate, later, (1, 100)).unwrap().0, 10);
        buckets.give_back(8, &rate, 1, 10);
        assert_eq!(buckets.take(8, &rate, 1, (1, 100)).unwrap().0, 10);
    }

    /// The one that is full soonest makes room; a full one's place costs nothing.
    #[test]
    fn a_full_table_forgets_the_least() {
        let rate = Rate::new(100, HOUR_MS, 100).unwrap();
        let buckets = Buckets::new(1);
        for key in 1..=8 {
            buckets.take(key, &rate, 1, (key, key)).unwrap();
        }
        assert_eq!(buckets.evictions(), 0);
        buckets.take(9, &rate, 1, (50, 50)).unwrap();
        assert_eq!(buckets.evictions(), 1);
        assert_eq!(buckets.take(8, &rate, 1, (1, 100)).unwrap().0, 92);
        assert_eq!(buckets.take(9, &rate, 1, (1, 100)).unwrap().0, 50);
        // Key 1 was forgotten: its bucket is full. By then all are.
        let later = 1 + 10 * HOUR_MS * 1_000_000;
        assert_eq!(buckets.take(1, &rate, later, (1, 100)).unwrap().0, 100);
        assert_eq!(buckets.evictions(), 1);
    }

    /// Keys are found and given up by several threads in one set; no one gets more than there is at a time.
    #[test]
    fn places_change_hands_under_load() {
        let rate = Rate::new(1_000_000, 1000, 1).unwrap();
        let buckets = Buckets::new(1);
        thread::scope(|scope| {
            for thread in 0..4 {
                let buckets = &buckets;
                scope.spawn(move || {
                    for round in 0..20_000_u64 {
                        let key = 1 + (round * 7 + thread) % 12;
                        let _ = buckets.take(key, &rate, 1 + round * 1000, (1, 1));
                        buckets.give_back(key, &rate, 1 + round * 1000, 1);
                    }
                });
            }
        });
        let words: Vec<u64> = buckets.words.iter().map(|word| word.load(Relaxed)).collect();
        assert!(words.chunks(2).all(|pair| pair[0] <= 12 && pair[1] != CHANGING), "{words:?}");
    }
}
