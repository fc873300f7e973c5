//! What the operator writes: the TOML file as plain values, its defaults, its limits and everything that can be
//! said against it before a core ever sees it. This room knows nothing of sockets, routes in compiled form or time.

pub mod types;
pub mod values;

pub use types::Config;
