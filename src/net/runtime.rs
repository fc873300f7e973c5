//! A core's runtime: tasks over the core's own ring, with the best flags that the kernel takes, or monoio on epoll where
//! the kernel refuses rings.

use std::{fmt, future::Future, io, mem::ManuallyDrop};

use monoio::{LegacyDriver, RuntimeBuilder};

use super::{ring, tasks};
use crate::config::types::DriverChoice;

/// What a core's runtime runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, with the set-up flags that the kernel took.
    IoUring {
        /// The flags' names, joined by `|`.
        flags: &'static str,
    },
    /// epoll, and why.
    Epoll {
        /// What the operator chose, or the kernel's refusal.
        reason: String,
    },
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring { flags } => write!(f, "io_uring ({flags})"),
            Self::Epoll { reason } => write!(f, "epoll ({reason})"),
        }
    }
}

/// Builds this thread's runtime and runs the future that `make` returns on it to its end. Must be called on the pinned
/// thread: the ring belongs to the thread that makes it. `buffers` is how many small buffers the core may use.
///
/// The runtime is never torn down, since a core ends only with the process: operations still in flight own buffers that
/// the kernel may write to until the ring is gone.
pub fn run<F: Future>(
    choice: DriverChoice,
    entries: u32,
    buffers: usize,
    make: impl FnOnce(Driver) -> F,
) -> io::Result<F::Output> {
    let mut refusal = String::from("chosen by runtime.driver");
    if choice != DriverChoice::Epoll {
        match ring::open(entries, buffers) {
            Ok(flags) => {
                let output = tasks::run(make(Driver::IoUring { flags }), ring::turn);
                ring::retire();
                return Ok(output);
            }
            Err(error) => refusal = format!("io_uring refused: {error}"),
        }
        if choice == DriverChoice::IoUring {
            return Err(io::Error::other(refusal));
        }
    }
    let mut runtime = ManuallyDrop::new(RuntimeBuilder::<LegacyDriver>::new().with_entries(entries).build()?);
    Ok(runtime.block_on(make(Driver::Epoll { reason: refusal })))
}

/// Starts a task on this core.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    if ring::is_open() {
        tasks::spawn(task);
    } else {
        drop(monoio::spawn(task));
    }
}
