//! What wakes a core from outside: its mailbox (a lock-free queue and an eventfd on its ring) and its tick (a timerfd).
//! Both are awaited by readiness, which works the same on io_uring and epoll.
#![expect(unsafe_code, reason = "eventfd(2) and timerfd(2)")]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
};

use crossbeam_queue::ArrayQueue;

use super::wait::Waitable;

/// Waits until a counter can be read, and reads it.
async fn read(counter: &Waitable) -> io::Result<u64> {
    loop {
        counter.readable().await?;
        let mut count = 0u64;
        // SAFETY: the buffer is the eight bytes that eventfd and timerfd write.
        let read = unsafe { libc::read(counter.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
        if read == size_of::<u64>() as isize {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock && error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Something that comes back at fixed times.
pub struct Ticker(Waitable);

impl Ticker {
    /// A tick every `period_ms`.
    pub fn new(period_ms: u64) -> io::Result<Self> {
        // SAFETY: no memory is touched; the result is checked.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        let fd = owned(fd)?;
        let period = libc::timespec {
            tv_sec: (period_ms / 1000) as libc::time_t,
            tv_nsec: (period_ms % 1000 * 1_000_000) as libc::c_long,
        };
        let setting = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: `setting` is a valid itimerspec and the old value is not asked for.
        let set =
            unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut()) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(Waitable::new(fd)?))
    }

    /// The next tick; several that were missed count as one.
    pub async fn tick(&self) -> io::Result<()> {
        read(&self.0).await.map(drop)
    }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and no one else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Wakes the core that waits at the other end.
#[derive(Debug, Clone)]
pub(super) struct Doorbell(Arc<OwnedFd>);

impl Doorbell {
    /// Rings. Never blocks.
    pub(super) fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight valid bytes; a full counter means that the core is awake already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}

/// The control plane's end of a core's mailbox.
#[derive(Debug)]
pub struct MailboxSender<T> {
    queue: Arc<ArrayQueue<T>>,
    doorbell: Doorbell,
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue), doorbell: self.doorbell.clone() }
    }
}

impl<T> MailboxSender<T> {
    /// Leaves a message and rings; gives the message back when the mailbox is full.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.queue.push(message)?;
        self.doorbell.ring();
        Ok(())
    }
}

/// The core's end of its mailbox; [`Mailbox::open`] brings it to the core's thread.
pub struct Mailbox<T> {
    queue: Arc<ArrayQueue<T>>,
    doorbell: OwnedFd,
}

/// A mailbox for up to `capacity` messages.
pub fn mailbox<T>(capacity: usize) -> io::Result<(MailboxSender<T>, Mailbox<T>)> {
    // SAFETY: no memory is touched; the result is checked.
    let fd = owned(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
    let ours = fd.try_clone()?;
    let queue = Arc::new(ArrayQueue::new(capacity));
    let sender = MailboxSender { queue: Arc::clone(&queue), doorbell: Doorbell(Arc::new(fd)) };
    Ok((sender, Mailbox { queue, doorbell: ours }))
}

/// A mailbox on its core.
pub struct OpenMailbox<T> {
    queue: Arc<ArrayQueue<T>>,
    doorbell: Waitable,
}

impl<T> Mailbox<T> {
    /// Brings the mailbox to this thread's runtime.
    pub fn open(self) -> io::Result<OpenMailbox<T>> {
        Ok(OpenMailbox { queue: self.queue, doorbell: Waitable::new(self.doorbell)? })
    }
}

impl<T> OpenMailbox<T> {
    /// The next message.
    pub async fn receive(&self) -> io::Result<T> {
        loop {
            if let Some(message) = self.queue.pop() {
                return Ok(message);
            }
            read(&self.doorbell).await?;
        }
    }
}
