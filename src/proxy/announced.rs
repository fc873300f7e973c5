//! Connections in front of whose own bytes stands for whom they are: the PROXY protocol, from peers of which the listener demands it,
//! and to endpoints whose cluster wants it. What a header looks like is [`crate::proxy_protocol`]'s to know.

use std::{future::poll_fn, io, net::SocketAddr, rc::Rc};

use thiserror::Error;

use super::{
    connection::{Connection, Ends},
    core::Core,
    relay::with_room,
    secure,
};
use crate::{
    buf::Buf,
    clock::Deadline,
    config::types::ProxyVersion,
    net,
    proxy_protocol::{self, ProxyAddresses, ProxyHeader, ProxyHeaderError},
    tls::Stream,
};

/// Why a connection is closed before anything of its own was read.
#[derive(Debug, Error)]
enum NotAnnounced {
    #[error(transparent)]
    Header(#[from] ProxyHeaderError),
    #[error("the connection ended within its PROXY header, or before it")]
    Ended,
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error("the PROXY header did not come in time")]
    Late,
}

/// Brings a connection behind its header, and behind the handshake if its listener speaks TLS; `None` when it does not come so
/// far.
pub(super) async fn accept(
    core: Rc<Core>,
    mut socket: net::Stream,
    ends: Ends,
    listener: usize,
    deadline: Deadline,
) -> Option<Box<Connection>> {
    let began_ms = core.clock.now_ms();
    let limit_ms = core.generation().table.listeners[listener].timeouts.handshake_ms;
    let header = secure::in_its_time(&core, &deadline, limit_ms, header(&mut socket)).await;
    let (addresses, rest) = match header.unwrap_or(Err(NotAnnounced::Late)) {
        Ok(header) => header,
        Err(error) => {
            core.figures.borrow_mut().counters.proxy_headers_refused += 1;
            if core.may_complain() {
                let peer = ends.peer;
                tracing::info!(core = core.worker, %peer, %error, "a connection is closed");
            }
            return None;
        }
    };
    let ends = match addresses {
        Some(ProxyAddresses { source, destination }) => Ends { peer: source, local: Some(destination) },
        None => ends,
    };
    let rest = Some(rest).filter(|rest| !rest.is_empty());
    if core.generation().table.listeners[listener].tls.is_some() {
        let spent_ms = core.clock.now_ms().saturating_sub(began_ms);
        return secure::accept(core, socket, ends, listener, deadline, (rest, spent_ms)).await;
    }
    let mut connection = Connection::new(core, Stream::plain(socket), ends, listener, deadline);
    connection.keep(rest);
    Some(Box::new(connection))
}

/// Receives a header, and what came behind it.
async fn header(socket: &mut net::Stream) -> Result<(Option<ProxyAddresses>, Buf), NotAnnounced> {
    if !socket.rx.arm_lazily() {
        return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
    }
    loop {
        let (result, mut buf) = poll_fn(|cx| socket.rx.poll_recv(cx)).await;
        if result? == 0 {
            return Err(NotAnnounced::Ended);
        }
        match proxy_protocol::parse(buf.filled())? {
            ProxyHeader::Complete(len, addresses) => {
                buf.consume(len);
                return Ok((addresses, buf));
            }
            ProxyHeader::Partial => {
                let buf = with_room(buf).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
                socket.rx.arm(buf);
            }
        }
    }
}

/// Says to an endpoint whose connection it is.
pub(super) async fn announce(socket: &mut net::Stream, version: ProxyVersion, ends: Ends) -> io::Result<()> {
    let unknown = SocketAddr::new(if ends.peer.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
    let addresses = ProxyAddresses { source: ends.peer, destination: ends.local.unwrap_or(unknown) };
    let mut header = Vec::new();
    match version {
        ProxyVersion::V1 => proxy_protocol::append_line(addresses, &mut header),
        ProxyVersion::V2 => proxy_protocol::append_binary(addresses, &mut header),
    }
    let mut buf = Buf::take_reserved().ok_or(io::ErrorKind::OutOfMemory)?;
    let fits = buf.push(&header);
    debug_assert!(fits, "a header with addresses is short");
    socket.tx.arm(buf);
    poll_fn(|cx| socket.tx.poll_sent(cx)).await.0
}
