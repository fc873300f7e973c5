//! What the process says about itself, to people, on standard error. Threads put lines into a bounded queue from which one
//! thread writes them: a reader that stalls costs lines, which are counted, and never holds up a core.

use std::{backtrace::Backtrace, io::IsTerminal as _, sync::OnceLock};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Has messages written from now on, until the guard is dropped, which waits a moment for those that were not yet. A second call
/// of a process changes nothing.
///
/// Libraries' own messages are left out below ERROR, and h2's altogether: what they warn of is what peers do, once for each time
/// that they do it. That is counted, and said by whoever ends the connection.
#[must_use = "messages end with the guard"]
pub fn start() -> WorkerGuard {
    let stderr = std::io::stderr();
    let is_terminal = stderr.is_terminal();
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).thread_name("messages").finish(stderr);
    let _ = DROPPED.set(writer.error_counter());
    let wanted = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("h2", LevelFilter::OFF)
        .with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(is_terminal).with_target(false);
    if tracing_subscriber::registry().with(lines).with(wanted).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            tracing::error!("{panic}\n{}", Backtrace::capture());
        }));
    }
    guard
}

/// How many messages were dropped because they were not read.
pub fn dropped() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}
