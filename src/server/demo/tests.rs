//! The upstreams over real connections, and the demo's texts against its configuration.

use std::{collections::BTreeSet, future::Future};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::config::Config;

fn config() -> Config {
    toml::from_str(CONFIG).unwrap()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn started() -> Upstreams {
    Upstreams::start(&Addresses::free()).await.unwrap()
}

fn address(upstreams: &Upstreams, name: &str) -> SocketAddr {
    upstreams.addresses().iter().find(|(known, _)| *known == name).unwrap().1
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(known, _)| *known == name))
            .map(|(_, v)| v)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Sends one request, `first` being its line and fields, and takes what comes until the upstream closes.
async fn ask(upstreams: &Upstreams, name: &str, first: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address(upstreams, name)).await.unwrap();
    let head = format!("{first}\r\nhost: demo\r\nconnection: close\r\n\r\n");
    let mut received = Vec::new();
    let (mut read, mut write) = stream.split();
    let send = async {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(body).await.unwrap();
    };
    let (read, ()) = tokio::join!(read.read_to_end(&mut received), send);
    read.unwrap();
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    let mut answer = Answer { status: head[9..12].parse().unwrap(), head, body: received.split_off(end) };
    if answer.field("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(&answer.body);
    }
    answer
}

async fn get(upstreams: &Upstreams, name: &str, target: &str) -> Answer {
    ask(upstreams, name, &format!("GET {target} HTTP/1.1"), b"").await
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        let piece = &bytes[line + 2..];
        body.extend_from_slice(&piece[..size]);
        assert_eq!(&piece[size..size + 2], b"\r\n");
        bytes = &piece[size + 2..];
        if size == 0 {
            assert!(bytes.is_empty(), "nothing follows the last chunk");
            return body;
        }
    }
}

#[test]
fn the_configuration_names_every_upstream_and_no_other() {
    let named: BTreeSet<SocketAddr> = config()
        .cluster
        .iter()
        .flat_map(|cluster| cluster.endpoints.iter())
        .map(|endpoint| endpoint.address.parse().unwrap())
        .collect();
    assert_eq!(named, Addresses::of_config().iter().map(|(_, address)| address).collect());
}

#[test]
fn the_configuration_uses_every_cluster_and_no_other() {
    let config = config();
    let defined: BTreeSet<&str> = config.cluster.iter().map(|cluster| cluster.name.as_str()).collect();
    let shares =
        config.route.iter().flat_map(|route| route.clusters.iter().flatten()).map(|share| &share.name);
    let used = config.route.iter().filter_map(|route| route.cluster.as_ref()).chain(shares);
    assert_eq!(defined, used.map(String::as_str).collect());
}

#[test]
fn every_route_is_tried_once_and_every_try_has_its_route() {
    let config = config();
    let named: Vec<&str> = config.route.iter().map(|route| route.name.as_str()).collect();
    let tried: Vec<&str> = routes().iter().filter_map(|tried| tried.route).collect();
    assert_eq!(tried.iter().collect::<BTreeSet<_>>(), named.iter().collect());
    assert_eq!(tried.len(), named.len());
}

#[test]
fn tries_are_lines_that_a_shell_takes_as_meant() {
    for tried in routes() {
        let line = tried.curl(loopback(8080));
        assert!(line.matches('\'').count().is_multiple_of(2), "{line}");
        assert!(tried.target.starts_with('/') && !tried.target.contains(['\'', ' ', '[']), "{line}");
        assert!(tried.times == 1 || !tried.target.contains('?'), "{line}");
        assert!(!tried.statuses.is_empty() && !tried.shows.is_empty(), "{line}");
        let quoted = tried.headers.iter().flat_map(|(name, value)| [*name, *value]).chain([tried.body]);
        assert!(!quoted.into_iter().any(|text| text.contains('\'')), "{line}");
    }
}

#[test]
fn a_try_as_a_curl_line() {
    let line = |route| routes().iter().find(|tried| tried.route == Some(route)).unwrap().curl(loopback(8080));
    assert_eq!(line("health"), "curl -i http://127.0.0.1:8080/healthz");
    assert_eq!(line("user"), "curl -s 'http://127.0.0.1:8080/users/7?try=[1-7]' | grep upstream");
    assert_eq!(line("order-new"), "curl -i -d 'tea=1' http://127.0.0.1:8080/orders");
    assert_eq!(line("tenant"), "curl -i -H 'host: acme.demo.test' http://127.0.0.1:8080/any/path");
    let other = Try { method: "DELETE", ..routes()[1] };
    assert_eq!(other.curl("[::]:80".parse().unwrap()), "curl -i -X DELETE http://[::1]:80/healthz");
}

#[test]
fn the_banner_is_aligned_and_names_an_address_to_reach() {
    let text = banner("0.0.0.0:9000".parse().unwrap());
    let columns: BTreeSet<Option<usize>> =
        text.lines().filter(|line| line.starts_with("  ")).map(|line| line.find("  curl ")).collect();
    assert_eq!(columns.len(), 1, "{text}");
    assert!(
        !columns.contains(&None) && !text.contains("0.0.0.0") && text.contains("http://127.0.0.1:9000/"),
        "{text}"
    );
    assert_eq!(text.lines().filter(|line| line.contains("  curl ")).count(), routes().len());
}

#[test]
fn ports_are_replaced_in_one_pass_and_only_where_they_are_whole_strings() {
    // plain-1 goes where plain-2 was.
    let mut listening = Addresses::of_config();
    listening.0[0] = loopback(9102);
    listening.0[1] = loopback(40_000);
    let text =
        "a = \"127.0.0.1:9101\" # 127.0.0.1:9101\nb = [\"127.0.0.1:9102\", \"see 127.0.0.1:9102\", \"\"]";
    let expected =
        "a = \"127.0.0.1:9102\" # 127.0.0.1:9101\nb = [\"127.0.0.1:40000\", \"see 127.0.0.1:9102\", \"\"]";
    assert_eq!(with_ports(text, &listening), expected);
    assert_eq!(with_ports(CONFIG, &Addresses::of_config()), CONFIG);
}

#[test]
fn upstreams_on_free_ports_have_a_configuration_of_their_own() {
    run(async {
        let upstreams = started().await;
        let config: Config = toml::from_str(&upstreams.config()).unwrap();
        let named: BTreeSet<String> = config
            .cluster
            .into_iter()
            .flat_map(|cluster| cluster.endpoints)
            .map(|endpoint| endpoint.address)
            .collect();
        assert_eq!(named, upstreams.addresses().iter().map(|(_, address)| address.to_string()).collect());
        assert!(upstreams.addresses().iter().all(|(_, address)| address.port() != 0));
        assert_eq!(upstreams.notice(), None);
    });
}

#[test]
fn a_second_demo_takes_free_ports_and_says_so() {
    run(async {
        let first = started().await;
        let second = Upstreams::start(first.addresses()).await.unwrap();
        let mine: BTreeSet<SocketAddr> = second.addresses().iter().map(|(_, address)| address).collect();
        assert_eq!(mine.len(), UPSTREAMS.len());
        let notice = second.notice().unwrap();
        for (name, address) in first.addresses().iter() {
            assert!(!mine.contains(&address), "{name} has a port of its own");
            assert!(notice.contains(&address.port().to_string()), "{name}: {notice}");
        }
        assert!(!notice.contains('\n'), "one line");
        assert_eq!(get(&second, "plain-1", "/").await.status, 200);
        assert_eq!(get(&first, "plain-1", "/").await.status, 200);
    });
}

#[test]
fn an_address_of_another_machine_is_an_error_that_names_it() {
    run(async {
        // TEST-NET-1, RFC 5737.
        let elsewhere =
            Addresses([SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 9101); UPSTREAMS.len()]);
        let message = Upstreams::start(&elsewhere).await.unwrap_err().to_string();
        assert!(message.contains("`plain-1` cannot listen on 192.0.2.1:9101"), "{message}");
    });
}

#[test]
fn a_taken_port_without_another_is_an_error_that_says_what_to_do() {
    let source = io::ErrorKind::AddrInUse.into();
    let message = StartError::NoFreePort { upstream: "echo", taken: 9131, source }.to_string();
    assert!(
        message.contains("port 9131") && message.contains("`echo`") && message.contains("sport = :9131"),
        "{message}"
    );
}

#[test]
fn plain_tells_who_it_is_and_what_it_was_asked() {
    run(async {
        let upstreams = started().await;
        for name in ["plain-1", "plain-2", "plain-3", "canary"] {
            let first =
                "PUT /v2/users/7?x=1 HTTP/1.1\r\nx-one: 1\r\nx-two: a\r\nx-two: b\r\ncontent-length: 5";
            let answer = ask(&upstreams, name, first, b"hello").await;
            assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")));
            assert_eq!(answer.field("server"), Some(name));
            let report: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            let expected = serde_json::json!({
                "upstream": name, "method": "PUT", "path": "/v2/users/7?x=1", "body_bytes": 5,
                "headers": {
                    "host": "demo", "connection": "close", "content-length": "5", "x-one": "1", "x-two": ["a", "b"],
                },
            });
            assert_eq!(report, expected);
        }
    });
}

#[test]
fn slow_answers_as_plain_does_and_refuses_delays_out_of_bounds() {
    run(async {
        let upstreams = started().await;
        let answer = get(&upstreams, "slow", "/slow?a=b&ms=1").await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains(r#""upstream": "slow""#), "{}", answer.text());
        for value in ["", "x", "-1", "60001", "99999999999999999999"] {
            assert_eq!(get(&upstreams, "slow", &format!("/slow?ms={value}")).await.status, 400, "ms={value}");
        }
    });
}

#[test]
fn failing_fails_by_turns_always_or_half_way() {
    run(async {
        let upstreams = started().await;
        for status in [200, 503, 200, 503] {
            assert_eq!(get(&upstreams, "failing", "/flaky").await.status, status);
            assert_eq!(get(&upstreams, "failing", "/down").await.status, 503);
        }
        let answer = get(&upstreams, "failing", "/broken").await;
        assert_eq!((answer.status, answer.field("content-length")), (200, Some("1000")));
        assert_eq!(answer.text(), "This is where it br");
    });
}

#[test]
fn refusing_refuses() {
    run(async {
        let upstreams = started().await;
        let refused = TcpStream::connect(address(&upstreams, "refusing")).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn echo_returns_a_sized_body_with_its_type() {
    run(async {
        let upstreams = started().await;
        for length in [0, 1, 100, 3 << 20] {
            let body: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
            let first =
                format!("POST /echo HTTP/1.1\r\ncontent-type: image/x-demo\r\ncontent-length: {length}");
            let answer = ask(&upstreams, "echo", &first, &body).await;
            assert_eq!((answer.status, answer.field("content-type")), (200, Some("image/x-demo")));
            assert_eq!(answer.field("content-length"), Some(length.to_string().as_str()));
            assert!(answer.body == body, "{length} bytes come back unchanged");
        }
    });
}

#[test]
fn echo_returns_each_piece_before_the_next_is_sent() {
    run(async {
        let upstreams = started().await;
        let mut stream = TcpStream::connect(address(&upstreams, "echo")).await.unwrap();
        let mut received = Vec::new();
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: demo\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        for piece in ["one", "two", "six"] {
            stream.write_all(format!("3\r\n{piece}\r\n").as_bytes()).await.unwrap();
            while !received.ends_with(format!("3\r\n{piece}\r\n").as_bytes()) {
                assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "the connection stays open");
            }
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        while !received.ends_with(b"0\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "the last chunk comes too");
        }
    });
}

#[test]
fn websocket_returns_text_and_binary_and_closes_when_asked() {
    run(async {
        let upstreams = started().await;
        let url = format!("ws://{}/ws", address(&upstreams, "websocket"));
        let stream = TcpStream::connect(address(&upstreams, "websocket")).await.unwrap();
        let (mut socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        assert_eq!(response.status(), 101);
        for message in [Message::text("grüezi"), Message::binary(vec![0, 255, 7]), Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.send(Message::Ping("p".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
        socket.close(None).await.unwrap();
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
        assert!(socket.next().await.is_none());
        assert_eq!(get(&upstreams, "websocket", "/ws").await.status, 400);
    });
}

#[test]
fn events_come_to_an_end() {
    run(async {
        let upstreams = started().await;
        let answer = get(&upstreams, "events", "/events?every=1").await;
        assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
        let events: String =
            (1..=5).map(|event| format!("id: {event}\ndata: event {event} of 5\n\n")).collect();
        assert_eq!(answer.text(), events);
        assert_eq!(get(&upstreams, "events", "/events?n=0").await.text(), "");
        assert_eq!(get(&upstreams, "events", "/events?n=1001").await.status, 400);
        assert_eq!(get(&upstreams, "events", "/events?every=10001").await.status, 400);
    });
}

#[test]
fn bytes_are_as_many_as_asked_for() {
    run(async {
        let upstreams = started().await;
        for count in [0, 1, 64, 65_536, 65_537, 1_000_000] {
            let answer = get(&upstreams, "bytes", &format!("/bytes?n={count}")).await;
            assert_eq!(
                (answer.status, answer.field("content-length")),
                (200, Some(count.to_string().as_str()))
            );
            assert_eq!(answer.body.len(), count);
            assert!(
                answer.body.chunks(64).all(|line| line.len() < 64 || line.ends_with(b"\n")),
                "lines of 64 bytes"
            );
        }
        assert_eq!(get(&upstreams, "bytes", "/bytes").await.body.len(), 1024);
        let head = ask(&upstreams, "bytes", "HEAD /bytes?n=1000000000000 HTTP/1.1", b"").await;
        assert_eq!((head.field("content-length"), head.body.len()), (Some("1000000000000"), 0));
        assert_eq!(get(&upstreams, "bytes", "/bytes?n=1099511627777").await.status, 400);
    });
}
