//! Server-sent events, and whatever else comes piece by piece: each goes out as it comes, the first byte included, between every two
//! versions of HTTP, with TLS and without. The next piece is sent only when the client has the one before.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]

#[path = "support/http2.rs"]
mod h2peers;
mod support;

use std::net::SocketAddr;

use bytes::Bytes;
use h2peers::{Client, Server, Trust, request};
use support::{Gateway, Upstream, config};

/// An event; the first is a single byte.
fn event(n: usize) -> String {
    if n == 0 { "\n".into() } else { format!("id: {n}\ndata: {}\n\n", "x".repeat(n * n * 10)) }
}

const EVENTS: usize = 30;

/// A plain listener and one with TLS to this endpoint.
fn gateway(trust: &Trust, endpoint: SocketAddr, cluster: &str) -> Gateway {
    Gateway::start(&config(&format!(
        "h2c = true\n[[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n{}\n\
         [[cluster]]\nname = \"all\"\nendpoints = [{{ address = \"{endpoint}\" }}]\n{cluster}\n\
         [[route]]\nname = \"all\"\ncluster = \"all\"\n",
        trust.listener("")
    )))
}

/// One client of each kind: how it asks, and how it waits for so many bytes more.
fn clients(gateway: &Gateway, trust: &Trust, mut each: impl FnMut(&str, Box<dyn FnMut() -> Waiting>)) {
    let get = "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    let mut plain = gateway.connect();
    plain.send(get);
    let mut plain = Some(plain);
    each(
        "HTTP/1.1",
        Box::new(move || {
            let mut peer = plain.take().unwrap();
            assert!(peer.head().contains("text/event-stream"));
            Box::new(move |wanted| {
                let mark = [wanted.as_bytes(), b"\r\n"].concat();
                assert!(peer.until(&mark).ends_with(&mark));
            })
        }),
    );
    for kind in ["HTTP/2", "HTTP/2 by TLS"] {
        let (client, uri) = if kind == "HTTP/2" {
            (Client::connect(gateway.address()), "http://localhost/events")
        } else {
            let address = gateway.address_of("secure");
            (Client::secured(address, &trust.client(&["h2"])).unwrap(), "https://localhost/events")
        };
        let mut exchange = client.begin(request("GET", uri, &[]), true);
        let mut client = Some(client);
        let answered = move || -> Waiting {
            let mut incoming = exchange.head().unwrap();
            let client = client.take();
            Box::new(move |wanted| {
                let _open = &client;
                assert_eq!(incoming.some(wanted.len()).unwrap(), wanted.as_bytes());
            })
        };
        each(kind, Box::new(answered));
    }
}

/// Waits until a client has this next piece.
type Waiting = Box<dyn FnMut(&str)>;

#[test]
fn from_endpoints_of_http1() {
    let trust = Trust::new();
    let (upstream, mut asked) = Upstream::asking();
    let gateway = gateway(&trust, upstream.address, "");
    clients(&gateway, &trust, |kind, mut answered| {
        let question = asked.question();
        question
            .part("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut received = answered();
        for n in 0..EVENTS {
            let event = event(n);
            question.part(format!("{:x}\r\n{event}\r\n", event.len()));
            received(&event);
        }
        println!("{kind}");
    });
}

#[test]
fn from_endpoints_of_http2() {
    let trust = Trust::new();
    for tls in [None, Some(trust.server(&["h2"]))] {
        let cluster = if tls.is_some() { trust.cluster() } else { String::new() };
        let (server, mut asked) = Server::asking(h2::server::Builder::new(), tls);
        let gateway = gateway(&trust, server.address, &format!("protocol = \"h2\"\n{cluster}"));
        clients(&gateway, &trust, |kind, mut answered| {
            let mut question = asked.question();
            let mut send = question.begin(&[("content-type", "text/event-stream")]);
            let mut received = answered();
            for n in 0..EVENTS {
                let event = event(n);
                send.send_data(Bytes::from(event.clone()), false).unwrap();
                received(&event);
            }
            println!("{kind}");
        });
    }
}
