//! Buffers provided to the kernel: a receive that has none of its own takes one when something comes, so that a
//! connection that waits holds no memory. They are blocks of the core's pool, counted as in use while the kernel has
//! them; how many that are follows what receives need.
#![expect(unsafe_code, reason = "the kernel shares the memory of the buffer ring")]

use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

use crate::buf::{Buf, FRAMING_BYTES, SMALL_BYTES};

/// The id of the only group of buffers.
pub(super) const GROUP: u16 = 0;

/// Places in the ring of buffers, and so the most that the kernel may have. A power of two.
const PLACES: u16 = 256;

/// Buffers provided at first; doubled when a receive finds none.
const LEVEL_MIN: usize = 64;

/// The kernel's share of the core's budget, so that what is received can also be sent.
const BUDGET_SHARE: usize = 4;

const MAPPED_BYTES: usize = PLACES as usize * size_of::<BufRingEntry>();
const _: () = assert!(PLACES.is_power_of_two() && LEVEL_MIN <= PLACES as usize);

/// The ring of buffers, and what it holds.
pub(super) struct Provided {
    places: NonNull<BufRingEntry>,
    tail: u16,
    /// Buffers by their ids; a block is absent while its id is free.
    blocks: Box<[Option<Box<[u8]>>]>,
    free: Vec<u16>,
    /// How many the kernel shall have.
    level: usize,
    level_max: usize,
}

impl Provided {
    /// Registers an empty ring of buffers; `budget` is how many small buffers the core may use.
    pub(super) fn register(ring: &IoUring, budget: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAPPED_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let places = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        // SAFETY: the mapping is PLACES entries long and page-aligned, and is never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(places.as_ptr() as u64, PLACES, GROUP, 0) }?;
        let level_max = (budget / BUDGET_SHARE).clamp(1, usize::from(PLACES));
        Ok(Self {
            places,
            tail: 0,
            blocks: (0..PLACES).map(|_| None).collect(),
            free: (0..PLACES).rev().collect(),
            level: LEVEL_MIN.min(level_max),
            level_max,
        })
    }

    /// How many the kernel has.
    pub(super) fn count(&self) -> usize {
        usize::from(PLACES) - self.free.len()
    }

    /// Asks for more from now on, since a receive found none.
    pub(super) fn raise_level(&mut self) {
        self.level = (self.level * 2).min(self.level_max);
    }

    /// Asks for fewer again, down to what it began with.
    pub(super) fn lower_level(&mut self) {
        self.level = (self.level / 2).max(LEVEL_MIN.min(self.level_max));
    }

    /// Gives the kernel what it lacks; `false` when it then has nothing, because the core's buffers are used up.
    pub(super) fn refill(&mut self) -> bool {
        if self.count() < self.level {
            let before = self.tail;
            while self.count() < self.level
                && let Some(buf) = Buf::take_small_if_any()
            {
                self.give(buf);
            }
            if self.tail != before {
                self.publish();
            }
        }
        self.count() > 0
    }

    fn give(&mut self, buf: Buf) {
        let Some(id) = self.free.pop() else { return };
        let mut block = buf.into_block();
        let place = self.places.as_ptr().wrapping_add(usize::from(self.tail % PLACES));
        // SAFETY: the place is one of the PLACES of the mapping, which was zeroed at first, so a valid entry. The
        // kernel reads entries between its head and the tail only; at most PLACES are given, so this one is free.
        let entry = unsafe { &mut *place };
        entry.set_addr(block[FRAMING_BYTES..].as_mut_ptr() as u64);
        entry.set_len((SMALL_BYTES - 2 * FRAMING_BYTES) as u32);
        entry.set_bid(id);
        self.blocks[usize::from(id)] = Some(block);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: `places` is the address of the ring's first entry, which is valid.
        let tail = unsafe { BufRingEntry::tail(self.places.as_ptr()) };
        // SAFETY: the tail is an aligned u16 in the mapping that this thread alone writes and the kernel reads.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// What was received into the buffer that a completion names.
    pub(super) fn take(&mut self, id: u16, received: usize) -> Option<Buf> {
        let block = self.blocks.get_mut(usize::from(id))?.take()?;
        self.free.push(id);
        Some(Buf::from_block(block, received))
    }
}
