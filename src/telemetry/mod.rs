//! What a core remembers of what it did: plain counters and histograms that it owns alone, the access-log record
//! and its two written forms, and the hand-over of finished log lines to the thread that writes them. This room
//! knows no request, route or socket: others fill its figures and records in, and it never reads a clock.

pub mod access;
pub mod date;
pub mod figures;
pub mod histogram;
pub mod line;
pub mod log_queue;
pub mod log_writer;
pub mod text;

pub use access::{AccessRecord, Phases};
pub use date::DateCache;
pub use figures::Figures;
pub use histogram::Histogram;
pub use line::Line;
pub use log_queue::LogBatcher;
pub use log_writer::{Destination, LogWriter};
