//! The demo: small upstreams on loopback ports, the configuration that puts the gateway before them
//! (`config/demo.toml`), a list of what to try, and a renderer of access-log lines for people. It owns no gateway: who
//! runs one loads [`Upstreams::config`] and passes its access log through [`Live`]. The upstreams are ordinary hyper
//! servers on the control plane's tokio runtime, and share nothing with what they are there to test.

use std::{
    borrow::Cow,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{Router, serve::ListenerExt as _};
use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, task::JoinSet};

mod live;
#[cfg(test)]
mod tests;
mod tour;
mod upstream;

pub use live::Live;
pub use tour::{Try, banner, routes};

use upstream::Kind;

/// The configuration of the demo, as it stands in `config/demo.toml`.
pub const CONFIG: &str = include_str!("../../../config/demo.toml");

/// One upstream: its name, the port that [`CONFIG`] knows it by, and what it does.
struct Upstream {
    name: &'static str,
    port: u16,
    kind: Kind,
}

/// Connections the kernel holds for an upstream before it accepts them.
const BACKLOG: i32 = 1024;

/// Every upstream. A test holds this list and the endpoints of [`CONFIG`] against each other.
const UPSTREAMS: [Upstream; 11] = [
    Upstream { name: "plain-1", port: 9101, kind: Kind::Plain },
    Upstream { name: "plain-2", port: 9102, kind: Kind::Plain },
    Upstream { name: "plain-3", port: 9103, kind: Kind::Plain },
    Upstream { name: "canary", port: 9104, kind: Kind::Plain },
    Upstream { name: "slow", port: 9111, kind: Kind::Slow },
    Upstream { name: "failing", port: 9121, kind: Kind::Failing },
    Upstream { name: "refusing", port: 9122, kind: Kind::Refusing },
    Upstream { name: "echo", port: 9131, kind: Kind::Echo },
    Upstream { name: "websocket", port: 9141, kind: Kind::WebSocket },
    Upstream { name: "events", port: 9151, kind: Kind::Events },
    Upstream { name: "bytes", port: 9152, kind: Kind::Bytes },
];

/// Where each upstream listens, or is to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses([SocketAddr; UPSTREAMS.len()]);

impl Addresses {
    /// The addresses that [`CONFIG`] names.
    pub fn of_config() -> Self {
        Self(UPSTREAMS.each_ref().map(|upstream| loopback(upstream.port)))
    }

    /// A free port for each, chosen by the kernel when they start.
    pub fn free() -> Self {
        Self([loopback(0); UPSTREAMS.len()])
    }

    /// Each upstream's name and address.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        UPSTREAMS.iter().map(|upstream| upstream.name).zip(self.0)
    }
}

/// `config`, a text that names upstreams by the addresses of [`CONFIG`], with those replaced by where they listen.
/// Only whole strings are replaced, all in one pass, so that a new address is never taken for an old one.
pub fn with_ports(config: &str, listening: &Addresses) -> String {
    let of_config = Addresses::of_config().0;
    let pieces = config.split('"').map(|piece| {
        let index =
            piece.parse().ok().and_then(|address| of_config.iter().position(|known| *known == address));
        index.map_or(Cow::Borrowed(piece), |index| Cow::Owned(listening.0[index].to_string()))
    });
    pieces.collect::<Vec<_>>().join("\"")
}

/// Why the upstreams did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its address cannot be listened on, for another reason than being taken.
    #[error(
        "the demo's upstream `{upstream}` cannot listen on {address}: {source}; \
         it needs a loopback interface and leave to open ports above 1023"
    )]
    Listen {
        /// The upstream's name.
        upstream: &'static str,
        /// The address it was to have.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Its port is taken, and there was no free one instead.
    #[error(
        "port {taken} of the demo's upstream `{upstream}` is taken, and no free port was to be had instead: {source}; \
         see who has it with `ss -ltnp 'sport = :{taken}'`, stop that and start again"
    )]
    NoFreePort {
        /// The upstream's name.
        upstream: &'static str,
        /// The port that is taken.
        taken: u16,
        /// The kernel's reason for giving no other.
        source: io::Error,
    },
}

/// The upstreams, running. Dropped, they accept no more; what they were answering ends with the runtime.
#[derive(Debug)]
pub struct Upstreams {
    listening: Addresses,
    /// The ports of the configuration that somebody else had.
    taken: Vec<u16>,
    _servers: JoinSet<()>,
    /// Bound but not listening: their ports refuse connections, and nobody else can have them.
    _refusing: Vec<Socket>,
}

impl Upstreams {
    /// Starts every upstream on the current tokio runtime, which needs its I/O and time drivers. One whose port is
    /// taken gets a free one; [`Upstreams::notice`] tells.
    ///
    /// # Errors
    /// What [`StartError`] says. Those already started are stopped.
    pub async fn start(wanted: &Addresses) -> Result<Self, StartError> {
        let mut listening = wanted.clone();
        let mut taken = Vec::new();
        let mut servers = JoinSet::new();
        let mut refusing = Vec::new();
        for (upstream, address) in UPSTREAMS.iter().zip(&mut listening.0) {
            let wanted = *address;
            let failed = |source| StartError::Listen { upstream: upstream.name, address: wanted, source };
            let socket = match open(wanted, upstream.kind) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && wanted.port() != 0 => {
                    taken.push(wanted.port());
                    let no_other = |source| StartError::NoFreePort {
                        upstream: upstream.name,
                        taken: wanted.port(),
                        source,
                    };
                    open(SocketAddr::new(wanted.ip(), 0), upstream.kind).map_err(no_other)?
                }
                opened => opened.map_err(failed)?,
            };
            let bound = socket.local_addr().map_err(failed)?;
            *address = bound.as_socket().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
            match upstream.kind.router(upstream.name) {
                Some(router) => {
                    drop(servers.spawn(serve(TcpListener::from_std(socket.into()).map_err(failed)?, router)))
                }
                None => refusing.push(socket),
            }
        }
        Ok(Self { listening, taken, _servers: servers, _refusing: refusing })
    }

    /// Where they listen.
    pub fn addresses(&self) -> &Addresses {
        &self.listening
    }

    /// [`CONFIG`] with the addresses they listen on.
    pub fn config(&self) -> String {
        with_ports(CONFIG, &self.listening)
    }

    /// A line for the user when ports were taken, such as a second demo's.
    pub fn notice(&self) -> Option<String> {
        if self.taken.is_empty() {
            return None;
        }
        let ports: Vec<String> = self.taken.iter().map(u16::to_string).collect();
        Some(format!(
            "Taken by another program: port {}. The demo's upstreams use free ports instead.",
            ports.join(", ")
        ))
    }
}

/// A socket bound to `address`, ready for tokio. It listens unless it is there to refuse.
fn open(address: SocketAddr, kind: Kind) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if kind == Kind::Refusing {
        // Without SO_REUSEADDR: with it, a second demo could bind the same port beside this one.
        socket.bind(&address.into())?;
    } else {
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

async fn serve(listener: TcpListener, router: Router) {
    // Small pieces of a stream must not wait for each other's acknowledgements. A connection on which that cannot be
    // set is only slower.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    // It accepts for ever: an error of accept is waited out within.
    drop(axum::serve(listener, router).await);
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
