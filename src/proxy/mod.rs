//! One connection, one exchange, relay, reply: a request's life on one core. [`exchange`] is the table of contents;
//! everything else here only does what it says.

mod acquire;
mod announced;
mod answer;
mod attempt;
mod connection;
mod core;
mod error;
mod exchange;
mod facts;
mod generation;
mod guard;
mod heads;
mod identity;
mod incoming;
mod multiplex;
mod outgoing;
mod passwords;
mod policies;
mod preview;
mod record;
mod relay;
mod reply;
mod secure;
mod seen;
mod slot;
mod splice;
mod tunnel;

pub use connection::{reject, serve};
pub use core::{Core, CoreOptions, Renewal};
pub use error::Error;
pub use generation::Generation;
pub use guard::{Guard, guard};
pub use passwords::{Trial, TrialLane, WAITING_MAX};
pub use preview::{Preview, preview};
pub use reply::{REASONS, Reason};
