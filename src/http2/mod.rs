//! HTTP/2 (RFC 9113) as connections of HTTP/1: every stream is shown as a connection of its own that carries one request
//! and its response, in the strict form that [`crate::http`] reads and writes. So there is one path for requests, one parser
//! that judges heads, and one relay for bodies, whatever version the bytes came by. Frames, compression of heads, flow control
//! and the limits of floods are the `h2` crate's; here is what turns its messages into bytes and bytes into its messages.

mod body;
mod downstream;
mod heartbeat;
mod io;
mod message;
mod upstream;

pub use downstream::{Accepted, Downstream, DownstreamLimits};
pub use io::Io;
pub use upstream::Upstream;

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether the bytes that came first are the beginning of HTTP/2: no request of HTTP/1 begins so.
pub fn is_preface(bytes: &[u8]) -> bool {
    let length = bytes.len().min(PREFACE.len());
    length >= 3 && bytes[..length] == PREFACE[..length]
}
