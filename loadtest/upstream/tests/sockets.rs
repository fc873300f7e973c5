//! The program itself, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A running upstream, killed when dropped.
struct Upstream {
    child: Child,
    address: String,
}

impl Upstream {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest-upstream"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening ").unwrap().to_owned();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Sends `wire` and returns everything up to the server's close.
fn exchange(upstream: &Upstream, wire: &[u8]) -> Vec<u8> {
    let mut stream = upstream.connect();
    let mut writer = stream.try_clone().unwrap();
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(wire).unwrap());
        stream.read_to_end(&mut got).unwrap();
    });
    got
}

fn split(response: &[u8]) -> (&str, &[u8]) {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (str::from_utf8(&response[..end]).unwrap(), &response[end + 4..])
}

#[test]
fn large_bodies_arrive_byte_for_byte() {
    let upstream = Upstream::start(&["--threads", "2"]);
    let response = exchange(&upstream, b"GET /bytes/5000000 HTTP/1.1\r\nconnection: close\r\n\r\n");
    let (head, body) = split(&response);
    assert!(head.contains("\r\ncontent-length: 5000000"), "{head}");
    assert_eq!(body.len(), 5_000_000);
    assert!(body.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
}

#[test]
fn large_bodies_are_echoed_while_they_come() {
    let upstream = Upstream::start(&[]);
    let sent: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 241) as u8).collect();
    let mut wire = b"POST /echo HTTP/1.1\r\nconnection: close\r\ncontent-length: 5000000\r\n\r\n".to_vec();
    wire.extend_from_slice(&sent);
    let response = exchange(&upstream, &wire);
    assert!(split(&response).1 == sent);
}

#[test]
fn pipelined_requests_beyond_the_sockets_buffers_are_all_answered() {
    let upstream = Upstream::start(&[]);
    let mut wire = b"GET /headers/100 HTTP/1.1\r\n\r\n".repeat(3000);
    wire.extend_from_slice(b"GET /delay/1 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nconnection: close\r\n\r\n");
    let response = exchange(&upstream, &wire);
    let text = String::from_utf8(response).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 3002);
    assert_eq!(text.matches("x-field-99: ").count(), 3000);
}

#[test]
fn idle_connections_are_closed_only_when_asked() {
    let upstream = Upstream::start(&["--idle-close", "random"]);
    // No `Connection: close`: the read ends because the server tires of waiting.
    let response = exchange(&upstream, b"GET / HTTP/1.1\r\n\r\n");
    let (head, body) = split(&response);
    assert!(!head.contains("connection: close"), "{head}");
    assert_eq!(body.len(), 100);
}
