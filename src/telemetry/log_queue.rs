//! The hand-over of log lines from a core to the thread that writes them. A core fills a batch and passes it on
//! whole through a bounded queue without locks, and gets emptied batches back through another; it never waits: a
//! batch that finds the queue full is dropped, its lines counted. This file is the core's side; what becomes of a
//! batch, [`super::log_writer`] knows.

use std::{sync::Arc, thread::Thread};

use crossbeam_queue::ArrayQueue;

use super::line::{LINE_BYTES_MAX, Line};

/// A batch of this many bytes is passed on.
const BATCH_FLUSH_BYTES: usize = 64 * 1024;
/// Bytes of a batch: beyond where it is passed on there is room for the longest line, so none ever grows.
const BATCH_BYTES_MAX: usize = BATCH_FLUSH_BYTES + LINE_BYTES_MAX;
/// Batches that may wait for the writer, per core: 4 MiB, some 10,000 lines. Beyond it lines are dropped.
pub const BATCHES_MAX: usize = 64;

/// Finished lines on their way.
#[derive(Debug)]
pub(super) struct Batch {
    /// Whole lines, each with its newline, up to `end`; then what was there before.
    bytes: Vec<u8>,
    end: usize,
    lines: u64,
}

impl Batch {
    /// The lines.
    pub(super) fn text(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
}

/// The two queues between one core and the writer.
#[derive(Debug)]
pub(super) struct Lane {
    /// Filled batches, to the writer.
    pub(super) filled: ArrayQueue<Batch>,
    /// Emptied buffers, back to the core.
    pub(super) emptied: ArrayQueue<Vec<u8>>,
}

impl Lane {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { filled: ArrayQueue::new(BATCHES_MAX), emptied: ArrayQueue::new(BATCHES_MAX) })
    }

    /// Takes a written batch's buffer back, if there are not enough of them already.
    pub(super) fn recycle(&self, batch: Batch) {
        // No room: there are enough, this one is freed.
        let _ = self.emptied.push(batch.bytes);
    }
}

/// A core's end: it collects lines and passes them on in batches.
///
/// A line costs its bytes; a batch costs two queue operations and one `unpark`, which is a system call only when
/// the writer sleeps. In steady state nothing is allocated. Dropping it passes on what it holds.
#[derive(Debug)]
pub struct LogBatcher {
    /// [`BATCH_BYTES_MAX`] bytes.
    bytes: Vec<u8>,
    /// The end of the last whole line in `bytes`, below [`BATCH_FLUSH_BYTES`].
    end: usize,
    lines: u64,
    written: u64,
    dropped: u64,
    lane: Arc<Lane>,
    writer: Thread,
}

impl LogBatcher {
    pub(super) fn new(lane: Arc<Lane>, writer: Thread) -> Self {
        Self { bytes: vec![0; BATCH_BYTES_MAX], end: 0, lines: 0, written: 0, dropped: 0, lane, writer }
    }

    /// Adds a line, which `write` writes without its newline. One that is overfull is dropped and counted. A full batch
    /// is passed on. When `write` panics, nothing is added.
    #[inline]
    pub fn line(&mut self, write: impl FnOnce(&mut Line<'_>)) {
        let window = self.bytes.get_mut(self.end..).and_then(<[u8]>::first_chunk_mut);
        let end = window.and_then(|window| {
            let mut line = Line::new(window);
            write(&mut line);
            line.text(b"\n");
            (!line.is_overfull()).then(|| line.end())
        });
        let Some(length) = end else {
            self.dropped += 1;
            return;
        };
        self.end += length;
        self.lines += 1;
        self.written += 1;
        if self.end >= BATCH_FLUSH_BYTES {
            self.flush();
        }
    }

    /// Passes on what there is. To be called now and then, so that a quiet core's lines do not lie; never waits.
    /// Lines that cannot be passed on, because the writer is 64 batches behind or has ended, are dropped and
    /// counted.
    #[cold]
    pub fn flush(&mut self) {
        let (lines, end) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.end));
        if lines == 0 {
            return;
        }
        // A full queue is seen first, so that a stalled writer costs a core no fresh buffer. Nobody else fills it.
        if self.lane.filled.is_full() || Arc::strong_count(&self.lane) == 1 {
            self.dropped += lines;
            return;
        }
        let fresh = self.lane.emptied.pop().unwrap_or_else(|| vec![0; BATCH_BYTES_MAX]);
        let bytes = std::mem::replace(&mut self.bytes, fresh);
        if let Err(batch) = self.lane.filled.push(Batch { bytes, end, lines }) {
            self.dropped += batch.lines;
        }
        self.writer.unpark();
    }

    /// Lines added since the start.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Lines dropped since the start because the writer did not keep up, or because they were too long. Lines that
    /// the writer itself lost are its own figure.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether there are lines that were not passed on yet.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }
}

impl Drop for LogBatcher {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batcher() -> (LogBatcher, Arc<Lane>) {
        let lane = Lane::new();
        (LogBatcher::new(Arc::clone(&lane), std::thread::current()), lane)
    }

    fn taken(lane: &Lane) -> Option<(String, u64)> {
        lane.filled.pop().map(|batch| (String::from_utf8(batch.text().to_vec()).unwrap(), batch.lines))
    }

    #[test]
    fn lines_go_in_one_batch() {
        let (mut batcher, lane) = batcher();
        batcher.line(|line| line.text(b"one"));
        batcher.line(|line| line.text(b"two"));
        assert!(lane.filled.is_empty() && !batcher.is_empty());
        batcher.flush();
        batcher.flush();
        assert_eq!((taken(&lane), taken(&lane)), (Some(("one\ntwo\n".into(), 2)), None));
    }

    #[test]
    fn a_full_batch_goes_by_itself_and_always_has_room() {
        let (mut batcher, lane) = batcher();
        let longest = vec![b'x'; LINE_BYTES_MAX - 1];
        while batcher.end < BATCH_FLUSH_BYTES - 1 {
            batcher.line(|line| line.text(b""));
        }
        assert!(lane.filled.is_empty());
        batcher.line(|line| line.bytes(&longest));
        let (text, lines) = taken(&lane).unwrap();
        assert_eq!((text.len(), lines), (BATCH_BYTES_MAX - 1, BATCH_FLUSH_BYTES as u64));
        assert_eq!((batcher.dropped(), batcher.is_empty()), (0, true));
    }

    #[test]
    fn an_overlong_line_is_dropped_alone() {
        let (mut batcher, lane) = batcher();
        batcher.line(|line| line.text(b"before"));
        batcher.line(|line| line.bytes(&[b'x'; LINE_BYTES_MAX]));
        batcher.line(|line| line.text(b"after"));
        batcher.flush();
        assert_eq!((taken(&lane), batcher.dropped()), (Some(("before\nafter\n".into(), 2)), 1));
    }

    #[test]
    fn a_panic_amid_a_line_leaves_nothing_of_it() {
        let (mut batcher, lane) = batcher();
        batcher.line(|line| line.text(b"before"));
        for then_flush in [false, true] {
            let torn = std::panic::AssertUnwindSafe(|| {
                batcher.line(|line| {
                    line.text(b"half a li");
                    std::panic::resume_unwind(Box::new(()));
                });
            });
            std::panic::catch_unwind(torn).unwrap_err();
            if then_flush {
                batcher.flush();
            } else {
                batcher.line(|line| line.text(b"after"));
            }
        }
        assert_eq!(taken(&lane), Some(("before\nafter\n".into(), 2)));
    }

    #[test]
    fn buffers_come_home() {
        let (mut batcher, lane) = batcher();
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(batcher.bytes.as_ptr());
            batcher.line(|line| line.text(b"line"));
            batcher.flush();
            lane.recycle(lane.filled.pop().unwrap());
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 2, "two buffers go round");
    }

    #[test]
    fn a_full_queue_drops_whole_batches_and_counts_their_lines() {
        let (mut batcher, lane) = batcher();
        for at in 0..BATCHES_MAX + 3 {
            batcher.line(|line| line.number(at as u64));
            batcher.line(|line| line.text(b"-"));
            batcher.flush();
        }
        assert_eq!(batcher.dropped(), 6);
        for at in 0..BATCHES_MAX {
            assert_eq!(taken(&lane), Some((format!("{at}\n-\n"), 2)));
        }
        assert_eq!(taken(&lane), None);
    }

    #[test]
    fn lines_after_the_writer_ended_are_counted() {
        let (mut batcher, lane) = batcher();
        drop(lane);
        batcher.line(|line| line.text(b"late"));
        batcher.flush();
        assert_eq!(batcher.dropped(), 1);
    }
}
