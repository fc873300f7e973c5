//! A core's time: the monotonic clock read once and remembered, the wall clock and `Date` derived from it, and
//! deadlines that a sweeper looks at now and then. It knows no sockets; the worker's tick drives it.

mod date;
mod deadline;

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

pub use date::{HTTP_DATE_BYTES, http_date};
pub use deadline::{Deadline, Deadlines, Timer};

/// How often the worker's tick drives the clock, and so the error of every deadline.
pub const TICK_MS: u64 = 20;

/// [`TURN`] where no runtime counts turns: the clock is read each time.
const NO_TURNS: u64 = 0;

thread_local! {
    /// The number of the runtime's turn.
    static TURN: Cell<u64> = const { Cell::new(NO_TURNS) };
}

/// Tells this thread's clock that the runtime has waited, or looked, for what happened since: the next who asks for the
/// time reads it anew, and who asks after that, before the next turn, gets the same.
#[inline]
pub fn begin_turn() {
    TURN.set(TURN.get().wrapping_add(1));
}

/// The number of this thread's turn, if its runtime counts them.
#[inline]
pub fn turn() -> Option<u64> {
    Some(TURN.get()).filter(|turn| *turn != NO_TURNS)
}

/// What all clocks of this process have in common.
static HOST_ORIGIN: OnceLock<Instant> = OnceLock::new();

/// A core's clock. Times are µs or ms since it was made.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    /// From the host's origin to this one, in µs.
    after_host_us: u64,
    now_us: Cell<u64>,
    /// The turn in which it was read.
    turn: Cell<u64>,
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
        // In this order: the host's origin is no later than anyone's.
        let host = *HOST_ORIGIN.get_or_init(Instant::now);
        let origin = Instant::now();
        let clock = Self {
            origin,
            after_host_us: origin.saturating_duration_since(host).as_micros() as u64,
            now_us: Cell::new(0),
            turn: Cell::new(NO_TURNS),
            origin_unix_us: Cell::new(0),
            date_second: Cell::new(u64::MAX),
            date: Cell::new([b' '; HTTP_DATE_BYTES]),
        };
        clock.tick();
        clock
    }

    /// µs since the origin, as of this turn: what happens in one turn happens at one time.
    #[inline]
    pub fn turn_us(&self) -> u64 {
        let turn = TURN.get();
        if turn == NO_TURNS || self.turn.replace(turn) != turn { self.read_us() } else { self.now_us.get() }
    }

    /// Reads the clock: µs since the origin.
    fn read_us(&self) -> u64 {
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

    /// ns as all clocks of this process count them, as of this turn; never 0.
    #[inline]
    pub fn host_ns(&self) -> u64 {
        (self.after_host_us + self.turn_us()) * 1000 + 1
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_one_time() {
        let clock = Clock::new();
        begin_turn();
        let first = clock.turn_us();
        let until_later = || while clock.origin.elapsed().as_micros() as u64 <= first {};
        until_later();
        assert_eq!(clock.turn_us(), first);
        begin_turn();
        assert!(clock.turn_us() > first);
    }

    #[test]
    fn all_clocks_agree_on_the_host() {
        let (one, other) = (Clock::new(), Clock::new());
        let first = one.host_ns();
        let second = other.host_ns();
        let third = one.host_ns();
        // Each rounds down what it was late by.
        assert!(0 < first && first <= second + 2000 && second <= third + 2000, "{first} {second} {third}");
    }

    #[test]
    fn without_turns_it_is_read_each_time() {
        let clock = Clock::new();
        let first = clock.turn_us();
        while clock.turn_us() == first {}
    }
}
