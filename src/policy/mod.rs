//! What may happen to a request and its response beside being relayed: texts with variables, edits of fields,
//! cookies, the fields that say who asked, request ids, what gRPC says
//! beside its messages, who may read across origins, who may ask at all, whose keys, passwords and tokens they show, how often they may come, and how many at once. Everything here is synchronous and works on
//! bytes that it is handed: it knows no socket, no clock and no message type, and leaves the order of things to the exchange.

pub mod aggregate;
pub mod authorize;
pub mod basic;
pub mod client_cert;
pub mod concurrency;
pub mod cookie;
pub mod cors;
pub mod credential;
pub mod forwarded;
pub mod grpc;
pub mod headers;
pub mod introspect;
pub mod ip;
pub mod jose;
pub mod jwks;
pub mod jwt;
pub mod key;
pub mod password;
pub mod rate_limit;
pub mod request_id;
pub mod template;
pub mod token;

pub use headers::HeaderEdits;
pub use template::{Template, Variable, Variables};

/// Whether `name` is a token (RFC 9110 §5.6.2), as field names, cookie names and methods are.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte))
}

/// Whether `byte` may be in a token.
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}
