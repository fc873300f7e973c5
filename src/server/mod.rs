//! The server: it puts the rooms below together into a running gateway.

pub mod demo;
