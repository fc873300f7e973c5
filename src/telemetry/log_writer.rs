//! The thread that writes the access log: it takes the cores' batches and writes them to standard output or a
//! file, which it reopens when asked. It may block as long as the disk or the pipe does: cores do not wait for it.
//! What it cannot write it drops and counts. It never looks into a line.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use super::log_queue::{Lane, LogBatcher};

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file: appended to, created with mode 0640.
    File(PathBuf),
}

/// The writer's handle, for the control plane. Dropping it stops the writer without waiting for it.
#[derive(Debug)]
pub struct LogWriter {
    orders: Arc<Orders>,
    thread: Thread,
    /// There until [`LogWriter::join`].
    handle: Option<JoinHandle<()>>,
}

/// What the control plane asks of the writer, and what it tells. Off the data plane: no core looks at it.
#[derive(Debug, Default)]
struct Orders {
    reopen: AtomicBool,
    stop: AtomicBool,
    lost: AtomicU64,
}

impl LogWriter {
    /// Starts the writer's thread, and makes the ends for `cores` cores. Fails when the file cannot be opened or
    /// the thread not be started: an operator learns that at once.
    pub fn start(cores: usize, destination: Destination) -> io::Result<(Self, Vec<LogBatcher>)> {
        let (path, file) = match destination {
            Destination::Stdout => (None, File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Destination::File(path) => {
                let file = open(&path)?;
                (Some(path), file)
            }
        };
        Self::start_into(cores, Sink::new(path, Box::new(file)))
    }

    /// The same, into anything that can be written to.
    pub fn start_with(cores: usize, sink: Box<dyn Write + Send>) -> io::Result<(Self, Vec<LogBatcher>)> {
        Self::start_into(cores, Sink::new(None, sink))
    }

    fn start_into(cores: usize, sink: Sink) -> io::Result<(Self, Vec<LogBatcher>)> {
        let orders = Arc::new(Orders::default());
        let lanes: Vec<_> = (0..cores).map(|_| Lane::new()).collect();
        let handle = thread::Builder::new().name("log-writer".into()).spawn({
            let (orders, lanes) = (Arc::clone(&orders), lanes.clone());
            move || run(&orders, &lanes, sink)
        })?;
        let thread = handle.thread().clone();
        let batchers = lanes.into_iter().map(|lane| LogBatcher::new(lane, thread.clone())).collect();
        Ok((Self { orders, thread, handle: Some(handle) }, batchers))
    }

    /// Opens the file anew, as after it was renamed. What was flushed before this call goes to the old file. When it
    /// cannot be opened, the old one stays in use and the log says so. Standard output has nothing to reopen.
    pub fn reopen(&self) {
        self.orders.reopen.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Lines that the writer took and could not write, since the start.
    pub fn lost(&self) -> u64 {
        self.orders.lost.load(Ordering::Relaxed)
    }

    /// Asks the writer to write what was flushed before this call, and to end. Does not wait.
    pub fn stop(&self) {
        self.orders.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Whether the writer has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the writer and waits until it ended; answers [`Self::lost`]. It takes as long as the disk or the pipe
    /// does: who has a deadline calls [`Self::stop`] and watches [`Self::is_finished`].
    pub fn join(mut self) -> u64 {
        self.stop();
        if self.handle.take().is_some_and(|handle| handle.join().is_err()) {
            tracing::error!("the access-log writer panicked");
        }
        self.lost()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread: writes what there is, obeys, sleeps until woken.
fn run(orders: &Orders, lanes: &[Arc<Lane>], mut sink: Sink) {
    loop {
        // Read before the queues: what was flushed before an order is written before the order is obeyed.
        let stop = orders.stop.load(Ordering::Acquire);
        let reopen = orders.reopen.swap(false, Ordering::Acquire);
        let wrote = write_round(orders, lanes, &mut sink);
        if reopen || (wrote && sink.wants_reopen) {
            sink.reopen();
        }
        if stop {
            return;
        }
        if !wrote {
            // A flush or an order since the look above has left its token: this returns at once.
            thread::park();
        }
    }
}

/// Writes the batches that wait now, and not those that come meanwhile: orders are looked at between two rounds
/// also when cores are faster than the disk. Answers whether there were any.
fn write_round(orders: &Orders, lanes: &[Arc<Lane>], sink: &mut Sink) -> bool {
    let mut wrote = false;
    for lane in lanes {
        for _ in 0..lane.filled.len() {
            let Some(batch) = lane.filled.pop() else { break };
            let lost = sink.write(batch.text(), &orders.stop);
            orders.lost.fetch_add(lost, Ordering::Relaxed);
            lane.recycle(batch);
            wrote = true;
        }
    }
    wrote
}

/// What is written to, and how it fares.
struct Sink {
    /// What to reopen; `None` is standard output.
    path: Option<PathBuf>,
    out: Box<dyn Write + Send>,
    /// The last byte written was not a newline: an error cut a line. The next write begins with one.
    is_torn: bool,
    /// The last write failed. The operator is told when that changes, not for every batch.
    is_failing: bool,
    /// The file is to be opened anew when there is something to write: a write or an opening failed.
    wants_reopen: bool,
}

/// How long the writer waits when a non-blocking output takes nothing.
const RETRY: Duration = Duration::from_millis(20);
/// How often it does so for one batch when it is to stop: a second in all.
const RETRIES_WHEN_STOPPING: u32 = 50;

impl Sink {
    fn new(path: Option<PathBuf>, out: Box<dyn Write + Send>) -> Self {
        Self { path, out, is_torn: false, is_failing: false, wants_reopen: false }
    }

    /// Writes whole lines. Answers how many of them were lost: those of which not every byte was written.
    fn write(&mut self, lines: &[u8], stop: &AtomicBool) -> u64 {
        let result = if self.is_torn { self.push(b"\n", stop).map_err(|_| lines) } else { Ok(()) };
        match result.and_then(|()| self.push(lines, stop)) {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the access log is written again");
                }
                0
            }
            Err(unwritten) => {
                self.wants_reopen = true;
                // A line that misses only its newline gets it with the next write.
                let unwritten = unwritten.strip_prefix(b"\n").unwrap_or(unwritten);
                memchr::memchr_iter(b'\n', unwritten).count() as u64
            }
        }
    }

    /// Writes all bytes, or answers those that it could not.
    fn push<'a>(&mut self, bytes: &'a [u8], stop: &AtomicBool) -> Result<(), &'a [u8]> {
        let mut rest = bytes;
        let mut retries = 0;
        while !rest.is_empty() {
            let error = match self.out.write(rest) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(n) => {
                    self.is_torn = rest[n - 1] != b'\n';
                    rest = &rest[n..];
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock if retries < RETRIES_WHEN_STOPPING => {
                    retries += u32::from(stop.load(Ordering::Acquire));
                    thread::park_timeout(RETRY);
                }
                _ => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::error!(%error, path = ?self.path, "the access log cannot be written: lines are lost");
                    }
                    return Err(rest);
                }
            }
        }
        Ok(())
    }

    /// Opens the file anew; keeps the old one when that fails, and tries again with the next lines.
    fn reopen(&mut self) {
        let Some(path) = &self.path else {
            self.wants_reopen = false;
            return;
        };
        match open(path) {
            Ok(file) => {
                // In another file there is no cut line to end. One that cannot be asked may have it.
                self.is_torn &= file.metadata().map_or(true, |metadata| metadata.len() > 0);
                self.out = Box::new(file);
                self.wants_reopen = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.wants_reopen, true) {
                    tracing::error!(%error, ?path, "the access log cannot be reopened: the old file stays in use");
                }
            }
        }
    }
}

/// Opens a log file for appending; a new one is readable by its owner and group. A pipe that no one reads is an error
/// instead of a wait; a file does not care.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests;
