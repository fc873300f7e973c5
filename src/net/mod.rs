//! Sockets and the ring under them: the only room that imports monoio's I/O. It hides the driver behind a few concrete
//! types, so that another ring can be put here without touching a caller. It knows bytes and addresses, no protocol.

mod connect;
mod count;
mod event;
mod listen;
mod operation;
mod ring;
mod stream;

pub use connect::connect;
pub use count::{Traffic, operations, traffic};
pub use event::{Doorbell, Mailbox, MailboxSender, OpenMailbox, Ticker, mailbox};
pub use listen::{BoundListener, Listener, bind};
pub use ring::{Driver, run, spawn};
pub use stream::{Rx, Stream, Tx};
