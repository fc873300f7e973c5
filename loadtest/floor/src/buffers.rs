//! Provided buffers: one mapping with the ring of entries that the kernel takes buffers from, and the buffers behind
//! it. A buffer is the kernel's until a receive names it, then the relay's until it is given back.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The id of the only group of buffers.
pub(crate) const GROUP: u16 = 0;

/// Buffers; a power of two. More of them take large bodies out of the cache, fewer starve a thousand connections.
const COUNT: u16 = 256;

/// Bytes of a buffer: a small message touches one page of it, a large body needs few sends.
const BYTES: u32 = 64 * 1024;

const RING_BYTES: usize = COUNT as usize * size_of::<BufRingEntry>();
const MAPPED_BYTES: usize = RING_BYTES + COUNT as usize * BYTES as usize;
const _: () = assert!(COUNT.is_power_of_two() && RING_BYTES.is_multiple_of(4096));

/// The mapping, and where its ring's tail is.
pub(crate) struct Buffers {
    mapping: NonNull<u8>,
    tail: u16,
    /// Buffers that the kernel has.
    free: u16,
}

impl Buffers {
    /// Maps the buffers and gives all of them to the kernel.
    #[expect(unsafe_code, reason = "the kernel shares this memory")]
    pub(crate) fn register(ring: &IoUring) -> io::Result<Self> {
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
        let mapping = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        let mut buffers = Self { mapping, tail: 0, free: 0 };
        let submitter = ring.submitter();
        // SAFETY: the mapping begins with COUNT entries, page-aligned, and is never unmapped.
        unsafe { submitter.register_buf_ring_with_flags(mapping.as_ptr() as u64, COUNT, GROUP, 0) }?;
        (0..COUNT).for_each(|buffer| buffers.give_back(buffer));
        Ok(buffers)
    }

    /// Whether the kernel has a buffer to receive into.
    pub(crate) fn has_free(&self) -> bool {
        self.free > 0
    }

    /// A receive named a buffer: it is the relay's now.
    pub(crate) fn on_taken(&mut self) {
        self.free -= 1;
    }

    /// Where a buffer is.
    pub(crate) fn address(&self, buffer: u16) -> *const u8 {
        self.mapping.as_ptr().wrapping_add(offset(buffer))
    }

    /// Gives a buffer to the kernel.
    #[expect(unsafe_code, reason = "the kernel shares this memory")]
    pub(crate) fn give_back(&mut self, buffer: u16) {
        let entries = self.mapping.as_ptr().cast::<BufRingEntry>();
        let slot = entries.wrapping_add(usize::from(self.tail % COUNT));
        // SAFETY: the slot is one of the COUNT at the mapping's start, zeroed at first, so a valid entry. The kernel
        // reads entries between its head and the tail only, and this one is not yet before the tail: at most COUNT
        // buffers are ever given.
        let entry = unsafe { &mut *slot };
        entry.set_addr(self.address(buffer) as u64);
        entry.set_len(BYTES);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
        // SAFETY: `entries` is the address of the ring's first entry, which is valid.
        let tail = unsafe { BufRingEntry::tail(entries) };
        // SAFETY: the tail is an aligned u16 in the mapping that this thread alone writes and the kernel reads.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// A buffer's place in the mapping.
fn offset(buffer: u16) -> usize {
    RING_BYTES + usize::from(buffer) * BYTES as usize
}
