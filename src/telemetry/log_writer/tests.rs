//! The writer against outputs that block, fail and tear, and against real files.

use std::{
    collections::VecDeque,
    env, fs,
    os::unix::fs::PermissionsExt,
    process,
    sync::mpsc::{self, Receiver, Sender},
};

use proptest::prelude::*;

use super::*;
use crate::telemetry::log_queue::BATCHES_MAX;

/// An output that says when it is entered, and stays in there until it is let go on.
struct Gate {
    entered: Sender<()>,
    open: Receiver<()>,
    written: Sender<Vec<u8>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        // An error: the gate was taken away, it stays open.
        let _ = self.open.recv();
        self.written.send(bytes.to_vec()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(batcher: &mut LogBatcher, line: &str) {
    batcher.line(|out| out.bytes(line.as_bytes()));
}

#[test]
fn a_blocked_output_never_blocks_a_core_and_every_loss_is_counted() {
    let (entered, is_entered) = mpsc::channel();
    let (gate, open) = mpsc::channel();
    let (written, output) = mpsc::channel();
    let sink = Sink::new(None, Box::new(Gate { entered, open, written }));
    let (writer, mut batchers) = LogWriter::start_into(1, sink).unwrap();
    let core = &mut batchers[0];

    let mut expected = String::new();
    log(core, "first");
    core.flush();
    expected.push_str("first\n");
    // The writer holds the first batch now; the queue is empty.
    is_entered.recv().unwrap();

    let mut dropped = 0;
    for batch in 0..BATCHES_MAX + 5 {
        // This returns although the output stands still: that is the test.
        let lines = batch % 7 + 1;
        for line in 0..lines {
            let text = format!("batch {batch} line {line}");
            log(core, &text);
            if batch < BATCHES_MAX {
                expected = expected + &text + "\n";
            }
        }
        core.flush();
        dropped += if batch < BATCHES_MAX { 0 } else { lines as u64 };
    }
    assert_eq!(core.dropped(), dropped);

    drop(gate);
    // From here on lines may get through again. Whether one does decides the writer's speed, and is counted.
    log(core, "after");
    core.flush();
    if core.dropped() == dropped {
        expected.push_str("after\n");
    } else {
        assert_eq!(core.dropped(), dropped + 1);
    }
    assert_eq!(writer.join(), 0);
    let output: Vec<u8> = output.try_iter().flatten().collect();
    assert_eq!(String::from_utf8(output).unwrap(), expected);
}

#[test]
fn several_cores_keep_their_order_and_tear_no_line() {
    let path = TempPath::new("cores");
    let (writer, batchers) = LogWriter::start(3, Destination::File(path.0.clone())).unwrap();
    let cores: Vec<_> = batchers
        .into_iter()
        .enumerate()
        .map(|(at, mut core)| {
            thread::spawn(move || {
                for line in 0..20_000 {
                    log(&mut core, &format!("{at} {line} {}", "x".repeat(line % 90)));
                }
                core.flush();
                core.dropped()
            })
        })
        .collect();
    let dropped: u64 = cores.into_iter().map(|core| core.join().unwrap()).sum();
    assert_eq!(writer.join(), 0);

    let text = fs::read_to_string(&path.0).unwrap();
    let mut next = [0_usize; 3];
    for line in text.lines() {
        let parts: Vec<_> = line.split(' ').collect();
        let (core, number): (usize, usize) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
        assert!(number >= next[core], "{line}");
        assert_eq!(parts[2].len(), number % 90, "{line}");
        next[core] = number + 1;
    }
    assert_eq!(text.lines().count() as u64 + dropped, 60_000);
}

#[test]
fn a_full_disk_loses_lines_counts_them_and_does_not_end_the_writer() {
    let (writer, mut batchers) = LogWriter::start(1, Destination::File("/dev/full".into())).unwrap();
    for _ in 0..3 {
        log(&mut batchers[0], "one");
        log(&mut batchers[0], "two");
        batchers[0].flush();
    }
    assert_eq!((writer.join(), batchers[0].dropped()), (6, 0));
    log(&mut batchers[0], "late");
    batchers[0].flush();
    assert_eq!(batchers[0].dropped(), 1);
}

#[test]
fn reopening_follows_a_rotation() {
    let (path, rotated) = (TempPath::new("rotation"), TempPath::new("rotated"));
    let (writer, mut batchers) = LogWriter::start(1, Destination::File(path.0.clone())).unwrap();
    assert_eq!(
        fs::metadata(&path.0).unwrap().permissions().mode() & 0o137,
        0,
        "nobody else reads or writes it"
    );
    log(&mut batchers[0], "old");
    batchers[0].flush();
    fs::rename(&path.0, &rotated.0).unwrap();
    writer.reopen();
    while !path.0.exists() {
        thread::yield_now();
    }
    // The writer opened it, and writes nothing to the old one any more.
    log(&mut batchers[0], "new");
    batchers[0].flush();
    assert_eq!(writer.join(), 0);
    assert_eq!(fs::read_to_string(&rotated.0).unwrap(), "old\n");
    assert_eq!(fs::read_to_string(&path.0).unwrap(), "new\n");
}

#[test]
fn a_file_that_cannot_be_reopened_stays_in_use_until_it_can() {
    let (directory, moved) = (TempPath::new("directory"), TempPath::new("moved"));
    fs::create_dir(&directory.0).unwrap();
    let path = directory.0.join("log");
    let stop = AtomicBool::new(false);
    let mut sink = Sink::new(Some(path.clone()), Box::new(open(&path).unwrap()));
    fs::rename(&directory.0, &moved.0).unwrap();
    sink.reopen();
    assert_eq!((sink.write(b"one\n", &stop), sink.wants_reopen), (0, true));
    fs::create_dir(&directory.0).unwrap();
    sink.reopen();
    assert_eq!((sink.write(b"two\n", &stop), sink.wants_reopen), (0, false));
    assert_eq!(fs::read_to_string(moved.0.join("log")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
}

#[test]
fn a_path_that_cannot_be_opened_is_told_at_the_start() {
    let error = LogWriter::start(1, Destination::File("/dev/null/log".into())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
}

/// What an output does with one call.
#[derive(Debug, Clone)]
enum Step {
    Take(usize),
    Fail(ErrorKind),
}

/// An output that follows a script, then takes everything.
struct Scripted {
    steps: VecDeque<Step>,
    written: Sender<Vec<u8>>,
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match self.steps.pop_front() {
            Some(Step::Fail(kind)) => return Err(kind.into()),
            Some(Step::Take(n)) => n.min(bytes.len()),
            None => bytes.len(),
        };
        self.written.send(bytes[..taken].to_vec()).unwrap();
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..30_usize).prop_map(Step::Take),
        1 => Just(Step::Fail(ErrorKind::StorageFull)),
        1 => Just(Step::Fail(ErrorKind::Interrupted)),
    ];
    prop::collection::vec(step, 0..30)
}

proptest! {
    /// However writes fail: a line is there whole, once and in order, or it is counted as lost.
    #[test]
    fn what_is_not_lost_is_whole(script in steps(), batches in prop::collection::vec(1..5_usize, 1..20)) {
        let (written, output) = mpsc::channel();
        let mut sink = Sink::new(None, Box::new(Scripted { steps: script.into(), written }));
        let stop = AtomicBool::new(false);
        let (mut lost, mut sent) = (0, Vec::new());
        for lines in batches {
            let batch: Vec<_> = (sent.len()..sent.len() + lines).map(|at| format!("line {at};")).collect();
            lost += sink.write((batch.join("\n") + "\n").as_bytes(), &stop) as usize;
            sent.extend(batch);
        }
        drop(sink);
        let output = String::from_utf8(output.iter().flatten().collect()).unwrap();
        let whole: Vec<_> = output.lines().filter(|line| line.ends_with(';')).collect();
        prop_assert_eq!(whole.len() + lost, sent.len());
        let mut all = sent.iter();
        for line in whole {
            prop_assert!(all.any(|one| one == line), "{line} is one of those sent, after the one before");
        }
    }
}

/// A path of its own for one test, removed at its end.
struct TempPath(PathBuf);

impl TempPath {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("ringgate-log-{name}-{}", process::id()));
        let new = Self(path);
        new.remove();
        new
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.0);
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        self.remove();
    }
}
