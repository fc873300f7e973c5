//! HTTP/2 (RFC 9113) as connections of HTTP/1: every stream is shown as a connection of its own that carries one request
//! and its response, in the strict form that [`crate::http`] reads and writes. So there is one path for requests, one parser
//! that judges heads, and one relay for bodies, whatever version the bytes came by. Frames, compression of heads, flow control
//! and the limits of floods are the `h2` crate's; here is what turns its messages into bytes and bytes into its messages.

mod body;
mod downstream;
mod grpc_web;
mod heartbeat;
mod io;
mod message;
mod names;
mod toll;
mod upstream;

pub use downstream::{Accepted, Downstream, DownstreamLimits};
pub use grpc_web::{Decoder as GrpcWebDecoder, encode as grpc_web_text, is_grpc_web};
pub use io::Io;
pub use upstream::Upstream;

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// HTTP/2: no request of HTTP/1 begins so.
    Http2,
    /// Something else.
    Other,
    /// Too few to tell.
    Unclear,
}

/// Bytes that tell: `PRI` is no method that anyone routes.
const TELLING: usize = 3;

/// Which version of HTTP begins with these bytes.
pub fn beginning(bytes: &[u8]) -> Beginning {
    let length = bytes.len().min(PREFACE.len());
    match bytes[..length] == PREFACE[..length] {
        false => Beginning::Other,
        true if length < TELLING => Beginning::Unclear,
        true => Beginning::Http2,
    }
}
