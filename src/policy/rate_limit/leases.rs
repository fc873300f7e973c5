//! Permits that a core has of the host's buckets. Whoever comes again soon gets a small batch, so that further requests cost this core alone; what
//! was not asked for in a while is given back. All cores together never have more in hand than [`LEASED_PERCENT`] of a limit: by so much what
//! passes may differ from it. Where that is not two permits for each core, none are held, and every request goes to its bucket.

use super::{OwnLimit, Passed, Rate, RateLimit, Refused};

/// The part of a limit that cores may have in hand.
const LEASED_PERCENT: u64 = 2;

/// Keys that a core has permits for at once, of one limit.
const SLOTS: usize = 256;

/// One core's permits of one limit.
#[derive(Debug)]
pub struct Leases {
    limit: RateLimit,
    /// Permits of one batch; below 2 there are none.
    batch: u64,
    cores: usize,
    /// By the key's last bits.
    slots: Box<[Slot]>,
    /// The last time that was told.
    now: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: u64,
    permits: u64,
    /// By which they come back.
    rate: Rate,
    /// When the bucket is full again, as of the last look.
    full_at: u64,
    /// Whether someone came since the last look for those that are idle.
    is_used: bool,
}

impl Leases {
    /// None yet, for one core of so many.
    pub fn new(limit: &RateLimit, cores: usize) -> Self {
        let batch = batch(&limit.rate, limit.limit, cores);
        let slots = if limit.by.is_empty() { 1 } else { SLOTS };
        let slots = if batch < 2 { 0 } else { slots };
        let empty = Slot { key: 0, permits: 0, rate: limit.rate, full_at: 0, is_used: false };
        Self { limit: limit.clone(), batch, cores, slots: vec![empty; slots].into(), now: 0 }
    }

    /// Whether a request of this key passes at `now`, which takes so many permits: at least one. `own`: the numbers that go before the limit's, which
    /// the key tells from others.
    #[inline]
    pub fn take(&mut self, key: u64, cost: u64, now: u64, own: Option<&OwnLimit>) -> Result<Passed, Refused> {
        let place = key as usize >> 32 & (SLOTS - 1);
        let place = if self.slots.len() == 1 { 0 } else { place };
        if let Some(slot) = self.slots.get_mut(place)
            && slot.key == key
            && slot.permits >= cost
        {
            slot.permits -= cost;
            slot.is_used = true;
            return Ok(Self::passed(&slot.rate, slot.full_at, now, slot.permits));
        }
        self.fetch(place, key, cost, now, own)
    }

    /// Goes to the bucket: for this request, and for more when it is not the first one.
    fn fetch(
        &mut self,
        place: usize,
        key: u64,
        cost: u64,
        now: u64,
        own: Option<&OwnLimit>,
    ) -> Result<Passed, Refused> {
        let Self { limit, slots, .. } = self;
        let rate = &limit.rate_of(own);
        let batch = own.map_or(self.batch, |own| batch(rate, own.limit, self.cores));
        self.now = now;
        let slot = slots.get_mut(place).filter(|slot| batch >= 2 && (slot.key == key || !slot.is_used));
        let Some(slot) = slot else {
            let (_, full_at) = limit.buckets.take(key, rate, now, (cost, cost))?;
            return Ok(Self::passed(rate, full_at, now, 0));
        };
        if slot.key != key {
            if slot.permits > 0 {
                limit.buckets.give_back(slot.key, &slot.rate, now, slot.permits);
            }
            *slot = Slot { key, permits: 0, rate: *rate, full_at: 0, is_used: true };
            let (_, full_at) = limit.buckets.take(key, rate, now, (cost, cost))?;
            slot.full_at = full_at;
            return Ok(Self::passed(rate, full_at, now, 0));
        }
        slot.is_used = true;
        let missing = cost - slot.permits;
        let (taken, full_at) = limit.buckets.take(key, rate, now, (missing, missing.max(batch)))?;
        slot.permits = taken - missing;
        slot.full_at = full_at;
        Ok(Self::passed(rate, full_at, now, slot.permits))
    }

    fn passed(rate: &Rate, full_at: u64, now: u64, permits: u64) -> Passed {
        let left = rate.left(full_at, now) + permits;
        Passed { left: left.min(rate.burst), full_ns: full_at.saturating_sub(now) }
    }

    /// Takes a request back that passed and was not served after all.
    pub fn put_back(&mut self, key: u64, cost: u64, now: u64, own: Option<&OwnLimit>) {
        self.limit.buckets.give_back(key, &self.limit.rate_of(own), now, cost);
    }

    /// Gives back what no one has asked for since the last time.
    pub fn give_back_idle(&mut self, now: u64) {
        self.now = now;
        for slot in &mut self.slots {
            if slot.permits > 0 && !slot.is_used {
                self.limit.buckets.give_back(slot.key, &slot.rate, now, slot.permits);
                slot.permits = 0;
            }
            slot.is_used = false;
        }
    }
}

/// Permits of one batch, for one core of so many.
fn batch(rate: &Rate, limit: u32, cores: usize) -> u64 {
    rate.burst.min(u64::from(limit)) * LEASED_PERCENT / 100 / cores as u64
}

impl Drop for Leases {
    fn drop(&mut self) {
        for slot in self.slots.iter().filter(|slot| slot.permits > 0) {
            self.limit.buckets.give_back(slot.key, &slot.rate, self.now, slot.permits);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;
    const KEY: u64 = 0x1234_5678_9abc_def0;

    fn take(leases: &mut Leases, count: usize) -> usize {
        (0..count).filter(|_| leases.take(KEY, 1, 1, None).is_ok()).count()
    }

    #[test]
    fn a_small_limit_is_exact_on_every_core() {
        let limit = RateLimit::test(5, "1h", 5);
        let mut cores: Vec<Leases> = (0..4).map(|_| Leases::new(&limit, 4)).collect();
        let passed: Vec<usize> = cores.iter_mut().map(|core| take(core, 2)).collect();
        assert_eq!(passed, [2, 2, 1, 0]);
        let refused = cores[0].take(KEY, 1, 1, None).unwrap_err();
        assert_eq!(refused.retry_ns, HOUR_NS / 5);
    }

    #[test]
    fn a_core_has_permits_of_its_own() {
        let limit = RateLimit::test(1000, "1h", 1000);
        let mut core = Leases::new(&limit, 2);
        assert_eq!(core.batch, 10);
        // The first goes by itself; then ten at a time are fetched.
        let left: Vec<u64> = (0..12).map(|_| core.take(KEY, 1, 1, None).unwrap().left).collect();
        assert_eq!(left, (988..1000).rev().collect::<Vec<_>>());
        assert_eq!(limit.rate.left(core.slots[KEY as usize >> 32 & (SLOTS - 1)].full_at, 1), 979);
        // Another core finds all but what this one has, until that is given back.
        let mut other = Leases::new(&limit, 2);
        assert_eq!(take(&mut other, 2000), 979);
        core.give_back_idle(1);
        assert_eq!(take(&mut other, 2000), 0, "it was used a moment ago");
        core.give_back_idle(1);
        assert_eq!(take(&mut other, 2000), 9);
    }

    /// Whoever was there first and does not come again is not in the way, though nothing is left to give back.
    #[test]
    fn a_slot_is_anyones_when_it_is_idle() {
        let limit = RateLimit::test(1000, "1h", 1000);
        let mut core = Leases::new(&limit, 1);
        let in_hand = |core: &Leases| core.slots.iter().map(|slot| slot.permits).sum::<u64>();
        core.take(KEY, 1, 1, None).unwrap();
        let other = KEY ^ 1;
        let mut twice = || {
            core.take(other, 1, 1, None).unwrap();
            core.take(other, 1, 1, None).unwrap();
            let has = in_hand(&core);
            core.give_back_idle(1);
            has
        };
        assert_eq!(twice(), 0, "the slot is the first key's");
        assert_eq!(twice(), 19);
    }

    #[test]
    fn what_a_core_has_goes_back_with_it() {
        let limit = RateLimit::test(1000, "1h", 1000);
        let mut core = Leases::new(&limit, 1);
        assert_eq!(take(&mut core, 2), 2);
        drop(core);
        assert_eq!(take(&mut Leases::new(&limit, 1), 2000), 998);
    }

    proptest! {
        /// Whoever asks, on whichever core: all that there is passes, and no more; what is in hand is at most 2 %.
        #[test]
        fn nothing_is_lost_or_made(
            asks in prop::collection::vec((0_usize..4, 0_u64..3, 0_u8..20), 1..3000),
        ) {
            let limit = RateLimit::test(500, "1h", 500);
            let mut cores: Vec<Leases> = (0..4).map(|_| Leases::new(&limit, 4)).collect();
            let mut passed = [0_u64; 3];
            // The second has a limit of its own, the third a small one.
            let owns = [None, OwnLimit::new(700, 3_600_000, 700), OwnLimit::new(90, 3_600_000, 90)];
            for (core, key, what) in asks {
                let own = owns[key as usize].as_ref();
                if what == 0 {
                    cores[core].give_back_idle(1);
                } else if cores[core].take(key + 1, 1, 1, own).is_ok() {
                    passed[key as usize] += 1;
                }
                let in_hand: u64 = cores.iter().flat_map(|core| &core.slots).map(|slot| slot.permits).sum();
                prop_assert!(in_hand <= 10 + 14);
            }
            drop(cores);
            for ((key, passed), own) in (1..).zip(passed).zip(&owns) {
                let rate = limit.rate_of(own.as_ref());
                let left = limit.buckets.take(key, &rate, 1, (0, u64::MAX)).unwrap().0;
                prop_assert_eq!(passed + left, rate.burst);
            }
        }
    }
}
