//! Building a core's runtime: io_uring with the best flags the kernel takes, epoll where it refuses.

use std::{fmt, future::Future, io, mem::ManuallyDrop};

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::config::types::DriverChoice;

/// What a core's runtime runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, with the set-up flags that the kernel took.
    IoUring {
        /// The flags' names, joined by `|`; `none` when it took none.
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

/// Sets one rung's flags.
type Flags = fn(&mut io_uring::Builder);

/// The rungs tried from the top: each asks less of the kernel than the one before.
const LADDER: [(&str, Flags); 3] = [
    ("single_issuer|defer_taskrun|submit_all", |ring| {
        ring.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
    }),
    ("coop_taskrun", |ring| {
        ring.setup_coop_taskrun();
    }),
    ("none", |_| {}),
];

/// Builds this thread's runtime and runs the future that `make` returns on it to its end. Must be called on the pinned
/// thread: the ring belongs to the thread that makes it.
///
/// The runtime is never torn down, since a core ends only with the process: operations still in flight own buffers that
/// the kernel may write to until the ring is gone.
pub fn run<F: Future>(
    choice: DriverChoice,
    entries: u32,
    make: impl FnOnce(Driver) -> F,
) -> io::Result<F::Output> {
    let mut refusal = String::from("chosen by runtime.driver");
    if choice != DriverChoice::Epoll {
        for (flags, set) in LADDER {
            let mut ring = io_uring::IoUring::builder();
            set(&mut ring);
            match RuntimeBuilder::<IoUringDriver>::new().with_entries(entries).uring_builder(ring).build() {
                Ok(runtime) => {
                    let mut runtime = ManuallyDrop::new(runtime);
                    return Ok(runtime.block_on(make(Driver::IoUring { flags })));
                }
                Err(error) => refusal = format!("io_uring refused: {error}"),
            }
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
    drop(monoio::spawn(task));
}
