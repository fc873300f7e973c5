//! Waits until a descriptor is ready, on the ring.

use std::{io, os::fd::RawFd, task::Poll};

use io_uring::{opcode, types};
use slab::Slab;

use super::{super::tasks::Waiter, Kind, user_data, with};

/// Someone's wait until a descriptor is ready.
pub(super) enum Wait {
    UnderWay(Waiter),
    Done(io::Result<()>),
    Forgotten,
}

/// A wait's completion.
pub(super) fn on_ready(number: usize, result: i32, waits: &mut Slab<Wait>) {
    let Some(wait) = waits.get_mut(number) else { return };
    let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) };
    match std::mem::replace(wait, Wait::Done(result)) {
        Wait::UnderWay(mut waiter) => waiter.wake(),
        Wait::Done(_) => {}
        Wait::Forgotten => drop(waits.remove(number)),
    }
}

/// Waits until a descriptor is ready for one of `events`, on this thread's ring. Dropped, the wait is given up.
pub(in crate::net) async fn ready(fd: RawFd, events: libc::c_short) -> io::Result<()> {
    let number = with(|ring| {
        let number = ring.waits.insert(Wait::UnderWay(Waiter::Nobody));
        let entry = opcode::PollAdd::new(types::Fd(fd), events as u32).build();
        ring.push(entry.user_data(user_data(number, Kind::Wait)));
        number
    });
    let Some(number) = number else { return Err(io::ErrorKind::Unsupported.into()) };
    let _give_up = GiveUp(number);
    std::future::poll_fn(|cx| {
        let poll = with(|ring| match &mut ring.waits[number] {
            Wait::Done(result) => Poll::Ready(std::mem::replace(result, Ok(()))),
            wait => {
                let mut waiter = Waiter::Nobody;
                waiter.set(cx);
                *wait = Wait::UnderWay(waiter);
                Poll::Pending
            }
        });
        poll.unwrap_or(Poll::Pending)
    })
    .await
}

/// Frees a wait's number, or has its completion free it.
struct GiveUp(usize);

impl Drop for GiveUp {
    fn drop(&mut self) {
        with(|ring| match &mut ring.waits[self.0] {
            Wait::Done(_) => drop(ring.waits.remove(self.0)),
            wait => {
                *wait = Wait::Forgotten;
                ring.push_cancel(self.0, Kind::Wait);
            }
        });
    }
}
