//! Where requests go: which endpoint is picked, whether it is fit for it, and the connections to it. Everything here is
//! one core's own.

pub mod balance;
pub mod health;
pub mod pool;
pub mod shared;
