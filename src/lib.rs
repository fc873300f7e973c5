//! ringgate: an API gateway for Linux. See `docs/ARCHITECTURE.md` for the rooms below and why they are what they are.

pub mod buf;
pub mod clock;
pub mod config;
pub mod expression;
pub mod http;
pub mod http2;
pub mod net;
pub mod policy;
pub mod proxy;
pub mod proxy_protocol;
pub mod regex;
pub mod route;
pub mod server;
pub mod table;
pub mod telemetry;
pub mod tls;
pub mod upstream;
