//! TLS: certificates and authorities read and checked, the certificate that a name gets, tickets that every core accepts,
//! and the configurations of rustls made from all that, one for each core; handshakes over [`crate::net`]'s sockets, and
//! connections whose bytes are records. It knows files and what the operator wrote; it does not know tables, requests or
//! when something changes.

mod authority;
mod certificate;
mod client;
mod handshake;
mod inbound;
mod load;
mod pem;
mod receive;
mod record;
#[doc(hidden)]
pub mod rehearsal;
mod select;
mod send;
mod server;
mod stream;
mod subject;
mod tickets;

use std::sync::Arc;

use rustls::crypto::{
    CryptoProvider,
    aws_lc_rs::{cipher_suite, default_provider, kx_group},
};

pub use authority::{Authorities, SystemRoots, fetching};
pub use certificate::{Certificate, Concern, Facts, KeyType, PairError};
pub use client::{ClientTls, Identity, Trust};
pub use handshake::{HandshakeError, Session, accept, connect};
pub use load::{Loader, Report};
pub use pem::{FILE_BYTES_MAX, Fault, FileError, Part};
pub use select::{Selection, Shadowed};
pub use server::{ClientAuthority, ServerTls};
pub use stream::{OtherRx, OtherTx, Rx, Stream, Tx};
pub use tickets::{TICKET_BYTES_MAX, TICKET_SECONDS, TicketKeys, Ticketer};

/// What is encrypted and agreed with: Mozilla's "intermediate" list, which is all of rustls' suites, and the groups with the
/// one that quantum computers do not break first. A fresh one each time, so that cores share no counter.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..default_provider()
    })
}

#[cfg(test)]
mod tests;
