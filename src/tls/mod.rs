//! TLS without its transport: certificates and authorities read and checked, the certificate that a name gets, tickets
//! that every core accepts, and the configurations of rustls made from all that, one for each core. It knows files and what
//! the operator wrote; it does not know sockets, tables or when something changes.

mod authority;
mod certificate;
mod pem;
mod select;
mod tickets;

pub use authority::{Authorities, SystemRoots};
pub use certificate::{Certificate, Concern, Facts, KeyType, PairError};
pub use pem::{FILE_BYTES_MAX, Fault, FileError, Part};
pub use select::{Selection, Shadowed};
pub use tickets::{TICKET_BYTES_MAX, TICKET_SECONDS, TicketKeys, Ticketer};

#[cfg(test)]
mod tests;
