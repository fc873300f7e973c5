//! What the operator writes: the TOML file as plain values, its defaults, its limits and everything that can be
//! said against it before a core ever sees it. This room knows nothing of sockets, routes in compiled form or time.

mod check;
mod consumers;
pub mod diagnostic;
pub mod interpolate;
pub mod load;
pub mod reference;
mod report;
pub mod schema;
mod shape;
pub mod source;
pub mod types;
mod validate;
pub mod values;

pub use consumers::read_consumers;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use load::{Inspected, Loaded, inspect, inspect_file, load, parse};
pub use source::{Key, Source};
pub use types::Config;

#[cfg(test)]
mod tests;
