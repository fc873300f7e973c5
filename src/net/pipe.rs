//! Pipes that carry a body's bytes from one socket to another inside the kernel: large bodies are not copied through this
//! process. Each core keeps a few; a pipe that could still hold bytes of a broken exchange is never used again.
#![expect(unsafe_code, reason = "pipe2(2), fcntl(2) and splice(2)")]

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::stream::{Rx, Tx};
use crate::buf::{Reserved, SMALL_BYTES, reserve};

/// Bytes that a pipe can hold, if the kernel grants them.
const PIPE_BYTES: libc::c_int = 256 * 1024;

/// What a pipe costs of the core's budget of buffers: the kernel may hold that much in it.
const PIPE_UNITS: usize = PIPE_BYTES as usize / SMALL_BYTES;

/// Empty pipes that a core keeps.
const IDLE_MAX: usize = 64;

/// Pipes that a core uses at once: each takes two descriptors. Beyond that bodies are copied.
const IN_USE_MAX: usize = 512;

thread_local! {
    static IDLE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

/// Closes half of the empty pipes. Called now and then.
pub(super) fn trim() {
    IDLE.with_borrow_mut(|idle| idle.truncate(idle.len() / 2));
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Ends {
    /// None when the process has no descriptors left, or may not have pipes that are worth while.
    fn open() -> Option<Self> {
        let mut fds: [RawFd; 2] = [-1; 2];
        // SAFETY: the kernel writes two descriptors into the array.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return None;
        }
        // SAFETY: the kernel just made this descriptor, and no one else has it.
        let read = unsafe { OwnedFd::from_raw_fd(fds[0]) };
        // SAFETY: as above.
        let write = unsafe { OwnedFd::from_raw_fd(fds[1]) };
        // SAFETY: no memory is touched.
        let granted = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        (granted >= PIPE_BYTES).then_some(Self { read, write })
    }
}

/// A pipe, for one body at a time.
#[derive(Debug)]
pub struct Pipe {
    ends: Ends,
    filled: usize,
    _reserved: Reserved,
    _in_use: InUse,
}

/// Counts a pipe that is in use.
#[derive(Debug)]
struct InUse;

impl InUse {
    fn one_more() -> Option<Self> {
        let count = IN_USE.get();
        (count < IN_USE_MAX).then(|| {
            IN_USE.set(count + 1);
            Self
        })
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let _ = IN_USE.try_with(|count| count.set(count.get() - 1));
    }
}

impl Pipe {
    /// An empty pipe; none when there are too many, or the core's buffers are used up, and bytes are to be copied
    /// instead.
    pub fn take() -> Option<Self> {
        let in_use = InUse::one_more()?;
        let reserved = reserve(PIPE_UNITS)?;
        let ends = IDLE.with_borrow_mut(Vec::pop).or_else(Ends::open)?;
        Some(Self { ends, filled: 0, _reserved: reserved, _in_use: in_use })
    }

    /// Gives an empty pipe back to its core.
    pub fn give_back(self) {
        debug_assert!(self.is_empty());
        IDLE.with_borrow_mut(|idle| {
            if self.is_empty() && idle.len() < IDLE_MAX {
                idle.push(self.ends);
            }
        });
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves up to `max` bytes in from a socket that [`Rx::readable`] has found readable. 0: the peer's end.
    pub fn fill(&mut self, from: &mut Rx, max: u64) -> io::Result<usize> {
        let room = usize::try_from(max).unwrap_or(usize::MAX).min(PIPE_BYTES as usize);
        let moved = without_waiting(from.fd(), || splice(from.fd(), self.ends.write.as_raw_fd(), room))?;
        self.filled += moved;
        from.count_received(moved);
        Ok(moved)
    }

    /// Moves bytes out to a socket, as many as it takes at once.
    pub fn drain(&mut self, to: &mut Tx) -> io::Result<usize> {
        let moved = without_waiting(to.fd(), || splice(self.ends.read.as_raw_fd(), to.fd(), self.filled))?;
        if moved == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.filled -= moved;
        to.count_sent(moved);
        Ok(moved)
    }
}

/// Makes a socket a non-blocking one for one call: `SPLICE_F_NONBLOCK` is about pipes only, and a core must never wait.
/// Operations of the ring, which want a blocking socket, begin and go on only when the ring is entered, so that they
/// never see it.
fn without_waiting<T>(socket: RawFd, call: impl FnOnce() -> T) -> T {
    // SAFETY: the descriptor is open; no memory is touched. Sockets have no other status flag.
    unsafe { libc::fcntl(socket, libc::F_SETFL, libc::O_NONBLOCK) };
    let result = call();
    // SAFETY: as above.
    unsafe { libc::fcntl(socket, libc::F_SETFL, 0) };
    result
}

fn splice(from: RawFd, to: RawFd, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open, and offsets are not given.
    let moved = unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), bytes, flags) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pipe_comes_back_and_is_used_again() {
        let pipe = Pipe::take().unwrap();
        let fd = pipe.ends.read.as_raw_fd();
        assert_eq!(crate::buf::figures().units_in_use, PIPE_UNITS);
        pipe.give_back();
        assert_eq!(crate::buf::figures().units_in_use, 0);
        assert_eq!(Pipe::take().unwrap().ends.read.as_raw_fd(), fd);
    }

    #[test]
    fn pipes_are_bounded_by_their_number_and_the_budget() {
        crate::buf::set_budget(2 * PIPE_UNITS);
        let pipes: Vec<Pipe> = std::iter::from_fn(Pipe::take).collect();
        assert_eq!(pipes.len(), 2);
        crate::buf::set_budget(usize::MAX);
        IN_USE.set(IN_USE_MAX);
        assert!(Pipe::take().is_none());
        IN_USE.set(2);
    }
}
