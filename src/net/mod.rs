//! Sockets and the ring under them: the only room that imports monoio or io_uring. It hides the driver behind a few
//! concrete types, so that another one can be put here without touching a caller. It knows bytes and addresses, no protocol.

mod connect;
mod count;
mod epoll;
mod event;
mod listen;
mod pipe;
mod priority;
mod provided;
mod ring;
mod runtime;
mod stream;
mod tasks;
mod wait;

pub use connect::connect;
pub use count::{Traffic, operations, traffic};
pub use event::{Mailbox, MailboxSender, OpenMailbox, Ticker, mailbox};
pub use listen::{Accepted, BoundListener, Listener, bind};
pub use pipe::Pipe;
pub use priority::lower_priority;
pub use ring::{buffers_provided, calm_down};
pub use runtime::{Driver, run, spawn};
pub use stream::{Outcome, Probe, Rx, Socket, Stream, Tx};
