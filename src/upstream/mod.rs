//! Where requests go: the connections to endpoints.

pub mod pool;
