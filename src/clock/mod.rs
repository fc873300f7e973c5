//! A core's time: the monotonic clock read once and remembered, the wall clock and `Date` derived from it, and
//! deadlines that a sweeper looks at now and then. It knows no sockets; the worker's tick drives it.

mod date;
mod deadline;

use std::{
    cell::Cell,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

pub use date::{HTTP_DATE_BYTES, http_date};
pub use deadline::{Deadline, Deadlines, Timer};

/// How often the worker's tick drives the clock, and so the error of every deadline.
pub const TICK_MS: u64 = 20;

/// A core's clock. Times are µs or ms since it was made.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    now_us: Cell<u64>,
    /// Unix time, in µs, of the origin; refreshed by the tick, so that a stepped wall clock is followed.
    origin_unix_us: Cell<u64>,
    date_second: Cell<u64>,
    date: Cell<[u8; HTTP_DATE_BYTES]>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts at 0.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where the data plane reads the clock"
    )]
    pub fn new() -> Self {
        let clock = Self {
            origin: Instant::now(),
            now_us: Cell::new(0),
            origin_unix_us: Cell::new(0),
            date_second: Cell::new(u64::MAX),
            date: Cell::new([b' '; HTTP_DATE_BYTES]),
        };
        clock.tick();
        clock
    }

    /// Reads the clock: µs since the origin.
    #[inline]
    pub fn read_us(&self) -> u64 {
        let now = self.origin.elapsed().as_micros() as u64;
        self.now_us.set(now);
        now
    }

    /// µs since the origin, as of the last reading.
    #[inline]
    pub fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    /// ms since the origin, as of the last reading: at most a tick old.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_us.get() / 1000
    }

    /// Unix time in µs at `at_us` of this clock.
    #[inline]
    pub fn unix_us(&self, at_us: u64) -> u64 {
        self.origin_unix_us.get() + at_us
    }

    /// The `Date` field's value (RFC 9110 §5.6.7) as of the last tick.
    #[inline]
    pub fn date(&self) -> [u8; HTTP_DATE_BYTES] {
        self.date.get()
    }

    /// Reads both clocks and renews `Date` when its second is over.
    pub fn tick(&self) {
        let now_us = self.read_us();
        let unix_us =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.origin_unix_us.set(unix_us.saturating_sub(now_us));
        let second = unix_us / 1_000_000;
        if self.date_second.replace(second) != second {
            self.date.set(http_date(second));
        }
    }
}
