//! The core's buffers: fixed-size blocks that come from a per-thread pool and go home when they are dropped, on every
//! path, panics and cancelled operations included. It knows nothing of sockets; `net` lends a [`Buf`]'s memory to the
//! kernel.
//!
//! A block is zeroed when it is first made, so every byte of it is initialised memory and slicing needs no `unsafe`.

mod pages;

use std::cell::RefCell;

/// Bytes of a small buffer: one request or response head, or a small body, in one receive.
pub const SMALL_BYTES: usize = 16 * 1024;

/// Bytes of a large buffer: what one direction of a streamed body holds.
pub const LARGE_BYTES: usize = 64 * 1024;

/// How many units of the core's budget a large buffer costs; a small one costs one.
pub const LARGE_UNITS: usize = LARGE_BYTES / SMALL_BYTES;

/// Bytes kept free before and behind what is received into a provided buffer, so that it can be framed where it lies.
pub const FRAMING_BYTES: usize = 32;

/// Units beyond the core's budget, for refusals only: who finds no buffer is to be told, and that takes one.
pub const RESERVE_UNITS: usize = 64;

const _: () = assert!(LARGE_UNITS * SMALL_BYTES == LARGE_BYTES);
const _: () = assert!(LARGE_BYTES <= u32::MAX as usize && 2 * FRAMING_BYTES < SMALL_BYTES);

/// The two sizes of buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// [`SMALL_BYTES`].
    Small,
    /// [`LARGE_BYTES`].
    Large,
}

impl Size {
    const fn bytes(self) -> usize {
        match self {
            Self::Small => SMALL_BYTES,
            Self::Large => LARGE_BYTES,
        }
    }

    const fn units(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Large => LARGE_UNITS,
        }
    }
}

/// What the pool of this thread holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Units lent out now.
    pub units_in_use: usize,
    /// Units that may be lent out at once.
    pub units_max: usize,
    /// Small and large buffers waiting in the pool.
    pub idle: [usize; 2],
    /// Requests for a buffer that found none.
    pub exhausted: u64,
}

/// A part of the core's budget that is used otherwise than by buffers. Given back when dropped.
#[derive(Debug)]
pub struct Reserved(usize);

/// Reserves `units` of this thread's budget, if they are there.
pub fn reserve(units: usize) -> Option<Reserved> {
    POOL.with_borrow_mut(|pool| {
        let fits = pool.units_in_use() + units <= pool.units_max;
        fits.then(|| {
            pool.reserved += units;
            Reserved(units)
        })
    })
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let _ = POOL.try_with(|pool| pool.borrow_mut().reserved -= self.0);
    }
}

struct Pool {
    /// Units that are used otherwise.
    reserved: usize,
    idle: [Vec<Box<[u8]>>; 2],
    /// The most buffers of each size in use since the last trim, which is how many the pool keeps.
    peak: [usize; 2],
    in_use: [usize; 2],
    units_max: usize,
    exhausted: u64,
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool {
            reserved: 0,
            idle: [Vec::new(), Vec::new()],
            peak: [0; 2],
            in_use: [0; 2],
            units_max: usize::MAX,
            exhausted: 0,
        })
    };
}

impl Pool {
    fn units_in_use(&self) -> usize {
        self.reserved + self.in_use[0] + self.in_use[1] * LARGE_UNITS
    }
}

/// Sets how many units this thread may lend out at once.
pub fn set_budget(units: usize) {
    POOL.with_borrow_mut(|pool| pool.units_max = units);
}

/// What this thread's pool holds.
pub fn figures() -> PoolFigures {
    POOL.with_borrow(|pool| PoolFigures {
        units_in_use: pool.units_in_use(),
        units_max: pool.units_max,
        idle: [pool.idle[0].len(), pool.idle[1].len()],
        exhausted: pool.exhausted,
    })
}

/// Frees the buffers that were not needed since the last trim. Called now and then, off the request path.
pub fn trim() {
    POOL.with_borrow_mut(|pool| {
        for size in [Size::Small as usize, Size::Large as usize] {
            let keep = pool.peak[size].saturating_sub(pool.in_use[size]);
            pool.idle[size].truncate(keep);
            if keep == 0 {
                pool.idle[size].shrink_to_fit();
            }
            pool.peak[size] = pool.in_use[size];
        }
    });
}

/// A buffer: `filled` bytes between two cursors, spare room behind them. It goes home to its thread's pool when it is
/// dropped.
#[derive(Debug)]
pub struct Buf {
    block: Box<[u8]>,
    start: u32,
    end: u32,
    /// Where receiving stops; the room behind it is kept for framing.
    limit: u32,
}

impl Buf {
    /// Takes a buffer from this thread's pool, or `None` when the core's budget is used up (which is counted).
    #[inline]
    pub fn take(size: Size) -> Option<Self> {
        Self::take_within(size, 0)
    }

    /// Takes a small buffer from this thread's pool if there is one, for what can do without; that there is none is
    /// not counted.
    pub fn take_small_if_any() -> Option<Self> {
        let has_any = POOL.with_borrow(|pool| pool.units_in_use() < pool.units_max);
        has_any.then(|| Self::take(Size::Small)).flatten()
    }

    /// Takes a small buffer to say so when there is none: beyond the budget there are [`RESERVE_UNITS`] for this.
    pub fn take_reserved() -> Option<Self> {
        Self::take_within(Size::Small, RESERVE_UNITS)
    }

    #[inline]
    fn take_within(size: Size, reserve: usize) -> Option<Self> {
        let block = POOL.with_borrow_mut(|pool| {
            if pool.units_in_use() + size.units() > pool.units_max.saturating_add(reserve) {
                pool.exhausted += 1;
                return None;
            }
            let at = size as usize;
            pool.in_use[at] += 1;
            pool.peak[at] = pool.peak[at].max(pool.in_use[at]);
            Some(pool.idle[at].pop().unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice()))
        })?;
        let limit = block.len() as u32;
        Some(Self { block, start: 0, end: 0, limit })
    }

    /// A buffer without any room, which costs nothing: what stands for a buffer where none was needed.
    #[inline]
    pub fn none() -> Self {
        Self { block: Box::default(), start: 0, end: 0, limit: 0 }
    }

    /// Its block, to be lent out for longer; it stays counted as in use, and comes back by [`Buf::from_block`].
    #[inline]
    pub fn into_block(mut self) -> Box<[u8]> {
        std::mem::take(&mut self.block)
    }

    /// A buffer of a block that came from [`Buf::into_block`], with `filled` bytes behind [`FRAMING_BYTES`] of room.
    #[inline]
    pub fn from_block(block: Box<[u8]>, filled: usize) -> Self {
        let start = FRAMING_BYTES as u32;
        let limit = block.len() as u32 - start;
        Self { block, start, end: start + (filled as u32).min(limit - start), limit }
    }

    /// The bytes in it.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.block[self.start as usize..self.end as usize]
    }

    /// The bytes in it, to change in place.
    #[inline]
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.block[self.start as usize..self.end as usize]
    }

    /// How many bytes are in it.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether no bytes are in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes fit behind the filled ones.
    #[inline]
    pub fn spare_len(&self) -> usize {
        (self.limit - self.end.min(self.limit)) as usize
    }

    /// Whether there is so much room before and behind the filled bytes.
    #[inline]
    pub fn has_room(&self, front: usize, back: usize) -> bool {
        self.start as usize >= front && self.block.len() - self.end as usize >= back
    }

    /// Its whole room.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.block.len()
    }

    /// The room behind the filled bytes, up to the limit.
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let end = self.end.min(self.limit) as usize;
        &mut self.block[end..self.limit as usize]
    }

    /// Counts `n` bytes, written into [`Buf::spare_mut`], as filled. More than fit are not counted.
    #[inline]
    pub fn commit(&mut self, n: usize) {
        self.end += n.min(self.spare_len()) as u32;
    }

    /// Appends bytes; `false`, and nothing done, when they do not fit.
    #[inline]
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let end = self.end as usize;
        match self.block.get_mut(end..end + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.end += bytes.len() as u32;
                true
            }
            None => false,
        }
    }

    /// Puts bytes before the filled ones, into room that [`Buf::reset`] or [`Buf::consume`] left; `false` when there
    /// is too little.
    #[inline]
    #[must_use]
    pub fn push_front(&mut self, bytes: &[u8]) -> bool {
        let Some(at) = (self.start as usize).checked_sub(bytes.len()) else { return false };
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self.start = at as u32;
        true
    }

    /// Drops the first `n` filled bytes.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        self.start += (n as u32).min(self.end - self.start);
    }

    /// Keeps only the first `n` filled bytes.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.end = self.start + (n as u32).min(self.end - self.start);
    }

    /// Empties it, with `head` bytes of room before and `tail` behind what is received next.
    #[inline]
    pub fn reset(&mut self, head: usize, tail: usize) {
        debug_assert!(head + tail < self.block.len());
        self.start = head as u32;
        self.end = head as u32;
        self.limit = (self.block.len() - tail) as u32;
    }

    /// Makes the spare room no larger than `n`.
    #[inline]
    pub fn limit_spare(&mut self, n: usize) {
        self.limit = self.limit.min(self.end.saturating_add(u32::try_from(n).unwrap_or(u32::MAX)));
    }

    /// Moves the filled bytes to the front, so that all other room is spare.
    pub fn compact(&mut self) {
        self.move_to(0, 0);
    }

    /// Moves the filled bytes so that there are `head` bytes of room before them, and `tail` behind what is received next.
    /// They must fit between.
    pub fn move_to(&mut self, head: usize, tail: usize) {
        debug_assert!(head + self.len() + tail <= self.block.len());
        self.block.copy_within(self.start as usize..self.end as usize, head);
        self.end = head as u32 + (self.end - self.start);
        self.start = head as u32;
        self.limit = (self.block.len() - tail) as u32;
    }
}

impl Drop for Buf {
    #[inline]
    fn drop(&mut self) {
        let block = std::mem::take(&mut self.block);
        if block.is_empty() {
            return;
        }
        let size = if block.len() == SMALL_BYTES { Size::Small } else { Size::Large };
        // The pool is gone only when the thread is ending; then the block is simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.in_use[size as usize] -= 1;
            pool.idle[size as usize].push(block);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_home_when_dropped_and_is_reused() {
        let first = Buf::take(Size::Small).unwrap();
        let at = first.block.as_ptr();
        drop(first);
        let second = Buf::take(Size::Small).unwrap();
        assert_eq!(second.block.as_ptr(), at);
        assert_eq!(figures().units_in_use, 1);
        drop(second);
        assert_eq!(figures().units_in_use, 0);
    }

    #[test]
    fn budget_is_a_bound_and_refusals_are_counted() {
        set_budget(LARGE_UNITS);
        let large = Buf::take(Size::Large).unwrap();
        assert!(Buf::take(Size::Small).is_none());
        assert_eq!(figures().exhausted, 1);
        drop(large);
        assert!(Buf::take(Size::Small).is_some());
        set_budget(usize::MAX);
    }

    #[test]
    fn trim_frees_what_two_periods_did_not_need() {
        let many: Vec<Buf> = (0..10).map(|_| Buf::take(Size::Small).unwrap()).collect();
        drop(many);
        trim();
        assert_eq!(figures().idle[0], 10, "they were needed in the period that ended");
        trim();
        assert_eq!(figures().idle[0], 0);
    }

    #[test]
    fn cursors() {
        let mut buf = Buf::take(Size::Small).unwrap();
        buf.reset(4, 2);
        assert_eq!(buf.spare_len(), SMALL_BYTES - 6);
        assert!(buf.push(b"hello"));
        assert!(buf.push_front(b"12"));
        assert!(!buf.push_front(b"123"));
        assert_eq!(buf.filled(), b"12hello");
        buf.consume(1);
        buf.truncate(3);
        assert_eq!(buf.filled(), b"2he");
        buf.compact();
        assert_eq!(buf.spare_len(), SMALL_BYTES - 3);
        assert!(!buf.push(&[0; SMALL_BYTES]));
        buf.spare_mut()[0] = b'x';
        buf.commit(1);
        assert_eq!(buf.filled(), b"2hex");
        assert!(buf.has_room(0, 1) && !buf.has_room(1, 0));
        buf.move_to(5, 3);
        assert_eq!(buf.filled(), b"2hex");
        assert!(buf.has_room(5, 3) && !buf.has_room(6, 0));
        assert_eq!(buf.spare_len(), SMALL_BYTES - 4 - 5 - 3);
    }
}
