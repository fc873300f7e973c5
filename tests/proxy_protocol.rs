//! The PROXY protocol: demanded from some peers and taken from no other, in front of plain HTTP, TLS and HTTP/2; and said to
//! endpoints. With HAProxy and curl as peers.
#![allow(clippy::disallowed_methods, reason = "tests run no data plane")]
#![allow(unreachable_pub, dead_code, reason = "modules of which this binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/frames.rs"]
mod frames;
mod support;

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use frames::Frames;
use support::{
    Gateway, Peer, Upstream, all_received, all_to_with, field, get,
    mint::{Files, Mint},
    ok,
    secure::{Client, hello},
    within,
};

const LINE: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 4000 443\r\n";
const DEMANDED: &str = "proxy_protocol = { from = [\"127.0.0.0/8\"] }\n";

/// The same as [`LINE`], in version 2.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([203, 0, 113, 7, 198, 51, 100, 1]);
    header.extend([4000u16.to_be_bytes(), 443u16.to_be_bytes()].concat());
    header
}

/// An upstream that says who asked, as it was told.
fn telling() -> Upstream {
    Upstream::answering(|head, _| ok(field(head, "x-forwarded-for").unwrap_or_default().as_bytes()))
}

fn demanding(upstream: &Upstream, listener: &str) -> Gateway {
    Gateway::start(&all_to_with(upstream.address, &format!("{DEMANDED}{listener}"), "", ""))
}

#[test]
fn the_address_in_a_header_is_the_clients() {
    let upstream = telling();
    let gateway = demanding(&upstream, "");
    for header in [LINE.as_bytes().to_vec(), binary()] {
        let mut client = gateway.connect();
        client.send([&header[..], get("/1").as_bytes(), get("/2").as_bytes()].concat());
        for _ in 0..2 {
            assert_eq!(client.response().text(), "203.0.113.7");
            let line = gateway.log_line();
            assert_eq!(
                (line["client"].as_str(), line["client_port"].as_u64()),
                (Some("203.0.113.7"), Some(4000))
            );
        }
    }
    // The peer's own connection, such as a check of its health.
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = gateway.connect();
        client.send([header, get("/").as_bytes()].concat());
        assert_eq!(client.response().text(), "127.0.0.1");
    }
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let upstream = telling();
    let gateway = demanding(&upstream, "");
    for header in [LINE.as_bytes().to_vec(), binary()] {
        for at in 1..header.len() {
            let mut client = gateway.connect();
            client.send(&header[..at]);
            all_received([&client.stream]);
            client.send([&header[at..], get("/").as_bytes()].concat());
            assert_eq!(client.response().text(), "203.0.113.7", "in two at {at}");
        }
        let mut client = gateway.connect();
        for byte in &header {
            client.send([*byte]);
        }
        client.send(get("/"));
        assert_eq!(client.response().text(), "203.0.113.7");
    }
}

#[test]
fn who_must_begin_with_a_header_and_does_not_is_let_go() {
    let (upstream, seen) = Upstream::witness();
    let gateway = demanding(&upstream, "timeouts = { handshake = \"200ms\" }\n");
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\0\xff\xff"[..], &[0; 64]].concat();
    let wrong: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 203.0.113.7\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4000 443\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c............",
        &long,
        // It does not come in time.
        b"PROXY TCP4 ",
    ];
    for bytes in wrong {
        let mut client = gateway.connect();
        client.send(bytes);
        assert!(client.is_ended(), "{bytes:?}");
    }
    let mut silent = gateway.connect();
    assert!(silent.is_ended());
    gateway.wait_for_figure("proxy_headers_refused", wrong.len() as u64 + 1);
    assert_eq!(upstream.accepted(), 0);
    assert!(seen.try_recv().is_err());
}

#[test]
fn a_header_from_anyone_else_is_no_header() {
    let upstream = telling();
    let gateway = Gateway::start(&all_to_with(
        upstream.address,
        "proxy_protocol = { from = [\"192.0.2.0/24\"] }\n",
        "",
        "",
    ));
    let mut honest = gateway.connect();
    honest.send(get("/"));
    assert_eq!(honest.response().text(), "127.0.0.1");
    for header in [LINE.as_bytes().to_vec(), binary()] {
        let mut liar = gateway.connect();
        liar.send([&header[..], get("/").as_bytes()].concat());
        assert_eq!(liar.response().status, 400);
    }
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn http2_behind_a_header() {
    let upstream = telling();
    let gateway = demanding(&upstream, "h2c = true\n");
    let mut peer = gateway.connect();
    peer.send(LINE);
    let mut client = Frames::client(peer);
    client.send(frames::get(1, "/"));
    assert_eq!(client.body(1), b"203.0.113.7");
}

/// A running HAProxy. Killed when dropped.
struct Haproxy(Child);

impl Haproxy {
    fn start(dir: &std::path::Path, name: &str, rules: &str) -> Self {
        let path = dir.join(name);
        let defaults =
            "defaults\n mode http\n timeout connect 10s\n timeout client 10s\n timeout server 10s\n";
        std::fs::write(&path, format!("{defaults}{rules}")).unwrap();
        let child = Command::new("haproxy").arg("-f").arg(&path).stderr(Stdio::null()).spawn().unwrap();
        Self(child)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What is answered to a request there, as soon as someone is there.
fn asked_of(address: SocketAddr) -> String {
    let socket = within("a listener", || std::net::TcpStream::connect(address).ok());
    let mut client = Peer::new(socket);
    client.send(get("/"));
    client.response().text()
}

#[test]
fn haproxy_in_front() {
    let upstream = telling();
    let gateway = demanding(&upstream, "");
    for send in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let address = free();
        let rules = format!(
            "frontend f\n bind {address}\n unique-id-format %rt\n default_backend b\nbackend b\n server s {} {send}\n",
            gateway.address()
        );
        let _haproxy = Haproxy::start(gateway.dir.path(), "front.cfg", &rules);
        assert_eq!(asked_of(address), "127.0.0.1", "{send}");
    }
    assert_eq!(gateway.figure("proxy_headers_refused"), 0);
}

#[test]
fn haproxy_behind() {
    for version in ["v1", "v2"] {
        let address = free();
        let keys = format!("proxy_protocol = \"{version}\"\n");
        let gateway = Gateway::start(&all_to_with(address, "", &keys, ""));
        let rules = format!(
            "frontend f\n bind {address} accept-proxy\n http-request return status 200 content-type text/plain \
             lf-string \"%[src]:%[src_port] %[dst]:%[dst_port]\"\n"
        );
        let _haproxy = Haproxy::start(gateway.dir.path(), "behind.cfg", &rules);
        within("a listener", || std::net::TcpStream::connect(address).ok());
        let mut client = gateway.connect();
        let own = client.stream.local_addr().unwrap();
        for _ in 0..2 {
            client.send(get("/"));
            assert_eq!(client.response().text(), format!("{own} {}", gateway.address()), "{version}");
        }
    }
}

#[test]
fn a_connection_with_a_header_is_one_requests_only() {
    let (upstream, mut asked) = Upstream::asking();
    let (inner, outer) = {
        let inner = demanding(&upstream, "");
        let keys = "proxy_protocol = \"v2\"\n";
        let outer = Gateway::start(&all_to_with(inner.address(), "", keys, ""));
        (inner, outer)
    };
    let mut first = outer.connect();
    let mut second = outer.connect();
    for client in [&mut first, &mut second] {
        for _ in 0..2 {
            client.send(get("/"));
            let question = asked.question();
            question.ok("yes");
            assert_eq!(client.response().text(), "yes");
            let port = u64::from(client.stream.local_addr().unwrap().port());
            assert_eq!(inner.log_line()["client_port"].as_u64(), Some(port));
        }
    }
}

#[test]
fn a_header_goes_before_tls_on_both_sides() {
    let upstream = telling();
    let files = Files::new();
    let pair = files.pair("inner", &Mint::new("root").pair(&["localhost"]));
    let inner = demanding(&upstream, &format!("tls = {{ certificates = [{pair}] }}\n"));
    let keys = "proxy_protocol = \"v1\"\ntls = { verify = false }\n";
    let outer = Gateway::start(&all_to_with(inner.address(), "", keys, ""));
    let mut client = outer.connect();
    client.send(get("/"));
    assert_eq!(client.response().text(), "127.0.0.1");
    assert_eq!(
        inner.log_line()["client_port"].as_u64(),
        Some(u64::from(client.stream.local_addr().unwrap().port()))
    );
}

#[test]
fn a_handshake_may_begin_in_the_headers_segment() {
    let upstream = telling();
    let files = Files::new();
    let root = Mint::new("root");
    let pair = files.pair("own", &root.pair(&["localhost"]));
    let gateway = demanding(&upstream, &format!("tls = {{ certificates = [{pair}] }}\n"));
    let mut client = gateway.connect();
    let hello = hello(&Client::of(&root).config(), "localhost");
    client.send([&binary()[..], &hello].concat());
    // A record of a handshake: the server's hello.
    assert_eq!(client.exactly(1), [0x16]);
}

#[test]
fn curl_says_it_too() {
    let upstream = telling();
    let gateway = demanding(&upstream, "");
    let out = Command::new("curl")
        .args(["-sS", "--max-time", "10", "--haproxy-protocol", &format!("http://{}/", gateway.address())])
        .output()
        .unwrap();
    assert_eq!((String::from_utf8_lossy(&out.stdout).as_ref(), out.status.success()), ("127.0.0.1", true));
}
