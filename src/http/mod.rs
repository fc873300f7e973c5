//! HTTP/1 as state machines over bytes: request and response heads, body framing, chunked coding, canonical paths.
//! This room decides what a message *is* and refuses whatever could be read in two ways (RFC 9110, 9112, 3986). It
//! never sees a socket or a clock, owns no buffer, knows no route and writes no answer: what a refusal costs the
//! client is the proxy's reply table's business.
//!
//! A parsed head is a set of [`extent::Extent`]s into the bytes it was parsed from, so parsing copies nothing and a
//! head that is reused between messages allocates nothing.

pub mod authority;
pub mod body;
pub mod chunked;
pub mod extent;
mod fast;
pub mod field;
pub mod framing;
pub mod head;
mod lanes;
pub mod method;
pub mod path;
pub mod request;
pub mod response;
pub mod status;
mod target;
pub mod version;
pub mod write;
